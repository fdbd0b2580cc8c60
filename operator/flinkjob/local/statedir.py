"""The state directory of a local cluster: what lets a job that was interrupted go on.

::

    STATE_DIR/
        job.json        which job this is: name, namespace, uid, and a digest of the manifest
        cluster.json    the processes, kept current
        lease.json      the leader election's record
        storage/        high-availability.storageDir, where the manifest names none
        logs/           one file for each process
        work/           scratch directories of the TaskManagers
"""

import hashlib
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from flinkjob.api.errors import InvalidInput
from flinkjob.api.flinkjob import FlinkJob
from flinkjob.jobmanager.job import job_id


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
    """A state directory for one job.

    Raises:
        InvalidInput: the directory belongs to another job, is in use, or cannot be written.
    """

    def __init__(self, path: Path, manifest: FlinkJob) -> None:
        self.path = path.absolute()
        record = self._claim(manifest)
        self.uid = record.uid
        self.owner = os.getpid()
        self.job_id = job_id(record.namespace, record.name, record.uid)

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
        """Replace the record at once, so that nobody reads half of it."""
        beside = self.cluster_file.with_suffix(".tmp")
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2))
        beside.replace(self.cluster_file)

    def _claim(self, manifest: FlinkJob) -> _JobRecord:
        wanted = _JobRecord(
            name=manifest.metadata.name,
            namespace=manifest.metadata.namespace,
            uid=manifest.metadata.uid or secrets.token_hex(6),
            digest=hashlib.sha256(msgspec.json.encode(manifest.spec.job, order="deterministic")).hexdigest(),
        )
        try:
            (self.path / "logs").mkdir(parents=True, exist_ok=True)
            record_file = self.path / "job.json"
            if not record_file.exists():
                record_file.write_bytes(msgspec.json.encode(wanted))
            held = msgspec.json.decode(record_file.read_bytes(), type=_JobRecord)
        except (OSError, msgspec.DecodeError) as error:
            raise InvalidInput(f"--state-dir {self.path}: {error}") from None
        if (held.name, held.namespace, held.digest) != (wanted.name, wanted.namespace, wanted.digest):
            raise InvalidInput(
                f"--state-dir {self.path} holds another job ({held.namespace}/{held.name}) or another version of it; "
                "give the manifest that it was begun with, or another directory"
            )
        keeper = self.read_cluster().pid
        if keeper and keeper != os.getpid() and _is_flinkjob(keeper):
            raise InvalidInput(f"--state-dir {self.path} is in use by process {keeper}")
        return held


def _is_flinkjob(pid: int) -> bool:
    """Whether the process lives and is one of ours; a number may have been given to another one since."""
    try:
        return b"flinkjob" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
