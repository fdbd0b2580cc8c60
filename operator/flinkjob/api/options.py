"""Every option of ``flinkConfiguration`` in one list (key, type, default, meaning), and the configuration made of them.

Keys, formats and defaults are Flink's where Flink has the option, and Blink's (the branch of Flink in which a JobMaster
first failed over by an operation log) for ``jobmanager.failover.*`` and ``taskmanager.reconnection.timeout``; a
description says where we mean something else. The table in the documentation is made from this list.

A `Configuration` is valid from the moment it exists: every key is known and every value has been parsed. What one
option demands of another is checked separately, because a configuration may still lack what the command line or the
operator fills in.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from flinkjob.api.errors import InvalidInput, InvalidOption
from flinkjob.api.fields import did_you_mean, shown
from flinkjob.api.option_types import ValueType, choice, duration, integer, location, number
from flinkjob.api.units import DURATION_FORMAT

T = TypeVar("T")

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
NO_LIMIT = 2**31 - 1


class OperationLogStore(enum.StrEnum):
    """Where the operation log is kept."""

    NONE = "none"
    FILESYSTEM = "filesystem"


class OnCorruptedLog(enum.StrEnum):
    """What a new leader does with a log that is damaged elsewhere than at its end."""

    FAIL = "fail"
    RESTART = "restart"


class FailoverStrategy(enum.StrEnum):
    """Which tasks restart when one fails."""

    REGION = "region"
    FULL = "full"


class RestartStrategyType(enum.StrEnum):
    """When failed tasks restart, and when the job fails instead."""

    DISABLE = "disable"
    FIXED_DELAY = "fixed-delay"
    FAILURE_RATE = "failure-rate"
    EXPONENTIAL_DELAY = "exponential-delay"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigOption(Generic[T]):
    """One option.

    Attributes:
        key: its name in ``flinkConfiguration``.
        type: how its value is written.
        default: its value when it is not set.
        description: what it does, in Markdown, on one line.
    """

    key: str
    type: ValueType[T]
    default: T
    description: str

    @property
    def default_text(self) -> str:
        """The default as one would write it; empty when there is none."""
        return "" if self.default is None else self.type.format(self.default)


OPERATION_LOG_STORE = ConfigOption(
    key="jobmanager.failover.operation-log-store",
    type=choice(OperationLogStore),
    default=OperationLogStore.NONE,
    description="Where the operation log is kept. `filesystem`: under `high-availability.storageDir`; running tasks "
    "outlive the JobManager. `none`: nowhere; a new leader restarts the job in full, as Flink does.",
)
STORAGE_DIR: ConfigOption[str | None] = ConfigOption(
    key="high-availability.storageDir",
    type=location(),
    default=None,
    description="Directory, as a path or an fsspec URL (`file://`, `hdfs://`, `s3://` …), for the operation log, its "
    "snapshots and the partitions of every job. Needed for `filesystem`.",
)
OPERATION_LOG_FLUSH_INTERVAL = ConfigOption(
    key="jobmanager.failover.operation-log-flush-interval",
    type=duration(),
    default=0,
    description="How long operations are gathered before they are written together. Whatever follows from an operation "
    "waits until it is durable, so a longer interval trades latency for fewer writes and never risks operations; "
    "Blink's `3000` was a window of loss. `0 ms`: what arrives during one write makes up the next.",
)
OPERATION_LOG_WRITE_DEADLINE = ConfigOption(
    key="jobmanager.failover.operation-log-write-deadline",
    type=duration(at_least=1),
    default=MINUTE,
    description="How long a failing write of the operation log is tried again before the leader steps down. Nothing is "
    "deployed or acknowledged in the meantime; running tasks go on.",
)
SNAPSHOT_INTERVAL_OPERATIONS = ConfigOption(
    key="jobmanager.failover.snapshot-interval-operations",
    type=integer(at_least=1),
    default=100_000,
    description="Number of operations between two snapshots of the ExecutionGraph; bounds what a new leader replays.",
)
RECONCILE_TIMEOUT = ConfigOption(
    key="jobmanager.failover.reconcile-timeout",
    type=duration(),
    default=MINUTE,
    description="How long a new leader waits for the TaskManagers' reports before it fails the tasks of silent ones. "
    "A bare number is milliseconds, as in every duration of Flink; in Blink it was seconds.",
)
ON_CORRUPTED_LOG = ConfigOption(
    key="jobmanager.failover.on-corrupted-log",
    type=choice(OnCorruptedLog),
    default=OnCorruptedLog.FAIL,
    description="What to do with a log that is damaged elsewhere than at its torn end. `fail`: nothing is deleted and "
    "the job waits for a person. `restart`: the damaged log is set aside and the job starts anew, as in Blink.",
)
EXECUTION_FAILOVER_STRATEGY = ConfigOption(
    key="jobmanager.execution.failover-strategy",
    type=choice(FailoverStrategy),
    default=FailoverStrategy.REGION,
    description="Which tasks restart when one fails. `region`: its own failover region, the producers of missing "
    "partitions, and their consumers. `full`: all.",
)
RECONNECTION_TIMEOUT = ConfigOption(
    key="taskmanager.reconnection.timeout",
    type=duration(),
    default=MINUTE,
    description="How long a TaskManager keeps its tasks running without a leader before it cancels them and exits. "
    "Should be longer than a change of leaders takes.",
)
NUMBER_OF_TASK_SLOTS = ConfigOption(
    key="taskmanager.numberOfTaskSlots",
    type=integer(at_least=1),
    default=1,
    description="Number of tasks that one TaskManager runs at a time. `spec.taskManager.taskSlots` says the same.",
)
TASK_CANCELLATION_TIMEOUT = ConfigOption(
    key="task.cancellation.timeout",
    type=duration(at_least=1),
    default=30 * SECOND,
    description="How long a cancelled task has between SIGTERM and SIGKILL. Flink's 180 s end with the death of the "
    "whole TaskManager; here only the task's own processes are killed, so that Kubernetes' grace of 30 s is enough.",
)
HEARTBEAT_INTERVAL = ConfigOption(
    key="heartbeat.interval",
    type=duration(at_least=1),
    default=10 * SECOND,
    description="Time between two heartbeats of JobManager and TaskManager. Where only `heartbeat.timeout` is set, and "
    "to less than 50 s, a fifth of it.",
)
HEARTBEAT_TIMEOUT = ConfigOption(
    key="heartbeat.timeout",
    type=duration(at_least=1),
    default=50 * SECOND,
    description="After this long without a heartbeat the other side counts as lost. Longer than `heartbeat.interval`.",
)
RESTART_STRATEGY = ConfigOption(
    key="restart-strategy.type",
    # An unquoted `off` is the boolean false in YAML, and reaches us as that word.
    type=choice(
        RestartStrategyType,
        aliases=dict.fromkeys(("none", "off", "false"), RestartStrategyType.DISABLE)
        | {kind.value.replace("-", ""): kind for kind in RestartStrategyType},
    ),
    default=RestartStrategyType.EXPONENTIAL_DELAY,
    description="When failed tasks restart. `disable` (also `none`, `off`): never, the first failure fails the job. "
    "Flink's default is this one for jobs without checkpoints, because they would start anew; here finished tasks are "
    "kept, so that a retry costs little, and the default is the one that Flink has for jobs with checkpoints.",
)
FIXED_DELAY_ATTEMPTS = ConfigOption(
    key="restart-strategy.fixed-delay.attempts",
    type=integer(at_least=0),
    default=1,
    description="Number of restarts before the job fails, with `fixed-delay`.",
)
FIXED_DELAY_DELAY = ConfigOption(
    key="restart-strategy.fixed-delay.delay",
    type=duration(),
    default=SECOND,
    description="Time between a failure and the restart, with `fixed-delay`.",
)
FAILURE_RATE_MAX_FAILURES = ConfigOption(
    key="restart-strategy.failure-rate.max-failures-per-interval",
    type=integer(at_least=1),
    default=1,
    description="Most failures within `failure-rate-interval` that are answered by a restart; one more fails the job, "
    "with `failure-rate`.",
)
FAILURE_RATE_INTERVAL = ConfigOption(
    key="restart-strategy.failure-rate.failure-rate-interval",
    type=duration(at_least=1),
    default=MINUTE,
    description="The time over which failures are counted, with `failure-rate`.",
)
FAILURE_RATE_DELAY = ConfigOption(
    key="restart-strategy.failure-rate.delay",
    type=duration(),
    default=SECOND,
    description="Time between a failure and the restart, with `failure-rate`.",
)
EXPONENTIAL_DELAY_INITIAL_BACKOFF = ConfigOption(
    key="restart-strategy.exponential-delay.initial-backoff",
    type=duration(at_least=1),
    default=SECOND,
    description="Time between the first failure and its restart, with `exponential-delay`.",
)
EXPONENTIAL_DELAY_MAX_BACKOFF = ConfigOption(
    key="restart-strategy.exponential-delay.max-backoff",
    type=duration(at_least=1),
    default=MINUTE,
    description="The longest time between a failure and its restart, with `exponential-delay`.",
)
EXPONENTIAL_DELAY_MULTIPLIER = ConfigOption(
    key="restart-strategy.exponential-delay.backoff-multiplier",
    type=number(at_least=1.0),
    default=1.5,
    description="What the time before a restart is multiplied by at each further failure, with `exponential-delay`.",
)
EXPONENTIAL_DELAY_RESET_THRESHOLD = ConfigOption(
    key="restart-strategy.exponential-delay.reset-backoff-threshold",
    type=duration(at_least=1),
    default=HOUR,
    description="After this long without a failure the backoff and the count of attempts begin anew, with "
    "`exponential-delay`.",
)
EXPONENTIAL_DELAY_JITTER = ConfigOption(
    key="restart-strategy.exponential-delay.jitter-factor",
    type=number(at_least=0.0, at_most=1.0),
    default=0.1,
    description="The fraction of the backoff that is added or taken away at random, with `exponential-delay`.",
)
EXPONENTIAL_DELAY_ATTEMPTS = ConfigOption(
    key="restart-strategy.exponential-delay.attempts-before-reset-backoff",
    type=integer(at_least=1),
    default=NO_LIMIT,
    description=f"Number of restarts before the job fails, with `exponential-delay`; `{NO_LIMIT}` is no limit.",
)
LEASE_DURATION = ConfigOption(
    key="high-availability.kubernetes.leader-election.lease-duration",
    type=duration(at_least=1),
    default=15 * SECOND,
    description="How long a standby lets the lease go without renewal before it takes it.",
)
RENEW_DEADLINE = ConfigOption(
    key="high-availability.kubernetes.leader-election.renew-deadline",
    type=duration(at_least=1),
    default=10 * SECOND,
    description="How long a leader tries to renew its lease before it stops leading. Shorter than `lease-duration`, so "
    "that it has stopped when a standby starts; Flink has both at 15 s. While the API server is out of reach, a leader "
    "with an operation log goes on for as long as the log knows of no newer one.",
)
RETRY_PERIOD = ConfigOption(
    key="high-availability.kubernetes.leader-election.retry-period",
    type=duration(at_least=1),
    default=2 * SECOND,
    description="Time between two attempts to take or renew the lease. Shorter than `renew-deadline`; Flink has 5 s.",
)

OPTIONS: Mapping[str, ConfigOption[object]] = {
    option.key: option for option in list(globals().values()) if isinstance(option, ConfigOption)
}
"""All options by their keys, in the order of the documentation."""

Scalar = str | int | float | bool
"""A value as YAML hands it over; each is read as the text that stands for it."""

_STRICTLY_ASCENDING = (
    (HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT),
    (RETRY_PERIOD, RENEW_DEADLINE),
    (RENEW_DEADLINE, LEASE_DURATION),
)
"""Pairs of durations of which the first has to be shorter than the second."""


class Configuration:
    """Options that are set, and the defaults of all others.

    Args:
        mapping: values by option key.

    Raises:
        InvalidOption: a key is unknown, or a value malformed.
    """

    __slots__ = ("_texts", "_values")

    def __init__(self, mapping: Mapping[str, Scalar] | None = None) -> None:
        self._texts = {key: _as_text(value) for key, value in (mapping or {}).items()}
        self._values = {key: _parsed(key, text) for key, text in self._texts.items()}
        if HEARTBEAT_INTERVAL.key not in self._values:
            # Whoever shortens only the timeout means to notice a loss sooner, not to lose peers between two heartbeats.
            fifth = max(1, self.get(HEARTBEAT_TIMEOUT) // 5)
            self._values[HEARTBEAT_INTERVAL.key] = min(fifth, HEARTBEAT_INTERVAL.default)

    def get(self, option: ConfigOption[T]) -> T:
        """The value of the option, or its default."""
        return cast("T", self._values.get(option.key, option.default))

    def to_mapping(self) -> dict[str, str]:
        """The options that are set, as they were written; ``Configuration(c.to_mapping()) == c``."""
        return dict(self._texts)

    def with_overrides(self, overrides: Mapping[str, Scalar]) -> "Configuration":
        """A configuration where `overrides` win over what is set here."""
        return Configuration({**self._texts, **overrides})

    def with_defaults(self, defaults: Mapping[str, Scalar]) -> "Configuration":
        """A configuration where `defaults` stand in for what is not set here."""
        return Configuration({**defaults, **self._texts})

    def validate(self) -> None:
        """Check what options demand of each other.

        Raises:
            InvalidOption: ``filesystem`` without a storageDir; heartbeats, lease times or backoffs out of order.
        """
        if self.get(OPERATION_LOG_STORE) is OperationLogStore.FILESYSTEM and self.get(STORAGE_DIR) is None:
            raise InvalidOption(
                f"{OPERATION_LOG_STORE.key}: 'filesystem' needs {STORAGE_DIR.key}: set it to a directory or URL that "
                "all JobManagers and TaskManagers share"
            )
        for shorter, longer in _STRICTLY_ASCENDING:
            if self.get(shorter) >= self.get(longer):
                raise InvalidOption(f"{self._shown(shorter)} has to be less than {self._shown(longer)}")
        first, last = EXPONENTIAL_DELAY_INITIAL_BACKOFF, EXPONENTIAL_DELAY_MAX_BACKOFF
        if self.get(first) > self.get(last):
            raise InvalidOption(f"{self._shown(first)} must not be more than {self._shown(last)}")

    def _shown(self, option: ConfigOption[int]) -> str:
        return f"{option.key} ({option.type.format(self.get(option))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Configuration) and self._texts == other._texts

    def __repr__(self) -> str:
        return f"Configuration({self._texts!r})"


def _as_text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parsed(key: str, text: str) -> object:
    option = OPTIONS.get(key)
    if option is None:
        raise InvalidOption(
            f"unknown option {shown(key)}{did_you_mean(key, OPTIONS)}; allowed are those that 'flinkjob options' lists"
        )
    try:
        return option.type.parse(text)
    except InvalidInput as error:
        raise InvalidOption(f"{key}: {error}") from None


def options_table() -> str:
    """The options as a Markdown table, and below it how durations are written."""
    rows = [("Option", "Default", "Value", "Meaning"), ("---", "---", "---", "---")]
    for option in OPTIONS.values():
        default = f"`{option.default_text}`" if option.default_text else "(none)"
        rows.append((f"`{option.key}`", default, option.type.name, option.description))
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"{table}\nA duration is written as {DURATION_FORMAT.removeprefix('a duration such as ')}.\n"
