"""A real TaskManager process, and a JobManager that does as the test says."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from flinkjob.api.job import SplitsSpec, TaskSpec, VertexSpec
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.operations import InputSplit
from flinkjob.graph.states import ExecutionState
from flinkjob.rpc.connection import GOING_AWAY
from flinkjob.rpc.tls import server_context
from flinkjob.taskmanager.processes import members_of
from flinkjob.worker import protocol as msg
from rpc.certificates import make_authority, make_certificate
from taskmanager.scripted import (
    Peer,
    ScriptedJobManager,
    TaskManagerProcess,
    appears,
    attempt,
    children_of,
    gone,
    graph_of,
    is_running,
    jobmanager,
)

Start = Callable[..., TaskManagerProcess]
WriteModule = Callable[[str, str], None]

RUNNING, FINISHED, FAILED = ExecutionState.RUNNING, ExecutionState.FINISHED, ExecutionState.FAILED
CANCELED = ExecutionState.CANCELED

TASKS = """
import os, pathlib, signal, subprocess, sys, time

def mark(context, text=""):
    path = pathlib.Path(context.args["dir"], f"{context.vertex}-{context.subtask}-{context.attempt}")
    path.with_suffix(".tmp").write_text(text or str(os.getpid()))
    path.with_suffix(".tmp").rename(path)
    return path

def quick(context):
    context.emit(os.getpid())

def until_released(context):
    path = mark(context)
    while not path.with_name("release").exists():
        time.sleep(0.01)
    context.add("pid", os.getpid())

def stubborn(context):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "1000"], start_new_session=False, process_group=0)
    mark(context, f"{os.getpid()} {child.pid}")
    while True:
        time.sleep(0.01)

def polite(context):
    path = mark(context)
    try:
        while True:
            time.sleep(0.01)
    finally:
        path.with_name("cleaned-up").write_text(str(context.cancelled))

def swallows(context):
    mark(context)
    try:
        time.sleep(1000)
    except Exception:
        context.emit("after all")

def splits(context):
    for split in context.splits():
        context.add("sum", split.payload)
        mark(context)

def dies(context):
    os.kill(os.getpid(), signal.SIGSEGV)

def leaves(context):
    sys.exit(7)

def fails(context):
    context.emit("x" * 3_000_000)
    raise ValueError("bad luck")

def noisy(context):
    print("heard on standard output")
    print("heard on standard error", file=sys.stderr)
    context.progress(0.5)
    until_released(context)
