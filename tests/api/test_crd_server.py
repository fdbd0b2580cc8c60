"""A real API server takes the CustomResourceDefinition and all examples, and refuses wrong FlinkJobs with the field named."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml

from api.manifests import GONE, SAMPLE, VERTEX, WRONG, Manifest, changed
from flinkjob.api.crd import custom_resource_definition
from kube.apiserver import ApiServer

ROOT = Path(__file__).parents[2]
Create = Callable[..., Manifest]


@pytest.fixture(scope="module")
def definition(apiserver: ApiServer) -> None:
    """The CustomResourceDefinition is established."""
    apiserver.start_api()
    apiserver.kubectl("apply", "--server-side", "-f", "-", manifest=json.dumps(custom_resource_definition()))
    apiserver.until_established("flinkjobs.flinkjob.io")


@pytest.fixture
def create(definition: None, apiserver: ApiServer, namespace: str) -> Create:
    """Creates a FlinkJob as kubectl does, by default without keeping it."""
    path = f"/apis/flinkjob.io/v1alpha1/namespaces/{namespace}/flinkjobs?fieldValidation=Strict"

    def post(manifest: Manifest, *, keep: bool = False) -> Manifest:
        return apiserver.call("POST", path + ("" if keep else "&dryRun=All"), manifest)

    return post


def test_the_full_sample_is_taken_and_nothing_of_it_is_lost(create: Create) -> None:
    kept = create(SAMPLE)

    def inside(said: Any, read: Any) -> bool:
        if isinstance(said, dict):
            return all(key in read and inside(value, read[key]) for key, value in said.items())
        if isinstance(said, list):
            return len(said) == len(read) and all(map(inside, said, read))
        return bool(said == read)

    assert inside(SAMPLE, kept)


def test_defaults_are_filled_in(create: Create) -> None:
    spec = create({**SAMPLE, "spec": {"job": {"entrypoint": "jobs:build"}}})["spec"]
    assert spec == {
        "jobManager": {"replicas": 1},
        "taskManager": {"replicas": 1},
        "job": {"entrypoint": "jobs:build", "state": "running"},
        "restartNonce": 0,
        "failoverNonce": 0,
        "deletionPolicy": "Retain",
    }


EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*/*.yaml") if path.stem == path.parent.name)
"""The jobs; what else a job needs lies beside it."""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_taken(create: Create, path: Path) -> None:
    manifest = yaml.safe_load(path.read_text())
    if "jobmanager.failover.operation-log-store" in manifest["spec"].get("flinkConfiguration", {}):
        # On one machine the log has a place by default; on a cluster one has to be named.
        manifest["spec"]["storage"] = {"volume": {"persistentVolumeClaim": {"claimName": "flink"}}}
    create(manifest)


def test_wrong_manifests_are_refused_by_kubectl_apply_with_the_field_named(
    definition: None, apiserver: ApiServer, namespace: str
) -> None:
    cases = [case for case in WRONG if case[0] != ("kind",)]  # of another kind kubectl itself says that it is not known
    documents = [json.dumps(changed(SAMPLE, path, value)) for path, value, _ in cases]
    apply = ("apply", "--dry-run=server", "--namespace", namespace, "--filename", "-")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        apiserver.kubectl(*apply, manifest="\n---\n".join(documents))
    assert refused.value.stdout == "", "one of them is taken"
    answers = re.split(r"^(?=Error from server|The FlinkJob |error: )", refused.value.stderr, flags=re.MULTILINE)[1:]
    assert len(answers) == len(cases) >= 40, refused.value.stderr
    failures = [
        f"{path} = {value!r}: {answer}"
        for (path, value, problem), answer in zip(cases, answers, strict=True)
        if problem not in answer.replace('\\"', '"') or not names_the_field(answer, path)
    ]
    assert not failures, "\n".join(failures)


def test_kubectl_apply_takes_the_sample_from_which_they_differ(
    definition: None, apiserver: ApiServer, namespace: str
) -> None:
    apply = ("apply", "--dry-run=server", "--namespace", namespace, "--filename", "-")
    assert "wordcount created" in apiserver.kubectl(*apply, manifest=json.dumps(SAMPLE))


def names_the_field(answer: str, path: tuple[str | int, ...]) -> bool:
    """Whether an answer has the whole path of a field, or that of what the field is in and the field's own name."""
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in path]
    whole, within, name = "".join(steps)[1:], "".join(steps[:-1])[1:], str(path[-1])
    return whole in answer or (f"{within}:" in answer and name in answer.replace(f"{within}:", ""))


