"""What a JobManager finds around it: where the leader is elected, who keeps the TaskManagers, and who wants to know.

On one machine that is a lease file and the cluster file of whoever keeps the processes. On Kubernetes it is the API server
(`kubernetes`). The JobManager itself is the same in both.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flinkjob.api import options as opt
from flinkjob.api.errors import InvalidOption
from flinkjob.election.filestore import FileLeaseStore
from flinkjob.election.store import LeaseStore
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.jobmanager.job import Job
from flinkjob.jobmanager.liveness import ClusterFileWatch, NoWatch, TaskManagerWatch
from flinkjob.jobmanager.predecessor import NOBODY, Predecessor
from flinkjob.oplog.storage import is_local, local_path
from flinkjob.oplog.writer import LogWriter

logger = logging.getLogger(__name__)

JOB_INVALID, STORAGE_UNSUPPORTED, LOG_UNREADABLE = "JobInvalid", "StorageUnsupported", "LogUnreadable"
"""The kinds of problems that another try would not mend."""
LOG_UNAVAILABLE = "LogUnavailable"
"""What keeps a leader from leading, and may have passed by the next try."""

PAUSE_AFTER_BREAKDOWN = 5.0
"""Seconds before something that broke down beside the terms is tried again."""


@dataclass(frozen=True, slots=True)
class Leading:
    """A term, for those that tell others of it.

    Attributes:
        is_leader: whether the term still runs, as of the moment of the call.
        since: when it began, milliseconds.
        graph: the job; None before it has been replayed.
        writer: of the log; None where there is no log, or none yet.
        problem: why nothing is led, until a person comes or another try succeeds; empty otherwise.
        reason: what kind of problem that is; see `api.status.Trouble`.
        running_tasks: how many tasks each TaskManager has, by its id.
        predecessor: who held the lease before.
    """

    is_leader: Callable[[], bool]
    since: int
    graph: ExecutionGraph | None
    writer: LogWriter | None
    problem: str
    reason: str = LOG_UNREADABLE
    running_tasks: Mapping[str, int] = field(default_factory=dict)
    predecessor: Predecessor = NOBODY


class Surroundings(Protocol):
    """One JobManager's.

    Attributes:
        identity: the candidate's name in the lease, unique to this process.
        predecessors: holders of the lease whose names begin so are known to be dead; "": none.
        store: keeps the lease.
        watch: tells which TaskManagers have ended.
    """

    identity: str
    predecessors: str
    store: LeaseStore
    watch: TaskManagerWatch

    async def attend(self, leading: Callable[[], Leading | None], losses: deque[str]) -> None:
        """Do what is to be done beside the terms, until cancelled. Nothing that goes wrong in it concerns a term.

        Args:
            leading: gives the term of the moment; None while this JobManager does not lead.
            losses: why terms have ended otherwise than by a clean stop; to be taken out by who tells of them.
        """


class OneMachine:
    """A lease file, and a cluster file if somebody keeps one. Nobody is to be told of anything.

    Args:
        id: the JobManager's name.
        lease_file: None: in the job's storage, which has to be a path then.
        cluster_file: where ended TaskManagers are listed; None: nobody lists them.

    Raises:
        InvalidOption: there is no place for the lease file.
    """

    def __init__(self, job: Job, id: str, *, lease_file: Path | None, cluster_file: Path | None) -> None:
        self.identity = id
        self.predecessors = ""
        self.store: LeaseStore = FileLeaseStore(lease_file or _lease_file_of(job))
        self.watch: TaskManagerWatch = ClusterFileWatch(cluster_file) if cluster_file is not None else NoWatch()

    async def attend(self, leading: Callable[[], Leading | None], losses: deque[str]) -> None:
        """See Surroundings."""


async def keep_doing(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work to its end, and begin anew whenever it breaks down."""
    while True:
        try:
            return await work()
        except Exception:
            logger.exception("%s broke down and begins anew in %g s", what, PAUSE_AFTER_BREAKDOWN)
        await asyncio.sleep(PAUSE_AFTER_BREAKDOWN)


def _lease_file_of(job: Job) -> Path:
    if not is_local(job.storage.url):
        raise InvalidOption(
            f"--lease-file is needed: {opt.STORAGE_DIR.key} is {job.storage.url!r}, and the leader is elected by a file; "
            "name one that all JobManagers of the job share"
        )
    return local_path(job.storage.url) / "lease.json"
