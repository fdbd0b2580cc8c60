"""The state directory of a local cluster: what lets a job that was interrupted go on.

::

    STATE_DIR/
        job.json        which job this is: name, namespace, uid, and a digest of the manifest
        lock            held by the one who keeps the cluster
        cluster.json    the processes, kept current
        lease.json      the leader election's record
        storage/        high-availability.storageDir, where the manifest names none
        logs/           one file for each process
        work/           scratch directories of the TaskManagers
"""

import fcntl
import hashlib
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from flinkjob.api.errors import InvalidInput
from flinkjob.api.flinkjob import FlinkJob, job_id


class _JobRecord(msgspec.Struct):
    name: str
    namespace: str
    uid: str
    digest: str


@dataclass(slots=True)
class JobManagerEntry:
    """A JobManager process."""

    id: str
    pid: int
    rest: str
    leader: bool = False


@dataclass(slots=True)
class TaskManagerEntry:
    """A TaskManager process."""

    id: str
    pid: int


@dataclass(slots=True)
class ClusterRecord:
    """``cluster.json``: what runs, for whoever wants to look at it or kill it.

    Attributes:
        pid: the process that keeps the cluster.
        job_id: the job's id in the REST API.
        ended: TaskManagers that will not come back, and why.
    """

    pid: int = 0
    job_id: str = ""
    jobmanagers: list[JobManagerEntry] = field(default_factory=list)
    taskmanagers: list[TaskManagerEntry] = field(default_factory=list)
    ended: dict[str, str] = field(default_factory=dict)


class StateDir:
    """A state directory for one job, and for one process at a time until it is closed.

    Raises:
        InvalidInput: the directory belongs to another job, is in use, or cannot be written.
    """

    def __init__(self, path: Path, manifest: FlinkJob) -> None:
        self.path = path.absolute()
        self.owner = os.getpid()
        self._lock = self._take_lock()
        try:
            self._record = self._matching(manifest)
        except InvalidInput:
            self.close()
            raise
        self.uid = self._record.uid
        self.job_id = job_id(self._record.namespace, self._record.name, self.uid)

    def __enter__(self) -> "StateDir":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others have it."""
        os.close(self._lock)

    def claim(self) -> None:
        """Record that the directory is this job's: from now on it is nobody else's."""
        _replace(self.path / "job.json", msgspec.json.encode(self._record))

    @property
    def cluster_file(self) -> Path:
        """Where the processes are listed."""
        return self.path / "cluster.json"

    @property
    def lease_file(self) -> Path:
        """Where the JobManagers elect their leader."""
        return self.path / "lease.json"

    @property
    def storage(self) -> Path:
        """The storage directory for a manifest that names none."""
        return self.path / "storage"

    def log_file(self, process: str) -> Path:
        """Where a process writes what it has to say."""
        return self.path / "logs" / f"{process}.log"

    def work_dir(self, process: str) -> Path:
        """A TaskManager's scratch directory."""
        return self.path / "work" / process

    def read_cluster(self) -> ClusterRecord:
        """The cluster as it was last recorded; empty where there is none."""
        try:
            return msgspec.json.decode(self.cluster_file.read_bytes(), type=ClusterRecord)
        except (OSError, msgspec.DecodeError):
            return ClusterRecord()

    def write_cluster(self, record: ClusterRecord) -> None:
        """Record the processes."""
        _replace(self.cluster_file, msgspec.json.format(msgspec.json.encode(record), indent=2))

    def _take_lock(self) -> int:
        try:
            (self.path / "logs").mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise InvalidInput(f"--state-dir {self.path}: {error}") from None
        try:
            # The kernel lets go of it when this process ends in any way.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise InvalidInput(f"--state-dir {self.path} is in use by process {self.read_cluster().pid}") from None
        return lock

    def _matching(self, manifest: FlinkJob) -> _JobRecord:
        """The record that is there, if it is this manifest's; a new one where there is none."""
        wanted = _JobRecord(
            name=manifest.metadata.name,
            namespace=manifest.metadata.namespace,
            uid=manifest.metadata.uid or secrets.token_hex(6),
            digest=hashlib.sha256(msgspec.json.encode(manifest.spec.job, order="deterministic")).hexdigest(),
        )
        try:
            held = msgspec.json.decode((self.path / "job.json").read_bytes(), type=_JobRecord)
        except FileNotFoundError:
            return wanted
        except (OSError, msgspec.DecodeError) as error:
            raise InvalidInput(f"--state-dir {self.path}: job.json: {error}") from None
        if (held.name, held.namespace, held.digest) != (wanted.name, wanted.namespace, wanted.digest):
            raise InvalidInput(
                f"--state-dir {self.path} holds another job ({held.namespace}/{held.name}) or another version of it; "
                "give the manifest that it was begun with, or another directory"
            )
        return held


def _replace(path: Path, data: bytes) -> None:
    """Replace a file at once, so that nobody reads half of it."""
    beside = path.with_suffix(".tmp")
    beside.write_bytes(data)
    beside.replace(path)
