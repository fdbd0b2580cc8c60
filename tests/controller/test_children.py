"""The objects of a job: valid for Kubernetes, owned by the FlinkJob, with pods that may do nothing that they need not."""

from typing import Any

import kubernetes_validate
import pytest
import yaml

from api.manifests import SAMPLE
from controller.world import SETTINGS, flinkjob
from flinkjob.api.flinkjob import parse_manifest
from flinkjob.controller import children, names
from flinkjob.controller.observed import Manifest
from flinkjob.controller.podspec import cleanup_pod, jobmanager_template, taskmanager_pod
from flinkjob.controller.target import OperatorSettings, Target, resolve
from kube.apiserver import ApiServer

FULL: dict[str, Any] = {key: value for key, value in SAMPLE["spec"].items() if key != "serviceAccount"}
SPECS: dict[str, dict[str, Any]] = {"small": {}, "full": FULL, "own account": {"serviceAccount": "worker"}}


def target(settings: OperatorSettings = SETTINGS, **spec: Any) -> Target:
    """What a FlinkJob with this spec asks for."""
    manifest = flinkjob(**spec)
    manifest["metadata"] |= {"uid": "b2a1f0de-1111-4222-8333-444455556666", "namespace": "jobs", "generation": 7}
    manifest["status"] = {"run": "b2a1f0de-1111-4222-8333-444455556666", "restartNonce": 0}
    return resolve(manifest, settings)


def everything(of: Target) -> list[Manifest]:
    """All objects, pods included."""
    secrets = [children.secret(of, name, type="Opaque", data={}) for name in names.secrets(of.name)]
    pods = [taskmanager_pod(of, "wordcount-taskmanager-a1b2c"), cleanup_pod(of, "/data"), jobmanager_pod(of)]
    return [children.lease(of), *children.desired_children(of, jobmanagers=2), *secrets, *pods]


