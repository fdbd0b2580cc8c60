"""Alerts and the dashboard: every metric that they ask for exists, and so does every label that they choose by."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chart.conftest import Render
from chart.helm import CHART, VARIANTS, Helm, Manifest, one
from flinkjob.controller import metrics as operator_metrics
from flinkjob.controller import names
from flinkjob.jobmanager import metrics as jobmanager_metrics
from flinkjob.taskmanager import metrics as taskmanager_metrics

MONITORING = next(path for path in VARIANTS if path.name == "monitoring-values.yaml")
PREFIXES = {
    "flinkjob_operator_": operator_metrics,
    "flinkjob_jobmanager_": jobmanager_metrics,
    "flinkjob_taskmanager_": taskmanager_metrics,
}
LABELS = {"namespace", "flinkjob_io_job", "state", "verdict", "reason", "outcome", "verb", "le"}
"""Labels of the metrics, and the two that Prometheus adds of the pod."""


def _literals(module: Any) -> set[str]:
    """Every string in a module's source; the names of its metrics are among them, without their prefix."""
    constants = (
        node for node in ast.walk(ast.parse(Path(module.__file__).read_text())) if isinstance(node, ast.Constant)
    )
    return {node.value.lstrip("_") for node in constants if isinstance(node.value, str)}


LITERALS = {prefix: _literals(module) for prefix, module in PREFIXES.items()}


def expressions(manifests: list[Manifest]) -> Iterator[tuple[str, str]]:
    """Every PromQL expression of the alerts and of the dashboard, with where it stands."""
    for group in one(manifests, "PrometheusRule")["spec"]["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    dashboard = json.loads(one(manifests, "ConfigMap", "-dashboard")["data"]["flinkjob.json"])
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        yield variable["name"], variable["query"]


def test_every_metric_that_is_asked_for_is_told(render: Render) -> None:
    asked = {
        (where, metric)
        for where, expression in expressions(render(MONITORING))
        for metric in re.findall(r"\bflinkjob_(?:operator|jobmanager|taskmanager)_\w+", expression)
    }
    assert len(asked) > 40
    for where, metric in asked:
        prefix = next(each for each in PREFIXES if metric.startswith(each))
        name = metric.removeprefix(prefix)
        told = {name, re.sub(r"_(total|bucket|sum|count)$", "", name)}
        assert told & LITERALS[prefix], f"{where} asks for {metric}, which nothing tells"


def test_only_known_labels_are_chosen_by(render: Render) -> None:
    for where, expression in expressions(render(MONITORING)):
        grouped = [label for labels in re.findall(r"\bby \(([^)]*)\)", expression) for label in labels.split(",")]
        matched = re.findall(r"[{,]\s*(\w+)\s*=", expression)
        assert {label.strip() for label in [*grouped, *matched]} <= LABELS, where


def test_every_alert_says_what_is_wrong_and_what_to_do(render: Render) -> None:
    rules = [rule for group in one(render(MONITORING), "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 10
    for rule in rules:
        assert rule["labels"] == {"severity": rule["labels"]["severity"], "team": "data"}
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["annotations"]["summary"].endswith("."), rule
        assert rule["expr"].count("(") == rule["expr"].count(")"), rule


def test_thresholds_are_the_values(helm: Helm) -> None:
    settings = {"enabled": True, "failoverGapSeconds": 7.5, "logLagSeconds": 3, "restartsPerHour": 11}
    manifests = helm.template("--set-json", f"metrics.prometheusRule={json.dumps(settings)}")
    groups = one(manifests, "PrometheusRule")["spec"]["groups"]
    rules = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    assert "> 7.5\n" in rules["FlinkJobFailoverSlow"]["expr"]
    assert rules["FlinkJobWithoutLeader"]["for"] == "8s"
    assert rules["FlinkJobLogLags"]["expr"].endswith("> 3")
    assert rules["FlinkJobTasksRestart"]["expr"].endswith("> 11")


def test_the_pod_monitor_finds_the_pods_and_ports_that_the_operator_makes(render: Render) -> None:
    spec = one(render(MONITORING), "PodMonitor")["spec"]
    for component in (names.JOBMANAGER, names.TASKMANAGER):
        assert spec["selector"]["matchLabels"].items() <= names.labels("any", component).items()
    assert spec["podTargetLabels"] == [names.JOB_LABEL]
    assert {endpoint["port"] for endpoint in spec["podMetricsEndpoints"]} == {"rest", "metrics"}


@pytest.mark.parametrize("variant", ["monitoring-namespaced", "monitoring"])
def test_the_pod_monitor_looks_where_jobs_run(render: Render, variant: str) -> None:
    values = CHART / "ci" / f"{variant}-values.yaml"
    expected = {"any": True} if variant == "monitoring" else {"matchNames": ["team-a"]}
    assert one(render(values), "PodMonitor")["spec"]["namespaceSelector"] == expected


def test_panels_do_not_lie_on_each_other() -> None:
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
