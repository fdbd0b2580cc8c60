"""What goes wrong: a plan of faults, made of a seed, each of which can be left out without changing the others."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from flinkjob.graph.states import JobStatus
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmaster import events as jev
from flinkjob.worker import events as ev

from .scheduler import Trap

if TYPE_CHECKING:
    from .cluster import Cluster
    from .jobmanager import JobManager
    from .taskmanager import TaskManager

CALM_FROM = 12_000
"""Milliseconds after which nothing goes wrong any more."""
WINDOW = 4000
"""Most faults come while the job, which takes about as long when nothing goes wrong, is under way."""

POINTS = (
    "elected", "claimed", "fenced", "replayed", "decided", "appended", "torn", "written", "synced", "checked", "released",
    "snapshot",
)  # fmt: skip
"""Where a JobManager can die, in the order in which it gets there."""
_FREQUENT = ("decided", "appended", "released", "written")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        at: when, milliseconds. kind: what.
        pick: which of those that it can happen to, from 0 to 1. number: how much, or how often, from 0 to 1.
        duration: for how long, milliseconds.
    """

    at: int
    kind: str
    pick: float
    number: float
    duration: int


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
        fault = Fault(at, random.choice(kinds), random.random(), random.random(), min(duration, CALM_FROM - 1 - at))
        faults.append(fault)
    return sorted(faults, key=lambda fault: fault.at)


def apply(world: "Cluster", fault: Fault) -> None:
    """Let it happen."""
    world.scheduler.note("FAULT", fault)
    _FAULTS[fault.kind][0](world, fault)


def _later(world: "Cluster", fault: Fault, call: Callable[..., None], *arguments: Any) -> None:
    world.scheduler.at(world.scheduler.now + fault.duration, None, call, *arguments)


def _leader(world: "Cluster", fault: Fault) -> "JobManager | None":
    """Mostly the leader, sometimes any JobManager."""
    alive = [jobmanager for jobmanager in world.jobmanagers.values() if jobmanager.alive]
    leaders = [jobmanager for jobmanager in alive if jobmanager.term is not None]
    chosen = leaders if leaders and fault.number < 0.85 else alive
    return chosen[int(fault.pick * len(chosen))] if chosen else None


def _taskmanager(world: "Cluster", fault: Fault) -> "TaskManager | None":
    alive = [taskmanager for taskmanager in world.taskmanagers.values() if taskmanager.alive]
    return alive[int(fault.pick * len(alive))] if alive else None


# JobManagers


def _trap(fault: Fault, pause: int = 0) -> Trap:
    """A point, picked by a part of the numbers that nobody else uses."""
    point = POINTS[int(fault.pick * 997) % len(POINTS)]
    return Trap(point, int(fault.number * 997) % 7 if point in _FREQUENT else 0, pause)


def _kill_jobmanager(world: "Cluster", fault: Fault) -> None:
    """It dies; its peers may take long to notice."""
    if jobmanager := _leader(world, fault):
        jobmanager.die(told_after=fault.duration)


def _trap_jobmanager(world: "Cluster", fault: Fault) -> None:
    """It dies between two steps of what it does, the next time or some times later."""
    if jobmanager := _leader(world, fault):
        jobmanager.trap = _trap(fault)


def _stop_at_point(world: "Cluster", fault: Fault) -> None:
    """It is stopped between two steps of what it does, and goes on later as if nothing had been."""
    if jobmanager := _leader(world, fault):
        jobmanager.trap = _trap(fault, 2500 + int(fault.number * 4000))


def _trap_successor(world: "Cluster", fault: Fault) -> None:
    """The leader dies or is stopped somewhere, and whoever comes next dies before it leads."""
    if jobmanager := _leader(world, fault):
        for other in world.jobmanagers.values():
            other.trap = Trap(POINTS[int(fault.pick * 997) % 4])
        if fault.number < 0.3:
            jobmanager.die()
        else:
            jobmanager.trap = _trap(fault, 4000 + int(fault.number * 4000))


def _stop_jobmanager(world: "Cluster", fault: Fault) -> None:
    """It is stopped, and goes on later as if nothing had been; TaskManagers may look for a leader at that very moment."""
    if jobmanager := _leader(world, fault):
        jobmanager.pause(fault.duration)
        if fault.number < 0.6:
            _later(world, fault, _break_all, world)


# TaskManagers and their tasks


def _kill_taskmanager(world: "Cluster", fault: Fault) -> None:
    """It dies with all its tasks."""
    if taskmanager := _taskmanager(world, fault):
        taskmanager.die(told_after=fault.duration if fault.number < 0.5 else 0)


