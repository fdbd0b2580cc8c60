"""The registry of options is complete and sound, and a configuration refuses whatever is not in it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.api import options
from flinkjob.api.errors import InvalidOption
from flinkjob.api.options import OPTIONS, ConfigOption, Configuration, RestartStrategyType, options_table

every_option = pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)

FLINK_AND_BLINK_DEFAULTS = {
    "jobmanager.failover.operation-log-store": "none",
    "jobmanager.failover.reconcile-timeout": "1 min",
    "taskmanager.reconnection.timeout": "1 min",
    "taskmanager.numberOfTaskSlots": "1",
    "heartbeat.interval": "10 s",
    "heartbeat.timeout": "50 s",
    "jobmanager.execution.failover-strategy": "region",
    "restart-strategy.fixed-delay.attempts": "1",
    "restart-strategy.fixed-delay.delay": "1 s",
    "restart-strategy.failure-rate.max-failures-per-interval": "1",
    "restart-strategy.failure-rate.failure-rate-interval": "1 min",
    "restart-strategy.failure-rate.delay": "1 s",
    "restart-strategy.exponential-delay.initial-backoff": "1 s",
    "restart-strategy.exponential-delay.max-backoff": "1 min",
    "restart-strategy.exponential-delay.backoff-multiplier": "1.5",
    "restart-strategy.exponential-delay.reset-backoff-threshold": "1 h",
    "restart-strategy.exponential-delay.jitter-factor": "0.1",
    "restart-strategy.exponential-delay.attempts-before-reset-backoff": "2147483647",
}
OWN_DEFAULTS = {
    "high-availability.storageDir": "",
    "jobmanager.failover.operation-log-flush-interval": "0 ms",
    "jobmanager.failover.operation-log-write-deadline": "1 min",
    "jobmanager.failover.snapshot-interval-operations": "100000",
    "jobmanager.failover.on-corrupted-log": "fail",
    "task.cancellation.timeout": "30 s",
    "restart-strategy.type": "exponential-delay",
    "high-availability.kubernetes.leader-election.lease-duration": "15 s",
    "high-availability.kubernetes.leader-election.renew-deadline": "10 s",
    "high-availability.kubernetes.leader-election.retry-period": "2 s",
}


def test_the_registry_holds_exactly_these_options_with_these_defaults() -> None:
    defaults = {key: option.default_text for key, option in OPTIONS.items()}
    assert defaults == FLINK_AND_BLINK_DEFAULTS | OWN_DEFAULTS


@every_option
def test_every_option_is_documented_on_one_line(option: ConfigOption[object]) -> None:
    assert len(option.description) > 30
    assert option.description.endswith(".")
    for text in (option.description, option.type.name, option.type.allowed):
        assert text
        assert "\n" not in text
        assert "|" not in text


@every_option
def test_every_default_is_an_allowed_value(option: ConfigOption[object]) -> None:
    if option.default is not None:
        assert option.type.parse(option.default_text) == option.default
        assert Configuration({option.key: option.default_text}).get(option) == option.default
    assert Configuration().get(option) == option.default


@every_option
def test_a_malformed_value_is_refused_with_key_value_and_what_is_allowed(option: ConfigOption[object]) -> None:
    wrong = "\0 wrong"
    with pytest.raises(InvalidOption) as refused:
        Configuration({option.key: wrong})
    assert str(refused.value).startswith(f"{option.key}: {wrong!r} is not ")
    assert option.type.allowed.partition(", at least")[0] in str(refused.value)


@every_option
def test_the_table_has_a_row_for_every_option(option: ConfigOption[object]) -> None:
    rows = [line for line in options_table().splitlines() if line.startswith(f"| `{option.key}` |")]
    assert len(rows) == 1
    assert rows[0].count("|") == 5
    assert option.description in rows[0]
    assert f"`{option.default_text}`" in rows[0] or "(none)" in rows[0]


def test_the_defaults_fit_together() -> None:
    Configuration().validate()


def test_values_come_typed() -> None:
    configuration = Configuration(
        {
            "heartbeat.timeout": "20 s",
            "heartbeat.interval": 500,
            "taskmanager.numberOfTaskSlots": 4,
            "restart-strategy.exponential-delay.jitter-factor": 0.25,
            "restart-strategy.type": "Fixed-Delay",
            "high-availability.storageDir": " s3://bucket/jobs ",
        }
    )
    assert configuration.get(options.HEARTBEAT_TIMEOUT) == 20_000
    assert configuration.get(options.HEARTBEAT_INTERVAL) == 500
    assert configuration.get(options.NUMBER_OF_TASK_SLOTS) == 4
    assert configuration.get(options.EXPONENTIAL_DELAY_JITTER) == 0.25
    assert configuration.get(options.RESTART_STRATEGY) is RestartStrategyType.FIXED_DELAY
    assert configuration.get(options.STORAGE_DIR) == "s3://bucket/jobs"


@pytest.mark.parametrize("value", ["disable", "none", "off", "OFF", False])
def test_no_restarts_can_be_said_in_all_of_flinks_ways(value: str | bool) -> None:
    chosen = Configuration({"restart-strategy.type": value}).get(options.RESTART_STRATEGY)
    assert chosen is RestartStrategyType.DISABLE


def test_flinks_spelling_without_a_hyphen_is_taken() -> None:
    chosen = Configuration({"restart-strategy.type": "fixeddelay"}).get(options.RESTART_STRATEGY)
    assert chosen is RestartStrategyType.FIXED_DELAY


def test_an_unknown_key_is_named_with_its_nearest_neighbour() -> None:
    with pytest.raises(InvalidOption, match=r"unknown option 'heartbeat\.timout' \(did you mean 'heartbeat\.timeout'"):
        Configuration({"heartbeat.timout": "1 s"})


def test_an_unknown_key_without_a_neighbour_is_named_with_the_way_to_the_list() -> None:
    with pytest.raises(InvalidOption, match="unknown option 'zzz'; allowed are those that 'flinkjob options' lists"):
        Configuration({"zzz": 1})


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("heartbeat.interval", "0", "'0' is not a duration .*, at least 1 ms"),
        ("heartbeat.timeout", "ten seconds", "'ten seconds' is not a duration"),
        ("task.cancellation.timeout", "-1", "'-1' is not a duration"),
        ("taskmanager.numberOfTaskSlots", "0", "'0' is not a whole number from 1 to"),
        ("taskmanager.numberOfTaskSlots", "2.5", "'2.5' is not a whole number"),
        ("taskmanager.numberOfTaskSlots", "1_0", "'1_0' is not a whole number"),
        ("taskmanager.numberOfTaskSlots", "9" * 5000, "is not a whole number"),
        ("restart-strategy.fixed-delay.attempts", 2**31, "is not a whole number from 0 to 2147483647"),
        ("restart-strategy.exponential-delay.jitter-factor", 1.5, "'1.5' is not a number from 0.0 to 1.0"),
        ("restart-strategy.exponential-delay.backoff-multiplier", 0.9, "'0.9' is not a number of at least 1.0"),
        ("restart-strategy.exponential-delay.backoff-multiplier", "1e999", "'1e999' is not a number"),
        ("restart-strategy.exponential-delay.backoff-multiplier", "nan", "'nan' is not a number"),
        ("restart-strategy.type", "sometimes", "'sometimes' is not one of disable, fixed-delay, failure-rate, exp"),
        ("jobmanager.failover.operation-log-store", "memory", "'memory' is not one of none, filesystem"),
        ("jobmanager.failover.operation-log-store", True, "'true' is not one of none, filesystem"),
        ("high-availability.storageDir", " ", "' ' is not a path or a URL"),
    ],
)
def test_a_value_out_of_bounds_is_refused(key: str, value: str | int | float | bool, problem: str) -> None:
    with pytest.raises(InvalidOption, match=f"{re.escape(key)}: .*{problem}"):
        Configuration({key: value})


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        (
            {"jobmanager.failover.operation-log-store": "filesystem"},
            r"operation-log-store: 'filesystem' needs high-availability\.storageDir: set it",
        ),
        (
            {"heartbeat.interval": "50 s"},
            r"heartbeat\.interval \(50 s\) has to be less than heartbeat\.timeout \(50 s\)",
        ),
        (
            {"high-availability.kubernetes.leader-election.lease-duration": "10 s"},
            r"renew-deadline \(10 s\) has to be less than .*lease-duration \(10 s\)",
        ),
        (
            {"high-availability.kubernetes.leader-election.retry-period": "10 s"},
            r"retry-period \(10 s\) has to be less than .*renew-deadline \(10 s\)",
        ),
        (
            {"restart-strategy.exponential-delay.initial-backoff": "2 min"},
            r"initial-backoff \(2 min\) must not be more than .*max-backoff \(1 min\)",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(mapping: dict[str, str], problem: str) -> None:
    configuration = Configuration(mapping)
    with pytest.raises(InvalidOption, match=problem):
        configuration.validate()


def test_filesystem_with_a_storage_directory_is_valid() -> None:
    Configuration(
        {"jobmanager.failover.operation-log-store": "filesystem", "high-availability.storageDir": "/shared"}
    ).validate()


@pytest.mark.parametrize(("timeout", "interval"), [("10 s", 2_000), ("50 s", 10_000), ("5 min", 10_000), ("2 ms", 1)])
def test_a_timeout_set_alone_brings_an_interval_that_fits(timeout: str, interval: int) -> None:
    configuration = Configuration({"heartbeat.timeout": timeout})
    configuration.validate()
    assert configuration.get(options.HEARTBEAT_INTERVAL) == interval


def test_an_override_wins_and_leaves_the_original_alone() -> None:
    original = Configuration({"heartbeat.timeout": "20 s", "taskmanager.numberOfTaskSlots": 2})
    changed = original.with_overrides({"heartbeat.timeout": "30 s"})
    assert changed.to_mapping() == {"heartbeat.timeout": "30 s", "taskmanager.numberOfTaskSlots": "2"}
    assert original.get(options.HEARTBEAT_TIMEOUT) == 20_000


def test_a_default_only_fills_a_gap() -> None:
    changed = Configuration({"heartbeat.timeout": "20 s"}).with_defaults(
        {"heartbeat.timeout": "30 s", "high-availability.storageDir": "/state"}
    )
    assert changed.to_mapping() == {"high-availability.storageDir": "/state", "heartbeat.timeout": "20 s"}


def test_an_override_is_checked_too() -> None:
    with pytest.raises(InvalidOption, match=r"heartbeat\.timeout: 'soon'"):
        Configuration().with_overrides({"heartbeat.timeout": "soon"})


@given(st.dictionaries(st.sampled_from(sorted(set(OPTIONS) - {"high-availability.storageDir"})), st.none()))
def test_a_mapping_makes_the_same_configuration_again(chosen: dict[str, None]) -> None:
    configuration = Configuration({key: OPTIONS[key].default_text for key in chosen})
    again = Configuration(configuration.to_mapping())
    assert again == configuration
    assert all(again.get(option) == configuration.get(option) for option in OPTIONS.values())
