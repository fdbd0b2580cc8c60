"""What goes wrong: a plan of faults, made of a seed, each of which can be left out without changing the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from flinkjob.graph.states import JobStatus
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmaster import events as jev
from flinkjob.worker import events as ev

from .network import End
from .points import FREQUENT, JOBMANAGER, SUCCESSOR, TASKMANAGER
from .scheduler import Trap

if TYPE_CHECKING:
    from .cluster import Cluster
    from .jobmanager import JobManager
    from .taskmanager import TaskManager

_T = TypeVar("_T")

CALM_FROM = 12_000
"""Milliseconds after which nothing goes wrong any more."""
WINDOW = 4000
"""Most faults come while the job, which takes about as long when nothing goes wrong, is under way."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        at: when, milliseconds. kind: what.
        pick: which of those that it can happen to, from 0 to 1. number: how much, or how often, from 0 to 1.
        duration: for how long, milliseconds. point: at which point of its program somebody is to die or stop, if at any.
    """

    at: int
    kind: str
    pick: float
    number: float
    duration: int
    point: str = ""


def plan(seed: int) -> list[Fault]:
    """The faults of a seed."""
    random = Random(seed + 0.5)
    count = random.choice((2, 3, 4, 6, 8, 11, 15))
    kinds = [kind for kind, (_, weight) in _FAULTS.items() for _ in range(weight)]
    if random.random() < 0.25:
        kinds = random.sample(kinds, 3)
    faults = []
    for _ in range(count):
        at = int(random.random() * (CALM_FROM - 3000 if random.random() < 0.2 else WINDOW))
        duration = int(random.choice((100, 800, 3000, 7000)) * random.uniform(0.3, 1))
        kind = random.choice(kinds)
        point = random.choice(_POINTS_OF.get(kind, ("",)))
        fault = Fault(at, kind, random.random(), random.random(), min(duration, CALM_FROM - 1 - at), point)
        if fault.kind == "lagging listings" and fault.pick < 0.5:
            fault = replace(
                fault, at=0, duration=CALM_FROM - 1
            )  # all that anybody has listed is of before the beginning
        faults.append(fault)
    return sorted(faults, key=lambda fault: fault.at)


class _Nobody(Exception):
    """There is nobody and nothing that the fault can happen to."""


def apply(world: "Cluster", fault: Fault) -> None:
    """Let it happen, if there is anybody that it can happen to."""
    world.scheduler.note("FAULT", fault)
    try:
        _FAULTS[fault.kind][0](world, fault)
    except _Nobody:
        return
    world.happened.add(fault.kind)


def _later(world: "Cluster", fault: Fault, call: Callable[..., None], *arguments: Any) -> None:
    world.scheduler.at(world.scheduler.now + fault.duration, None, call, *arguments)


def _one_of(things: Sequence[_T], fault: Fault) -> _T:
    if not things:
        raise _Nobody
    return things[int(fault.pick * len(things))]


def _leader(world: "Cluster", fault: Fault) -> "JobManager":
    """Mostly the leader, sometimes any JobManager."""
    alive = [jobmanager for jobmanager in world.jobmanagers.values() if jobmanager.alive]
    leaders = [jobmanager for jobmanager in alive if jobmanager.term is not None]
    return _one_of(leaders if leaders and fault.number < 0.85 else alive, fault)


def _taskmanager(world: "Cluster", fault: Fault) -> "TaskManager":
    return _one_of([taskmanager for taskmanager in world.taskmanagers.values() if taskmanager.alive], fault)


def _connection(world: "Cluster", fault: Fault) -> End:
    """The TaskManager's end of a connection."""
    return _one_of([end for tm in world.taskmanagers.values() for end in world.network.connections_of(tm)], fault)


# JobManagers


def _trap(fault: Fault, pause: int = 0) -> Trap:
    return Trap(fault.point, int(fault.number * 997) % 7 if fault.point in FREQUENT else 0, pause)


