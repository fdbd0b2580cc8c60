"""The status of a FlinkJob: who writes which part, and what each value means.

Two writers share it by server-side apply. The leading JobManager tells what only it knows (`LEADER_FIELDS`); the operator
tells what it sees of pods and what follows from both (`OPERATOR_FIELDS`). Neither writes the other's fields, with one
exception: while no JobManager exists that could, the operator says that a job is SUSPENDED.

Times are RFC 3339 in UTC, durations milliseconds.
"""

from typing import Literal

from msgspec import Struct


class TaskCounts(Struct, frozen=True, kw_only=True, rename="camel"):
    """Tasks by the state of their current attempt (Flink's ``ExecutionState``).

    Attributes:
        total: all of them.
        created: not yet deployed.
        deploying: on their way to a TaskManager.
        running: at work.
        finished: done, their results kept.
        canceling: told to stop.
        canceled: stopped.
        failed: ended by a failure, and not yet due to run again.
    """

    total: int = 0
    created: int = 0
    deploying: int = 0
    running: int = 0
    finished: int = 0
    canceling: int = 0
    canceled: int = 0
    failed: int = 0


class VertexStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    """One vertex of the job.

    Attributes:
        name: as in ``spec.job``.
        parallelism: number of its tasks.
        tasks: its tasks by state.
    """

    name: str
    parallelism: int
    tasks: TaskCounts = TaskCounts()


