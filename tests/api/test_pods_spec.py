"""What ``spec`` says about pods is taken as it is meant, or refused with the field named."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.api.errors import InvalidInput, InvalidManifest
from flinkjob.api.flinkjob import DeletionPolicy, FlinkJob, decode_manifest
from flinkjob.api.job import JobState
from flinkjob.api.quantities import cpu_quantity, memory_quantity, parse_cpu, parse_pod_memory

NFS = {"nfs": {"server": "a", "path": "/"}}


def decoded(**spec: Any) -> FlinkJob:
    base = {"job": {"entrypoint": "jobs:build"}, "storage": {"volume": NFS}}
    return decode_manifest(
        {
            "apiVersion": "flinkjob.io/v1alpha1",
            "kind": "FlinkJob",
            "metadata": {"name": "a"},
            "spec": {**base, **spec},
        }
    )


def test_what_is_left_out_has_its_default() -> None:
    spec = decoded().spec
    assert spec.job.state is JobState.RUNNING
    assert spec.deletion_policy is DeletionPolicy.RETAIN
    assert (spec.restart_nonce, spec.failover_nonce, spec.ttl_seconds_after_finished) == (0, 0, None)
    assert spec.storage is not None
    assert spec.storage.mount_path == "/flinkjob/storage"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"image": "a b"}, "spec.image: 'a b' is not the name of an image"),
    ({"imagePullPolicy": "always"}, "spec.imagePullPolicy: 'always' is not one of Always, IfNotPresent, Never"),
    ({"imagePullSecrets": ["a", "B"]}, "spec.imagePullSecrets[1]: 'B' is not a name"),
    ({"serviceAccount": "-a"}, "spec.serviceAccount: '-a' is not a name"),
    ({"secrets": ["a", "a"]}, "spec.secrets[1]: 'a' is in the list already"),
    ({"restartNonce": -1}, "spec.restartNonce: -1 is not between 0 and"),
    ({"failoverNonce": 2**31}, "spec.failoverNonce: 2147483648 is not between"),
    ({"ttlSecondsAfterFinished": -1}, "spec.ttlSecondsAfterFinished: -1 is not between"),
    ({"deletionPolicy": "delete"}, "spec.deletionPolicy: 'delete' is not one of Retain, Delete"),
    ({"job": {"entrypoint": "a:b", "state": "stopped"}}, "spec.job.state: 'stopped' is not one of running, suspended"),
    ({"jobManager": {"replicas": 101}}, "spec.jobManager.replicas: 101 is more than 100"),
    ({"taskManager": {"replicas": 10_001}}, "spec.taskManager.replicas: 10001 is more than 10000"),
    ({"jobManager": {"resource": {"cpu": "lots"}}}, "spec.jobManager.resource.cpu: 'lots' is not an amount of CPU"),
    ({"jobManager": {"resource": {"cpu": 0}}}, "spec.jobManager.resource.cpu: 0 is no CPU at all"),
    ({"jobManager": {"resource": {"memory": "2 elephants"}}}, "resource.memory: '2 elephants' is not a memory size"),
    ({"jobManager": {"resource": {"memory": 2048}}}, "resource.memory: 2048 is less than 1 mebibyte"),
    ({"jobManager": {"podTemplate": []}}, "spec.jobManager.podTemplate: expected a mapping, got a list"),
    ({"jobManager": {"podTemplate": {"containers": []}}}, "spec.jobManager.podTemplate: unknown field 'containers'"),
    ({"taskManager": {"podTemplate": {"spec": []}}}, "spec.taskManager.podTemplate.spec: expected a mapping"),
    (
        {"taskManager": {"podTemplate": {"spec": {"restartPolicy": "Always"}}}},
        "spec.taskManager.podTemplate.spec.restartPolicy: is set by the operator",
    ),
    (
        {"taskManager": {"podTemplate": {"spec": {"serviceAccountName": "x"}}}},
        "serviceAccountName: is set by the operator; use spec.serviceAccount",
    ),
    (
        {"taskManager": {"podTemplate": {"spec": {"volumes": [{}]}}}},
        "podTemplate.spec.volumes[0]: expected a mapping with a",
    ),
    ({"taskManager": {"podTemplate": {"spec": {"containers": {}}}}}, "podTemplate.spec.containers: expected a list"),
    ({"storage": {}}, "spec.storage.volume: is missing: a mapping is needed here"),
    ({"storage": {"volume": {}}}, "spec.storage.volume: needs exactly one volume source"),
    (
        {"storage": {"volume": {**NFS, "csi": {}}}},
        "exactly one volume source, such as persistentVolumeClaim; got nfs, csi",
    ),
    (
        {"storage": {"volume": {"emptyDir": {}}}},
        "spec.storage.volume.emptyDir: a volume of emptyDir is seen by one pod only",
    ),
    (
        {"storage": {"volume": {"ephemeral": {}}}},
        "spec.storage.volume.ephemeral: a volume of ephemeral is seen by one pod",
    ),
    ({"storage": {"volume": {"configMap": {}}}}, "spec.storage.volume: unknown volume source 'configMap'"),
    ({"storage": {"volume": {"nsf": {}}}}, "spec.storage.volume: unknown volume source 'nsf' (did you mean 'nfs'?)"),
    ({"storage": {"volume": {"nfs": "server"}}}, "spec.storage.volume.nfs: expected a mapping"),
    ({"storage": {"volume": NFS, "mountPath": "data"}}, "spec.storage.mountPath: 'data' is not an absolute path"),
    ({"storage": {"volume": NFS, "mountPath": "/a:b"}}, "spec.storage.mountPath: '/a:b' is not an absolute path"),
    ({"storage": {"volume": NFS, "mountPath": "/tmp"}}, "spec.storage.mountPath: '/tmp' collides with /tmp"),
    ({"storage": {"volume": NFS, "mountPath": "/etc"}}, "spec.storage.mountPath: '/etc' collides with /etc/flinkjob"),
    ({"modules": {}}, "spec.modules: needs exactly one volume source"),
    ({"modules": {"emptyDir": {}}}, "spec.modules.emptyDir: a volume of emptyDir is seen by one pod only"),
    ({"env": {"A": "b"}}, "spec.env: expected a list, got a mapping"),
    ({"env": [{"value": "b"}]}, "spec.env[0].name: needs a name without '='"),
    ({"env": [{"name": "A"}, {"name": "A"}]}, "spec.env[1].name: 'A' is already the name of env[0]"),
    ({"env": [{"name": "A", "value": 1}]}, "spec.env[0].value: expected a string; quote it"),
    ({"env": [{"name": "A", "value": "b", "valueFrom": {}}]}, "spec.env[0]: needs one of value, valueFrom, not both"),
    ({"env": [{"name": "A", "valueFrom": "b"}]}, "spec.env[0].valueFrom: expected a mapping"),
    ({"env": [{"name": "A", "val": "b"}]}, "spec.env[0]: unknown field 'val'; allowed: name, value, valueFrom"),
    ({"env": [{"name": "POD_UID", "value": "b"}]}, "spec.env[0].name: POD_UID is set by the operator"),
    (
        {"job": {"vertices": [{"name": f"v{i}", "task": {"command": ["a"]}} for i in range(1001)]}},
        "spec.job.vertices: 1001 vertices are more than 1000",
    ),
]


@pytest.mark.parametrize(("spec", "problem"), WRONG, ids=[problem[:60] for _, problem in WRONG])
def test_a_wrong_field_is_refused_with_its_name(spec: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidManifest) as refused:
        decoded(**spec)
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "millicores"),
    [(2, 2000), (0.5, 500), ("500m", 500), ("1.5", 1500), ("1.", 1000), (" 3 ", 3000), (0.0005, 1)],
)
def test_cpu_is_read(text: Any, millicores: int) -> None:
    if text == 0.0005:  # finer than Kubernetes counts
        with pytest.raises(InvalidInput):
            parse_cpu(text)
    else:
        assert parse_cpu(text) == millicores


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [
        ("2048m", 2048),
        ("2 gb", 2048),
        ("2Gi", 2048),
        ("512Mi", 512),
        ("1048576Ki", 1024),
        (1 << 20, 1),
        ("1t", 1 << 20),
    ],
)
def test_memory_is_read_as_flink_reads_it_and_then_as_kubernetes_does(text: Any, mebibytes: int) -> None:
    assert parse_pod_memory(text) == mebibytes << 20


@given(st.integers(1, 10**6), st.integers(1 << 20, 1 << 50))
def test_quantities_are_written_as_they_are_read(millicores: int, size: int) -> None:
    assert parse_cpu(cpu_quantity(millicores)) == millicores
    assert parse_pod_memory(memory_quantity(size)) == size
