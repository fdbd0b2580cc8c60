"""Tasks that are programs, run by a real TaskManager."""

import json
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from flinkjob.api.job import InputSpec, Partitioner, SplitsSpec, TaskSpec, VertexSpec
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.operations import InputSplit
from flinkjob.graph.states import ExecutionState
from flinkjob.taskmanager.command import line_of
from flinkjob.taskmanager.exchange import read_result
from flinkjob.worker import protocol as msg
from flinkjob.worker.protocol import Deployment, InputPartition, Report
from taskmanager.partitions import read, write
from taskmanager.scripted import (
    RUN,
    Peer,
    ScriptedJobManager,
    TaskManagerProcess,
    appears,
    attempt,
    gone,
    graph_of,
)

Start = Callable[..., TaskManagerProcess]

FINISHED, FAILED = ExecutionState.FINISHED, ExecutionState.FAILED


def command_graph(*command: str, splits: bool = False, **env: str) -> JobGraph:
    """One vertex that runs the program."""
    spec = SplitsSpec(files=("*",)) if splits else None
    return graph_of(VertexSpec(name="task", parallelism=3, task=TaskSpec(command=command, env=env), splits=spec))


async def joined(leader: ScriptedJobManager, graph: JobGraph, tmp_path: Path) -> Peer:
    peer = await leader.arrival()
    peer.accept(graph, tmp_path / "storage")
    return peer


def emitted(tmp_path: Path, report: Report) -> list[Any]:
    _, vertex, subtask, number = report.attempt
    return list(read_result(str(tmp_path / "storage"), RUN, vertex, subtask, number, report.partition))


async def run(
    leader: ScriptedJobManager, start: Start, graph: JobGraph, tmp_path: Path, deployment: Deployment
) -> Report:
    """Run one attempt to its end."""
    start(leader)
    peer = await joined(leader, graph, tmp_path)
    peer.deploy(deployment)
    return await peer.report(deployment.attempt)


async def test_printed_lines_are_records(leader: ScriptedJobManager, start: Start, tmp_path: Path) -> None:
    script = "printf 'one\\n\\ntwo\\tfields\\r\\nbad \\377 byte\\nunended'"
    report = await run(leader, start, command_graph("sh", "-c", script), tmp_path, Deployment(attempt()))
    assert report.state is FINISHED
    assert emitted(tmp_path, report) == ["one", "", "two\tfields\r", "bad \ufffd byte", "unended"]


async def test_much_output_comes_through(leader: ScriptedJobManager, start: Start, tmp_path: Path) -> None:
    script = "seq 300000; head -c 3000000 /dev/zero | tr '\\0' x"
    report = await run(leader, start, command_graph("sh", "-c", script), tmp_path, Deployment(attempt()))
    assert emitted(tmp_path, report) == [*map(str, range(1, 300_001)), "x" * 3_000_000]


async def test_the_key_is_what_stands_before_the_first_tab(
    leader: ScriptedJobManager, start: Start, tmp_path: Path
) -> None:
    hashed = InputSpec(source="task", partitioner=Partitioner.HASH)
    graph = graph_of(
        VertexSpec(name="task", task=TaskSpec(command=("printf", "a\\t1\\na\\t2\\nb\\t1\\na\\n"))),
        VertexSpec(name="reader", parallelism=50, task=TaskSpec(python="m:f"), inputs=(hashed,)),
    )
    report = await run(leader, start, graph, tmp_path, Deployment(attempt()))
    parts = [read(tmp_path / "storage", graph, [report.partition], subtask=subtask) for subtask in range(50)]
    assert sorted(part for part in parts if part) == [["a\t1", "a\t2", "a"], ["b\t1"]]


@pytest.fixture
def joining() -> JobGraph:
    """Two producers, and a program that reads both."""
    inputs = tuple(InputSpec(source=name, partitioner=Partitioner.BROADCAST) for name in ("left", "right"))
    return graph_of(
        VertexSpec(name="left", parallelism=2, task=TaskSpec(python="m:f")),
        VertexSpec(name="right", task=TaskSpec(python="m:f")),
        VertexSpec(name="join", task=TaskSpec(command=("sh", "-c", "ls; cat left right")), inputs=inputs),
    )