def _provoke(world: "Cluster", fault: Fault, jobmanager: "JobManager") -> None:
    """Some points are only come to in trouble of another kind, which is made too."""
    if fault.point in ("stopping", "flushed", "releasing"):
        jobmanager.stop()
    elif fault.point == "fence asked":
        _break_lease(world, fault)
    elif fault.point == "given up":
        world.store.trouble.hangs_until, world.store.trouble.swallows = world.scheduler.now + 3000, True
    elif fault.point == "segment begun":
        _hiccup(world, fault)


def _kill_jobmanager(world: "Cluster", fault: Fault) -> None:
    """It dies; its peers may take long to notice."""
    jobmanager = _leader(world, fault)
    jobmanager.die(told_after=fault.duration)


def _trap_jobmanager(world: "Cluster", fault: Fault) -> None:
    """It dies between two steps of what it does, the next time or some times later."""
    jobmanager = _leader(world, fault)
    jobmanager.trap = _trap(fault)
    _provoke(world, fault, jobmanager)


def _stop_at_point(world: "Cluster", fault: Fault) -> None:
    """It is stopped between two steps of what it does, and goes on later as if nothing had been."""
    jobmanager = _leader(world, fault)
    jobmanager.trap = _trap(fault, 2500 + int(fault.number * 4000))
    _provoke(world, fault, jobmanager)


def _trap_successor(world: "Cluster", fault: Fault) -> None:
    """The leader dies or is stopped, and whoever comes next dies before it leads."""
    jobmanager = _leader(world, fault)
    for other in world.jobmanagers.values():
        other.trap = Trap(fault.point)
    if fault.number < 0.5:
        jobmanager.die()
    else:
        jobmanager.pause(4000 + int(fault.number * 4000))


def _stop_jobmanager(world: "Cluster", fault: Fault) -> None:
    """It is stopped, and goes on later as if nothing had been; TaskManagers may look for a leader at that very moment."""
    jobmanager = _leader(world, fault)
    jobmanager.pause(fault.duration)
    if fault.number < 0.6:
        _later(world, fault, _break_all, world)


def _terminate_jobmanager(world: "Cluster", fault: Fault) -> None:
    """It is told to go (SIGTERM): a clean stop, and another one in its place."""
    jobmanager = _leader(world, fault)
    jobmanager.stop()


# TaskManagers and their tasks


def _kill_taskmanager(world: "Cluster", fault: Fault) -> None:
    """It dies with all its tasks."""
    taskmanager = _taskmanager(world, fault)
    taskmanager.die(told_after=fault.duration if fault.number < 0.5 else 0)


def _stop_taskmanager(world: "Cluster", fault: Fault) -> None:
    """It is stopped, its tasks with it, and goes on later."""
    taskmanager = _taskmanager(world, fault)
    taskmanager.pause(fault.duration)


def _drain_taskmanager(world: "Cluster", fault: Fault) -> None:
    """It is told to go (SIGTERM)."""
    taskmanager = _taskmanager(world, fault)
    taskmanager.feed(ev.StopRequested("SIGTERM"))


def _trap_taskmanager(world: "Cluster", fault: Fault) -> None:
    """It dies between two steps of what it does: hearing, starting, reporting."""
    taskmanager = _taskmanager(world, fault)
    taskmanager.trap = _trap(fault)
    if taskmanager.trap.point in ("cancelling", "leaving"):
        taskmanager.feed(ev.StopRequested("SIGTERM"))


def _stop_taskmanager_at_point(world: "Cluster", fault: Fault) -> None:
    """It is stopped between two steps of what it does, and goes on later."""
    taskmanager = _taskmanager(world, fault)
    taskmanager.trap = _trap(fault, max(1, fault.duration))


def _doom(world: "Cluster", fault: Fault) -> None:
    """A task is to fail in its present or next attempt."""
    vertex = world.job_graph.vertices[int(fault.pick * len(world.job_graph.vertices))]
    world.doomed[TaskId(vertex.index, int(fault.number * vertex.parallelism))] += 1


