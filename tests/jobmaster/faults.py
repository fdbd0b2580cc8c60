"""What can go wrong in a world. Each fault says what it breaks, so that the invariants can tell cause from caprice."""

from collections.abc import Callable, Sequence

from flinkjob.graph.vertex import TaskId

from .taskmanagers import TaskManager
from .world import World

Fault = Callable[[World], None]


def kill_leader(world: World) -> None:
    """The leader dies; some of its last operations and messages get through."""
    if world.leader:
        world.kill_leader(survive=world.random.choice((0, 0, 1, 2, 9)), heard=world.random.choice((0, 0, 1, 9)))


def break_connection(world: World) -> None:
    """A connection breaks; both sides live on."""
    _any(world).disconnect(heard=world.random.choice((0, 1, 9)))


def fall_silent(world: World) -> None:
    """A TaskManager goes on working but cannot reach anyone, until somebody heals it."""
    taskmanager = _any(world)
    taskmanager.disconnect()
    taskmanager.silent = True


def heal(world: World) -> None:
    """A silent TaskManager can speak again."""
    _any(world).silent = False


def restart_taskmanager(world: World) -> None:
    """A TaskManager's process dies and comes back under the same name, perhaps with another number of slots."""
    taskmanager = _any(world)
    _break(world, taskmanager)
    taskmanager.restart(slots=world.random.choice((taskmanager.slots, taskmanager.slots, 1, 3)))


def lose_taskmanager(world: World) -> None:
    """A TaskManager's pod is gone for ever, and another one takes its place."""
    taskmanager = _any(world)
    _break(world, taskmanager)
    taskmanager.disconnect()
    del world.taskmanagers[taskmanager.id]
    world.gone.add(taskmanager.id)
    name = f"tm-{len(world.taskmanagers) + len(world.gone)}"
    world.taskmanagers[name] = TaskManager(world, name, taskmanager.slots)


def doom_a_task(world: World) -> None:
    """A task is to fail in its present or next attempt."""
    vertex = world.random.choice(world.job_graph.vertices)
    world.doomed[TaskId(vertex.index, world.random.randrange(vertex.parallelism))] += 1


def lose_partition(world: World) -> None:
    """A partition disappears from storage."""
    if world.storage:
        attempt = world.random.choice(sorted(world.storage))
        world.storage.discard(attempt)
        world.lost.add(TaskId(attempt.vertex, attempt.subtask))


def pass_time(world: World) -> None:
    """Nothing happens until the leader's timer goes off, though much could."""
    if world.leader:
        world.pass_time()


def cancel(world: World) -> None:
    """A person wants the job cancelled."""
    if world.leader:
        world.cancel()


ALL: Sequence[Fault] = (
    kill_leader, kill_leader, kill_leader, break_connection, break_connection, fall_silent, heal, heal,
    restart_taskmanager, lose_taskmanager, doom_a_task, lose_partition, pass_time,
)  # fmt: skip


def storm(world: World, *, steps: int, faults: Sequence[Fault] = ALL, rate: float = 0.1) -> None:
    """Run for so many steps, of which about ``rate`` are faults."""
    for _ in range(steps):
        if world.over:
            return
        if world.random.random() < rate:
            world.act((world.random.choice(faults), (world,)))
        elif not world.step():
            world.act((world.pass_time, ()))


def _any(world: World) -> TaskManager:
    return world.taskmanagers[world.random.choice(sorted(world.taskmanagers))]


def _break(world: World, taskmanager: TaskManager) -> None:
    """Its processes die with it."""
    world.broken |= {*taskmanager.attempts, *taskmanager.ended}