async def test_each_input_is_a_file_of_lines(
    leader: ScriptedJobManager, start: Start, tmp_path: Path, joining: JobGraph
) -> None:
    index = {vertex.name: vertex.index for vertex in joining.vertices}
    storage = tmp_path / "storage"
    lefts = [write(storage, joining, [("a", 1), n], vertex=index["left"], subtask=n) for n in range(2)]
    right = write(storage, joining, ["text", b"bytes\xff", {"k": None}], vertex=index["right"])
    inputs = (tuple(InputPartition(n, 0, left) for n, left in enumerate(lefts)), (InputPartition(0, 0, right),))
    report = await run(leader, start, joining, tmp_path, Deployment(attempt(index["join"]), inputs))
    lines = ["left", "right", "a\t1", "0", "a\t1", "1", "text", "bytes\ufffd", '{"k":null}']
    assert emitted(tmp_path, report) == lines


async def test_an_only_input_is_also_named_part(leader: ScriptedJobManager, start: Start, tmp_path: Path) -> None:
    graph = graph_of(
        VertexSpec(name="count", task=TaskSpec(python="m:f")),
        VertexSpec(
            name="report",
            task=TaskSpec(command=("sh", "-c", "ls; sort -rn part | head -2")),
            inputs=(InputSpec(source="count"),),
        ),
    )
    partition = write(tmp_path / "storage", graph, [(2, "b"), (10, "c"), (1, "a")])
    report = await run(leader, start, graph, tmp_path, Deployment(attempt(1), ((InputPartition(0, 0, partition),),)))
    assert emitted(tmp_path, report) == ["count", "part", "10\tc", "2\tb"]


async def test_a_lost_input_is_named(leader: ScriptedJobManager, start: Start, tmp_path: Path) -> None:
    graph = graph_of(
        VertexSpec(name="producer", parallelism=3, task=TaskSpec(python="m:f")),
        VertexSpec(name="consumer", task=TaskSpec(command=("cat", "part")), inputs=(InputSpec(source="producer"),)),
    )
    partition = write(tmp_path / "elsewhere", graph, ["x"], subtask=2)
    report = await run(leader, start, graph, tmp_path, Deployment(attempt(1), ((InputPartition(2, 0, partition),),)))
    assert (report.state, report.lost_input) == (FAILED, (0, 2))
    assert report.cause == "partition partitions/1/0-2-0 does not exist"


async def test_a_program_knows_who_it_is(leader: ScriptedJobManager, start: Start, tmp_path: Path) -> None:
    script = 'env | grep -E "^(FLINKJOB|OWN)" | sort; echo "$FLINKJOB_MODULE_DIR"; cat "$FLINKJOB_MANIFEST"'
    graph = command_graph("sh", "-c", script, OWN="value")
    report = await run(leader, start, graph, tmp_path, Deployment(attempt(0, 2, 5)))
    *lines, directory, manifest = emitted(tmp_path, report)
    values = dict(line.split("=", 1) for line in lines)
    del values["FLINKJOB_MANIFEST"], values["FLINKJOB_MODULE_DIR"]
    assert directory == str(tmp_path / "modules")
    assert values == {
        "FLINKJOB_JOB": "job",
        "FLINKJOB_VERTEX": "task",
        "FLINKJOB_SUBTASK": "2",
        "FLINKJOB_PARALLELISM": "3",
        "FLINKJOB_ATTEMPT": "5",
        "OWN": "value",
    }
    assert json.loads(manifest) == {
        "job": "job",
        "vertex": "task",
        "subtask": 2,
        "parallelism": 3,
        "attempt": 5,
        "inputs": {},
        "split": None,
    }


async def test_programs_beside_the_manifest_are_found(leader: ScriptedJobManager, start: Start, tmp_path: Path) -> None:
    program = tmp_path / "modules" / "own-program"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho here\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    report = await run(leader, start, command_graph("own-program"), tmp_path, Deployment(attempt()))
    assert emitted(tmp_path, report) == ["here"]


