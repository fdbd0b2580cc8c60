"""The fork server, and worker processes that are forked from it."""

import asyncio
import contextlib
import errno
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from flinkjob.api.job import TaskSpec, VertexSpec
from flinkjob.taskmanager.channel import Setup
from flinkjob.taskmanager.forkchannel import (
    Answer,
    Collect,
    Collected,
    Fork,
    Forked,
    NotForked,
    receive_answer,
    send,
    socket_pair,
)
from flinkjob.taskmanager.forking import ForkServer
from flinkjob.taskmanager.processes import UNMARKED, await_end, members_of
from flinkjob.taskmanager.slots import SlotEvent, Slots
from flinkjob.worker.events import Finished, ProcessDied, Started
from flinkjob.worker.protocol import Deployment
from taskmanager.scripted import appears, attempt, children_of, gone, graph_of, is_running

TASKS = """
import multiprocessing, os, pathlib, time

def tell(context, text=""):
    path = pathlib.Path(context.args["dir"], f"{context.vertex}-{context.subtask}")
    path.with_suffix(".tmp").write_text(text or str(os.getpid()))
    path.with_suffix(".tmp").rename(path)
    return path

def quick(context):
    context.emit(1)

def waits(context):
    path = tell(context)
    while not path.with_name("release").exists():
        time.sleep(0.01)

def lists_descriptors(context):
    entries = [(int(name), os.path.join("/proc/self/fd", name)) for name in os.listdir("/proc/self/fd")]
    tell(context, "\\n".join(f"{number} {os.readlink(path)}" for number, path in entries if os.path.exists(path)))

def leaves_daemons(context):
    sees, seen = os.pipe()
    if not os.fork():
        os.setsid()
        if not os.fork():
            os.write(seen, str(os.getpid()).encode())
            time.sleep(1000)
        os._exit(0)
    daemon = os.read(sees, 20).decode()
    os.wait()
    tell(context, daemon)
    time.sleep(1000)

def calls_processes(context):
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            context.add(method, pool.apply(int, ("7",)))
"""

NAMES = ("quick", "waits", "lists-descriptors", "leaves-daemons", "calls-processes")


class Bench:
    """Some slots, and what is heard of them."""

    def __init__(self, directory: Path, count: int = 2) -> None:
        self.heard: asyncio.Queue[SlotEvent] = asyncio.Queue()
        self.slots = Slots(
            count=count,
            work_dir=str(directory),
            module_dir=str(directory / "modules"),
            on_event=self.heard.put_nowait,
        )
        args = {"dir": str(directory)}
        graph = graph_of(
            *(
                VertexSpec(
                    name=name, parallelism=9, task=TaskSpec(python=f"forked_tasks:{name.replace('-', '_')}", args=args)
                )
                for name in NAMES
            )
        )
        self._vertices = {vertex.name: vertex.index for vertex in graph.vertices}
        self._setup = Setup(graph.encode(), str(directory / "storage"))

    def start(self, slot: int, name: str, subtask: int = 0) -> None:
        self.slots.start(slot, Deployment(attempt(self._vertices[name], subtask)), self._setup)

    async def end(self) -> SlotEvent:
        """The next event that is no start."""
        while isinstance(event := await self.heard.get(), Started):
            pass
        return event

    async def pids(self) -> list[int]:
        """The processes of all slots, once all have one."""
        while None in (pids := self.slots.pids()):
            await asyncio.sleep(0)
        return [pid for pid in pids if pid is not None]

    async def server(self) -> int:
        """The fork server, once all slots have their processes."""
        return parent_of((await self.pids())[0])


@pytest.fixture
async def bench(tmp_path: Path, write_module: Callable[[str, str], None]) -> AsyncIterator[Bench]:
    write_module("forked_tasks", TASKS)
    bench = Bench(tmp_path)
    yield bench
    bench.slots.close()


def parent_of(pid: int) -> int:
    return int(stat_of(pid)[1])


def stat_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


async def kill_server(bench: Bench) -> int:
    """Kill the fork server, and wait until its end has been heard; returns what its id was."""
    server = await bench.server()
    os.kill(server, signal.SIGKILL)
    while Path(f"/proc/{server}").exists():
        await asyncio.sleep(0)
    return server


# Worker processes


async def test_all_worker_processes_are_forked_from_one_fork_server(bench: Bench) -> None:
    bench.slots.warm_up()
    pids = await bench.pids()
    server = await bench.server()
    assert parent_of(server) == os.getpid()
    assert sorted(children_of(server)) == sorted(pids)
    assert len(os.listdir(f"/proc/{server}/task")) == 1, "a fork would leave other threads behind"
    assert len({server, os.getsid(server), os.getsid(0), *map(os.getsid, pids)}) == 4, "each leads a session of its own"


