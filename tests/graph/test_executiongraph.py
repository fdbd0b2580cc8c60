"""The ExecutionGraph: what each operation does, what it refuses, and that a refusal changes nothing."""

from itertools import product
from random import Random
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.api.errors import IllegalOperation
from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import MAX_EXCEPTIONS, MAX_FAILOVERS, ExecutionGraph
from flinkjob.graph.operations import InputSplit, ResultPartition, decode_operations, encode_operations
from flinkjob.graph.states import EXECUTION_TRANSITIONS, JOB_TRANSITIONS, ExecutionState, JobStatus
from flinkjob.graph.vertex import TaskId

from .samples import GOLDEN, T, word_count

E: TypeAlias = ExecutionState
J: TypeAlias = JobStatus
HUGE = 1 << 70

TO_STATE: dict[E, tuple[ops.Operation, ...]] = {
    E.CREATED: (),
    E.DEPLOYING: (ops.TaskDeploying(0, 0, 0, 0, T),),
    E.RUNNING: (ops.TaskDeploying(0, 0, 0, 0, T), ops.TaskStateChanged(0, 0, 0, E.RUNNING, T)),
    E.FINISHED: (ops.TaskDeploying(0, 0, 0, 0, T), ops.TaskFinished(0, 0, 0, T, ResultPartition(1, 2, 3), {"n": 4})),
    E.CANCELING: (ops.TaskDeploying(0, 0, 0, 0, T), ops.TaskStateChanged(0, 0, 0, E.CANCELING, T)),
    E.CANCELED: (ops.TaskStateChanged(0, 0, 0, E.CANCELED, T),),
    E.FAILED: (ops.TaskDeploying(0, 0, 0, 0, T), ops.TaskFailed(0, 0, 0, T, "why")),
}
"""How tokenize[0] gets into each state."""

TO_STATUS: dict[J, tuple[J, ...]] = {
    J.CREATED: (),
    J.RUNNING: (J.RUNNING,),
    J.RECONCILING: (J.RUNNING, J.RECONCILING),
    J.CANCELLING: (J.CANCELLING,),
    J.CANCELED: (J.CANCELLING, J.CANCELED),
    J.FAILING: (J.FAILING,),
    J.FAILED: (J.FAILING, J.FAILED),
    J.FINISHED: (J.RUNNING, J.FINISHED),
}


def fresh(*operations: ops.Operation) -> ExecutionGraph:
    """A graph with two TaskManagers, and these operations applied."""
    graph = ExecutionGraph(word_count())
    graph.apply(ops.EpochStarted(1, "jm-0", T))
    graph.apply(ops.TaskManagerRegistered("tm-0", "host:0", 4, T))
    graph.apply(ops.TaskManagerRegistered("tm-1", "host:1", 4, T))
    graph.apply_all(operations)
    return graph


def becoming(state: E, at: int = T) -> ops.Operation:
    """The operation that takes attempt 0 of tokenize[0] to a state."""
    if state is E.DEPLOYING:
        return ops.TaskDeploying(0, 0, 0, 0, at)
    if state is E.FINISHED:
        return ops.TaskFinished(0, 0, 0, at)
    if state is E.FAILED:
        return ops.TaskFailed(0, 0, 0, at, "why")
    return ops.TaskStateChanged(0, 0, 0, state, at)


def refused(graph: ExecutionGraph, operation: ops.Operation) -> str:
    """The text of the refusal; nothing must have changed."""
    before = graph.snapshot()
    with pytest.raises(IllegalOperation) as error:
        graph.apply(operation)
    assert graph.snapshot() == before
    counts_are_right(graph)
    return str(error.value)


def counts_are_right(graph: ExecutionGraph) -> None:
    """The counts that are kept equal those that are counted."""
    for index, vertex in enumerate(graph.vertices):
        assert vertex.counts == [vertex.state.count(state) for state in E]
        assert vertex.restarting == sum(task.vertex == index for task in graph.restart_due)
    assert graph.count(*E) == graph.total_tasks == graph.job_graph.total_tasks


# Transitions


@pytest.mark.parametrize(("old", "new"), list(product(E, E)), ids=lambda state: state.name)
def test_exactly_the_legal_transitions_of_an_execution_apply(old: E, new: E) -> None:
    graph = fresh(*TO_STATE[old])
    assert graph.state_of(TaskId(0, 0)) is old
    operation = becoming(new, T + 5)
    if new in EXECUTION_TRANSITIONS[old]:
        graph.apply(operation)
        assert graph.state_of(TaskId(0, 0)) is new
        assert graph.vertices[0].since[0] == T + 5
        counts_are_right(graph)
    else:
        assert "does not apply" in refused(graph, operation)


