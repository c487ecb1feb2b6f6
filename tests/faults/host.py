#!/usr/bin/env python3
"""Bad days of the host: each broker here is started on a machine, or a disk, that lacks something, and must say so or cope.

    tests/faults/host.py --program PATH-TO-CORELOG

A case that this machine does not allow (mounting, say) is one counted skip. The closing line is `N passed, N failed, N skipped`.
"""

import argparse
import contextlib
import ctypes
import os
import platform
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
POLICY_VIOLATION = 44
RECORD_BYTES = 200_000
DISK_BYTES, BALLAST_BYTES = 64 << 20, 24 << 20
CONNECTIONS_MAX = 20
URING_CALLS = (425, 426, 427)  # io_uring_setup, _enter, _register: the same numbers on every architecture
EPERM, EIO = 1, 5
FAILING_FROM = 1 << 20
NO_FILTER = "seccomp filters are not available"
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


@contextlib.contextmanager
def filtered(w, which, name, more=()):
    """A broker that some system calls are refused to."""
    program = wrapped(w, f"{name}-program", f"exec {sys.executable} -B {HERE / 'host.py'} --filtered {which} {w.program}")
    broker = Broker(program, w.folder / f"{name}-data", more=more)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(broker)
        except NotReady as error:
            if NO_FILTER in broker.log.read_text():
                raise Skip(NO_FILTER) from error
            raise
        yield broker


# Classic BPF over struct seccomp_data: the call's number stands at 0, the low half of its fourth argument at 40.
LOAD, EQUAL, NOT_LESS, GIVE = 0x20, 0x15, 0x35, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
PWRITEV2 = {"x86_64": 328, "aarch64": 287}.get(platform.machine())


def refused_calls(which):
    """(operation, jump if so, jump if not, operand)"""
    if which == "uring":
        count = len(URING_CALLS)
        calls = [(EQUAL, count - at, 0, call) for at, call in enumerate(URING_CALLS)]
        return [(LOAD, 0, 0, 0), *calls, (GIVE, 0, 0, ALLOW), (GIVE, 0, 0, ERRNO | EPERM)]
    return [(LOAD, 0, 0, 0), (EQUAL, 0, 2, PWRITEV2), (LOAD, 0, 0, 40), (NOT_LESS, 1, 0, FAILING_FROM), (GIVE, 0, 0, ALLOW), (GIVE, 0, 0, ERRNO | EIO)]


def install_filter(which):
    """Refuses calls to this process and those that it becomes, as container runtimes do."""
    class Instruction(ctypes.Structure):
        _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]

    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.POINTER(Instruction))]

    code = refused_calls(which)
    program = Program(len(code), (Instruction * len(code))(*[Instruction(*one) for one in code]))
    libc, no_new_privileges, set_seccomp, mode_filter = ctypes.CDLL(None), 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) != 0 or libc.prctl(set_seccomp, mode_filter, ctypes.byref(program), 0, 0) != 0:
        sys.exit(NO_FILTER)


@case("a port that is taken is named, and the first broker serves on")
def port_taken(w):
    with w.broker("first") as first:
        said = refused(w.broker("second", listen=first.address))
        check_said(said, [f"cannot listen on {first.address}", "Another process is using it", "--listen"])
        check((w.folder / "second-data").exists(), False, "a data folder left behind")
        serves(first)


@case("a broker that was killed is started again on its port at once, with connections open")
def same_port(w):
    with w.broker("again") as broker, contextlib.ExitStack() as held:
        broker.listen = broker.address
        for _ in range(5):
            for _ in range(20):
                check(held.enter_context(Connection(broker.address)).ask(API_VERSIONS, 0, b"")[:2], i16(0), "an open connection")
            broker.kill()
            broker.start()
        serves(broker)
        check(broker.stop(), 0, "status at the end")


@case("a data folder that another broker holds is refused")
def folder_held(w):
    with w.broker("held") as first:
        said = refused(w.broker("held", keep=True))
        check_said(said, [str(first.data)])
        serves(first)


