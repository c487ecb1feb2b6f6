#!/usr/bin/env python3
"""Bad days of the host: each broker here is started on a machine, or a disk, that lacks something, and must say so or cope.

    tests/faults/host.py --program PATH-TO-CORELOG

A case that this machine does not allow (mounting, say) is one counted skip. The closing line is `N passed, N failed, N skipped`.
"""

import argparse
import contextlib
import ctypes
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "scripts")]
from broker import Broker, NotReady  # noqa: E402
from wire import API_VERSIONS, DELETE_TOPICS, Closed, Connection, array, batch, i16, i32, string  # noqa: E402

STORAGE_ERROR = 56
RECORD_BYTES = 200_000
DISK_BYTES, BALLAST_BYTES = 64 << 20, 24 << 20
CONNECTIONS_MAX = 20
URING_CALLS = (425, 426, 427)  # io_uring_setup, _enter, _register: the same numbers on every architecture
EPERM = 1
CASES = []


class Skip(Exception):
    """Why a case cannot run here."""


def case(name):
    def register(function):
        CASES.append((name, function))
        return function

    return register


def check(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r:.600}, wanted {wanted!r:.300}")


def check_said(text, parts):
    for part in parts:
        check(part in text, True, f"{part!r} in {text!r}")


def serves(broker):
    """A record goes in and comes out."""
    with Connection(broker.address) as c:
        topic = f"host-{time.time_ns()}"
        check(c.create_topic(topic), 0, "creating a topic")
        check(c.produce(topic, batch([b"here"])), (0, 0), "produce")
        check(b"here" in c.fetch(topic, 0)[2], True, "fetch")


def refused(broker):
    """The broker does not start; what it said instead."""
    try:
        with broker:
            raise AssertionError("it started")
    except NotReady:
        return broker.log.read_text()


def wrapped(w, name, line):
    """A program that does `line` before it becomes the broker."""
    path = w.folder / name
    path.write_text(f'#!/bin/sh\n{line} "$@"\n')
    path.chmod(0o755)
    return path