@pytest.mark.parametrize(("old", "new"), list(product(J, J)), ids=lambda status: status.name)
def test_exactly_the_legal_transitions_of_a_job_apply(old: J, new: J) -> None:
    graph = fresh(*(ops.JobStatusChanged(status, T) for status in TO_STATUS[old]))
    operation = ops.JobStatusChanged(new, T + 5, "cause")
    if new in JOB_TRANSITIONS[old]:
        graph.apply(operation)
        assert (graph.status, graph.status_cause, graph.status_times[new]) == (new, "cause", T + 5)
    else:
        assert f"{old.name} does not go over to {new.name}" in refused(graph, operation)


@pytest.mark.parametrize("state", [E.CREATED, E.DEPLOYING, E.FINISHED, E.FAILED])
def test_states_with_an_operation_of_their_own_have_no_other_way(state: E) -> None:
    graph = fresh(*TO_STATE[E.RUNNING])
    assert "an operation of its own" in refused(graph, ops.TaskStateChanged(0, 0, 0, state, T))


@pytest.mark.parametrize("state", [state for state in E if not state.terminal], ids=lambda state: state.name)
def test_only_an_attempt_that_is_over_is_reset(state: E) -> None:
    assert f"subtask 0 is {state.name}" in refused(fresh(*TO_STATE[state]), ops.TasksReset(0, (0,), T))


@pytest.mark.parametrize("state", [state for state in E if state.terminal], ids=lambda state: state.name)
def test_a_reset_makes_the_next_attempt_and_forgets_what_the_last_one_left(state: E) -> None:
    graph = fresh(
        *TO_STATE[state],
        ops.RestartScheduled(((0, 0), (0, 1)), T + 9, "why", ops.RestartState(1), T),
        ops.TasksReset(0, (0,), T + 9),
    )
    vertex = graph.vertices[0]
    assert (vertex.execution_state(0), vertex.attempt[0], vertex.taskmanager[0]) == (E.CREATED, 1, -1)
    assert vertex.partition(0) == ResultPartition()
    assert (vertex.deployed_at[0], vertex.accumulators) == (0, {})
    assert graph.restart_due == {TaskId(0, 1): T + 9}
    counts_are_right(graph)
    refused(graph, ops.TaskDeploying(0, 0, 0, 0, T))
    graph.apply(ops.TaskDeploying(0, 0, 1, 0, T))


# Refusals


@pytest.mark.parametrize(
    "operation",
    [
        ops.EpochStarted(1, "jm-1", T),
        ops.EpochStarted(0, "jm-1", T),
        ops.EpochStarted(-HUGE, "jm-1", T),
        ops.TaskManagerRegistered("tm-0", "elsewhere", 1, T),
        ops.TaskManagerRegistered("tm-9", "host", 0, T),
        ops.TaskManagerRegistered("tm-9", "host", -1, T),
        *(ops.TaskManagerRemoved(index, "why", T) for index in (2, -1, HUGE)),
        *(ops.SplitsCreated(vertex, ()) for vertex in (3, -1, HUGE)),
        ops.SplitsAssigned(1, 0, 0, 1),
        *(ops.TaskDeploying(vertex, 0, 0, 0, T) for vertex in (3, -1, HUGE)),
        *(ops.TaskDeploying(0, subtask, 0, 0, T) for subtask in (4, -1, HUGE)),
        *(ops.TaskDeploying(0, 1, attempt, 0, T) for attempt in (1, -1, HUGE)),
        *(ops.TaskDeploying(0, 1, 0, taskmanager, T) for taskmanager in (2, -1, HUGE)),
        *(ops.TaskDeploying(0, 1, 0, 0, at) for at in (HUGE, -HUGE)),
        *(ops.TaskStateChanged(vertex, 0, 0, E.CANCELING, T) for vertex in (3, -1, HUGE)),
        *(ops.TaskStateChanged(0, subtask, 0, E.CANCELING, T) for subtask in (4, -4, HUGE)),
        *(ops.TaskStateChanged(0, 0, attempt, E.CANCELING, T) for attempt in (1, -1, HUGE)),
        *(ops.TaskStateChanged(0, 0, 0, E.CANCELING, at) for at in (HUGE, -HUGE)),
        *(ops.TaskFinished(0, 0, attempt, T) for attempt in (1, -1, HUGE)),
        *(ops.TaskFinished(0, 0, 0, at, ResultPartition(1, 1, 1), {"n": 1}) for at in (HUGE, -HUGE)),
        *(ops.TaskFinished(0, 0, 0, T, ResultPartition(size, 1, 1)) for size in (-1, 1 << 63, HUGE)),
        *(ops.TaskFinished(0, 0, 0, T, ResultPartition(1, records, 1)) for records in (-1, 1 << 63, HUGE)),
        *(ops.TaskFinished(0, 0, 0, T, ResultPartition(1, 1, checksum)) for checksum in (-1, 1 << 32, HUGE)),
        *(ops.TaskFailed(0, 0, attempt, T, "why") for attempt in (1, -1, HUGE)),
        *(ops.TaskFailed(0, 0, 0, at, "why") for at in (HUGE, -HUGE)),
        ops.RestartScheduled(((0, 0), (3, 0)), T, "why", ops.RestartState(), T),
        ops.RestartScheduled(((0, 0), (0, -1)), T, "why", ops.RestartState(), T),
        ops.TasksReset(2, (-1,), T),
        ops.TasksReset(2, (0, 1), T),
        ops.TasksReset(2, (0, 0), T),
        ops.TasksReset(2, (0,), HUGE),
    ],
    ids=str,
)
def test_nonsense_is_refused_and_changes_nothing(operation: ops.Operation) -> None:
    graph = fresh(*TO_STATE[E.RUNNING], ops.TaskStateChanged(2, 0, 0, E.CANCELED, T))
    assert str(graph.lsn + 1) in refused(graph, operation)


