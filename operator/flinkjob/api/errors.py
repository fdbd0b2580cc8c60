"""All errors of the project form one tree, so that a caller can catch as much or as little of it as it means to.

::

    FlinkJobError
    ├── InvalidInput            what a person wrote is wrong: exit code 2
    │   ├── InvalidManifest     a field of a FlinkJob manifest
    │   ├── InvalidOption       a key or a value of flinkConfiguration
    │   └── InvalidJobGraph     a graph that cannot be run (a cycle, an unknown input)
    ├── IllegalOperation        an operation that the ExecutionGraph does not allow: a bug, or a damaged log
    ├── ProtocolViolation       a peer sent what the protocol does not allow: it is disconnected
    ├── StorageError            the job's storage
    │   ├── UnsupportedStorage  a store that cannot keep the log safely, or a backend that is not installed
    │   ├── LogUnavailable      the log cannot be read or written now
    │   ├── CorruptedLog        the log is damaged somewhere else than at its end
    │   └── Deposed             a newer epoch exists: this leader must not act any more
    ├── LeaseError              the leader election's record cannot be read or written
    ├── ClusterError            the Kubernetes API server
    │   ├── ApiUnavailable      it cannot be reached, or asks to be left alone for now
    │   ├── ApiRefused          it does not accept what was asked of it
    │   └── AlreadyChanged      somebody else was faster: look again
    └── TaskError               what ended a task
        ├── TaskCancelled       the task was told to stop
        └── PartitionUnavailable  an input partition is missing or damaged

A message names what is wrong, where, and what is allowed.
"""


class FlinkJobError(Exception):
    """The root of the project's errors; its text is fit to be shown to a person."""


class InvalidInput(FlinkJobError):
    """What a person wrote is wrong. The command line ends with exit code 2."""


class InvalidManifest(InvalidInput):
    """A field of a FlinkJob manifest is missing, unknown or malformed."""


class InvalidOption(InvalidInput):
    """A configuration key is unknown or its value malformed."""


class InvalidJobGraph(InvalidInput):
    """The vertices and edges do not make a graph that can be run."""


class IllegalOperation(FlinkJobError):
    """An operation does not apply to the ExecutionGraph as it is (for example, it would leave a terminal state)."""


class ProtocolViolation(FlinkJobError):
    """A peer sent something malformed or out of place; the connection is closed, nothing else changes."""


class StorageError(FlinkJobError):
    """The job's storage failed."""


class UnsupportedStorage(StorageError):
    """The store cannot keep an operation log safely, or the package that reads it is not installed."""


class LogUnavailable(StorageError):
    """The operation log cannot be read or written at the moment; trying again may help."""


class CorruptedLog(StorageError):
    """The operation log is damaged elsewhere than at its torn end; it is never repaired silently."""


class Deposed(StorageError):
    """A newer epoch has claimed the log: whoever catches this must stop acting as the leader."""


class LeaseError(FlinkJobError):
    """The election's lease record cannot be read or written."""


class ClusterError(FlinkJobError):
    """Something went wrong with the Kubernetes API server."""


class ApiUnavailable(ClusterError):
    """The API server cannot be reached, fails, or is too busy; trying again later may help.

    Attributes:
        retry_after: seconds for which it asks to be left alone; 0 where it does not say.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ApiRefused(ClusterError):
    """The API server does not accept what was asked of it: it is invalid, or not allowed.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class AlreadyChanged(ClusterError):
    """The object has another version, or another uid, than was expected, or there is one already: look again."""


class TaskError(FlinkJobError):
    """A task ended otherwise than by finishing."""


class TaskCancelled(TaskError):
    """Raised inside a task that has been told to stop."""


class PartitionUnavailable(TaskError):
    """An input partition is missing or damaged.

    Attributes:
        vertex: index of the producing vertex in the JobGraph.
        subtask: index of the producing subtask.
    """

    def __init__(self, message: str, *, vertex: int, subtask: int) -> None:
        super().__init__(message)
        self.vertex = vertex
        self.subtask = subtask
