"""Which state may follow which: the whole table, so that nobody changes a cell unseen."""

from itertools import pairwise, product

import pytest

from flinkjob.graph.states import EXECUTION_TRANSITIONS, JOB_TRANSITIONS, LEGAL, ExecutionState, JobStatus, may_follow

E, J = ExecutionState, JobStatus

EXECUTIONS = {
    E.CREATED: "DEPLOYING CANCELED",
    E.DEPLOYING: "RUNNING FINISHED CANCELING CANCELED FAILED",
    E.RUNNING: "FINISHED CANCELING CANCELED FAILED",
    E.FINISHED: "",
    E.CANCELING: "CANCELED FAILED",
    E.CANCELED: "",
    E.FAILED: "",
}
JOB_STATUSES = {
    J.CREATED: "RUNNING CANCELLING FAILING",
    J.RUNNING: "RECONCILING CANCELLING FAILING FINISHED",
    J.RECONCILING: "RUNNING CANCELLING FAILING",
    J.CANCELLING: "CANCELED",
    J.CANCELED: "",
    J.FAILING: "FAILED CANCELLING",
    J.FAILED: "",
    J.FINISHED: "",
}


@pytest.mark.parametrize(("old", "new"), list(product(E, E)))
def test_execution_transitions(old: ExecutionState, new: ExecutionState) -> None:
    legal = new.name in EXECUTIONS[old].split()
    assert (new in EXECUTION_TRANSITIONS[old]) is legal
    assert bool(LEGAL[old << 4 | new]) is legal


@pytest.mark.parametrize(("old", "new"), list(product(J, J)))
def test_job_transitions(old: JobStatus, new: JobStatus) -> None:
    assert (new in JOB_TRANSITIONS[old]) is (new.name in JOB_STATUSES[old].split())


def test_terminal_states_are_those_that_nothing_follows() -> None:
    assert [state for state in E if state.terminal] == [E.FINISHED, E.CANCELED, E.FAILED]
    assert [status for status in J if status.terminal] == [J.CANCELED, J.FAILED, J.FINISHED]
    assert {state for state in E if state.terminal} == {state for state in E if not EXECUTIONS[state]}
    assert {status for status in J if status.terminal} == {status for status in J if not JOB_STATUSES[status]}


def test_active_states_are_those_that_occupy_a_slot() -> None:
    assert [state for state in E if state.active] == [E.DEPLOYING, E.RUNNING, E.CANCELING]


def test_the_numbers_are_part_of_the_logs_format() -> None:
    assert list(E) == [E.CREATED, E.DEPLOYING, E.RUNNING, E.FINISHED, E.CANCELING, E.CANCELED, E.FAILED]
    assert list(J) == [
        J.CREATED, J.RUNNING, J.RECONCILING, J.CANCELLING, J.CANCELED, J.FAILING, J.FAILED, J.FINISHED,
    ]  # fmt: skip
    assert [*map(int, E)] == list(range(7))
    assert [*map(int, J)] == list(range(8))


@pytest.mark.parametrize(("old", "new"), list(product(E, E)))
def test_a_state_may_follow_by_any_way_that_leads_to_it(old: ExecutionState, new: ExecutionState) -> None:
    ways = [(old, new), *((old, via, new) for via in E), *((old, a, b, new) for a, b in product(E, E))]
    assert may_follow(old, new) is any(all(b in EXECUTION_TRANSITIONS[a] for a, b in pairwise(way)) for way in ways)
