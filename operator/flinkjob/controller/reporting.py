"""The operator's part of the status: put together, and compared with what the resource says already."""

from collections.abc import Mapping
from typing import Any

import msgspec

from flinkjob.api.status import OPERATOR_FIELDS
from flinkjob.controller import conditions
from flinkjob.controller.actions import Event
from flinkjob.controller.observed import Manifest, Observed


def as_conditions(observed: Observed, found: list[conditions.Finding], now: float) -> list[dict[str, Any]]:
    """The findings as the conditions of the status."""
    generation = observed.flinkjob["metadata"].get("generation", 0)
    present = observed.status.get("conditions") or ()
    return conditions.as_values(conditions.conditions(found, present, generation=generation, now=now))


def transitions(observed: Observed, found: list[conditions.Finding]) -> list[Event]:
    """An Event for each finding that the status does not tell yet; of reconciling the leader tells itself."""
    changed = conditions.changed(found, observed.status.get("conditions") or ())
    return [
        Event(reason=x.reason, message=x.message, warning=x.reason in conditions.ALARMING)
        for x in changed
        if x.type != conditions.RECONCILING
    ]


def kept(observed: Observed) -> dict[str, Any]:
    """The operator's part of the status as it is, but for what is said anew."""
    said_anew = ["observedGeneration", "conditions"]
    leader = observed.status.get("currentLeader")
    if not any(pod.name == leader and pod.counts and pod.ready for pod in observed.pods):
        said_anew.append("currentLeader")
    return {key: value for key, value in observed.status.items() if key in OPERATOR_FIELDS and key not in said_anew}


def status_to_apply(observed: Observed, values: Mapping[str, Any]) -> Manifest | None:
    """The operator's part of the status; None when the resource says it already."""
    generation = observed.flinkjob["metadata"].get("generation")
    wanted: Manifest = msgspec.to_builtins({"observedGeneration": generation, **values})
    wanted = {key: value for key, value in wanted.items() if value is not None}
    present = {key: value for key, value in observed.status.items() if key in OPERATOR_FIELDS}
    told = (observed.status.get("jobStatus") or {}).get("state")
    if wanted.get("jobStatus", {"state": told}) == {"state": told} and present == {
        key: value for key, value in wanted.items() if key in OPERATOR_FIELDS
    }:
        return None
    return wanted


def only_ready(observed: Observed, reason: str, problem: str, now: float) -> tuple[Manifest | None, tuple[Event, ...]]:
    """The status and Events of a FlinkJob of which nothing can be said but why it is not Ready."""
    found = [conditions.Finding(conditions.READY, False, reason, problem)]
    for_ever = [
        x for x in observed.status.get("conditions") or () if x["type"] in (conditions.FINISHED, conditions.FAILED)
    ]
    values = {**kept(observed), "conditions": as_conditions(observed, found, now) + for_ever}
    return status_to_apply(observed, values), tuple(transitions(observed, found))