class JobStatusInfo(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The job as its leader sees it.

    Attributes:
        job_id: 32 hexadecimal digits, as Flink's JobID.
        state: Flink's ``JobStatus``; SUSPENDED when the operator has stopped all JobManagers.
        start_time: when the job first ran.
        end_time: when it came to its end.
        tasks: all tasks by state.
        vertices: the vertices, in topological order.
        error: why the job failed, or why a leader cannot go on.
    """

    job_id: str = ""
    state: str = ""
    start_time: str | None = None
    end_time: str | None = None
    tasks: TaskCounts | None = None
    vertices: tuple[VertexStatus, ...] = ()
    error: str | None = None


class LeaderStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    """The leading JobManager.

    Attributes:
        pod: its pod.
        epoch: its term, a number that only grows.
        since: when the term began.
    """

    pod: str
    epoch: int
    since: str


class Verdicts(Struct, frozen=True, kw_only=True, rename="camel"):
    """What a new leader found of the tasks that were under way.

    Attributes:
        continued: they run on, in the same process and attempt.
        advanced: they had gone on in the meantime, to their end perhaps.
        redeployed: they had not arrived, and were sent once more.
        restarted: they were lost or in conflict, and run again.
        orphaned: attempts that nobody waits for any more; cancelled.
        cancelled: they were being cancelled, and were told so once more.
        ended: they had ended, and both sides knew it.
    """

    continued: int = 0
    advanced: int = 0
    redeployed: int = 0
    restarted: int = 0
    orphaned: int = 0
    cancelled: int = 0
    ended: int = 0


class RestartedTaskStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    """A task that a failover did not continue.

    Attributes:
        task: as ``vertex[subtask]``.
        reason: why it has to run again.
    """

    task: str
    reason: str


class FailoverStatus(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One change of the leader.

    Attributes:
        epoch: the new leader's term.
        leader: its pod.
        cause: why the term before it ended, as far as is known.
        detected_at: when the new leader began to replay.
        replay_ms: how long the replay took.
        reconcile_ms: from the start of the term to the last verdict.
        gap_ms: for how long nobody decided: from the old leader's last sign of life (it renews its lease every
            retry-period), or from the replay where none is known, to the new leader's first decision.
        replayed_operations: operations read after the snapshot.
        verdicts: how many tasks had which verdict.
        restarted: tasks that ran again, 20 at most.
    """

    epoch: int
    leader: str
    cause: str
    detected_at: str
    replay_ms: float = 0.0
    reconcile_ms: float = 0.0
    gap_ms: float | None = None
    replayed_operations: int = 0
    verdicts: Verdicts = Verdicts()
    restarted: tuple[RestartedTaskStatus, ...] = ()


class LogStatus(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The operation log as its writer sees it.

    Attributes:
        writable: whether the last write succeeded.
        lag_ms: the age of the oldest operation that is not durable yet.
        problem: what keeps it from being written.
    """

    writable: bool
    lag_ms: float = 0.0
    problem: str | None = None


class Trouble(Struct, frozen=True, kw_only=True, rename="camel"):
    """What keeps the JobManager that was elected from leading: until a person comes, or until the storage answers again.

    Attributes:
        reason: the reason that the condition Ready has for it: JobInvalid, StorageUnsupported, LogUnreadable or
            LogUnavailable.
        message: what it is.
    """

    reason: str
    message: str


class Wanted(Struct, frozen=True, kw_only=True, rename="camel"):
    """Pods of one kind.

    Attributes:
        wanted: how many there should be.
        ready: how many are ready.
    """

    wanted: int
    ready: int


class Condition(Struct, frozen=True, kw_only=True, rename="camel"):
    """One condition, as Kubernetes' ``metav1.Condition``.

    Attributes:
        type: Ready, Protected, Reconciling, Finished or Failed.
        status: whether it holds.
        reason: a word for programs.
        message: a sentence for people, with the remedy where there is one.
        last_transition_time: when `status` last changed.
        observed_generation: the generation of the resource that this was said of.
    """

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    last_transition_time: str
    observed_generation: int = 0


class Handover(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The latest handover that was asked for by ``spec.failoverNonce``.

    Attributes:
        nonce: the value that asked for it.
        uid: uid of the pod that had to hand over; none when there was nothing to do.
        waiting: a newer value, which waits for a leader and a standby that is ready.
    """

    nonce: int
    uid: str | None = None
    waiting: int | None = None


class Crashes(Struct, frozen=True, kw_only=True, rename="camel"):
    """TaskManagers that died soon after their start, in a row.

    Attributes:
        count: how often.
        last: when the latest one died.
        message: what it said.
    """

    count: int
    last: str
    message: str = ""


class FlinkJobStatus(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The status of a FlinkJob.

    Attributes:
        observed_generation: the latest generation that the operator has acted on.
        conditions: Ready, Protected, Reconciling, Finished, Failed.
        job_status: the job as its leader sees it.
        tasks: running, finished and all tasks, as ``2/5/8``.
        current_leader: the pod that leads, where that is certain; it says whether what `leader`, `reconciling` and `log` say
            still counts, for the word of a leader stays until its successor speaks.
        leader: the JobManager that led last.
        trouble: what keeps it from leading, until a person comes.
        reconciling: whether the leader still compares the log with what the TaskManagers report.
        running_tasks: how many tasks each TaskManager has, by its pod.
        failovers: how often the leader has changed.
        failover_history: the last ten failovers, the newest last.
        log: the operation log.
        job_managers: the JobManagers' pods.
        task_managers: the TaskManagers' pods.
        replicas: TaskManagers that there are, for the scale subresource.
        selector: their labels, for the scale subresource.
        run: which run of the job this is: the uid of the resource and, after a restart, the generation that asked for it.
        restart_nonce: the value of ``spec.restartNonce`` with which this run began.
        image: what the pods of this run have; it stays when the operator's own default changes.
        handover: the latest handover that was asked for.
        crashes: TaskManagers that die soon after their start.
    """

    observed_generation: int | None = None
    conditions: tuple[Condition, ...] = ()
    job_status: JobStatusInfo | None = None
    tasks: str | None = None
    current_leader: str | None = None
    leader: LeaderStatus | None = None
    trouble: Trouble | None = None
    reconciling: bool | None = None
    running_tasks: dict[str, int] = {}
    failovers: int | None = None
    failover_history: tuple[FailoverStatus, ...] = ()
    log: LogStatus | None = None
    job_managers: Wanted | None = None
    task_managers: Wanted | None = None
    replicas: int | None = None
    selector: str | None = None
    run: str | None = None
    restart_nonce: int | None = None
    image: str | None = None
    handover: Handover | None = None
    crashes: Crashes | None = None


LEADER_FIELDS = frozenset(
    {"jobStatus", "leader", "trouble", "reconciling", "runningTasks", "failovers", "failoverHistory", "log"}
)
"""What the leading JobManager writes, by the field manager ``flinkjob-jobmanager``."""

OPERATOR_FIELDS = frozenset(
    {
        "observedGeneration", "conditions", "currentLeader", "tasks", "jobManagers", "taskManagers", "replicas", "selector",
        "run", "restartNonce", "image", "handover", "crashes",
    }
)  # fmt: skip
"""What the operator writes, by the field manager ``flinkjob-operator``."""
