"""The Secrets of a job: what is in order stays byte for byte, and what is missing or damaged is made anew."""

from base64 import b64decode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flinkjob.controller import names
from flinkjob.controller.certificates import CERTIFICATE_LIFE
from flinkjob.controller.credentials import Content, contents, maintain
from flinkjob.controller.observed import parse_time

NOW = datetime(2026, 11, 23, tzinfo=UTC)
CA, JOBMANAGER, TASKMANAGER, TOKEN = names.secrets("job")


def issue(
    present: dict[str, dict[str, Any]] | None = None, now: datetime = NOW, token: str = "secret"
) -> list[Content]:
    made = maintain(present or {}, job="job", namespace="ns", now=now, new_token=lambda: token)
    return contents(made, job="job", now=now)


def as_secrets(made: list[Content]) -> dict[str, dict[str, Any]]:
    return {each.name: {"data": dict(each.data)} for each in made}


def test_all_secrets_of_a_job_are_made_and_nothing_that_a_pod_should_not_see() -> None:
    made = {each.name: each for each in issue()}
    assert set(made) == set(names.secrets("job"))
    for name in (JOBMANAGER, TASKMANAGER):
        assert made[name].type == "kubernetes.io/tls"
        assert set(made[name].data) == {"ca.crt", "tls.crt", "tls.key"}
        assert made[name].data["ca.crt"] == made[CA].data["ca.crt"]
        assert made[CA].data["ca.key"] not in made[name].data.values()
    assert made[JOBMANAGER].data["tls.key"] != made[TASKMANAGER].data["tls.key"]
    assert b64decode(made[TOKEN].data["token"]) == b"secret"


def test_what_is_in_order_stays_as_it_is() -> None:
    made = issue()
    assert issue(as_secrets(made), NOW + timedelta(days=1), token="another") == made


@pytest.mark.parametrize("lost", [JOBMANAGER, TASKMANAGER, TOKEN])
def test_only_what_is_lost_is_made_anew(lost: str) -> None:
    made = issue()
    present = as_secrets(made)
    del present[lost]
    again = issue(present, token="another")
    assert [old.name for old, new in zip(made, again, strict=True) if old != new] == [lost]


def test_with_a_new_authority_come_new_certificates() -> None:
    present = as_secrets(issue())
    present[CA]["data"]["ca.key"] = "!"
    again = as_secrets(issue(present))
    for name in (CA, JOBMANAGER, TASKMANAGER):
        assert again[name] != present[name]
    assert again[TOKEN] == present[TOKEN]


def test_they_are_looked_at_again_when_the_first_of_them_is_due_and_then_renewed() -> None:
    made = issue()
    (moment,) = {each.renew_at for each in made}
    due = parse_time(moment)
    assert due is not None
    later = datetime.fromtimestamp(due, UTC)
    assert NOW < later < NOW + CERTIFICATE_LIFE
    again = as_secrets(issue(as_secrets(made), later))
    assert again[JOBMANAGER]["data"]["tls.crt"] != as_secrets(made)[JOBMANAGER]["data"]["tls.crt"]
    assert again[CA] == as_secrets(made)[CA]