def test_a_refusal_names_the_operation_and_the_reason() -> None:
    text = refused(fresh(), ops.TaskStateChanged(0, 3, 2, E.RUNNING, T))
    assert text.startswith("operation 4, TaskStateChanged(vertex=0, subtask=3, attempt=2")
    assert text.endswith("does not apply: the present attempt is 0")


def test_the_log_position_counts_what_was_applied_and_nothing_else() -> None:
    graph = fresh()
    assert graph.lsn == 3
    refused(graph, ops.EpochStarted(1, "jm-1", T))
    assert graph.lsn == 3


# Epochs, TaskManagers, splits


def test_the_first_epoch_names_the_run_and_later_ones_do_not() -> None:
    graph = ExecutionGraph(word_count())
    graph.apply(ops.EpochStarted(5, "jm-0", T))
    graph.apply(ops.EpochStarted(9, "jm-1", T + 7))
    assert (graph.run, graph.epoch, graph.leader, graph.started_at) == (5, 9, "jm-1", T)
    assert graph.status_times == {J.CREATED: T}


def test_a_removed_taskmanager_may_register_again_and_is_another_one() -> None:
    graph = fresh(ops.TaskManagerRemoved(0, "", T))
    assert graph.taskmanagers[0].removed == "removed"
    refused(graph, ops.TaskManagerRemoved(0, "again", T))
    refused(graph, ops.TaskDeploying(0, 0, 0, 0, T))
    graph.apply(ops.TaskManagerRegistered("tm-0", "host:9", 2, T))
    assert graph.taskmanager_index == {"tm-1": 1, "tm-0": 2}
    assert [info.address for info in graph.taskmanagers] == ["host:0", "host:1", "host:9"]


def test_splits_are_assigned_in_their_order_and_only_once() -> None:
    graph = fresh(ops.SplitsCreated(0, tuple(InputSplit(f"f{number}") for number in range(4))))
    refused(graph, ops.SplitsCreated(0, ()))
    graph.apply(ops.SplitsAssigned(0, 2, 0, 2))
    for first, count in ((0, 1), (1, 1), (3, 1), (2, 3), (2, 0), (2, -1), (-1, 1), (2, HUGE), (HUGE, 1)):
        assert "2 of 4 splits are taken" in refused(graph, ops.SplitsAssigned(0, 0, first, count))
    refused(graph, ops.SplitsAssigned(0, 4, 2, 1))
    refused(graph, ops.SplitsAssigned(0, -1, 2, 1))
    graph.apply(ops.SplitsAssigned(0, 0, 2, 1))
    graph.apply(ops.SplitsAssigned(0, 2, 3, 1))
    assert graph.vertices[0].assigned == {2: [0, 1, 3], 0: [2]}
    refused(graph, ops.SplitsAssigned(0, 0, 4, 1))


