"""The service manager's half of socket activation, readiness and watchdog, for tests.

Usage: python3 service_manager.py COMMAND [ARGUMENT...]

Opens SOCKETS (default 1) listening sockets on a free port, more than one sharing it, and runs the command with them from
descriptor 3 on, as often as asked. Prints one JSON object per line: first {"port"}, then {"pid"} of each start, {"told"}
for what the process tells by NOTIFY_SOCKET, {"log"} for each line that it prints, and after these {"ended": status}. Reads one command per line:
"start", "kill SIGNAL", "freeze THREAD_NAME" (stops that one thread and lets the others run), "thaw". WATCHDOG_USEC is
passed on. Ends with its standard input, and then takes the process with it.
"""

import ctypes
import json
import os
import signal
import socket
import sys
import tempfile
import threading

PTRACE_CONT, PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 7, 17, 0x4206, 0x4207
WAIT_ALL = 0x40000000
BACKLOG = 4096
PATIENCE_S = 10

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
PRINTING = threading.Lock()


def say(**what):
    with PRINTING:
        print(json.dumps(what), flush=True)


def ptrace(request, thread):
    if LIBC.ptrace(request, thread, None, None) != 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")


class Manager:
    def __init__(self, command, count):
        self.command = command
        self.sockets = []
        for _ in range(count):
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if count > 1:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(("127.0.0.1", self.sockets[0].getsockname()[1] if self.sockets else 0))
            listener.listen(BACKLOG)
            self.sockets.append(listener)
        self.folder = tempfile.TemporaryDirectory()
        self.address = os.path.join(self.folder.name, "notify")
        self.told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.told.bind(self.address)
        # Whoever the command becomes may tell.
        os.chmod(self.folder.name, 0o711)
        os.chmod(self.address, 0o666)
        self.process = None
        self.frozen = None
        threading.Thread(target=self.listen, daemon=True).start()
        say(port=self.sockets[0].getsockname()[1])

    def listen(self):
        while True:
            say(told=self.told.recv(4096).decode().splitlines())

    def start(self):
        count = len(self.sockets)
        log, written = os.pipe()
        # Away from the descriptors that they are to have, lest one overwrites another.
        copies = [os.dup(listener.fileno()) for listener in self.sockets]

        def hand_over():
            apart = [os.dup(copy) for copy in copies]
            while min(apart) < 3 + count:
                apart = [os.dup(copy) for copy in apart]
            for place, copy in enumerate(apart):
                os.dup2(copy, 3 + place)
            os.dup2(written, 1)
            os.dup2(written, 2)
            os.environ.update(
                LISTEN_FDS=str(count), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=":".join(["http"] * count),
                NOTIFY_SOCKET=self.address,
            )
            if "WATCHDOG_USEC" in os.environ:
                os.environ["WATCHDOG_PID"] = str(os.getpid())

        pid = os.fork()
        if pid == 0:
            try:
                hand_over()
                os.execvp(self.command[0], self.command)
            finally:
                os._exit(127)
        for descriptor in [*copies, written]:
            os.close(descriptor)
        self.process = pid
        say(pid=pid)
        threading.Thread(target=self.reap, args=[pid, log], daemon=True).start()

    def reap(self, pid, log):
        # All that it says is told before its end.
        with open(log, errors="replace") as lines:
            for line in lines:
                say(log=line.rstrip("\n"))
        _, status = os.waitpid(pid, 0)
        say(ended=os.waitstatus_to_exitcode(status))

    def freeze(self, name):
        def name_of(thread):
            with open(f"/proc/{self.process}/task/{thread}/comm") as comm:
                return comm.read().strip()

        # The oldest of that name: a shard's thread passes its name on to helpers.
        threads = sorted(int(thread) for thread in os.listdir(f"/proc/{self.process}/task"))
        self.frozen = next(thread for thread in threads if name_of(thread) == name)
        ptrace(PTRACE_SEIZE, self.frozen)
        ptrace(PTRACE_INTERRUPT, self.frozen)
        os.waitpid(self.frozen, WAIT_ALL)
        say(frozen=name)

    def thaw(self):
        ptrace(PTRACE_DETACH, self.frozen)
        say(thawed=True)


def main():
    manager = Manager(sys.argv[1:], int(os.environ.get("SOCKETS", "1")))
    for line in sys.stdin:
        match line.split():
            case ["start"]:
                manager.start()
            case ["kill", name]:
                os.kill(manager.process, signal.Signals[name])
            case ["freeze", name]:
                manager.freeze(name)
            case ["thaw"]:
                manager.thaw()
    if manager.process:
        try:
            os.kill(manager.process, signal.SIGKILL)
        except ProcessLookupError:
            pass


main()
