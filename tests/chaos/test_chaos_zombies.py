"""A leader that is stopped beyond its term and goes on: again and again, and not one of its commands is accepted.

Each zombie finds a request to cancel the job when it wakes up: the command that would do the most damage.
``CHAOS_ROUNDS`` says how many there are, one after the other in one cluster.
"""

import asyncio
import http.client
import itertools
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from flinkjob.api.job import TaskSpec, VertexSpec
from flinkjob.election.filestore import read_lease
from flinkjob.worker import protocol as msg
from local.clusters import (
    Run,
    check_nobody_is_left,
    check_undisturbed,
    eventually,
    everybody,
    get,
    kill,
    operations,
)
from stores.servers import listens
from taskmanager.scripted import ScriptedJobManager, graph_of

from .conftest import Start
from .faults import descriptors

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "15"))
SECONDS_PER_ROUND = 20
"""A bound for a machine that does much else meanwhile."""

JOB = graph_of(VertexSpec(name="only", parallelism=1, task=TaskSpec(command=("true",))))
"""What a zombie says that it leads; nobody is to look at it."""

LET_EXPIRE_ALL = 5
"""Every so many rounds the TaskManagers have left the zombie before it wakes; else it finds them connected."""

SHORT_TERMS = {
    "high__availability_kubernetes_leader__election_lease__duration": "1500 ms",
    "high__availability_kubernetes_leader__election_renew__deadline": "1 s",
    "high__availability_kubernetes_leader__election_retry__period": "200 ms",
    "heartbeat_timeout": "4 s",
}


@pytest.mark.timeout(120 + SECONDS_PER_ROUND * ROUNDS)
def test_no_zombie_leader_gets_a_command_accepted(start: Start) -> None:
    run = start(**SHORT_TERMS)
    before = run.in_second()
    opened: list[dict[int, int]] = []
    epoch = 1
    for number in range(ROUNDS):
        epoch = make_zombie(run, epoch, let_expire=number % LET_EXPIRE_ALL == 0)
        opened.append({pid: descriptors(pid) for pid in (run.process.pid, *processes(run))})
    pids = everybody(run)
    outcome = run.finish()
    check_undisturbed(run, before, outcome)
    assert all(failover["verdicts"]["restarted"] == 0 for failover in outcome.report["failovers"])
    check_log(run)
    for entry in (run.state / "logs").glob("taskmanager-*.log"):
        check_epochs_grow(entry)
    # Not a socket or file more with each round: the processes are the same from the first to the last.
    assert opened[0].keys() == opened[-1].keys()
    if ROUNDS > 2 * LET_EXPIRE_ALL:
        early, late = (
            {pid: min(found[pid] for found in part) for pid in opened[0]}
            for part in (opened[:LET_EXPIRE_ALL], opened[-LET_EXPIRE_ALL:])
        )
        assert all(late[pid] <= early[pid] + 4 for pid in late), f"open files at first {early} and at last {late}"
    check_nobody_is_left(pids)


async def test_taskmanagers_do_not_obey_one_whose_epoch_is_over(start: Start, tmp_path: Path) -> None:
    """Neither its clock nor the log keeps this one from commanding: nobody but the TaskManagers does."""
    run = start()
    before = run.in_second()
    kill(run.leader())
    run.running("second", 4, epoch=2)
    run.standby()
    cluster = run.cluster()
    os.kill(run.process.pid, signal.SIGSTOP)  # or it would start others in their place
    zombie = ScriptedJobManager()
    try:
        for entry in cluster["jobmanagers"]:
            kill(entry)
        port = int(cluster["jobmanagers"][0]["rest"].rpartition(":")[2])
        # The last thread of a process that was killed may still be in a system call, and holds what it has open.
        eventually(lambda: not listens(port), "nobody listens in the place of the JobManager")
        await zombie.start(port)
        commanded: set[str] = set()
        async with asyncio.timeout(60):
            while len(commanded) < 2:
                peer = await zombie.arrival()
                register = await peer.first(msg.Register)
                peer.accept(JOB, tmp_path, epoch=1)
                peer.cancel(*(report.attempt for report in register.reports))
                peer.send(msg.JobOver(1, "CANCELED"))
                await peer.until(lambda peer=peer: peer.closed)  # type: ignore[misc]  # bound now
                assert peer.reports == [], "it has reported, so it takes this one for its leader"
                commanded.add(register.id)
        assert len(commanded) == 2
    finally:
        await zombie.stop()
        os.kill(run.process.pid, signal.SIGCONT)
    run.running("second", 4, epoch=3)
    pids = everybody(run)
    check_undisturbed(run, before, run.finish())
    check_nobody_is_left(pids)


