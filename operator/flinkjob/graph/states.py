"""The states of an Execution and of a job, and which may follow which.

Names and transitions are Flink's (``ExecutionState``, ``JobStatus``) with two simplifications that the operation log
earns: an Execution goes from CREATED to DEPLOYING in one operation (waiting for a slot is not a state of its own), and
INITIALIZING has no meaning for tasks without managed state.

A transition table is a set of pairs folded into a ``bytes``: ``LEGAL[old << 4 | new]`` costs one index on the hottest
path of replay.
"""

from enum import IntEnum


class ExecutionState(IntEnum):
    """The state of one attempt of one subtask; the numbers are part of the log's format."""

    CREATED = 0
    DEPLOYING = 1
    RUNNING = 2
    FINISHED = 3
    CANCELING = 4
    CANCELED = 5
    FAILED = 6

    @property
    def terminal(self) -> bool:
        """Whether this attempt is over for good; only a reset, which makes a new attempt, follows."""
        return self in TERMINAL_EXECUTION_STATES

    @property
    def active(self) -> bool:
        """Whether a TaskManager is expected to hold this attempt: it occupies a slot."""
        return self in ACTIVE_EXECUTION_STATES


class JobStatus(IntEnum):
    """The state of the job; the numbers are part of the log's format."""

    CREATED = 0
    RUNNING = 1
    RECONCILING = 2
    CANCELLING = 3
    CANCELED = 4
    FAILING = 5
    FAILED = 6
    FINISHED = 7

    @property
    def terminal(self) -> bool:
        """Whether the job is over for good: no leader ever runs it again."""
        return self in TERMINAL_JOB_STATUSES


_E = ExecutionState
_J = JobStatus

ACTIVE_EXECUTION_STATES = frozenset({_E.DEPLOYING, _E.RUNNING, _E.CANCELING})
TERMINAL_EXECUTION_STATES = frozenset({_E.FINISHED, _E.CANCELED, _E.FAILED})
TERMINAL_JOB_STATUSES = frozenset({_J.FINISHED, _J.CANCELED, _J.FAILED})

EXECUTION_TRANSITIONS: dict[ExecutionState, frozenset[ExecutionState]] = {
    _E.CREATED: frozenset({_E.DEPLOYING, _E.CANCELED}),
    _E.DEPLOYING: frozenset({_E.RUNNING, _E.FINISHED, _E.CANCELING, _E.CANCELED, _E.FAILED}),
    _E.RUNNING: frozenset({_E.FINISHED, _E.CANCELING, _E.CANCELED, _E.FAILED}),
    _E.CANCELING: frozenset({_E.CANCELED, _E.FAILED}),
    _E.FINISHED: frozenset(),
    _E.CANCELED: frozenset(),
    _E.FAILED: frozenset(),
}

JOB_TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    _J.CREATED: frozenset({_J.RUNNING, _J.CANCELLING, _J.FAILING}),
    _J.RUNNING: frozenset({_J.RECONCILING, _J.CANCELLING, _J.FAILING, _J.FINISHED}),
    _J.RECONCILING: frozenset({_J.RUNNING, _J.CANCELLING, _J.FAILING}),
    _J.CANCELLING: frozenset({_J.CANCELED}),
    _J.FAILING: frozenset({_J.FAILED, _J.CANCELLING}),
    _J.FINISHED: frozenset(),
    _J.CANCELED: frozenset(),
    _J.FAILED: frozenset(),
}


def _fold(transitions: dict[ExecutionState, frozenset[ExecutionState]]) -> bytes:
    table = bytearray(256)
    for old, successors in transitions.items():
        for new in successors:
            table[old << 4 | new] = 1
    return bytes(table)


LEGAL: bytes = _fold(EXECUTION_TRANSITIONS)


def _closure(old: ExecutionState) -> frozenset[ExecutionState]:
    direct = EXECUTION_TRANSITIONS[old]
    return direct.union(*(_closure(new) for new in direct))


_FOLLOWING = {state: _closure(state) for state in ExecutionState}


def may_follow(old: ExecutionState, new: ExecutionState) -> bool:
    """Whether an Execution last seen as ``old`` can be ``new`` by now, with transitions in between that nobody saw."""
    return new in _FOLLOWING[old]
