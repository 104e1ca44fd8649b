"""A guest with python-socketio: signs up, then does what standard input says and tells what it hears.

Argument: settings as JSON. Input, a JSON array a line: ["connect"], ["emit", name, payload?], ["disconnect"]; it ends
with its input. Output, likewise: ["signedUp", account], ["connected", transport], ["event", name, payload],
["disconnected", reason].
"""

import json
import sys
import threading

import requests
import socketio
from engineio.payload import Payload

# Unless told otherwise the library refuses a payload of more than 16 packets, which the protocol allows.
Payload.max_decode_packets = 1_000

settings = json.loads(sys.argv[1])
headers = {"X-Forwarded-For": settings["address"]}
speaking = threading.Lock()


def tell(*words):
    with speaking:
        print(json.dumps(words), flush=True)


def main():
    guest = {"name": settings["name"], "gender": settings["gender"]}
    answer = requests.post(f"{settings['url']}/auth/guest", json=guest, headers=headers, timeout=20)
    answer.raise_for_status()
    account = answer.json()
    tell("signedUp", account)

    client = socketio.Client(reconnection=False)
    client.eio.start_background_task = in_order(client.eio.start_background_task)

    @client.event
    def connect():
        client.emit("auth", {"sessionToken": account["sessionToken"]})

    @client.event
    def disconnect(reason):
        tell("disconnected", reason)

    @client.on("*")
    def any_event(name, payload=None):
        tell("event", name, payload)

    for line in sys.stdin:
        command, *words = json.loads(line)
        if command == "connect":
            auth = {"token": account["sessionToken"]}
            client.connect(settings["url"], headers=headers, auth=auth, transports=settings["transports"])
            tell("connected", client.transport())
        elif command == "emit":
            client.emit(*words)
        elif command == "disconnect":
            client.disconnect()
    if client.connected:
        client.disconnect()


def in_order(start):
    """The library reads each message on a thread of its own, which loses their order: here it is read where it came."""

    def run(target, *args, **kwargs):
        if getattr(target, "__name__", "") == "_handle_eio_message":
            return target(*args, **kwargs)
        return start(target, *args, **kwargs)

    return run


main()
