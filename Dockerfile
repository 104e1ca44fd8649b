# duet in a container: built from Cargo.lock, run by nobody in an image with the C library and little else.
#
#   docker build -t duet . && docker run -p 3001:3001 -v duet:/data duet

# The whole image: glommio's build asks for git.
FROM rust:1.95.0-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY migrations migrations
COPY bench bench
RUN cargo build --release --locked --bin duet && mkdir data

# glibc, libgcc and certificate authorities; no shell. Not musl: giving freed memory back to the system is glibc's.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/duet /usr/local/bin/duet
COPY --from=build --chown=nonroot:nonroot /build/data /data
ENV DATA_DIR=/data
VOLUME /data
EXPOSE 3001
USER nonroot
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=4s --start-period=60s CMD ["/usr/local/bin/duet", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/duet"]
