"""The failover of a JobManager as a non-event: an operation log, its replay, and reconciliation with the TaskManagers.

What authors of jobs need is here by name: ``TaskContext`` and ``Split`` for Python tasks, ``JobGraphBuilder`` for
entrypoints. The names are loaded when they are asked for, so that importing any part of the package costs that part.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flinkjob.graph.jobgraph import JobGraphBuilder
    from flinkjob.taskmanager.context import Split, TaskContext

__all__ = ["JobGraphBuilder", "Split", "TaskContext"]

_MODULES = {
    "JobGraphBuilder": "flinkjob.graph.jobgraph",
    "Split": "flinkjob.taskmanager.context",
    "TaskContext": "flinkjob.taskmanager.context",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
