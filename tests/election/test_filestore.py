"""The lease in a file: compare-and-swap, waiting for changes, emptying; also between real processes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flinkjob.api.errors import LeaseError
from flinkjob.election import filestore
from flinkjob.election.filestore import FileLeaseStore, empty_lease, read_lease
from flinkjob.election.record import LeaseRecord

StartCandidate = Callable[[str], "subprocess.Popen[str]"]
RECORD = LeaseRecord("jm-1", "localhost:6123", 15.0, "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state/leader.json"


@pytest.fixture
def start_candidate(path: Path) -> Iterator[StartCandidate]:
    candidates: list[subprocess.Popen[str]] = []

    def start(name: str) -> "subprocess.Popen[str]":
        program = Path(__file__).with_name("candidate.py")
        candidate = subprocess.Popen([sys.executable, str(program), str(path), name], stdout=subprocess.PIPE, text=True)
        candidates.append(candidate)
        return candidate

    yield start
    for candidate in candidates:
        candidate.kill()
        candidate.wait()
        assert candidate.stdout is not None
        candidate.stdout.close()


def says(candidate: "subprocess.Popen[str]") -> str:
    assert candidate.stdout is not None
    return candidate.stdout.readline().strip()


async def test_where_there_is_no_file_there_is_no_record(path: Path) -> None:
    assert await FileLeaseStore(path).read() is None
    assert not path.parent.exists()


async def test_what_is_written_is_read_with_a_new_version(path: Path) -> None:
    store = FileLeaseStore(path)
    first = await store.compare_and_swap("", RECORD)
    assert first is not None
    assert await store.read() == first
    second = await store.compare_and_swap(first.version, RECORD)
    assert second is not None
    assert second.version != first.version
    assert (second.holder, second.address, second.transitions) == ("jm-1", "localhost:6123", 4)


async def test_another_version_than_the_expected_one_is_left_alone(path: Path) -> None:
    store = FileLeaseStore(path)
    assert await store.compare_and_swap("3", RECORD) is None
    assert await store.read() is None
    first = await store.compare_and_swap("", RECORD)
    assert await store.compare_and_swap("", RECORD) is None
    assert await store.read() == first


async def test_the_file_is_json_in_the_words_of_a_kubernetes_lease(path: Path) -> None:
    await FileLeaseStore(path).compare_and_swap("", RECORD)
    assert json.loads(path.read_text()) == {
        "holderIdentity": "jm-1",
        "address": "localhost:6123",
        "leaseDurationSeconds": 15.0,
        "acquireTime": "2026-01-01T00:00:00Z",
        "renewTime": "2026-01-01T00:00:01Z",
        "leaseTransitions": 4,
        "version": "1",
        "rest": "",
        "ended": "",
    }


async def test_no_temporary_file_is_left(path: Path) -> None:
    store = FileLeaseStore(path)
    await store.compare_and_swap("", RECORD)
    await store.compare_and_swap("9", RECORD)
    assert {entry.name for entry in path.parent.iterdir()} == {"leader.json", "leader.json.lock"}


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"holderIdentity": 5}', '{"version": "x"}', '{"version": ""}'])
async def test_a_file_that_holds_no_record_is_named(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(LeaseError, match=r"the lease file .*leader\.json holds no lease record"):
        await FileLeaseStore(path).read()


async def test_a_file_that_cannot_be_read_or_written_is_named(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(LeaseError, match="cannot be read"):
        await FileLeaseStore(path).read()
    path.parent.joinpath("file").touch()
    with pytest.raises(LeaseError, match="cannot be written"):
        await FileLeaseStore(path.parent / "file/leader.json").compare_and_swap("", RECORD)


STOPPED_IN_ITS_MOMENT = """
import os, signal, sys
from pathlib import Path
from flinkjob.election import filestore
from flinkjob.election.record import LeaseRecord

path = Path(sys.argv[1])
present = filestore.read_lease(path)
read = filestore.read_lease

def stop_and_read(path):
    record = read(path)
    os.kill(os.getpid(), signal.SIGSTOP)
    return record

filestore.read_lease = stop_and_read
print(filestore._compare_and_swap(path, present.version, present))
"""


async def test_a_process_that_is_stopped_while_it_holds_the_lock_neither_blocks_the_others_nor_overwrites_them(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(filestore, "LOCK_TIMEOUT", 0.02)
    store = FileLeaseStore(path)
    first = await store.compare_and_swap("", RECORD)
    assert first is not None
    command = [sys.executable, "-c", STOPPED_IN_ITS_MOMENT, str(path)]
    stopped = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        os.waitid(os.P_PID, stopped.pid, os.WSTOPPED | os.WNOWAIT)
        taken = await store.compare_and_swap(first.version, first)
        assert taken is not None
        assert "is broken: it was held for" in caplog.text
        os.kill(stopped.pid, signal.SIGCONT)
        assert stopped.communicate()[0] == "None\n"
    finally:
        stopped.kill()
        stopped.wait()
    assert await store.read() == taken
    assert await store.compare_and_swap(taken.version, taken) is not None


async def test_a_change_wakes_those_who_wait(path: Path) -> None:
    store = FileLeaseStore(path)
    waiting = asyncio.create_task(store.changed("", 60.0))
    first = await store.compare_and_swap("", RECORD)
    assert await waiting
    assert first is not None
    waiting = asyncio.create_task(store.changed(first.version, 60.0))
    empty_lease(path, "jm-1")
    assert await waiting


async def test_no_change_is_told_when_the_time_is_over(path: Path) -> None:
    store = FileLeaseStore(path)
    assert not await store.changed("", 0.0)
    assert await store.compare_and_swap("", RECORD) is not None
    assert not await store.changed("1", 0.03)
    assert await store.changed("0", 0.0)


def test_a_lease_is_emptied_only_if_that_holder_has_it(path: Path) -> None:
    assert not empty_lease(path, "jm-1")
    asyncio.run(FileLeaseStore(path).compare_and_swap("", RECORD))
    assert not empty_lease(path, "jm-2")
    assert empty_lease(path, "jm-1")
    record = read_lease(path)
    assert record is not None
    assert (record.holder, record.address, record.transitions, record.version) == ("", "", 4, "2")
    assert not empty_lease(path, "jm-1")


def test_no_swap_between_processes_is_lost_or_done_twice(path: Path) -> None:
    program = Path(__file__).with_name("counting.py")
    processes = [subprocess.Popen([sys.executable, str(program), str(path), "25"]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    record = read_lease(path)
    assert record is not None
    assert (record.transitions, record.version) == (100, "100")


def test_the_lease_of_a_stopped_process_is_taken_and_it_knows_when_it_wakes(
    path: Path, start_candidate: StartCandidate
) -> None:
    first = start_candidate("first")
    assert says(first) == "elected"
    second = start_candidate("second")
    first.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, first.pid, os.WSTOPPED)
    assert says(second) == "elected"
    first.send_signal(signal.SIGCONT)
    assert says(first) == "lost"


def test_the_lease_of_a_killed_process_can_be_emptied_for_the_next(path: Path, start_candidate: StartCandidate) -> None:
    first = start_candidate("first")
    assert says(first) == "elected"
    second = start_candidate("second")
    first.kill()
    first.wait()
    assert empty_lease(path, "first")
    assert says(second) == "elected"