async def test_worker_processes_share_no_descriptor(bench: Bench, tmp_path: Path) -> None:
    bench.slots.warm_up()
    await bench.pids()
    for slot in range(2):
        bench.start(slot, "lists-descriptors", slot)
    controls = []
    for slot in range(2):
        told = await appears(tmp_path / f"lists-descriptors-{slot}")
        has = dict(line.split(" ", 1) for line in told.splitlines())
        log = str(tmp_path / f"slot-{slot}.log")
        assert [has.pop(number) for number in "012"] == ["/dev/null", log, log]
        has = {number: file for number, file in has.items() if "/storage/" not in file}
        (control,) = has.values()
        assert control.startswith("socket:")
        controls.append(control)
    assert len(set(controls)) == 2


async def test_a_task_can_use_more_processes(bench: Bench) -> None:
    bench.start(0, "calls-processes")
    event = await bench.end()
    assert isinstance(event, Finished), event
    assert event.accumulators == {"fork": 7, "spawn": 7, "forkserver": 7}


@pytest.mark.parametrize("by", ["the slot", "the process itself"])
async def test_a_daemon_that_was_only_forked_does_not_outlive_its_worker_process(
    bench: Bench, tmp_path: Path, by: str
) -> None:
    bench.start(0, "leaves-daemons")
    daemon = int(await appears(tmp_path / "leaves-daemons-0"))
    (pid, *_) = [pid for pid in bench.slots.pids() if pid]
    assert daemon not in members_of(pid)
    assert is_running(daemon)
    if by == "the slot":
        bench.slots.kill(0)
    else:
        os.kill(pid, signal.SIGKILL)
    assert isinstance(await bench.end(), ProcessDied)
    await gone(daemon)


async def test_the_environment_of_a_worker_process_is_that_of_its_taskmanager_and_its_mark(bench: Bench) -> None:
    bench.slots.warm_up()
    environments = [Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in await bench.pids()]
    first, second = ({entry for entry in entries if entry} for entries in environments)
    server = set(Path(f"/proc/{await bench.server()}/environ").read_bytes().split(b"\0")) - {b""}
    assert len(first - second) == len(second - first) == 1
    assert server - first == server - second == {f"_FLINKJOB_WORKER_PROCESS={UNMARKED}".encode()}


# Before there is a process


async def test_a_process_that_is_killed_before_it_is_forked_ends(bench: Bench) -> None:
    bench.start(0, "waits")
    assert bench.slots.pids() == [None, None]
    bench.slots.kill(0)
    assert await bench.end() == ProcessDied(
        attempt(1), "its worker process was killed by SIGKILL (perhaps it ran out of memory)"
    )


async def test_a_process_that_is_cancelled_before_it_is_forked_ends_and_is_replaced(bench: Bench) -> None:
    bench.start(0, "waits")
    bench.slots.cancel(0)
    assert not isinstance(await bench.end(), Finished)
    bench.start(0, "quick")
    assert isinstance(await bench.end(), Finished)


async def test_closing_before_anything_is_forked_leaves_no_process(bench: Bench) -> None:
    others = set(children_of(os.getpid()))  # of other tests of this process
    bench.slots.warm_up()
    (server,) = set(children_of(os.getpid())) - others
    bench.slots.close()
    assert not Path(f"/proc/{server}").exists()


# The death of the fork server


async def test_a_task_does_not_notice_that_the_fork_server_is_killed(bench: Bench, tmp_path: Path) -> None:
    bench.start(0, "waits")
    pid = int(await appears(tmp_path / "waits-0"))
    bench.slots.warm_up()
    await kill_server(bench)
    (tmp_path / "release").touch()
    assert isinstance(await bench.end(), Finished)
    bench.start(0, "quick")
    assert isinstance(await bench.end(), Finished)
    assert bench.slots.pids()[0] == pid
    bench.slots.close()
    assert not is_running(pid)


async def test_the_next_process_has_a_new_fork_server(bench: Bench) -> None:
    bench.slots.warm_up()
    before = await kill_server(bench)
    first, second = await bench.pids()
    bench.slots.cancel(0)
    while bench.slots.pids()[0] == first:
        await asyncio.sleep(0)
    bench.start(0, "quick")
    assert isinstance(await bench.end(), Finished)
    again, still = await bench.pids()
    assert still == second
    assert again != first
    assert parent_of(again) not in (before, parent_of(second))


async def test_an_attempt_whose_process_dies_after_the_fork_server_ends(bench: Bench, tmp_path: Path) -> None:
    bench.start(0, "waits")
    pid = int(await appears(tmp_path / "waits-0"))
    bench.slots.warm_up()
    await kill_server(bench)
    os.kill(pid, signal.SIGKILL)
    event = await bench.end()
    assert isinstance(event, ProcessDied)
    assert event.cause.startswith("its worker process ")
    bench.start(0, "quick")
    assert isinstance(await bench.end(), Finished)


