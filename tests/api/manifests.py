"""A FlinkJob with everything in it, and the ways in which it can be wrong that an API server sees."""

import copy
from typing import Any

import yaml

Manifest = dict[str, Any]

SAMPLE: Manifest = yaml.safe_load("""
apiVersion: flinkjob.io/v1alpha1
kind: FlinkJob
metadata: {name: wordcount}
spec:
  flinkConfiguration:
    jobmanager.failover.operation-log-store: filesystem
    heartbeat.timeout: 10 s
    heartbeat.interval: 2000
    restart-strategy.type: false
    restart-strategy.exponential-delay.backoff-multiplier: 2.5
  image: registry.example/flinkjob:1
  imagePullPolicy: IfNotPresent
  imagePullSecrets: [registry]
  serviceAccount: worker
  jobManager:
    replicas: 2
    resource: {cpu: 0.5, memory: 512m}
    podTemplate: {spec: {nodeSelector: {disk: ssd}, containers: [{name: jobmanager, env: [{name: A, value: b}]}]}}
  taskManager: {replicas: 2, taskSlots: 2, resource: {cpu: 500m, memory: 2Gi}}
  storage: {volume: {persistentVolumeClaim: {claimName: flink}}, mountPath: /data}
  modules: {configMap: {name: wordcount, items: [{key: a, path: a.py}]}}
  env: [{name: A, value: b}, {name: C, valueFrom: {secretKeyRef: {name: s, key: k}}}]
  secrets: [s3]
  restartNonce: 1
  failoverNonce: 2
  ttlSecondsAfterFinished: 60
  deletionPolicy: Delete
  job:
    state: running
    vertices:
      - name: tokenize
        parallelism: 8
        task: {python: "wordcount:tokenize", args: {lower: true, deep: [1, {a: b}]}}
        splits: {files: ["*.txt"], maxSplitSize: 64 kb}
      - name: count
        task: {command: [sort], env: {LANG: C}}
        inputs: [{from: tokenize, partitioner: hash, exchange: blocking}]
""")

SPEC = ("spec",)
VERTEX = ("spec", "job", "vertices", 0)
GONE = object()