async def test_a_source_runs_its_program_once_for_each_split(
    leader: ScriptedJobManager, start: Start, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.write_text("first\nsecond\nthird\n")
    script = (
        'echo "$FLINKJOB_SPLIT $FLINKJOB_SPLIT_START $FLINKJOB_SPLIT_LENGTH $FLINKJOB_SPLIT_PAYLOAD";'
        'cat part; grep -o "\\"number\\":[0-9]*" "$FLINKJOB_MANIFEST"'
    )
    start(leader)
    peer = await joined(leader, command_graph("sh", "-c", script, splits=True), tmp_path)
    peer.deploy(attempt())
    for index, split in enumerate((InputSplit(str(data), 0, 7), InputSplit(str(data), 7, 12, {"a": 1}), None)):
        assert await peer.first(msg.SplitRequest) == msg.SplitRequest(attempt(), index)
        peer.send(msg.Splits(1, attempt(), index, split))
    report = await peer.report(attempt())
    assert emitted(tmp_path, report) == [
        *("0 0 7 null", "first", "second", '"number":0'),
        *('1 7 12 {"a":1}', "third", '"number":1'),
    ]


# Failures


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("exit 3", "exited with code 3"),
        ("kill -9 $$", "was killed by SIGKILL"),
        ("kill -SEGV $$", "was killed by SIGSEGV"),
    ],
)
async def test_a_failed_program_is_told_with_its_last_words(
    leader: ScriptedJobManager, start: Start, tmp_path: Path, script: str, how: str
) -> None:
    start(leader)
    peer = await joined(
        leader, command_graph("sh", "-c", f"echo earlier >&2; echo 'last words' >&2; {script}"), tmp_path
    )
    peer.deploy(attempt(0, 0), attempt(0, 1))
    for subtask in range(2):
        report = await peer.report(attempt(0, subtask))
        assert report.state is FAILED
        first, *rest = report.cause.splitlines()
        assert first.startswith(f"the program 'sh' {how}")
        assert rest == ["earlier", "last words"], "its own words, and no other task's"


async def test_last_words_are_bounded(leader: ScriptedJobManager, start: Start, tmp_path: Path) -> None:
    graph = command_graph("sh", "-c", "seq 100000 >&2; exit 1")
    report = await run(leader, start, graph, tmp_path, Deployment(attempt()))
    assert len(report.cause) <= 4096
    assert report.cause.endswith("\n99999\n100000")


async def test_a_program_that_is_not_there_fails_the_task(
    leader: ScriptedJobManager, start: Start, tmp_path: Path
) -> None:
    report = await run(leader, start, command_graph("no-such-program"), tmp_path, Deployment(attempt()))
    assert report.cause == "the program 'no-such-program' cannot be run: No such file or directory"


# Processes


async def test_what_a_program_leaves_in_the_background_is_killed(
    leader: ScriptedJobManager, start: Start, tmp_path: Path
) -> None:
    report = await run(
        leader, start, command_graph("sh", "-c", "sleep 1000 & echo $!"), tmp_path, Deployment(attempt())
    )
    assert report.state is FINISHED
    [pid] = emitted(tmp_path, report)
    await gone(int(pid))


async def test_a_cancelled_program_is_told_and_can_clean_up(
    leader: ScriptedJobManager, start: Start, tmp_path: Path
) -> None:
    tell = f"echo $$ > {tmp_path}/pid.tmp; mv {tmp_path}/pid.tmp {tmp_path}/pid;"
    script = f"trap 'touch {tmp_path}/cleaned; exit 0' TERM; {tell}"
    start(leader)
    peer = await joined(leader, command_graph("sh", "-c", script + "while :; do sleep 0.01; done"), tmp_path)
    peer.deploy(attempt())
    pid = int(await appears(tmp_path / "pid"))
    peer.cancel(attempt())
    assert (await peer.report(attempt())).state is ExecutionState.CANCELED
    await gone(pid)
    assert (tmp_path / "cleaned").exists()


@pytest.mark.parametrize("killed", ["taskmanager", "worker", "cancelled"])
async def test_a_stubborn_program_does_not_outlive_whoever_runs_it(
    leader: ScriptedJobManager, start: Start, tmp_path: Path, killed: str
) -> None:
    script = (
        f"trap '' TERM; sleep 1000 & echo $$ $! $PPID > {tmp_path}/pids.tmp; mv {tmp_path}/pids.tmp {tmp_path}/pids;"
        "while :; do sleep 0.01; done"
    )
    process = start(leader)
    peer = await leader.arrival()
    peer.accept(command_graph("sh", "-c", script), tmp_path / "storage", cancellation_timeout_ms=100)
    peer.deploy(attempt())
    program, child, worker = map(int, (await appears(tmp_path / "pids")).split())
    if killed == "taskmanager":
        process.kill()
    elif killed == "worker":
        os.kill(worker, signal.SIGKILL)
        report = await peer.report(attempt())
        assert report.cause.startswith("its worker process was killed by SIGKILL")
    else:
        peer.cancel(attempt())
    await gone(program, child, worker)


# Lines


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n"))))
def test_a_tuple_of_texts_is_a_line_of_fields(items: list[str]) -> None:
    assert line_of(tuple(items)) == line_of(items) == "\t".join(items).encode()


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (1, b"1"),
        (0.5, b"0.5"),
        (None, b"null"),
        (True, b"true"),
        ({"a": [1]}, b'{"a":[1]}'),
        (("a", 1, None), b"a\t1\tnull"),
    ],
)
def test_other_records_are_json(record: object, line: bytes) -> None:
    assert line_of(record) == line