@case("an address that this host does not have is refused without blaming another process, and leaves nothing behind")
def no_such_address(w):
    said = refused(w.broker("elsewhere", listen="192.0.2.1:0"))
    check_said(said, ["cannot listen on 192.0.2.1:0", "This host has no such address"])
    check((w.folder / "elsewhere-data").exists(), False, "a data folder left behind")


@case("a folder that something else lives in is refused and left as it is")
def foreign_folder(w):
    folder = w.folder / "foreign-data"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    check_said(refused(w.broker("foreign", keep=True)), [str(folder), "is not a data folder", "thesis.txt"])
    check(os.listdir(folder), ["thesis.txt"], "what is in it")


@case("without io_uring the broker falls back to posix, says why, and serves; told to use it alone, it refuses")
def without_uring(w):
    with filtered(w, "uring", "filtered") as broker:
        check_said(broker.log.read_text(), ["driver      posix", "because io_uring could not be set up"])
        serves(broker)
        check(broker.stop(), 0, "status at the end")
    said = refused(Broker(broker.program, w.folder / "filtered-ring", more=["--set", "runtime.driver=ring"]))
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
        check_said(broker.log.read_text(), ["open files: limit 120", "ulimit -n"])
        with Connection(broker.address) as c:
            check(c.create_topic("too-many", 100), POLICY_VIOLATION, "more partitions than files can be opened")
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
            check(broker.log.read_text().count(f"no space is left in {disk / 'data'}"), 1, "how often the full disk was told")
            check_said(broker.log.read_text(), ["SIGTERM received, stopping", "stopped cleanly in"])
        with Broker(w.program, disk / "data", keep=True, more=["--set", "cores.count=1"]) as broker, Connection(broker.address) as c:
            check(c.fetch("kept", acknowledged)[:2], (0, acknowledged + 1), "after a restart")


@case("a start on a full disk: what does not open is said, and topics can be made and deleted once there is space")
def start_on_full_disk(w):
    with mounted(w) as disk:
        more, ballast, data = ["--set", "cores.count=2"], disk / "ballast", w.folder / "data"
        # By another name, so that the broker's output does not go to the full disk.
        (disk / "data").mkdir()
        data.symlink_to(disk / "data")
        with Broker(w.program, data, more=more, keep=True) as broker, Connection(broker.address) as c:
            check(c.create_topic("first"), 0, "creating a topic")
            with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(64 << 10))
            check(c.create_topic("many", partitions=20), 0, "creating a topic on a full disk")
            broker.kill()
        with Broker(w.program, data, keep=True, more=more) as broker, Connection(broker.address) as c:
            check_said(broker.log.read_text(), ["many-", "No space left on device"])
            check(c.ask(DELETE_TOPICS, 1, array([string("many")]) + i32(10_000))[-2:], i16(0), "deleting a topic")
            ballast.unlink()
            check(c.create_topic("next"), 0, "creating a topic with space again")
            check(c.produce("next", batch([b"x"]))[0], 0, "producing to it")
            check(broker.stop(), 0, "status at the end")


@case("writes that fail: that partition is offline until a restart and says so, the rest serves, nothing acknowledged is lost")
def failing_writes(w):
    if PWRITEV2 is None:
        raise Skip(f"the number of pwritev2 on {platform.machine()} is not known here")
    # The posix driver writes by a system call, so a filter can fail those behind a position.
    posix = ["--set", "runtime.driver=posix", "--set", "cores.count=1"]
    with filtered(w, "late-writes", "failing", posix) as broker, Connection(broker.address) as c:
        for topic in ("lost", "well"):
            check(c.create_topic(topic), 0, "creating a topic")
        acknowledged, error = 0, 0
        while not error:
            error, base = c.produce("lost", batch([b"x" * RECORD_BYTES]))
            if not error:
                check(base, acknowledged, "base offset")
                acknowledged += 1
        check((error, acknowledged > 0), (STORAGE_ERROR, True), "error code, and records before it")
        deadline = time.monotonic() + 10
        while "lost-0 is offline until the broker is restarted" not in broker.log.read_text():
            check(time.monotonic() < deadline, True, "said in time")
        check_said(broker.log.read_text(), [str(broker.data / "logs/lost-0"), "os error 5"])
        check((c.produce("lost", batch([b"late"]))[0], c.fetch("lost", 0)[0]), (STORAGE_ERROR, STORAGE_ERROR), "it stays so")
        check(c.produce("well", batch([b"well"])), (0, 0), "the other topic")
        check(broker.stop(), 0, "status at the end")
    with Broker(w.program, broker.data, keep=True) as broker, Connection(broker.address) as c:
        error, high_watermark, _ = c.fetch("lost", 0)
        check((error, high_watermark >= acknowledged), (0, True), f"{high_watermark} of {acknowledged} acknowledged after a restart")
        check(c.produce("lost", batch([b"again"])), (0, high_watermark), "produce after a restart")
        check(c.fetch("well", 0)[1], 1, "the other topic")