def test_splits_stay_with_their_subtask_through_a_reset() -> None:
    graph = fresh(
        ops.SplitsCreated(0, (InputSplit("a"),)),
        ops.SplitsAssigned(0, 0, 0, 1),
        *TO_STATE[E.FAILED],
        ops.TasksReset(0, (0,), T),
    )
    assert graph.vertices[0].assigned == {0: [0]}


def test_accumulators_are_the_sums_over_finished_attempts() -> None:
    graph = fresh(
        *TO_STATE[E.FINISHED],
        ops.TaskDeploying(0, 1, 0, 0, T),
        ops.TaskFinished(0, 1, 0, T, ResultPartition(), {"x": 0.5, "n": 1}),
    )
    assert graph.accumulators() == {"n": 5, "x": 0.5}
    graph.apply(ops.TasksReset(0, (0,), T))
    assert graph.accumulators() == {"n": 1, "x": 0.5}


def test_restarts_are_remembered_with_their_latest_date() -> None:
    graph = fresh(*TO_STATE[E.FAILED])
    for due in (T + 1, T + 2):
        graph.apply(ops.RestartScheduled(((0, 0),), due, "why", ops.RestartState(due - T), T))
    assert graph.restart_due == {TaskId(0, 0): T + 2}
    assert (graph.restarts, graph.restart_state.restarts) == (2, 2)
    counts_are_right(graph)


def test_the_histories_keep_the_latest() -> None:
    graph = fresh()
    for number in range(MAX_FAILOVERS + 3):
        graph.apply(ops.FailoverCompleted(number, "jm", "", T, 0, 0.0, 0.0, T, {}))
    assert [failover.epoch for failover in graph.failovers] == list(range(3, MAX_FAILOVERS + 3))
    assert graph.failover_count == MAX_FAILOVERS + 3
    for number in range(MAX_EXCEPTIONS + 3):
        graph.apply(ops.TaskDeploying(0, 0, number, 1, T))
        graph.apply(ops.TaskFailed(0, 0, number, T, f"cause {number}"))
        graph.apply(ops.TasksReset(0, (0,), T))
    assert [entry.attempt for entry in graph.exceptions] == list(range(3, MAX_EXCEPTIONS + 3))
    assert graph.exceptions[-1].taskmanager == 1


def test_questions_that_people_ask() -> None:
    graph = fresh(*TO_STATE[E.RUNNING], ops.TaskDeploying(1, 2, 0, 1, T))
    assert graph.task_name(1, 2) == "count[2]"
    assert list(graph.active_tasks()) == [TaskId(0, 0), TaskId(1, 2)]
    assert list(graph.tasks_in(E.RUNNING)) == [TaskId(0, 0)]
    assert graph.count(E.RUNNING, E.DEPLOYING) == 2
    assert graph.total_tasks == 8
    assert graph.vertex_of(TaskId(1, 2)) is graph.vertices[1]
    assert not graph.vertices[0].finished


def test_how_much_is_done_counts_splits_for_a_source_and_subtasks_for_others() -> None:
    graph = fresh(ops.SplitsCreated(0, (InputSplit("a"), InputSplit("b"))), ops.SplitsAssigned(0, 0, 0, 1))
    assert graph.vertices[0].done == 0.5
    assert graph.done() == pytest.approx(0.5 * 4 / 8)
    for subtask in range(4):
        graph.apply(ops.TaskDeploying(0, subtask, 0, 0, T))
        graph.apply(ops.TaskFinished(0, subtask, 0, T))
    assert graph.vertices[0].done == 1.0
    assert graph.done() == pytest.approx(4 / 8)


# Random operations

small = st.integers(-1, 4)
splits = st.lists(st.builds(InputSplit, st.sampled_from(["a", "b"])), max_size=4).map(tuple)
partitions = st.builds(ResultPartition, st.integers(-1, 9), st.integers(-1, 9), st.integers(-1, 9))
accumulators = st.dictionaries(st.sampled_from(["n", "x"]), st.integers(0, 9) | st.floats(0, 1))
places = st.lists(st.tuples(small, small), max_size=3).map(tuple)
times = st.integers(T, T + 9)