async def test_what_the_fork_server_was_asked_for_when_it_died_fails(tmp_path: Path) -> None:
    server = ForkServer()
    os.kill(server.pid, signal.SIGKILL)
    failed: asyncio.Queue[str] = asyncio.Queue()
    for number in range(3):
        server.fork(
            Fork(str(tmp_path), str(tmp_path / str(number)), "0" * 16),
            (os.open(os.devnull, os.O_RDWR), os.open(os.devnull, os.O_RDWR)),
            forked=lambda pid, process: failed.put_nowait(f"forked {pid}"),
            failed=failed.put_nowait,
        )
    for _ in range(3):
        assert (await failed.get()).startswith("the fork server was killed by SIGKILL")
    assert server.ended


# Descriptors that cannot be had


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """This process can open nothing for the length of a block."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_process_whose_descriptor_does_not_arrive_fails_and_is_collected(tmp_path: Path) -> None:
    server = ForkServer()
    told: asyncio.Queue[str] = asyncio.Queue()
    control, theirs = socket.socketpair()
    server.fork(
        Fork(str(tmp_path), str(tmp_path / "scratch"), "0" * 16),
        (theirs.detach(), os.open(os.devnull, os.O_RDWR)),
        forked=lambda pid, process: told.put_nowait(f"forked {pid}"),
        failed=told.put_nowait,
    )
    with no_more_files():
        assert await told.get() == os.strerror(errno.EMFILE)
    (pid,) = children_of(server.pid)
    control.close()
    while Path(f"/proc/{pid}").exists():
        await asyncio.sleep(0)
    server.close()


# Without a TaskManager


class Asked:
    """A fork server that the test asks itself, one thing at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.controls: list[socket.socket] = []
        self.channel, theirs = socket_pair()
        command = [sys.executable, "-P", "-m", "flinkjob.taskmanager.forkserver", str(theirs.fileno())]
        with theirs:
            self.process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), start_new_session=True)

    def fork(self, *, descriptors: int = 2) -> Answer:
        """Ask for a worker process, with so many of its descriptors."""
        control, theirs = socket.socketpair()
        with theirs, open(os.devnull, "r+b") as log:
            scratch = str(self._directory / "scratch")
            sent = (theirs.fileno(), log.fileno())[:descriptors]
            send(self.channel, Fork(str(self._directory), scratch, "0" * 16), sent)
        self.controls.append(control)
        return self.answer()

    def answer(self) -> Answer:
        """What it says next."""
        received = receive_answer(self.channel)
        assert received is not None
        answer, descriptors = received
        for descriptor in descriptors:
            os.close(descriptor)
        return answer

    def close(self) -> None:
        """Hang up everywhere."""
        for each in (self.channel, *self.controls):
            each.close()
        self.process.wait()


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    asked = Asked(tmp_path)
    yield asked
    asked.close()


def forked(answer: Answer) -> int:
    """The id of the process."""
    assert isinstance(answer, Forked)
    return answer.pid


async def test_a_worker_process_ends_with_its_control_channel_whoever_was_forked_later(asked: Asked) -> None:
    first, second = forked(asked.fork()), forked(asked.fork())
    asked.controls[0].close()
    await gone(first)
    assert is_running(second)


async def test_a_worker_process_is_collected_only_when_that_is_asked_for(asked: Asked) -> None:
    pid = forked(asked.fork())
    os.kill(pid, signal.SIGTERM)
    await gone(pid)
    assert stat_of(pid)[0] == "Z"
    send(asked.channel, Collect(pid))
    assert asked.answer() in (Collected(-signal.SIGTERM), Collected(0))
    assert not Path(f"/proc/{pid}").exists()


async def test_the_fork_server_ends_after_all_worker_processes_when_its_taskmanager_hangs_up(asked: Asked) -> None:
    pids = [forked(asked.fork()) for _ in range(3)]
    asked.channel.close()
    for control in asked.controls[:2]:
        control.close()
    await gone(*pids[:2])
    assert asked.process.poll() is None
    asked.controls[2].close()
    assert asked.process.wait() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


async def test_descriptors_that_do_not_arrive_fail_one_fork_and_no_more(asked: Asked) -> None:
    assert asked.fork(descriptors=1) == NotForked("Too many open files")
    assert isinstance(asked.fork(), Forked)


async def test_what_is_wrong_with_a_worker_process_stands_in_its_log(asked: Asked, tmp_path: Path) -> None:
    with (tmp_path / "no-socket").open("w+b") as no_socket, (tmp_path / "log").open("w+b") as log:
        send(asked.channel, Fork("", "", "0" * 16), (no_socket.fileno(), log.fileno()))
    pid = forked(asked.answer())
    await gone(pid)
    send(asked.channel, Collect(pid))
    assert asked.answer() == Collected(1)
    assert "Traceback" in (tmp_path / "log").read_text()


# Orphans


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", -9)])
def test_the_exit_code_of_a_process_that_has_become_the_callers_is_known(script: str, code: int) -> None:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", script], os.environ)
    process = os.pidfd_open(pid)
    assert await_end(process) == code
    assert await_end(process) is None
    os.close(process)