IMMUTABLE: list[tuple[tuple[str | int, ...], Any, str]] = [
    ((*VERTEX, "parallelism"), 9, "spec.job.vertices cannot be changed while the job runs"),
    ((*VERTEX, "task", "args"), {"lower": False}, "spec.job.vertices cannot be changed"),
    (("spec", "storage"), GONE, "spec.storage cannot be changed"),
    (("spec", "storage", "mountPath"), "/elsewhere", "spec.storage cannot be changed"),
    (("spec", "storage", "volume", "persistentVolumeClaim", "claimName"), "b", "spec.storage cannot be changed"),
    (
        ("spec", "flinkConfiguration", "jobmanager.failover.operation-log-store"),
        "none",
        "jobmanager.failover.operation-log-store cannot be changed",
    ),
    (
        ("spec", "flinkConfiguration", "jobmanager.failover.operation-log-store"),
        GONE,
        "jobmanager.failover.operation-log-store cannot be changed",
    ),
    (("spec", "flinkConfiguration", "high-availability.storageDir"), "/x", "high-availability.storageDir cannot be changed"),
]  # fmt: skip


def test_what_a_running_job_stands_on_changes_only_together_with_the_restart_nonce(
    create: Create, apiserver: ApiServer, namespace: str
) -> None:
    path = f"/apis/flinkjob.io/v1alpha1/namespaces/{namespace}/flinkjobs/wordcount?fieldValidation=Strict&dryRun=All"
    live = create(SAMPLE, keep=True)
    for where, value, problem in IMMUTABLE:
        with pytest.raises(HTTPError) as refused:
            apiserver.call("PUT", path, changed(live, where, value))
        assert problem in str(refused.value.reason), where
        if value is not GONE or where[1] != "storage":
            apiserver.call("PUT", path, changed(changed(live, where, value), ("spec", "restartNonce"), 7))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "jobManager", "replicas"), 3),
        (("spec", "taskManager", "replicas"), 5),
        (("spec", "job", "state"), "suspended"),
        (("spec", "failoverNonce"), 3),
        (("spec", "deletionPolicy"), "Retain"),
        (("spec", "flinkConfiguration", "heartbeat.timeout"), "20 s"),
        (("spec", "image"), "registry.example/flinkjob:2"),
    ],
)
def test_the_rest_may_change_at_any_time(
    create: Create, apiserver: ApiServer, namespace: str, path: tuple[str, ...], value: Any
) -> None:
    live = create(SAMPLE, keep=True)
    url = f"/apis/flinkjob.io/v1alpha1/namespaces/{namespace}/flinkjobs/wordcount"
    assert apiserver.call("PUT", url, changed(live, path, value))["metadata"]["generation"] == 2


def test_kubectl_scales_and_lists_it(create: Create, apiserver: ApiServer, namespace: str) -> None:
    create(SAMPLE, keep=True)
    apiserver.kubectl("-n", namespace, "scale", "fj/wordcount", "--replicas=7")
    assert (
        apiserver.kubectl("-n", namespace, "get", "fj", "-o", "jsonpath={.items[0].spec.taskManager.replicas}") == "7"
    )
    status = {
        "jobStatus": {"state": "RUNNING"},
        "currentLeader": "wordcount-jobmanager-0",
        "leader": {"pod": "wordcount-jobmanager-0", "epoch": 3, "since": "2026-01-01T00:00:00Z"},
        "failovers": 2,
        "tasks": "2/5/8",
        "conditions": [
            {
                "type": "Protected",
                "status": "True",
                "reason": "Protected",
                "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }
    url = f"/apis/flinkjob.io/v1alpha1/namespaces/{namespace}/flinkjobs/wordcount/status"
    apiserver.call("PATCH", url, {"status": status}, content_type="application/merge-patch+json")
    head, row = apiserver.kubectl("-n", namespace, "get", "all").strip().splitlines()[-2:]
    assert head.split() == ["NAME", "STATE", "LEADER", "EPOCH", "TASKS", "FAILOVERS", "PROTECTED", "AGE"]
    assert row.split()[:-1] == [
        "flinkjob.flinkjob.io/wordcount", "RUNNING", "wordcount-jobmanager-0", "3", "2/5/8", "2", "True",
    ]  # fmt: skip


def test_kubectl_explains_every_field(definition: None, apiserver: ApiServer) -> None:
    assert "leader and its standbys" in apiserver.kubectl("explain", "flinkjob.spec.jobManager.replicas")
