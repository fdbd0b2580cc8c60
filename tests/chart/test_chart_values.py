"""The chart's values: what is accepted, what is refused, and that schema, defaults and README tell the same."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.helm import CHART, VARIANTS, Helm
from chart.readme import documented_values, with_table

VALUES = (CHART / "values.yaml").read_text()
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())


def test_the_readme_has_the_table_of_these_values() -> None:
    readme = (CHART / "README.md").read_text()
    assert readme == with_table(readme, VALUES), "`make chart` writes it"


def test_every_value_is_documented() -> None:
    documented = [key for key, _, _ in documented_values(VALUES)]
    # A mapping whose keys the user chooses is one value.
    assert documented == _leaves(yaml.safe_load(VALUES), SCHEMA)


def test_the_schema_knows_the_values_and_no_others() -> None:
    def compare(values: dict[str, Any], schema: dict[str, Any], where: str) -> None:
        assert schema["additionalProperties"] is False, where
        assert set(schema["properties"]) - {"global"} == set(values), where
        for key, value in values.items():
            if "properties" in schema["properties"][key] and key != "resources":
                compare(value, schema["properties"][key], f"{where}.{key}")

    compare(yaml.safe_load(VALUES), SCHEMA, "values")


def test_the_values_files_use_every_value() -> None:
    used = {
        leaf for file in VARIANTS if (values := yaml.safe_load(file.read_text())) for leaf in _leaves(values, SCHEMA)
    }
    exceptions = {"nameOverride", "terminationGracePeriodSeconds", "revisionHistoryLimit"}
    told_by_alert_tests = {"metrics.prometheusRule.logLagSeconds", "metrics.prometheusRule.restartsPerHour"}
    unused = set(_leaves(yaml.safe_load(VALUES), SCHEMA)) - used
    assert unused <= exceptions | told_by_alert_tests | {
        "crds.install",
        "serviceAccount.create",
        "metrics.serviceMonitor.labels",
        "metrics.dashboard.labels",
        "metrics.podMonitor.interval",
    }


@pytest.mark.parametrize("values", VARIANTS, ids=lambda path: path.stem)
def test_lint_finds_nothing(helm: Helm, values: Path) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", CHART, "--values", values)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("replicas=0", "replicas"),
        ("replicas=two", "replicas"),
        ("replica=2", "replica"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("image.digest=sha256:12", "digest"),
        ("image.repository=", "repository"),
        ("watchNamespaces={Team_A}", "watchNamespaces"),
        ("watchNamespaces=team-a", "watchNamespaces"),
        ("crds.instal=false", "instal"),
        ("networkPolicy.apiServerPorts={70000}", "apiServerPorts"),
        ("metrics.serviceMonitor.interval=often", "interval"),
        ("terminationGracePeriodSeconds=1", "terminationGracePeriodSeconds"),
        ("fullnameOverride=No_Name", "fullnameOverride"),
        ("serviceAccount.create=false", "serviceAccount.name"),
    ],
)
def test_a_wrong_value_is_refused_by_name(helm: Helm, setting: str, named: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        helm.template("--set", setting)
    assert named in error.value.stderr


def test_a_subchart_may_be_given_global_values(helm: Helm) -> None:
    assert helm.template("--set", "global.region=eu")


def test_the_chart_is_packaged_whole(helm: Helm, tmp_path: Path) -> None:
    helm.run("package", CHART, "--destination", tmp_path)
    package = next(tmp_path.glob("*.tgz"))
    rendered = [helm.run("template", "x", chart, "--kube-version", "1.34.4") for chart in (package, CHART)]
    assert rendered[0] == rendered[1]


def test_the_version_is_the_packages() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'version = "{chart["appVersion"]}"' in (CHART.parents[1] / "pyproject.toml").read_text()


def _leaves(values: dict[str, Any], schema: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in values.items():
        below = schema["properties"][key]
        if "properties" in below and key != "resources":
            found += _leaves(value, below, f"{prefix}{key}.")
        else:
            found.append(prefix + key)
    return found