def _stop_taskmanager(world: "Cluster", fault: Fault) -> None:
    """It is stopped, its tasks with it, and goes on later."""
    if taskmanager := _taskmanager(world, fault):
        taskmanager.pause(fault.duration)


def _drain_taskmanager(world: "Cluster", fault: Fault) -> None:
    """It is told to go (SIGTERM)."""
    if taskmanager := _taskmanager(world, fault):
        taskmanager.feed(ev.StopRequested("SIGTERM"))


def _trap_taskmanager(world: "Cluster", fault: Fault) -> None:
    """It dies when a task has written its partition and nobody knows yet."""
    if taskmanager := _taskmanager(world, fault):
        taskmanager.trap = Trap("produced")


def _doom(world: "Cluster", fault: Fault) -> None:
    """A task is to fail in its present or next attempt."""
    vertex = world.job_graph.vertices[int(fault.pick * len(world.job_graph.vertices))]
    world.doomed[TaskId(vertex.index, int(fault.number * vertex.parallelism))] += 1


def _lose_partition(world: "Cluster", fault: Fault) -> None:
    """A partition disappears from storage."""
    if world.storage:
        attempt = sorted(world.storage)[int(fault.pick * len(world.storage))]
        world.storage.discard(attempt)
        world.lost.add(TaskId(attempt.vertex, attempt.subtask))
        world.lost_attempts[attempt] = world.scheduler.now


# The network


def _break_connection(world: "Cluster", fault: Fault) -> None:
    """A connection breaks; each end notices in its own time."""
    if taskmanager := _taskmanager(world, fault):
        for end in world.network.connections_of(taskmanager)[:1]:
            ours = int(fault.number * 50)
            world.network.break_off(end, ours, fault.duration if fault.number < 0.5 else 0)


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
    if jobmanager is not None:
        others = [world.lease.name] if fault.number < 0.4 else [world.lease.name, *world.taskmanagers]
        for other in others:
            world.network.part(jobmanager.name, other)
            _later(world, fault, world.network.join, jobmanager.name, other)


def _isolate_taskmanager(world: "Cluster", fault: Fault) -> None:
    """A TaskManager goes on working and can reach nobody, for so long that it may be given up."""
    if taskmanager := _taskmanager(world, fault):
        for address in world.addresses:
            world.network.part(taskmanager.name, address)
            moment = min(world.scheduler.now + 3000 + int(fault.number * 5000), CALM_FROM)
            world.scheduler.at(moment, None, world.network.join, taskmanager.name, address)


# Stores


def _break_log(world: "Cluster", fault: Fault) -> None:
    """The log's store fails for a while."""

    def mend() -> None:
        world.store.failing = False

    world.store.failing = True
    _later(world, fault, mend)


def _hiccup(world: "Cluster", fault: Fault) -> None:
    """One of the next calls to the log's store fails."""
    world.store.hiccup = 2 + int(fault.number * 8)


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


def _cancel(world: "Cluster", fault: Fault) -> None:
    """A person wants the job cancelled."""
    jobmanager = _leader(world, fault)
    if jobmanager is not None and jobmanager.term is not None and jobmanager.term.master is not None:
        world.possible_ends.add(JobStatus.CANCELED)
        jobmanager.term.dispatch(jev.CancelRequested())


_FAULTS: dict[str, tuple[Callable[["Cluster", Fault], None], int]] = {
    "kill a JobManager": (_kill_jobmanager, 5),
    "kill a JobManager at a point": (_trap_jobmanager, 6),
    "kill the leader's successor": (_trap_successor, 2),
    "stop a JobManager": (_stop_jobmanager, 3),
    "stop a JobManager at a point": (_stop_at_point, 5),
    "kill a TaskManager": (_kill_taskmanager, 3),
    "stop a TaskManager": (_stop_taskmanager, 2),
    "drain a TaskManager": (_drain_taskmanager, 1),
    "kill a TaskManager at a point": (_trap_taskmanager, 1),
    "let a task fail": (_doom, 3),
    "lose a partition": (_lose_partition, 3),
    "break a connection": (_break_connection, 3),
    "part two": (_part, 3),
    "isolate the leader": (_isolate_leader, 2),
    "isolate a TaskManager": (_isolate_taskmanager, 2),
    "break the log's store": (_break_log, 2),
    "hiccup of the log's store": (_hiccup, 2),
    "slow everything down": (_slow_down, 1),
    "break the lease's store": (_break_lease, 1),
    "cancel the job": (_cancel, 1),
}
