"""The units under a real systemd, installed as README says. Runs in the box of tests/systemd, as root, at the tree's top.

Prints one line per fact, and the number of tests last.
"""

import ctypes
import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

PORT = 3001
PATIENCE_S = 60
PTRACE_SEIZE, PTRACE_INTERRUPT, WAIT_ALL = 0x4206, 0x4207, 0x40000000
passed = 0


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def shown(name, unit="duet.service"):
    return run("systemctl", "show", "--value", "-p", name, unit)


def eventually(what, probe):
    deadline = time.monotonic() + PATIENCE_S
    while not (found := probe()):
        if time.monotonic() > deadline:
            print(run("journalctl", "-b", "--no-pager", "-u", "duet", "-n", "50"))
            raise SystemExit(f"not within {PATIENCE_S} s: {what}")
        time.sleep(0.05)
    return found


def fact(name):
    global passed
    passed += 1
    print(f"  ok    {name}", flush=True)


def get(path, body=None, token=None):
    headers = {"content-type": "application/json", "x-forwarded-proto": "https"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data=body and json.dumps(body).encode(), headers=headers)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return json.load(answer)


def visit(outcomes):
    """One connection with one request; notes what became of it."""
    try:
        with socket.create_connection(("127.0.0.1", PORT), timeout=PATIENCE_S) as visitor:
            visitor.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n")
            text = b""
            while part := visitor.recv(65536):
                text += part
            outcomes.append(text[9:12].decode() or "cut")
    except ConnectionRefusedError:
        outcomes.append("refused")
    except ConnectionResetError:
        outcomes.append("cut")


def visited_while(action):
    """Visitors come one after another from four sides while `action` runs and until duet is active again."""
    outcomes, is_over = [], threading.Event()

    def come():
        while not is_over.is_set():
            visit(outcomes)

    visitors = [threading.Thread(target=come) for _ in range(4)]
    for visitor in visitors:
        visitor.start()
    before = shown("MainPID")
    action()
    eventually("another process is active", lambda: shown("ActiveState") == "active" and shown("MainPID") not in ("0", before))
    enough = len(outcomes) + 100
    eventually("visitors are served again", lambda: len(outcomes) >= enough)
    is_over.set()
    for visitor in visitors:
        visitor.join()
    return {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}


