"""Runs the Autobahn WebSocket cases, which kosoku brings, against an echo server, and says what failed.

    autobahn.py --server PATH [--cases LIST] [--fast] [-- FLAG...]   starts the server itself, with these flags added
    autobahn.py --url ws://127.0.0.1:9001 [...]                      takes one that runs

The server echoes every message of `/` as it came (text or binary) and sends nothing of its own, pings least of all:
kosoku takes what it did not ask for as a failure. The last line is "e2e: N passed, M failed", and the exit status is
0 only if nothing failed. Non-strict and informational verdicts are passes, as in Autobahn; a case that was not run, or
whose extension the server declined, is a failure. kosoku itself waits for some peers without end, so every case and
the whole run are bounded here.
"""

import argparse
import asyncio
import collections
import pathlib
import re
import signal
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "packages"))

try:
    import kosoku
    from kosoku.cases import CASES
except ImportError as error:
    sys.exit(f"{error}: python3 -m pip install --target {HERE / 'packages'} -r {HERE / 'requirements.txt'}")

GROUPS = "1-7,9,10,12,13"
# What every run of the tests can afford. The numbers are those of the cases within a sub-group.
FAST_CASES = {
    # Whole messages, text and binary: 64 KiB to 1 MiB of the 16 MiB that the last case has.
    **dict.fromkeys(("9.1", "9.2"), {1, 2, 3}),
    # 4 MiB in fragments of 64 octets, of 16 KiB and in one.
    **dict.fromkeys(("9.3", "9.4"), {1, 5, 9}),
    # 1 MiB in one frame that arrives in pieces of 64 and of 2048 octets.
    **dict.fromkeys(("9.5", "9.6"), {1, 6}),
    # A thousand messages to and fro: empty, 64 and 4096 octets.
    **dict.fromkeys(("9.7", "9.8"), {1, 3, 6}),
    # A thousand compressed messages: of 16 octets, of 32,768 (a whole window), and of 8192 in fragments of 256.
    **{f"12.{data}": {1, 8, 11} for data in range(1, 6)},
    **{f"13.{offer}": {1, 8, 11} for offer in range(1, 8)},
}

# How long a case and the whole run may take. 12.2.15, with half a million fragments, takes a minute on a busy machine.
Limits = collections.namedtuple("Limits", "case_s run_s")
FAST = Limits(case_s=60, run_s=180)
FULL = Limits(case_s=300, run_s=1800)
START_S_MAX = 20
STOP_S_MAX = 10
LOG_LINES_MAX = 40
RECEIVED_CHARS_MAX = 200
# The longest message of the suite, octets (9.1.6).
MESSAGE_MAX = 16 << 20
# These negotiate permessage-deflate, and kosoku 0.1.0 breaks off with "Strings must be encoded before hashing" when
# such a connection brings an uncompressed message, which RFC 7692 6 allows: the server compresses all of them.
DEFLATE_GROUPS = {"12", "13"}

Verdict = collections.namedtuple("Verdict", "case_id passed behavior why seconds")


def main():
    options = arguments()
    cases = select(options.cases, options.fast)
    started = time.monotonic()
    limits = FAST if options.fast else FULL
    verdicts, broken = asyncio.run(run(options, cases, Runner(options.parallel, limits)))
    failed = report(verdicts, broken)
    print(f"\n{len(verdicts)} cases in {time.monotonic() - started:.1f} s")
    print(f"e2e: {len(verdicts) + len(broken) - failed} passed, {failed} failed")
    return 1 if failed else 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--server", metavar="PATH", help="binary to start, on a port that the system chooses")
    target.add_argument("--url", help="WebSocket URL of a server that runs; it compresses whatever 12 and 13 get back")
    parser.add_argument("--cases", default=GROUPS, help="groups (9), ranges (1-7), sub-groups (6.4), cases (6.4.1)")
    parser.add_argument("--fast", action="store_true", help="of 9, 12 and 13 only a sample of every sub-group")
    parser.add_argument("--parallel", type=int, default=2, help="cases at a time")
    parser.add_argument("flags", nargs="*", metavar="FLAG", help="after --: more flags for the binary")
    return parser.parse_args()


def select(wanted, fast):
    """The case ids that the list names, in the order of the suite."""
    prefixes = []
    for item in wanted.split(","):
        ends = re.fullmatch(r"(\d+)-(\d+)", item)
        prefixes += map(str, range(int(ends[1]), int(ends[2]) + 1)) if ends else [item]
    for prefix in prefixes:
        if not any(f"{case_id}.".startswith(f"{prefix}.") for case_id in CASES):
            sys.exit(f"there is no case {prefix}")
    named = [case_id for case_id in CASES if any(f"{case_id}.".startswith(f"{prefix}.") for prefix in prefixes)]
    chosen = [case_id for case_id in named if not fast or is_fast(case_id)]
    if not chosen:
        sys.exit(f"--fast leaves nothing of {wanted}")
    return chosen


def is_fast(case_id):
    sub_group, _, number = case_id.rpartition(".")
    return sub_group not in FAST_CASES or int(number) in FAST_CASES[sub_group]


async def run(options, cases, runner):
    """All verdicts, and what else went wrong with the servers, one text each."""
    task = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    if options.url:
        return await runner.run(options.url, cases), []
    verdicts, broken = [], []
    for deflate in (False, True):
        part = [case_id for case_id in cases if (group_of(case_id) in DEFLATE_GROUPS) == deflate]
        if not part:
            continue
        # A heartbeat in a long case is a frame that the case does not expect.
        flags = ["--message-bytes-max", str(MESSAGE_MAX), "--ping-interval-ms", "3600000", *(["--deflate-threshold", "0"] if deflate else []), *options.flags]
        server = Server(options.server, flags)
        try:
            verdicts += await runner.run(await server.start(), part)
        finally:
            broken += await server.stop()
    return verdicts, broken