def flip_bit(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@case("a flipped bit in the middle of a segment: that partition is not served, the rest is, and a deletion removes its files")
def flipped_bit(w):
    record = batch([b"x" * 2000])
    with w.broker("flipped") as broker, Connection(broker.address) as c:
        for topic in ("rotten", "sound"):
            check(c.create_topic(topic), 0, "creating a topic")
            for number in range(20):
                check(c.produce(topic, record), (0, number), "produce")
        broker.kill()
    folder = next((w.folder / "flipped-data/logs").glob("rotten-0-*"))
    segment = next(folder.glob("*.log"))
    flip_bit(segment, 3 * len(record) + 500)
    damaged = segment.read_bytes()
    with w.broker("flipped", keep=True) as broker, Connection(broker.address) as c:
        check_said(broker.log.read_text(), ["not served: rotten-0", str(segment)])
        check(c.fetch("rotten", 0)[0], STORAGE_ERROR, "fetch of the damaged partition")
        check(c.produce("rotten", record)[0], STORAGE_ERROR, "produce to it")
        check(segment.read_bytes() == damaged, True, "nothing of it is changed")
        check((c.produce("sound", record), c.fetch("sound", 0)[:2]), ((0, 20), (0, 21)), "the other topic")
        answer = c.ask(DELETE_TOPICS, 1, array([string("rotten")]) + i32(10_000))
        check(answer[-2:], i16(0), "deleting the topic")
        deadline = time.monotonic() + 10
        while folder.exists():
            check(time.monotonic() < deadline, True, "its folder goes in time")
            time.sleep(0.01)


def log_tool(w, data, *words):
    """`corelog log ...` on a folder: its status and what it said."""
    done = subprocess.run([str(w.program), "log", *words, "--data", str(data)], capture_output=True, text=True, errors="replace", timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


@case("corelog log dump finds a flipped bit, and corelog log repair mends the partition: everything else is still there")
def repaired(w):
    record = batch([b"x" * 2000])
    data = w.folder / "repaired-data"
    with w.broker("repaired") as broker, Connection(broker.address) as c:
        check(c.create_topic("rotten"), 0, "creating a topic")
        for number in range(20):
            check(c.produce("rotten", record), (0, number), "produce")
        status, said = log_tool(w, data, "dump")
        check((status, "held by another broker" in said), (1, True), "dump of a running broker's folder")
        broker.kill()
    check(log_tool(w, data, "dump")[0], 0, "dump of a sound folder")
    segment = next(next((data / "logs").glob("rotten-0-*")).glob("*.log"))
    flip_bit(segment, 3 * len(record) + 500)
    status, said = log_tool(w, data, "dump")
    check(status, 1, "dump of a damaged folder")
    check_said(said, [f"DAMAGED at byte {3 * len(record)} to {4 * len(record)}", "offset 3 to 4"])
    before = segment.read_bytes()
    status, said = log_tool(w, data, "repair")
    check((status, segment.read_bytes() == before), (1, True), "repair without --yes")
    check_said(said, ["offset 3 to 4, 1 offsets", "run it again with --yes"])
    status, said = log_tool(w, data, "repair", "--yes")
    check(status, 0, said)
    check(len(list(segment.parent.glob("*.damaged"))), 1, "the damaged bytes are kept")
    check(log_tool(w, data, "dump")[0], 0, "dump of the mended folder")
    with w.broker("repaired", keep=True) as broker, Connection(broker.address) as c:
        check(c.produce("rotten", record), (0, 20), "produce to the mended partition")
        code, high_watermark = c.fetch("rotten", 0)[:2]
        check((code, high_watermark), (0, 21), "fetch from it")


@case("a flipped bit in the metadata log: the broker does not start, and says which file and where")
def flipped_metadata(w):
    with w.broker("metadata") as broker, Connection(broker.address) as c:
        for number in range(3):
            check(c.create_topic(f"topic-{number}"), 0, "creating a topic")
        broker.kill()
    log = next((w.folder / "metadata-data/raft").glob("*.log"))
    flip_bit(log, 4096 + 40)
    check_said(refused(w.broker("metadata", keep=True)), [str(log), "is damaged at byte 4096"])


@case("a damaged metadata log is mended by corelog log repair: what was decided before the damage is there, with its records")
def repaired_metadata(w):
    record, data = batch([b"x" * 2000]), w.folder / "forgot-data"
    with w.broker("forgot") as broker, Connection(broker.address) as c:
        check(c.create_topic("early"), 0, "creating a topic")
        for number in range(3):
            check(c.produce("early", record), (0, number), "produce")
        broker.kill()
    log = next((data / "raft").glob("*.log"))
    early = written_bytes(log)
    with w.broker("forgot", keep=True) as broker, Connection(broker.address) as c:
        for number in range(3):
            check(c.create_topic(f"late-{number}"), 0, "creating a topic")
        broker.kill()
    # The first frame of the second life: the log goes on in a new block.
    flip_bit(log, early + 40)
    check_said(refused(w.broker("forgot", keep=True)), [str(log), "is damaged", "corelog log repair"])
    check(log_tool(w, data, "dump")[0], 1, "dump of the damaged folder")
    status, said = log_tool(w, data, "repair", "--yes")
    check(status, 0, said)
    check(len(list(log.parent.glob("*.damaged"))), 1, "what was cut off is kept")
    with w.broker("forgot", keep=True) as broker, Connection(broker.address) as c:
        check(c.fetch("early", 0)[:2], (0, 3), "what was decided before the damage")
        check(c.create_topic("late-0"), 0, "a topic that was forgotten can be made again")


@case("a folder without its identity does not start; corelog log repair writes the one that the metadata names")
def repaired_identity(w):
    record, data = batch([b"x" * 2000]), w.folder / "nameless-data"
    with w.broker("nameless") as broker, Connection(broker.address) as c:
        check(c.create_topic("kept"), 0, "creating a topic")
        check(c.produce("kept", record), (0, 0), "produce")
        broker.kill()
    identity = data / "corelog"
    before = identity.read_bytes()
    identity.unlink()
    check_said(refused(w.broker("nameless", keep=True)), [str(identity), "corelog log repair"])
    status, said = log_tool(w, data, "repair", "--yes")
    check(status, 0, said)
    check(identity.read_bytes() == before, True, "the folder is who it was")
    with w.broker("nameless", keep=True) as broker, Connection(broker.address) as c:
        check(c.fetch("kept", 0)[:2], (0, 1), "its records")


def written_bytes(path):
    """Where the last block ends that is not all zeros."""
    content = path.read_bytes().rstrip(b"\0")
    return -(-len(content) // 4096) * 4096


@contextlib.contextmanager
def mounted(w):
    """A small disk of its own, of memory."""
    disk = w.folder / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)], capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
    if done is None or done.returncode != 0:
        raise Skip("mounting a small disk is not permitted" if done is None else done.stderr.strip())
    try:
        try:
            os.close(os.open(disk / "probe", os.O_CREAT | os.O_WRONLY | os.O_DIRECT))
        except OSError as error:
            raise Skip(f"tmpfs has no O_DIRECT here: {error}") from error
        yield disk
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
        install_filter(sys.argv[2])
        os.execv(sys.argv[3], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--only", default="", metavar="TEXT")
    args = parser.parse_args()
    return run(args.program.resolve(), args.only)


if __name__ == "__main__":
    sys.exit(main())