WRONG: list[tuple[tuple[str | int, ...], Any, str]] = [
    # where, what stands there, and what the answer says
    (("kind",), "FlinkDeployment", "FlinkDeployment"),
    (("metadata", "name"), "a" * 42, "metadata.name has to be at most 41"),
    (("metadata", "name"), "9lives", "the first a letter"),
    (("metadata", "name"), "a.b", "metadata.name has to be"),
    (("metadata", "name"), "Word", "metadata.name: Invalid value"),
    (SPEC, GONE, "spec: Required value"),
    (("spec", "jobManagers"), {}, 'unknown field "spec.jobManagers"'),
    (("spec", "jobManager", "replicas"), 0, "spec.jobManager.replicas: Invalid value"),
    (("spec", "jobManager", "replicas"), 101, "spec.jobManager.replicas: Invalid value"),
    (("spec", "jobManager", "replicas"), "2", "spec.jobManager.replicas: Invalid value"),
    (("spec", "jobManager", "replica"), 1, 'unknown field "spec.jobManager.replica"'),
    (("spec", "jobManager", "podTemplate"), [], "spec.jobManager.podTemplate: Invalid value"),
    (("spec", "jobManager", "resource", "memory"), "2048x", "spec.jobManager.resource.memory: Invalid value"),
    (("spec", "jobManager", "resource", "cpu"), "two", "spec.jobManager.resource.cpu: Invalid value"),
    (("spec", "jobManager", "resource", "cores"), 1, 'unknown field "spec.jobManager.resource.cores"'),
    (("spec", "taskManager", "replicas"), -1, "spec.taskManager.replicas: Invalid value"),
    (("spec", "taskManager", "taskSlots"), 0, "spec.taskManager.taskSlots: Invalid value"),
    (("spec", "taskManager", "taskSlots"), 1.5, "spec.taskManager.taskSlots: Invalid value"),
    (("spec", "taskManager"), 2, "spec.taskManager: Invalid value"),
    (("spec", "image"), "", "spec.image: Invalid value"),
    (("spec", "image"), "a b", "spec.image: Invalid value"),
    (("spec", "imagePullPolicy"), "Sometimes", "spec.imagePullPolicy: Unsupported value"),
    (("spec", "imagePullSecrets"), ["A_B"], "spec.imagePullSecrets[0]: Invalid value"),
    (("spec", "serviceAccount"), "Me", "spec.serviceAccount: Invalid value"),
    (("spec", "secrets"), [{"name": "s3"}], "spec.secrets[0]"),
    (("spec", "storage"), GONE, "filesystem needs a place that all pods share: set spec.storage"),
    (("spec", "storage", "volume"), GONE, "spec.storage.volume: Required value"),
    (("spec", "storage", "volume"), {}, "spec.storage.volume"),
    (("spec", "storage", "volume"), {"nfs": {"server": "a", "path": "/"}, "csi": {}}, "spec.storage.volume: Too many"),
    (("spec", "storage", "volume"), {"emptyDir": {}}, "an emptyDir is seen by one pod only"),
    (("spec", "storage", "volume"), {"configMap": {}}, 'unknown field "spec.storage.volume.configMap"'),
    (("spec", "storage", "mountPath"), "data", "spec.storage.mountPath: Invalid value"),
    (("spec", "storage", "mountPath"), "/tmp/x", "spec.storage.mountPath: Invalid value"),
    (("spec", "storage", "mountPath"), "/opt/flinkjob", "mountPath collides with /opt/flinkjob/usrlib"),
    (("spec", "modules"), {"emptyDir": {}}, "spec.modules: Invalid value"),
    (("spec", "modules"), {"configmap": {"name": "a"}}, 'unknown field "spec.modules.configmap"'),
    (("spec", "env", 0, "name"), "A=B", "spec.env[0].name: Invalid value"),
    (("spec", "env", 1, "name"), "A", "spec.env[1]: Duplicate value"),
    (("spec", "env", 1, "value"), "x", "needs one of value, valueFrom, not both"),
    (("spec", "env", 0, "name"), "POD_NAME", "POD_NAME and POD_UID are set by the operator"),
    (("spec", "restartNonce"), -1, "spec.restartNonce: Invalid value"),
    (("spec", "failoverNonce"), "x", "spec.failoverNonce: Invalid value"),
    (("spec", "ttlSecondsAfterFinished"), -5, "spec.ttlSecondsAfterFinished: Invalid value"),
    (("spec", "deletionPolicy"), "Keep", "spec.deletionPolicy: Unsupported value"),
    (("spec", "flinkConfiguration"), ["a"], "spec.flinkConfiguration: Invalid value"),
    (
        ("spec", "flinkConfiguration", "heartbeat.timeout"),
        [1],
        "spec.flinkConfiguration.heartbeat.timeout: Invalid value",
    ),
    (("spec", "flinkConfiguration", "heartbeat.timeout"), "10 .", "spec.flinkConfiguration.heartbeat.timeout"),
    (("spec", "flinkConfiguration", "taskmanager.numberOfTaskSlots"), "two", "taskmanager.numberOfTaskSlots"),
    (("spec", "flinkConfiguration", "high-availability.storageDir"), [], "high-availability.storageDir: Invalid value"),
    (("spec", "job"), GONE, "spec.job: Required value"),
    (("spec", "job", "state"), "paused", "spec.job.state: Unsupported value"),
    (("spec", "job", "entrypoint"), "a:b", "needs exactly one of vertices, entrypoint"),
    (("spec", "job", "vertices"), GONE, "needs exactly one of vertices, entrypoint"),
    (("spec", "job", "vertices"), [], "spec.job.vertices: Invalid value"),
    (("spec", "job", "args"), {"a": 1}, "args is only for an entrypoint"),
    ((*VERTEX, "name"), GONE, "spec.job.vertices[0].name: Required value"),
    ((*VERTEX, "name"), "Tokenize", "spec.job.vertices[0].name: Invalid value"),
    ((*VERTEX, "name"), "t" * 64, "spec.job.vertices[0].name: Too long"),
    (("spec", "job", "vertices", 1, "name"), "tokenize", "spec.job.vertices[1]: Duplicate value"),
    ((*VERTEX, "parallelism"), 0, "spec.job.vertices[0].parallelism: Invalid value"),
    ((*VERTEX, "parallelism"), 40_000, "spec.job.vertices[0].parallelism: Invalid value"),
    ((*VERTEX, "task"), GONE, "spec.job.vertices[0].task: Required value"),
    ((*VERTEX, "task"), {}, "needs exactly one of python, command"),
    ((*VERTEX, "task", "command"), ["a"], "needs exactly one of python, command"),
    ((*VERTEX, "task", "python"), "wordcount.tokenize", "spec.job.vertices[0].task.python: Invalid value"),
    ((*VERTEX, "task", "env"), {"A": "b"}, "env is only for a command"),
    ((*VERTEX, "splits"), {}, "spec.job.vertices[0].splits"),
    ((*VERTEX, "splits", "python"), "a:b", "spec.job.vertices[0].splits"),
    ((*VERTEX, "splits", "maxSplitSize"), 1.5, "spec.job.vertices[0].splits.maxSplitSize: Invalid value"),
    (("spec", "job", "vertices", 1, "task", "args"), {"a": 1}, "args is only for a python task"),
    (("spec", "job", "vertices", 1, "task", "command"), [], "spec.job.vertices[1].task.command: Invalid value"),
    (("spec", "job", "vertices", 1, "task", "command"), [1], "spec.job.vertices[1].task.command[0]: Invalid value"),
    (("spec", "job", "vertices", 1, "splits"), {"files": "a"}, "splits is only for a vertex without inputs"),
    (("spec", "job", "vertices", 1, "inputs", 0, "from"), GONE, "spec.job.vertices[1].inputs[0].from: Required value"),
    (("spec", "job", "vertices", 1, "inputs", 0, "partitioner"), "hsh", "inputs[0].partitioner: Unsupported value"),
    (("spec", "job", "vertices", 1, "inputs", 0, "exchange"), "pipelined", "inputs[0].exchange: Unsupported value"),
    (
        ("spec", "job", "vertices", 1, "inputs"),
        [{"from": "a"}, {"from": "a"}],
        "vertices[1].inputs[1]: Duplicate value",
    ),
]


def changed(manifest: Manifest, path: tuple[str | int, ...], value: Any) -> Manifest:
    """The manifest with another value at a path."""
    result = copy.deepcopy(manifest)
    parent: Any = result
    for step in path[:-1]:
        parent = parent[step]
    if value is GONE:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return result