def filter_uring():
    """Answers EPERM to io_uring from here on, as container runtimes do."""
    class Instruction(ctypes.Structure):
        _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]

    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.POINTER(Instruction))]

    load, equal, give = 0x20, 0x15, 0x06
    allow, errno = 0x7FFF0000, 0x00050000
    count = len(URING_CALLS)
    code = [(load, 0, 0, 0), *[(equal, count - at, 0, call) for at, call in enumerate(URING_CALLS)], (give, 0, 0, allow), (give, 0, 0, errno | EPERM)]
    instructions = (Instruction * len(code))(*[Instruction(*one) for one in code])
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, mode_filter = 38, 22, 2
    program = Program(len(code), instructions)
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) != 0 or libc.prctl(set_seccomp, mode_filter, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp is not available")


@case("a port that is taken is named, and the first broker serves on")
def port_taken(w):
    with w.broker("first") as first:
        said = refused(w.broker("second", listen=first.address))
        check_said(said, [f"cannot listen on {first.address}", "--listen"])
        serves(first)


@case("a data folder that another broker holds is refused")
def folder_held(w):
    with w.broker("held") as first:
        said = refused(w.broker("held", keep=True))
        check_said(said, [str(first.data)])
        serves(first)


@case("without io_uring the broker falls back to posix, says why, and serves; told to use it alone, it refuses")
def without_uring(w):
    program = wrapped(w, "without-uring", f"exec {sys.executable} -B {HERE / 'host.py'} --filtered {w.program}")
    broker = Broker(program, w.folder / "filtered")
    try:
        with broker:
            check_said(broker.log.read_text(), ["driver      posix", "because io_uring could not be set up"])
            serves(broker)
            check(broker.stop(), 0, "status at the end")
    except NotReady as error:
        if "seccomp is not available" in broker.log.read_text():
            raise Skip("seccomp is not available") from error
        raise
    said = refused(Broker(program, w.folder / "filtered-ring", more=["--set", "runtime.driver=ring"]))
    check_said(said, ["io_uring is forbidden here", 'driver = "posix"'])


@case("with no locked memory allowed the broker starts on what it can get, and serves")
def no_locked_memory(w):
    # Since 5.12 rings count against the memory cgroup; before, the ring is refused and posix runs.
    with Broker(wrapped(w, "no-memlock", f"ulimit -l 0 && exec {w.program}"), w.folder / "no-memlock-data") as broker:
        serves(broker)


@case("more connections than the limit are closed at once, said once, and let in again when there is room")
def too_many_connections(w):
    with w.broker("connections", "--set", f"limits.connections_max={CONNECTIONS_MAX}", "--set", "cores.count=1") as broker, contextlib.ExitStack() as held:
        for _ in range(CONNECTIONS_MAX):
            check(held.enter_context(Connection(broker.address)).ask(API_VERSIONS, 0, b"")[:2], i16(0), "within the limit")
        for _ in range(3):
            with Connection(broker.address) as c:
                c.expect_close()
        check(broker.log.read_text().count("limits.connections_max"), 1, "how often the limit was told")
        held.close()
        deadline = time.monotonic() + 10
        while True:  # the broker hears of the closed ones in its own time
            with contextlib.suppress(Closed):
                return serves(broker)
            check(time.monotonic() < deadline, True, "let in again in time")


@case("few open files: connections wait, and are served when others have gone")
def few_open_files(w):
    with Broker(wrapped(w, "few-files", f"ulimit -n 120 && exec {w.program}"), w.folder / "few-files-data") as broker:
        with contextlib.ExitStack() as held:
            for _ in range(150):
                held.enter_context(Connection(broker.address))
            deadline = time.monotonic() + 10
            while "RLIMIT_NOFILE" not in broker.log.read_text():
                check(time.monotonic() < deadline, True, "said in time")
        serves(broker)


@case("a full disk: KAFKA_STORAGE_ERROR, topics can be deleted, and with space again everything goes on without a restart")
def full_disk(w):
    with mounted(w) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(BALLAST_BYTES))
        with Broker(w.program, disk / "data", more=["--set", "cores.count=1"]) as broker, Connection(broker.address) as c:
            for topic in ("kept", "gone"):
                check(c.create_topic(topic), 0, "creating a topic")
            acknowledged, error = 0, 0
            while not error:
                error, base = c.produce("kept", batch([b"x" * RECORD_BYTES]))
                if not error:
                    check(base, acknowledged, "base offset")
                    acknowledged += 1
            check(error, STORAGE_ERROR, "error code")
            # The other topic has room in its file still; what was acknowledged is served.
            check(c.produce("gone", batch([b"small"]))[0], 0, "a small record in another topic")
            check(c.fetch("kept", acknowledged - 1)[:2], (0, acknowledged), "the last record that was acknowledged")
            answer = c.ask(DELETE_TOPICS, 1, array([string("gone")]) + i32(10_000))
            check(answer[-2:], i16(0), "deleting a topic")
            check(c.produce("kept", batch([b"x" * (4 * RECORD_BYTES)]))[0], STORAGE_ERROR, "still full")
            ballast.unlink()
            check(c.produce("kept", batch([b"x" * RECORD_BYTES])), (0, acknowledged), "with space again")
            check(broker.stop(), 0, "status at the end")
        with Broker(w.program, disk / "data", keep=True, more=["--set", "cores.count=1"]) as broker, Connection(broker.address) as c:
            check(c.fetch("kept", acknowledged)[:2], (0, acknowledged + 1), "after a restart")


@contextlib.contextmanager
def mounted(w):
    """A small disk of its own, of memory."""
    disk = w.folder / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)], capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
    if done is None or done.returncode != 0:
        raise Skip("mounting a small disk is not permitted" if done is None else done.stderr.strip())
    try:
        probe = os.open(disk / "probe", os.O_CREAT | os.O_WRONLY | os.O_DIRECT)
        os.close(probe)
        yield disk
    except OSError as error:
        raise Skip(f"tmpfs has no O_DIRECT here: {error}") from error
    finally:
        subprocess.run(["umount", str(disk)], check=True)


class World:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder

    def broker(self, name, *more, **options):
        return Broker(self.program, self.folder / f"{name}-data", more=more, **options)


def run(program, only):
    passed = failed = skipped = 0
    for name, function in CASES:
        if only not in name:
            continue
        with tempfile.TemporaryDirectory(dir=program.parent, prefix="host-") as folder:
            try:
                function(World(program, Path(folder)))
                passed += 1
                print(f"ok   {name}", flush=True)
            except Skip as why:
                skipped += 1
                print(f"skip {name}: {why}", flush=True)
            except Exception as error:  # whatever the broker makes of it
                failed += 1
                traceback.print_exc()
                print(f"FAIL {name}: {type(error).__name__}: {error}", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed else 0


def main():
    if sys.argv[1:2] == ["--filtered"]:
        filter_uring()
        os.execv(sys.argv[2], sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--only", default="", metavar="TEXT")
    args = parser.parse_args()
    return run(args.program.resolve(), args.only)


if __name__ == "__main__":
    sys.exit(main())