any_operation: st.SearchStrategy[ops.Operation] = st.one_of(
    st.builds(ops.EpochStarted, small, st.just("jm"), times),
    st.builds(ops.JobStatusChanged, st.sampled_from(J), times, st.just("why")),
    st.builds(ops.TaskManagerRegistered, st.sampled_from(["tm-0", "tm-1"]), st.just("host"), small, times),
    st.builds(ops.TaskManagerRemoved, small, st.just("why"), times),
    st.builds(ops.SplitsCreated, small, splits),
    st.builds(ops.SplitsAssigned, small, small, small, small),
    st.builds(ops.TaskDeploying, small, small, small, small, times),
    st.builds(ops.TaskStateChanged, small, small, small, st.sampled_from(E), times),
    st.builds(ops.TaskFinished, small, small, small, times, partitions, accumulators),
    st.builds(ops.TaskFailed, small, small, small, times, st.just("why")),
    st.builds(ops.RestartScheduled, places, times, st.just("why"), st.just(ops.RestartState(1)), times),
    st.builds(ops.TasksReset, small, st.lists(small, max_size=3).map(tuple), times),
    st.just(GOLDEN[-1][0]),
)


@given(st.lists(any_operation, max_size=25))
def test_whatever_is_applied_a_refusal_changes_nothing_and_counts_are_right(operations: list[ops.Operation]) -> None:
    graph = fresh()
    for operation in operations:
        before, lsn = graph.snapshot(), graph.lsn
        try:
            graph.apply(operation)
        except IllegalOperation:
            assert graph.snapshot() == before
        else:
            assert graph.lsn == lsn + 1
        counts_are_right(graph)


def legal(graph: ExecutionGraph) -> list[ops.Operation]:
    """Operations that all apply to the graph as it is."""
    known = [index for index, info in enumerate(graph.taskmanagers) if not info.removed]
    source = graph.vertices[0]
    found: list[ops.Operation] = [ops.EpochStarted(graph.epoch + 1, "jm", T)]
    found += [ops.JobStatusChanged(status, T) for status in sorted(JOB_TRANSITIONS[graph.status])]
    found += [ops.TaskManagerRemoved(index, "why", T) for index in known[2:]]
    found.append(ops.TaskManagerRegistered(f"tm-{len(graph.taskmanagers)}", "host", 1, T))
    if source.splits is None:
        found.append(ops.SplitsCreated(0, tuple(InputSplit(str(n), payload={"n": n}) for n in range(6))))
    elif source.splits_taken < 6:
        found.append(ops.SplitsAssigned(0, source.splits_taken % 4, source.splits_taken, 1))
    for index, vertex in enumerate(graph.vertices):
        for subtask in range(vertex.parallelism):
            state, attempt = vertex.execution_state(subtask), vertex.attempt[subtask]
            found += _task_operations(index, subtask, attempt, state, known[subtask % len(known)])
    return found


def _task_operations(v: int, s: int, attempt: int, state: E, taskmanager: int) -> list[ops.Operation]:
    if state is E.CREATED:
        return [ops.TaskDeploying(v, s, attempt, taskmanager, T)]
    if state.terminal:
        again = ops.RestartScheduled(((v, s),), T + s, "why", ops.RestartState(1, failures=(T,)), T)
        return [again, ops.TasksReset(v, (s,), T)]
    ends: list[ops.Operation] = [
        ops.TaskFinished(v, s, attempt, T, ResultPartition(s, v, 1), {"n": s, "x": 0.5}),
        ops.TaskFailed(v, s, attempt, T, "why"),
    ]
    others = sorted(EXECUTION_TRANSITIONS[state] - {E.FINISHED, E.FAILED})
    return [*ends[state is E.CANCELING :], *(ops.TaskStateChanged(v, s, attempt, new, T) for new in others)]


@given(st.integers(0, 60), st.randoms(use_true_random=False))
def test_replayed_from_anywhere_the_graph_is_the_same_byte_by_byte(length: int, random: Random) -> None:
    graph, log, snapshots = fresh(), list[ops.Operation](), list[bytes]()
    for _ in range(length):
        operation = random.choice(legal(graph))
        snapshots.append(graph.snapshot())
        graph.apply(operation)
        log.append(operation)
        counts_are_right(graph)
    log = decode_operations(encode_operations(log))
    for position in {0, length // 3, length - 1} if length else ():
        restored = ExecutionGraph.restore(graph.job_graph, snapshots[position])
        assert restored.snapshot() == snapshots[position]
        assert restored.taskmanager_index == {
            info.id: index for index, info in enumerate(restored.taskmanagers) if not info.removed
        }
        restored.apply_all(log[position:])
        counts_are_right(restored)
        assert restored.snapshot() == graph.snapshot()
        assert restored.accumulators() == graph.accumulators()
