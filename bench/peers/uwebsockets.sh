#!/usr/bin/env bash
# uWebSockets as a native library: what the PyPI package `socketify` carries, put into FOLDER once.
#
#   bench/peers/uwebsockets.sh FOLDER    makes FOLDER/libsocketify_linux_amd64.so
#
# For x86-64 only, that is what the package has. The library needs Debian's libuv1.
set -euo pipefail

FOLDER=${1:?a folder}
VERSION=0.0.31
LIBRARY=libsocketify_linux_amd64.so
SHA256=687d24ed90ae7e67ff3b350904d95db180e42bec6216a7414051015c71b95ea5

is_there() {
    sha256sum --check --status <<<"$SHA256  $FOLDER/$LIBRARY" 2>/dev/null
}

if is_there; then exit; fi
DOWNLOADS=$(mktemp -d)
trap 'rm -rf "$DOWNLOADS"' EXIT
python3 -m pip download --quiet --no-deps --disable-pip-version-check --dest "$DOWNLOADS" "socketify==$VERSION"
mkdir -p "$FOLDER"
tar --extract --gzip --file "$DOWNLOADS/socketify-$VERSION.tar.gz" --to-stdout \
    "socketify-$VERSION/src/socketify/$LIBRARY" >"$FOLDER/$LIBRARY"
is_there || { echo "$FOLDER/$LIBRARY is not what it was" >&2; exit 1; }
