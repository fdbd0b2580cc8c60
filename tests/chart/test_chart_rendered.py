"""What the chart becomes with each of its values files."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import utils as kubernetes_validate

from chart.conftest import Render
from chart.helm import CHART, NAMESPACE, ROOT, VARIANTS, Helm, Manifest, one
from chart.podsecurity import beyond, violations

VERSIONS = ("1.34", kubernetes_validate.latest_version())
OTHERS = {"CustomResourceDefinition", "PodMonitor", "PrometheusRule", "ServiceMonitor"}
"""Kinds whose schemas the library has not."""
CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
CI = {path.name.removesuffix("-values.yaml"): path for path in VARIANTS}

every_variant = pytest.mark.parametrize("values", VARIANTS, ids=lambda path: path.stem)


@every_variant
def test_all_that_is_rendered_fits_the_schemas_of_kubernetes(render: Render, values: Path) -> None:
    checked = [item for item in render(values) if item["kind"] not in OTHERS]
    assert len(checked) >= 3
    for item in checked:
        _check_schema(json.dumps(item, sort_keys=True))


@every_variant
def test_all_pods_keep_to_the_restricted_profile(render: Render, values: Path) -> None:
    specs = {item["metadata"]["name"]: spec for item in render(values) if (spec := _pod_spec(item))}
    assert len(specs) == 2
    problems = {name: violations(spec) + beyond(spec) for name, spec in specs.items()}
    assert not any(problems.values()), problems


@every_variant
def test_every_object_says_where_it_is_and_what_it_belongs_to(render: Render, values: Path) -> None:
    for item in render(values):
        if item["kind"] == "CustomResourceDefinition":
            continue
        assert ("namespace" in item["metadata"]) == (item["kind"] not in CLUSTER_SCOPED), item
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "release"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"


@every_variant
def test_what_selects_the_operators_pods_selects_them_and_not_the_tests(render: Render, values: Path) -> None:
    manifests = render(values)
    pod = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    test = one(manifests, "Pod")["metadata"]["labels"]
    selectors = [
        _selector(item)
        for item in manifests
        if item["kind"] in {"Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"}
    ]
    assert len(selectors) >= 2
    for selector in selectors:
        assert selector.items() <= pod.items()
        assert not selector.items() <= test.items()


@every_variant
def test_both_helms_render_the_same(helms: Callable[[int], Helm], values: Path) -> None:
    assert helms(3).template("--values", values) == helms(4).template("--values", values)


def test_the_definition_is_the_one_of_the_project() -> None:
    assert (CHART / "files" / "flinkjobs.yaml").read_bytes() == (ROOT / "crds" / "flinkjobs.yaml").read_bytes()


def test_the_definition_is_rendered_as_it_is_and_kept_on_uninstall(render: Render) -> None:
    definition = yaml.safe_load((CHART / "files" / "flinkjobs.yaml").read_text())
    assert one(render(CI["bare"]), "CustomResourceDefinition") == definition
    definition["metadata"].setdefault("annotations", {})["helm.sh/resource-policy"] = "keep"
    assert one(render(CI["default"]), "CustomResourceDefinition") == definition


def test_with_watched_namespaces_nothing_cluster_scoped_is_needed(render: Render) -> None:
    for variant in ("namespaced", "monitoring-namespaced"):
        assert not {item["kind"] for item in render(CI[variant])} & CLUSTER_SCOPED


def test_the_operator_is_told_what_to_watch(render: Render) -> None:
    assert _arguments(render(CI["default"]))[:2] == ["operator", "--all-namespaces"]
    assert _arguments(render(CI["namespaced"]))[:3] == ["operator", "--namespace=team-a", "--namespace=team-b"]


def test_jobs_run_the_operators_image_unless_told_otherwise(render: Render) -> None:
    assert "--image=flinkjob:0.1.0" in _arguments(render(CI["default"]))
    assert "--image=registry.example.com/data/jobs:7" in _arguments(render(CI["customised"]))
    digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert f"--image=flinkjob@{digest}" in _arguments(render(CI["locked-down"]))


def test_the_lease_that_the_operator_is_told_of_is_the_one_that_it_may_update(render: Render) -> None:
    for variant in ("default", "namespaced", "customised"):
        manifests = render(CI[variant])
        role = one(manifests, "Role", "-lease")
        assert role["metadata"]["namespace"] == NAMESPACE
        (name,) = role["rules"][0]["resourceNames"]
        assert f"--lease-name={name}" in _arguments(manifests)
        lease = one(manifests, "Lease")
        assert (lease["metadata"]["name"], lease["metadata"]["namespace"], "spec" in lease) == (name, NAMESPACE, False)


def test_every_watched_namespace_has_its_role_once(render: Render) -> None:
    for kind in ("Role", "RoleBinding"):
        places = [item["metadata"]["namespace"] for item in render(CI["namespaced"]) if item["kind"] == kind]
        assert sorted(places) == [NAMESPACE, "team-a", "team-b"]


def test_egress_is_open_unless_restricted(render: Render) -> None:
    assert one(render(CI["default"]), "NetworkPolicy")["spec"]["policyTypes"] == ["Ingress"]
    policy = one(render(CI["locked-down"]), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert ports == {53, 443, 16443}
    assert "to" not in policy["egress"][0]


def test_long_names_stay_names(helm: Helm) -> None:
    manifests = helm.template("--set", f"fullnameOverride={'n' * 50}", "--set", "metrics.dashboard.enabled=true")
    assert all(len(item["metadata"]["name"]) <= 63 for item in manifests if item["kind"] not in CLUSTER_SCOPED)


@functools.cache
def _check_schema(item: str) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(json.loads(item), version, strict=True)


def _pod_spec(item: Manifest) -> dict[str, Any] | None:
    match item["kind"]:
        case "Pod":
            spec = item["spec"]
        case "Deployment":
            spec = item["spec"]["template"]["spec"]
        case _:
            return None
    assert isinstance(spec, dict)
    return spec


def _selector(item: Manifest) -> dict[str, str]:
    spec = item["spec"]
    selector = spec.get("podSelector") or spec["selector"]
    labels = selector.get("matchLabels", selector)
    assert isinstance(labels, dict)
    return labels


def _arguments(manifests: list[Manifest]) -> list[str]:
    arguments = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert isinstance(arguments, list)
    return arguments