def make_zombie(run: Run, epoch: int, *, let_expire: bool) -> int:
    """Stop the leader until another one leads, and have it go on; the epoch in which the job is settled again."""
    zombie = settled(run, epoch)[0]
    kill(zombie, signal.SIGSTOP)
    try:
        # The kernel takes the request for it, and it finds it when it wakes.
        request = http.client.HTTPConnection(zombie["rest"].removeprefix("http://"), timeout=60)
        request.request("PATCH", f"/jobs/{run.cluster()['job_id']}?mode=cancel")
        successor = eventually(lambda: leading(run, but=zombie["id"]), "a successor leads")
        assert successor[1] > epoch
        if let_expire:
            settled(run, successor[1])
    finally:
        kill(zombie, signal.SIGCONT)
    answer = request.getresponse()
    said = answer.read().decode()
    request.close()
    # It sends the client on, or says that it could do nothing; that it has cancelled the job it never says.
    assert answer.status in (307, 503), f"epoch {epoch}: {answer.status} {said}"
    return settled(run, successor[1])[1]


def leading(run: Run, *, but: str = "") -> tuple[Any, int] | None:
    """Who leads by the lease and by its own word, as listed in ``cluster.json``, and the epoch; one is not asked."""
    record = read_lease(run.state / "lease.json")
    for entry in (run.cluster() or {"jobmanagers": []})["jobmanagers"]:
        if record and entry["id"] == record.holder != but:
            told = get(f"{entry['rest']}/leader")
            if told and told["leading"]:
                return entry, told["epoch"]
    return None


def settled(run: Run, epoch: int) -> tuple[Any, int]:
    """Wait until somebody leads that epoch or a later one, and all tasks run in it."""

    def look() -> tuple[Any, int] | None:
        found = leading(run)
        view = found and get(f"{found[0]['rest']}/jobs/{run.cluster()['job_id']}/progress")
        if not found or not view or view["state"] != "RUNNING" or view["epoch"] < epoch:
            return None
        (tasks,) = (vertex["tasks"] for vertex in view["vertices"] if vertex["name"] == "second")
        return (found[0], view["epoch"]) if tasks.get("RUNNING", 0) == 4 else None

    return eventually(look, f"the job is settled in epoch {epoch} or a later one")


def processes(run: Run) -> list[int]:
    """Those of the cluster."""
    cluster = run.cluster()
    return [entry["pid"] for entry in (*cluster["jobmanagers"], *cluster["taskmanagers"])]


def check_log(run: Run) -> None:
    """Epochs grow, each begins once, and nobody has got the job cancelled, or any task that was running ended."""
    told = operations(run)
    epochs = [operation["epoch"] for operation in told]
    assert epochs == sorted(epochs)
    assert epochs[-1] > ROUNDS
    by_epoch = {epoch: list(group) for epoch, group in itertools.groupby(told, lambda operation: operation["epoch"])}
    for epoch, (first, *others) in by_epoch.items():
        assert first["operation"] == "EpochStarted", f"epoch {epoch} begins with {first}"
        assert all(operation["operation"] != "EpochStarted" for operation in others)
    assert not [op for op in told if op["operation"] in ("TaskFailed", "RestartScheduled", "TasksReset")]
    assert not [op for op in told if op["operation"] == "JobStatusChanged" and op["status"].startswith("CANCEL")]


def check_epochs_grow(log: Path) -> None:
    """A TaskManager has never been taken in by a leader of an epoch below one that it had seen."""
    epochs = [int(number) for number in re.findall(r"which leads epoch (\d+)", log.read_text())]
    assert epochs == sorted(epochs)
    assert epochs[-1] > ROUNDS // 2