def freeze(name):
    """Stops the oldest thread of that name for as long as we live; its process then misses its watchdog."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    tasks = f"/proc/{shown('MainPID')}/task"
    for thread in sorted(map(int, os.listdir(tasks))):
        with open(f"{tasks}/{thread}/comm") as comm:
            if comm.read().strip() == name:
                break
    for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
        if libc.ptrace(request, thread, None, None):
            raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(thread, WAIT_ALL)
    # Its process is not gone before we have taken note of the thread's end.
    threading.Thread(target=os.waitpid, args=[thread, WAIT_ALL], daemon=True).start()


with open("README.md") as readme:
    section = readme.read().split("### On systemd", 1)[1]
install = re.search(r"```sh\n(.*?)```", section, re.S).group(1)
subprocess.run(["bash", "-euc", install], check=True)
assert shown("ActiveState") == "active" and shown("ActiveState", "duet.socket") == "active"
assert get("/health")["status"] == "ok", get("/health")
fact("installed as README says, it serves")

status = shown("StatusText")
print(f"        {status}")
assert re.fullmatch(r"serving on \[::\]:3001: \d+ shards?, io_uring .*, sqlite", status), status
fact("in its sandbox it runs on io_uring and keeps its data")

limits = open(f"/proc/{shown('MainPID')}/status").read()
assert re.search(r"^NoNewPrivs:\s1$", limits, re.M) and re.search(r"^Seccomp:\s2$", limits, re.M), limits
assert re.search(r"^CapEff:\s0+$", limits, re.M) and not re.search(r"^Uid:\s0\s", limits, re.M), limits
fact("it is no root, has no capability, gains none, and is filtered")

person = get("/auth/guest", {"name": "Ada", "gender": "female"})
outcomes = visited_while(lambda: run("systemctl", "restart", "duet"))
print(f"        {outcomes}")
assert "refused" not in outcomes and set(outcomes) <= {"200", "cut"}, outcomes
fact("a restart refuses nobody")

outcomes = visited_while(lambda: run("systemctl", "kill", "--signal=KILL", "duet"))
print(f"        {outcomes}")
assert "refused" not in outcomes and set(outcomes) <= {"200", "cut"}, outcomes
fact("kill -9 refuses nobody, and systemd starts the next")

me = get("/user/me", token=person["sessionToken"])
assert me["name"] == "Ada", me
assert os.path.exists("/var/lib/private/duet/duet.db")
fact("who signed up before is known after, from the state folder")

try:
    get("/auth/login", {"email": "nobody@mail.example", "password": "north-by-northwest"})
    raise SystemExit("somebody unknown has logged in")
except urllib.error.HTTPError as refusal:
    assert refusal.code == 401, refusal.code
fact("a password is hashed within the filter")

SETTINGS = "/etc/duet/duet.env"


def allows(origin):
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/health", headers={"origin": origin, "x-forwarded-proto": "https"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.headers["access-control-allow-origin"] == origin
    except urllib.error.HTTPError as refusal:
        assert refusal.code == 403, refusal.code
        return False


process = shown("MainPID")
assert not allows("https://other.example")
with open(SETTINGS, "a") as settings:
    settings.write("ALLOWED_ORIGINS=https://other.example\n")
run("systemctl", "reload", "duet")
eventually("the reload is over", lambda: shown("StatusText").endswith("; reloaded") and shown("ActiveState") == "active")
assert allows("https://other.example") and shown("MainPID") == process
fact("a reload reads duet.env again, in the same process")

with open(SETTINGS) as settings:
    good = settings.read()
with open(SETTINGS, "w") as settings:
    settings.write(good + "EVENT_RATE=many\n")
assert subprocess.run(["systemctl", "reload", "duet"], capture_output=True).returncode != 0
with open(SETTINGS, "w") as settings:
    settings.write(good)
assert "--event-rate (EVENT_RATE)" in run("journalctl", "-b", "--no-pager", "-u", "duet")
assert allows("https://other.example") and shown("MainPID") == process and shown("ActiveState") == "active"
fact("a reload of a file with a fault fails, and duet goes on")

with open(SETTINGS, "a") as settings:
    settings.write("RUNTIME=epoll\n")
run("systemctl", "restart", "duet")
assert "epoll" in shown("StatusText"), shown("StatusText")
assert get("/user/me", token=person["sessionToken"])["name"] == "Ada"
fact("a setting in duet.env is read by the restart; so it runs on epoll, too")

os.makedirs("/etc/credstore", mode=0o700, exist_ok=True)
SECRET = "0f8fad5bd9cb469fa165708671bd1f41"
with open("/etc/credstore/duet.turn-secret", "w") as secret:
    secret.write(SECRET)
with open(SETTINGS, "a") as settings:
    settings.write("TURN_URLS=turn:turn.example.org\n")
os.makedirs("/run/systemd/system/duet.service.d")
with open("/run/systemd/system/duet.service.d/watchdog.conf", "w") as override:
    override.write("[Service]\nWatchdogSec=2s\n")
run("systemctl", "daemon-reload")
run("systemctl", "restart", "duet")
environment = open(f"/proc/{shown('MainPID')}/environ").read()
folder = re.search(r"CREDENTIALS_DIRECTORY=([^\0]+)", environment).group(1)
assert os.listdir(folder) == ["turn-secret"], os.listdir(folder)
assert SECRET not in environment
servers = get("/turn/credentials", token=person["sessionToken"])["iceServers"]
assert any("credential" in server for server in servers), servers
fact("a secret that is there is handed over as a credential, one that is not is left out")

before = shown("NRestarts")
freeze("shard-0")
eventually("the watchdog ends it", lambda: shown("NRestarts") != before and shown("ActiveState") == "active")
assert "Watchdog timeout" in run("journalctl", "-b", "--no-pager", "-u", "duet")
assert get("/health")["status"] == "ok"
fact("a stuck shard is noticed by the watchdog, and duet restarted")

print(f"e2e: {passed} passed, 0 failed")