def _lose_partition(world: "Cluster", fault: Fault) -> None:
    """A partition disappears from storage."""
    attempt = _one_of(sorted(world.storage), fault)
    world.storage.discard(attempt)
    world.lost.add(TaskId(attempt.vertex, attempt.subtask))
    world.lost_attempts[attempt] = world.scheduler.now


# The network


def _break_connection(world: "Cluster", fault: Fault) -> None:
    """A connection breaks; each end notices in its own time."""
    ours = int(fault.number * 50)
    world.network.break_off(_connection(world, fault), ours, fault.duration if fault.number < 0.5 else 0)


def _swallow(world: "Cluster", fault: Fault) -> None:
    """A connection loses all that is on its way and all that follows, in one direction or both; nobody is told."""
    world.network.swallow(_connection(world, fault), theirs=fault.number < 0.7, ours=fault.number > 0.3)


def _double(world: "Cluster", fault: Fault) -> None:
    """Messages arrive twice for a while."""

    def mend() -> None:
        world.network.doubling = 0.0

    world.network.doubling = 0.1 + 0.9 * fault.number
    _later(world, fault, mend)


def _swap(world: "Cluster", fault: Fault) -> None:
    """Messages are overtaken by later ones for a while."""

    def mend() -> None:
        world.network.swapping = 0.0

    world.network.swapping = 0.1 + 0.7 * fault.number
    _later(world, fault, mend)


def _break_all(world: "Cluster") -> None:
    for taskmanager in world.taskmanagers.values():
        for end in world.network.connections_of(taskmanager):
            world.network.break_off(end, world.scheduler.below(30), world.scheduler.below(30))


def _part(world: "Cluster", fault: Fault) -> None:
    """Two that talk to each other cannot for a while."""
    pairs = [(jm, tm) for jm in world.addresses for tm in world.taskmanagers]
    pairs += [(jm, world.lease.name) for jm in world.addresses] * 2
    one, other = pairs[int(fault.pick * len(pairs))]
    world.network.part(one, other)
    _later(world, fault, world.network.join, one, other)


def _isolate_leader(world: "Cluster", fault: Fault) -> None:
    """The leader can reach the log but nobody else, or everybody but the lease."""
    jobmanager = _leader(world, fault)
    others = [world.lease.name] if fault.number < 0.4 else [world.lease.name, *world.taskmanagers]
    for other in others:
        world.network.part(jobmanager.name, other)
        _later(world, fault, world.network.join, jobmanager.name, other)


def _isolate_taskmanager(world: "Cluster", fault: Fault) -> None:
    """A TaskManager goes on working and can reach nobody, for so long that it may be given up."""
    taskmanager = _taskmanager(world, fault)
    for address in world.addresses:
        world.network.part(taskmanager.name, address)
        moment = min(world.scheduler.now + 3000 + int(fault.number * 5000), CALM_FROM)
        world.scheduler.at(moment, None, world.network.join, taskmanager.name, address)


# Stores


def _break_log(world: "Cluster", fault: Fault) -> None:
    """The log's store fails for a while."""

    def mend() -> None:
        world.store.trouble.failing = False

    world.store.trouble.failing = True
    _later(world, fault, mend)


def _hiccup(world: "Cluster", fault: Fault) -> None:
    """One of the next calls to the log's store fails."""
    world.store.trouble.hiccup = 2 + int(fault.number * 8)


def _slow_store(world: "Cluster", fault: Fault) -> None:
    """The log's store, and nothing else, is slow for a while."""

    def mend() -> None:
        world.store.trouble.slowness = 0

    world.store.trouble.slowness = 20 + int(fault.number * 1000)
    _later(world, fault, mend)