class Runner:
    """Runs cases, some at a time, within limits. Each is a call of its own: one that hangs loses no other's verdict."""

    def __init__(self, parallel, limits):
        self.free = asyncio.Semaphore(parallel)
        self.case_s = limits.case_s
        self.deadline = time.monotonic() + limits.run_s

    async def run(self, url, cases):
        return await asyncio.gather(*(self.run_case(url, case_id) for case_id in cases))

    async def run_case(self, url, case_id):
        async with self.free:
            started = time.monotonic()
            left = min(self.case_s, self.deadline - started)
            if left <= 0:
                return Verdict(case_id, False, "NOT RUN", "the time for the whole run was over", 0)
            try:
                (result,) = await asyncio.wait_for(kosoku.run_fuzzingclient(url, [case_id]), left)
            except kosoku.FailureError as failure:
                (result,) = failure.results
            except asyncio.TimeoutError:
                return Verdict(case_id, False, "TIMEOUT", f"no verdict within {left:.0f} s", left)
            why = "" if result.passed else describe(result)
            return Verdict(case_id, result.passed, result.behavior.value, why, time.monotonic() - started)


def describe(result):
    parts = [result.result, f"close {result.behavior_close.value}: {result.result_close or 'was not reached'}"]
    if result.remote_close_code is not None:
        parts.append(f"the server closed with {result.remote_close_code} {result.remote_close_reason or ''}")
    if result.received:
        parts.append(f"received {repr(result.received)[:RECEIVED_CHARS_MAX]}")
    return " / ".join(parts)


def report(verdicts, broken):
    """Prints the groups and the failures; gives the number of failures."""
    groups = {}
    for verdict in verdicts:
        groups.setdefault(group_of(verdict.case_id), []).append(verdict)
    print("group  cases  passed  failed  non-strict  informational  seconds of cases")
    for group, members in groups.items():
        passed = [verdict for verdict in members if verdict.passed]
        kinds = collections.Counter(verdict.behavior for verdict in passed)
        counts = (len(members), len(passed), len(members) - len(passed), kinds["NON-STRICT"], kinds["INFORMATIONAL"])
        seconds = sum(verdict.seconds for verdict in members)
        print("{:>5}  {:>5}  {:>6}  {:>6}  {:>10}  {:>13}  {:>16.1f}".format(group, *counts, seconds))
    lenient = [verdict.case_id for verdict in verdicts if verdict.passed and verdict.behavior == "NON-STRICT"]
    if lenient:
        print(f"\nnon-strict: {' '.join(lenient)}")
    failures = [verdict for verdict in verdicts if not verdict.passed]
    for case_id, _, behavior, why, seconds in failures:
        case = CASES[case_id]
        print(f"\nFAIL  {case_id}  {behavior}  ({seconds:.1f} s)")
        for what, text in (("sent", case.DESCRIPTION), ("expected", case.EXPECTATION), ("got", why)):
            print(f"    {what + ':':9} {plain(text)}")
    for text in broken:
        print(f"\nFAIL  {text}")
    return len(failures) + len(broken)


def group_of(case_id):
    return case_id.partition(".")[0]


def plain(text):
    """On one line and without the suite's markup."""
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


class Server:
    """The echo server as a process. What it prints is kept, its last lines only, for failures."""

    def __init__(self, binary, flags):
        self.command = [binary, "--host", "127.0.0.1", "--port", "0", *flags]
        self.log = collections.deque(maxlen=LOG_LINES_MAX)
        self.process = None
        self.reader = None
        self.url = asyncio.get_running_loop().create_future()

    async def start(self):
        """Gives its URL as soon as it has printed one."""
        both = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.STDOUT}
        try:
            self.process = await asyncio.create_subprocess_exec(*self.command, stdin=asyncio.subprocess.DEVNULL, **both)
        except OSError as error:
            sys.exit(f"the server does not start: {error}")
        self.reader = asyncio.create_task(self.read())
        await asyncio.wait({self.url, self.reader}, timeout=START_S_MAX, return_when=asyncio.FIRST_COMPLETED)
        if not self.url.done():
            sys.exit(f"the server did not say within {START_S_MAX} s where it serves, or ended:\n{self.tail()}")
        return self.url.result()

    async def read(self):
        async for line in self.process.stdout:
            text = re.sub(r"\x1b\[[0-9;]*m", "", line.decode(errors="replace")).rstrip()
            self.log.append(text)
            address = re.search(r"http://(127\.0\.0\.1:\d+)", text)
            if address and not self.url.done():
                self.url.set_result(f"ws://{address[1]}/")

    async def stop(self):
        """Ends the process; gives what there is to object: that it had ended by itself, or would not end."""
        if self.process is None:
            return []
        objections = []
        if self.process.returncode is not None:
            objections.append(f"the server had ended, status {self.process.returncode}:\n{self.tail()}")
        else:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), STOP_S_MAX)
            except asyncio.TimeoutError:
                self.process.kill()
                objections.append(f"the server did not end within {STOP_S_MAX} s of SIGTERM:\n{self.tail()}")
        await self.process.wait()
        await self.reader
        return objections

    def tail(self):
        return "\n".join(f"    {line}" for line in self.log)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except asyncio.CancelledError:
        sys.exit(130)