"""

NAMES = [line[4:].partition("(")[0] for line in TASKS.splitlines() if line.startswith("def ")][1:]


@pytest.fixture
def graph(tmp_path: Path, write_module: WriteModule) -> JobGraph:
    """A vertex of four subtasks for each task of the module."""
    write_module("tasks", TASKS)
    return graph_of(
        *(
            VertexSpec(
                name=name.replace("_", "-"),
                parallelism=4,
                task=TaskSpec(python=f"tasks:{name}", args={"dir": str(tmp_path)}),
                splits=SplitsSpec(python="x:y") if name == "splits" else None,
            )
            for name in NAMES
        )
    )


def vertex(graph: JobGraph, name: str) -> int:
    return next(vertex.index for vertex in graph.vertices if vertex.name == name)


async def joined(leader: ScriptedJobManager, graph: JobGraph, storage: Path, *, epoch: int = 1, **times: int) -> Peer:
    peer = await leader.arrival()
    peer.accept(graph, storage / "storage", epoch=epoch, **times)
    return peer


# Registration


async def test_it_registers_runs_tasks_in_one_warm_process_and_leaves_when_the_job_is_over(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    process = start(leader, slots=1, job="the-job", address="somewhere")
    peer = await joined(leader, graph, tmp_path)
    register = await peer.first(msg.Register)
    assert register == msg.Register(msg.PROTOCOL_VERSION, "the-job", "tm-1", "somewhere", 1, ())
    quick = vertex(graph, "quick")
    peer.deploy(*(attempt(quick, subtask) for subtask in range(4)))
    ends = [await peer.report(attempt(quick, subtask)) for subtask in range(4)]
    assert {report.state for report in ends} == {FINISHED}
    files = [(tmp_path / "storage" / "partitions" / "1" / f"{quick}-{subtask}-0") for subtask in range(4)]
    assert [report.partition.size for report in ends] == [file.stat().st_size for file in files]
    assert len({file.read_bytes()[:8] for file in files}) == 1, "all of them ran in the same process"
    peer.send(msg.JobOver(1, "FINISHED"))
    assert await process.exit_code() == 0
    await peer.until(lambda: peer.closed)
    assert peer.websocket.close_code == GOING_AWAY


async def test_it_follows_the_leader_that_a_standby_names(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    async with jobmanager() as standby:
        start(standby)
        refusing = await standby.arrival()
        refusing.send(msg.Refused(leader.address, "this JobManager does not lead"))
        peer = await joined(leader, graph, tmp_path)
        assert (await peer.first(msg.Register)).id == "tm-1"


async def test_it_tries_all_addresses_until_one_answers(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    with TaskManagerProcess(["127.0.0.1:1", "no such host:x", leader.address], tmp_path):
        peer = await joined(leader, graph, tmp_path)
        assert (await peer.first(msg.Register)).id == "tm-1"


# A change of leaders


async def test_a_running_task_does_not_notice_a_change_of_leaders(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    async with jobmanager() as first:
        start(first, leader, slots=2)
        old = await joined(first, graph, tmp_path)
        name = "until-released"
        ids = [attempt(vertex(graph, name), subtask) for subtask in range(3)]
        old.deploy(*ids)
        for id in ids[:2]:
            await old.report(id, RUNNING)
        pids = [await appears(tmp_path / f"{name}-{subtask}-0") for subtask in range(2)]
    new = await joined(leader, graph, tmp_path, epoch=2)
    register = next(message for message in new.inbox if isinstance(message, msg.Register))
    assert {report.attempt: report.state for report in register.reports} == {
        ids[0]: RUNNING,
        ids[1]: RUNNING,
        ids[2]: ExecutionState.DEPLOYING,
    }
    (tmp_path / "release").touch()
    ends = [await new.report(id, FINISHED) for id in ids]
    assert [str(end.accumulators["pid"]) for end in ends[:2]] == pids


async def test_an_end_that_nobody_acknowledged_is_reported_again(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    start(leader)
    peer = await joined(leader, graph, tmp_path)
    done, told = attempt(vertex(graph, "quick"), 0), attempt(vertex(graph, "quick"), 1)
    peer.deploy(done, told)
    end = await peer.report(done)
    await peer.report(told)
    peer.send(msg.Acknowledge(1, (told,)))
    peer.deploy(done)
    await peer.until(lambda: len([report for report in peer.reports if report == end]) == 2)
    peer.connection.abort()
    again = await joined(leader, graph, tmp_path, epoch=2)
    assert again.reports == [end]


async def test_commands_of_a_lower_epoch_do_nothing(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    start(leader)
    peer = await joined(leader, graph, tmp_path, epoch=7)
    running, later = attempt(vertex(graph, "until-released"), 0), attempt(vertex(graph, "quick"), 0)
    peer.deploy(running)
    await peer.report(running, RUNNING)
    peer.send(msg.Cancel(6, (running,)))
    peer.send(msg.Deploy(6, (msg.Deployment(later),)))
    peer.send(msg.JobOver(6, "FAILED"))
    (tmp_path / "release").touch()
    assert (await peer.report(running)).state is FINISHED
    assert [report.attempt for report in peer.reports if report.attempt == later] == []


async def test_a_deposed_leader_is_left_for_the_next_one(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    start(leader)
    peer = await joined(leader, graph, tmp_path, epoch=7)
    await peer.first(msg.Heartbeat)
    peer.connection.abort()
    deposed = await joined(leader, graph, tmp_path, epoch=6)
    await deposed.until(lambda: deposed.closed)
    await joined(leader, graph, tmp_path, epoch=8)


async def test_a_leader_that_falls_silent_is_left_and_the_task_goes_on(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    start(leader)
    peer = await joined(leader, graph, tmp_path, heartbeat_interval_ms=20, heartbeat_timeout_ms=300)
    peer.silent = True
    id = attempt(vertex(graph, "until-released"))
    peer.deploy(id)
    await peer.until(lambda: peer.closed)
    again = await joined(leader, graph, tmp_path, epoch=2)
    assert (await again.report(id, RUNNING)).state is RUNNING


async def test_frames_of_nonsense_cost_the_connection_and_no_task(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    start(leader)
    id = attempt(vertex(graph, "until-released"))
    for epoch, nonsense in enumerate((b"", b"\xc1", b"\x91\x92\xa6deploy\x01"), start=1):
        peer = await joined(leader, graph, tmp_path, epoch=epoch)
        peer.deploy(id)
        await peer.report(id, RUNNING)
        await peer.websocket.send_bytes(nonsense)
        await peer.until(lambda peer=peer: peer.closed)  # type: ignore[misc]
    peer = await joined(leader, graph, tmp_path, epoch=9)
    await peer.websocket.send_str("text")
    await peer.until(lambda: peer.closed)
    again = await joined(leader, graph, tmp_path, epoch=10)
    (tmp_path / "release").touch()
    assert (await again.report(id)).state is FINISHED


async def test_without_a_leader_for_too_long_it_cancels_and_exits_with_1(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    process = start(leader)
    peer = await joined(leader, graph, tmp_path, reconnection_timeout_ms=300)
    id = attempt(vertex(graph, "polite"))
    peer.deploy(id)
    pid = int(await appears(tmp_path / "polite-0-0"))
    await leader.stop()
    assert await process.exit_code() == 1
    assert (tmp_path / "cleaned-up").read_text() == "True"
    await gone(pid)


# Splits and progress


async def test_splits_are_asked_for_and_again_when_the_leader_changes(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    start(leader)
    peer = await joined(leader, graph, tmp_path)
    id = attempt(vertex(graph, "splits"))
    peer.deploy(id)
    for index in range(2):
        assert await peer.first(msg.SplitRequest) == msg.SplitRequest(id, index)
        if not index:
            peer.send(msg.Splits(1, id, index, InputSplit(payload=10)))
    peer.connection.abort()
    again = await joined(leader, graph, tmp_path, epoch=2)
    assert await again.first(msg.SplitRequest) == msg.SplitRequest(id, 1)
    again.send(msg.Splits(1, id, 1, InputSplit(payload=1000)))
    again.send(msg.Splits(2, id, 1, InputSplit(payload=5)))
    again.send(msg.Splits(2, id, 1, InputSplit(payload=5)))
    assert await again.first(msg.SplitRequest) == msg.SplitRequest(id, 2)
    again.send(msg.Splits(2, id, 2, None))
    assert (await again.report(id)).accumulators == {"sum": 15}


async def test_heartbeats_tell_progress_and_prints_go_to_the_log_of_the_slot(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    process = start(leader)
    peer = await joined(leader, graph, tmp_path, heartbeat_interval_ms=20)
    id = attempt(vertex(graph, "noisy"))
    peer.deploy(id)
    await peer.until(lambda: any(isinstance(m, msg.Heartbeat) and m.progress for m in peer.inbox))
    told = [m.progress[0] for m in peer.inbox if isinstance(m, msg.Heartbeat) and m.progress]
    assert told[0] == msg.Progress(id, 0.5, 0, 0)
    log = (process.work_dir / "slot-0.log").read_text()
    assert "heard on standard output\n" in log
    assert "heard on standard error\n" in log


# Failures


async def test_a_failure_is_told_in_words_and_leaves_no_file(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    start(leader)
    peer = await joined(leader, graph, tmp_path)
    id, later = attempt(vertex(graph, "fails")), attempt(vertex(graph, "quick"))
    peer.deploy(id, later)
    report = await peer.report(id)
    assert report.state is FAILED
    assert report.cause.splitlines()[0] == "ValueError: bad luck"
    assert report.cause.splitlines()[-1].endswith('in fails: raise ValueError("bad luck")')
    assert (await peer.report(later)).state is FINISHED
    assert [path.name for path in (tmp_path / "storage/partitions/1").iterdir()] == [f"{later.vertex}-0-0"]


async def test_a_process_that_dies_fails_its_task_and_is_replaced(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    start(leader)
    peer = await joined(leader, graph, tmp_path)
    dies, leaves, later = (attempt(vertex(graph, name)) for name in ("dies", "leaves", "quick"))
    peer.deploy(dies, leaves, later)
    report = await peer.report(dies)
    assert (report.state, report.cause) == (FAILED, "its worker process was killed by SIGSEGV")
    report = await peer.report(leaves)
    assert (report.state, report.cause.splitlines()[0]) == (FAILED, "the task called sys.exit(7)")
    assert (await peer.report(later)).state is FINISHED


async def test_a_module_that_cannot_be_loaded_fails_the_task(
    leader: ScriptedJobManager, start: Start, tmp_path: Path
) -> None:
    start(leader)
    missing = graph_of(VertexSpec(name="lost", task=TaskSpec(python="nowhere:f")))
    peer = await joined(leader, missing, tmp_path)
    peer.deploy(attempt())
    report = await peer.report(attempt())
    assert report.state is FAILED
    assert report.cause == f"nowhere:f: there is no module 'nowhere' in {tmp_path}/modules"


# Cancelling


async def test_a_cancelled_task_can_clean_up_and_its_process_is_replaced(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    start(leader)
    peer = await joined(leader, graph, tmp_path)
    id, later = attempt(vertex(graph, "polite")), attempt(vertex(graph, "quick"))
    peer.deploy(id, later)
    pid = int(await appears(tmp_path / "polite-0-0"))
    peer.cancel(id)
    assert (await peer.report(id)).state is CANCELED
    assert (tmp_path / "cleaned-up").read_text() == "True"
    await gone(pid)
    assert (await peer.report(later)).state is FINISHED


async def test_a_task_that_ignores_sigterm_is_killed_with_its_children_after_the_grace(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    start(leader)
    peer = await joined(leader, graph, tmp_path, cancellation_timeout_ms=100)
    id, later = attempt(vertex(graph, "stubborn")), attempt(vertex(graph, "quick"))
    peer.deploy(id, later)
    pids = [int(pid) for pid in (await appears(tmp_path / "stubborn-0-0")).split()]
    peer.cancel(id)
    assert (await peer.report(id)).state is CANCELED
    await gone(*pids)
    assert (await peer.report(later)).state is FINISHED


async def test_a_task_that_swallows_its_cancellation_is_canceled_and_leaves_no_file(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    start(leader)
    peer = await joined(leader, graph, tmp_path)
    id = attempt(vertex(graph, "swallows"))
    peer.deploy(id)
    await appears(tmp_path / "swallows-0-0")
    peer.cancel(id)
    assert (await peer.report(id)).state is CANCELED
    assert not (tmp_path / "storage").exists()


async def test_a_deployment_cancelled_in_the_queue_never_runs(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    start(leader)
    peer = await joined(leader, graph, tmp_path)
    first, second = (attempt(vertex(graph, "until-released"), subtask) for subtask in (0, 1))
    peer.deploy(first, second)
    peer.cancel(second, attempt(0, 0, 99))
    assert (await peer.report(second)).state is CANCELED
    assert (await peer.report(attempt(0, 0, 99))).state is CANCELED
    (tmp_path / "release").touch()
    assert (await peer.report(first)).state is FINISHED
    assert not (tmp_path / "until-released-1-0").exists()


# The end


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_hands_the_tasks_back_and_leaves_nothing(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path, signal_number: int
) -> None:
    process = start(leader, slots=1)
    peer = await joined(leader, graph, tmp_path)
    running, queued = (attempt(vertex(graph, "polite"), subtask) for subtask in (0, 1))
    peer.deploy(running, queued)
    pid = int(await appears(tmp_path / "polite-0-0"))
    os.kill(process.pid, signal_number)
    assert await process.exit_code() == 0
    assert [(await peer.report(id)).state for id in (running, queued)] == [CANCELED, CANCELED]
    await peer.until(lambda: peer.closed)
    assert peer.websocket.close_code == GOING_AWAY
    assert not is_running(pid)


async def test_a_killed_taskmanager_leaves_no_process(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path
) -> None:
    process = start(leader, slots=3)
    peer = await joined(leader, graph, tmp_path)
    ids = [attempt(vertex(graph, "stubborn")), attempt(vertex(graph, "polite"))]
    peer.deploy(*ids)
    pids = [int(pid) for pid in (await appears(tmp_path / "stubborn-0-0")).split()]
    pids.append(int(await appears(tmp_path / "polite-0-0")))
    (server,) = children_of(process.pid)
    sessions = children_of(server)
    assert len(sessions) == 3
    assert set(pids) <= {pid for session in sessions for pid in members_of(session)}
    process.kill()
    await gone(*pids, *sessions, server)
    assert [members_of(session) for session in sessions] == [[], [], []]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command makes the certificates")
async def test_it_speaks_mutual_tls(graph: JobGraph, tmp_path: Path) -> None:
    authority = make_authority(tmp_path / "tls")
    server, client = make_certificate(authority, "localhost"), make_certificate(authority, "taskmanager")
    async with jobmanager(server_context(server)) as secure:
        address = secure.address.replace("127.0.0.1", "localhost")
        with TaskManagerProcess([address], tmp_path, tls=asdict(client)):
            peer = await joined(secure, graph, tmp_path)
            peer.deploy(attempt(vertex(graph, "quick")))
            assert (await peer.report(attempt(vertex(graph, "quick")))).state is FINISHED