def jobmanager_pod(of: Target) -> Manifest:
    """A pod as the StatefulSet makes it."""
    template = jobmanager_template(of)
    metadata = {**template["metadata"], "name": names.jobmanager_pod(of.name, 0), "namespace": of.namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def pods(of: Target) -> list[Manifest]:
    return [each for each in everything(of) if each["kind"] == "Pod"]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_object_is_valid(spec: dict[str, Any]) -> None:
    for manifest in everything(target(**spec)):
        kubernetes_validate.validate(manifest, "1.34", strict=True)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_object_belongs_to_the_flinkjob_and_says_so(spec: dict[str, Any]) -> None:
    for manifest in everything(target(**spec)):
        metadata = manifest["metadata"]
        assert metadata["labels"][names.JOB_LABEL] == "wordcount"
        assert metadata["labels"]["app.kubernetes.io/instance"] == "wordcount"
        if manifest["kind"] != "Pod" or metadata["name"].startswith("wordcount-taskmanager"):
            owner = names.controller_of(manifest)
            assert owner is not None
            assert (owner["kind"], owner["uid"]) == ("FlinkJob", "b2a1f0de-1111-4222-8333-444455556666")


def test_the_names_of_all_children_are_known() -> None:
    made = {children.key_of(manifest) for manifest in everything(target()) if manifest["kind"] != "Pod"}
    assert made == set(children.all_keys("wordcount"))


def test_the_same_job_gives_the_same_objects() -> None:
    assert everything(target(**FULL)) == everything(target(**FULL))


def test_names_fit_with_the_longest_name() -> None:
    name = "a" * 41
    manifest = flinkjob(name)
    manifest["metadata"]["uid"] = "u"
    of = resolve(manifest, SETTINGS)
    for each in everything(of):
        assert len(each["metadata"]["name"]) <= 63
        assert all(len(value) <= 63 for value in each["metadata"]["labels"].values())


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_real_api_server_takes_every_pod_under_the_restricted_profile(
    apiserver: ApiServer, namespace: str, spec: dict[str, Any]
) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    apiserver.call(
        "PATCH",
        f"/api/v1/namespaces/{namespace}",
        {"metadata": {"labels": labels}},
        content_type="application/merge-patch+json",
    )
    for pod in pods(target(**spec)):
        made = {**pod, "metadata": {key: pod["metadata"][key] for key in ("name", "labels", "annotations")}}
        made["spec"] = {**pod["spec"], "serviceAccountName": "default"}
        apiserver.call("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All&fieldValidation=Strict", made)


def test_only_jobmanagers_have_a_token_and_only_the_main_account_has_a_role() -> None:
    tokens = {pod["metadata"]["name"]: pod["spec"]["automountServiceAccountToken"] for pod in pods(target())}
    assert tokens == {
        "wordcount-jobmanager-0": True,
        "wordcount-taskmanager-a1b2c": False,
        "wordcount-cleanup": False,
    }
    bindings = [each for each in everything(target()) if each["kind"] == "RoleBinding"]
    assert [subject["name"] for each in bindings for subject in each["subjects"]] == ["wordcount-jobmanager"]


def test_an_account_of_the_users_own_replaces_both_and_gets_the_role() -> None:
    made = everything(target(serviceAccount="worker"))
    assert not [each for each in made if each["kind"] == "ServiceAccount"]
    assert {each["spec"]["serviceAccountName"] for each in made if each["kind"] == "Pod"} == {"worker"}
    assert [each["subjects"][0]["name"] for each in made if each["kind"] == "RoleBinding"] == ["worker"]


def test_the_role_allows_what_a_leader_needs_of_its_own_objects_and_no_more() -> None:
    (role,) = (each for each in everything(target()) if each["kind"] == "Role")
    allowed = {
        (rule["apiGroups"][0], rule["resources"][0], tuple(rule.get("resourceNames", ()))): set(rule["verbs"])
        for rule in role["rules"]
    }
    assert allowed == {
        ("coordination.k8s.io", "leases", ("wordcount-leader",)): {"get", "list", "watch", "update"},
        ("flinkjob.io", "flinkjobs", ("wordcount",)): {"get"},
        ("flinkjob.io", "flinkjobs/status", ("wordcount",)): {"patch"},
        ("", "pods", ()): {"get", "list", "watch"},
        ("", "events", ()): {"create", "patch"},
        ("events.k8s.io", "events", ()): {"create", "patch"},
    }


def test_the_manifest_in_the_config_map_is_what_a_jobmanager_reads() -> None:
    of = target(**FULL)
    (config_map,) = (each for each in everything(of) if each["kind"] == "ConfigMap")
    text = config_map["data"]["flinkjob.yaml"]
    job = parse_manifest(text)
    assert job.metadata.uid == "b2a1f0de-1111-4222-8333-444455556666-r7"
    assert job.spec.job == of.job.spec.job
    assert job.spec.configuration == of.configuration
    assert yaml.safe_load(text)["spec"]["flinkConfiguration"]["high-availability.storageDir"] == "/data"


def test_storage_says_where_the_log_is_and_that_there_is_one() -> None:
    assert target().configuration.to_mapping() == {
        "high-availability.storageDir": "/flinkjob/storage",
        "jobmanager.failover.operation-log-store": "filesystem",
    }
    explicit = {"jobmanager.failover.operation-log-store": "none", "high-availability.storageDir": "s3://b/x"}
    assert target(flinkConfiguration=explicit).configuration.to_mapping() == explicit


def test_every_pod_has_the_storage_the_modules_and_the_users_variables() -> None:
    for pod in pods(target(**FULL)):
        (container,) = pod["spec"]["containers"]
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert {"/data", "/tmp", "/flinkjob/work", "/opt/flinkjob/usrlib"} <= set(mounts)
        assert mounts["/opt/flinkjob/usrlib"]["readOnly"]
        assert "A" in [variable["name"] for variable in container["env"]]
        assert container["envFrom"] == [{"secretRef": {"name": "s3"}}]
        assert {mount["name"] for mount in mounts.values()} <= {volume["name"] for volume in pod["spec"]["volumes"]}


def test_a_template_is_merged_and_cannot_take_what_the_operator_goes_by() -> None:
    template = {
        "metadata": {
            "labels": {names.JOB_LABEL: "other", "team": "a"},
            "annotations": {names.SPEC_HASH: "x", "note": "b"},
        },
        "spec": {
            "nodeSelector": {"disk": "ssd"},
            "securityContext": {"runAsUser": 2000},
            "containers": [
                {"name": "taskmanager", "resources": {"limits": {"cpu": "2"}}},
                {"name": "sidecar", "image": "s"},
            ],
        },
    }
    of = target(taskManager={"podTemplate": template})
    pod = taskmanager_pod(of, "x")
    assert pod["metadata"]["labels"][names.JOB_LABEL] == "wordcount"
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["metadata"]["annotations"][names.SPEC_HASH] == of.taskmanager_hash
    assert pod["metadata"]["annotations"]["note"] == "b"
    assert pod["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert pod["spec"]["securityContext"]["runAsUser"] == 2000
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    main, sidecar = pod["spec"]["containers"]
    assert main["resources"] == {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2"}}
    assert sidecar == {"name": "sidecar", "image": "s"}


@pytest.mark.parametrize(
    ("resource", "requests", "limits"),
    [
        ({}, {"cpu": "100m", "memory": "128Mi"}, None),
        ({"cpu": 2, "memory": "2048m"}, {"cpu": "2", "memory": "2Gi"}, {"memory": "2Gi"}),
        ({"cpu": "250m", "memory": "1 gb"}, {"cpu": "250m", "memory": "1Gi"}, {"memory": "1Gi"}),
        ({"cpu": 0.5, "memory": "1536Mi"}, {"cpu": "500m", "memory": "1536Mi"}, {"memory": "1536Mi"}),
    ],
)
def test_resources_are_read_as_flink_writes_them(resource: Any, requests: Any, limits: Any) -> None:
    pod = taskmanager_pod(target(taskManager={"resource": resource}), "x")
    told = pod["spec"]["containers"][0]["resources"]
    assert (told["requests"], told.get("limits")) == (requests, limits)


@pytest.mark.parametrize(
    "change",
    [
        {"taskManager": {"replicas": 9}, "jobManager": {"replicas": 3}},
        {"job": {"entrypoint": "jobs:build", "state": "suspended"}},
        {"failoverNonce": 3},
        {"ttlSecondsAfterFinished": 3, "deletionPolicy": "Delete"},
    ],
)
def test_what_takes_effect_without_a_new_pod_replaces_none(change: dict[str, Any]) -> None:
    before, after = target(), target(**change)
    assert (before.jobmanager_hash, before.taskmanager_hash) == (after.jobmanager_hash, after.taskmanager_hash)


@pytest.mark.parametrize(
    ("change", "jobmanagers", "taskmanagers"),
    [
        ({"image": "flinkjob:2"}, True, True),
        ({"env": [{"name": "A", "value": "b"}]}, True, True),
        ({"restartNonce": 1}, True, True),
        ({"modules": {"configMap": {"name": "m"}}}, True, True),
        ({"jobManager": {"replicas": 2, "resource": {"cpu": 1}}}, True, False),
        ({"taskManager": {"replicas": 2, "podTemplate": {"metadata": {"labels": {"a": "b"}}}}}, False, True),
        ({"flinkConfiguration": {"heartbeat.timeout": "20 s"}}, True, False),
        ({"taskManager": {"replicas": 2, "taskSlots": 4}}, True, True),
    ],
)
def test_what_takes_a_new_pod_replaces_those_that_need_it(change: Any, jobmanagers: bool, taskmanagers: bool) -> None:
    before, after = target(), target(**change)
    assert (before.jobmanager_hash != after.jobmanager_hash) is jobmanagers
    assert (before.taskmanager_hash != after.taskmanager_hash) is taskmanagers