def _hang(world: "Cluster", fault: Fault) -> None:
    """The calls to the log's store that are made now hang: they are done late, or appends not at all."""
    trouble = world.store.trouble
    trouble.hangs_until = min(world.scheduler.now + max(fault.duration, 1000), CALM_FROM)
    trouble.swallows = fault.number < 0.5


def _lag(world: "Cluster", fault: Fault) -> None:
    """Listings of the log's store are those of before, for who has not changed anything since."""

    def mend() -> None:
        world.store.trouble.lagging = False

    world.store.trouble.lagging = True
    _later(world, fault, mend)


def _slow_down(world: "Cluster", fault: Fault) -> None:
    """Every step takes ten times as long for a while."""

    def recover() -> None:
        world.scheduler.slowness = usual

    usual = min(world.scheduler.slowness, 20)
    world.scheduler.slowness = 10 * usual
    _later(world, fault, recover)


def _break_lease(world: "Cluster", fault: Fault) -> None:
    """The lease's store fails for a while."""

    def mend() -> None:
        world.lease.failing = False

    world.lease.failing = True
    _later(world, fault, mend)


def _take_lease(world: "Cluster", fault: Fault) -> None:
    """The lease is lost to the leader alone, which leads on by its fence while another one is elected: two lead at once."""
    jobmanager = _leader(world, fault)
    world.network.part(jobmanager.name, world.lease.name)
    moment = min(world.scheduler.now + 4000 + int(fault.number * 4000), CALM_FROM)
    world.scheduler.at(moment, None, world.network.join, jobmanager.name, world.lease.name)


def _cancel(world: "Cluster", fault: Fault) -> None:
    """A person wants the job cancelled."""
    jobmanager = _leader(world, fault)
    if jobmanager.term is None or jobmanager.term.master is None:
        raise _Nobody
    world.possible_ends.add(JobStatus.CANCELED)
    jobmanager.term.dispatch(jev.CancelRequested())


_FAULTS: dict[str, tuple[Callable[["Cluster", Fault], None], int]] = {
    "kill a JobManager": (_kill_jobmanager, 5),
    "kill a JobManager at a point": (_trap_jobmanager, 6),
    "kill the leader's successor": (_trap_successor, 2),
    "terminate a JobManager": (_terminate_jobmanager, 2),
    "stop a JobManager": (_stop_jobmanager, 3),
    "stop a JobManager at a point": (_stop_at_point, 5),
    "kill a TaskManager": (_kill_taskmanager, 3),
    "stop a TaskManager": (_stop_taskmanager, 2),
    "drain a TaskManager": (_drain_taskmanager, 1),
    "kill a TaskManager at a point": (_trap_taskmanager, 3),
    "stop a TaskManager at a point": (_stop_taskmanager_at_point, 2),
    "let a task fail": (_doom, 3),
    "lose a partition": (_lose_partition, 3),
    "break a connection": (_break_connection, 3),
    "lose messages": (_swallow, 2),
    "double messages": (_double, 2),
    "swap messages": (_swap, 2),
    "part two": (_part, 3),
    "isolate the leader": (_isolate_leader, 2),
    "isolate a TaskManager": (_isolate_taskmanager, 2),
    "break the log's store": (_break_log, 2),
    "hiccup of the log's store": (_hiccup, 2),
    "slow store": (_slow_store, 2),
    "hanging store": (_hang, 2),
    "lagging listings": (_lag, 3),
    "slow everything down": (_slow_down, 1),
    "break the lease's store": (_break_lease, 1),
    "take the lease from the leader": (_take_lease, 2),
    "cancel the job": (_cancel, 1),
}
KINDS = tuple(_FAULTS)
_POINTS_OF = {
    "kill a JobManager at a point": JOBMANAGER,
    "stop a JobManager at a point": JOBMANAGER,
    "kill the leader's successor": SUCCESSOR,
    "kill a TaskManager at a point": TASKMANAGER,
    "stop a TaskManager at a point": TASKMANAGER,
}
