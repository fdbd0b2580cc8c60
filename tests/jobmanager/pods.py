"""A job on a real API server without nodes: its FlinkJob, its account, and processes that take the part of its pods."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import yaml

from flinkjob.api.crd import custom_resource_definition
from flinkjob.rpc.tls import TlsFiles
from kube.apiserver import ApiServer
from local.clusters import GatedJob, eventually
from rpc.certificates import make_authority, make_certificate, place
from stores.servers import free_ports

JOB = "gated"
TIMES = {
    "high-availability.kubernetes.leader-election.lease-duration": "3 s",
    "high-availability.kubernetes.leader-election.renew-deadline": "2 s",
    "high-availability.kubernetes.leader-election.retry-period": "200 ms",
}


def install_definition(server: ApiServer) -> None:
    """Make the API server know FlinkJobs."""
    definition = custom_resource_definition()
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    try:
        server.call("POST", path, definition)
    except HTTPError as error:
        if error.code != 409:
            raise

    def established() -> bool:
        conditions = server.call("GET", f"{path}/flinkjobs.flinkjob.io").get("status", {}).get("conditions") or []
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    eventually(established, "the API server serves FlinkJobs")


def make_account(server: ApiServer, namespace: str, job: str = JOB) -> Path:
    """The JobManagers' ServiceAccount with its role, and a kubeconfig for it."""
    name = f"{job}-jobmanager"
    rules = [
        _rule("coordination.k8s.io", "leases", "get update list watch", f"{job}-leader"),
        _rule("flinkjob.io", "flinkjobs", "get", job),
        _rule("flinkjob.io", "flinkjobs/status", "patch", job),
        _rule("", "pods", "get list watch"),
        _rule("events.k8s.io", "events", "create"),
    ]
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    server.call("POST", f"{rbac}/roles", {"metadata": {"name": name}, "rules": rules})
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }
    server.call("POST", f"{rbac}/rolebindings", binding)
    return server.kubeconfig(f"system:serviceaccount:{namespace}:{name}")


def _rule(group: str, resource: str, verbs: str, name: str = "") -> dict[str, Any]:
    rule: dict[str, Any] = {"apiGroups": [group], "resources": [resource], "verbs": verbs.split()}
    return {**rule, "resourceNames": [name]} if name else rule


def make_pod(server: ApiServer, namespace: str, name: str, *, job: str = JOB) -> None:
    """A TaskManager's pod that runs, as far as the API server can tell."""
    labels = {"flinkjob.io/job": job, "app.kubernetes.io/component": "taskmanager"}
    spec = {"containers": [{"name": "taskmanager", "image": "none"}], "restartPolicy": "Never", "nodeName": "node-0"}
    pods = f"/api/v1/namespaces/{namespace}/pods"
    server.call("POST", pods, {"metadata": {"name": name, "labels": labels}, "spec": spec})
    set_pod_status(server, namespace, name, phase="Running")


def set_pod_status(server: ApiServer, namespace: str, name: str, **status: Any) -> None:
    """What the kubelet says."""
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/status"
    server.call("PATCH", path, {"status": status}, content_type="application/merge-patch+json")


def delete_pod(server: ApiServer, namespace: str, name: str) -> None:
    """Gone at once, as when the kubelet has confirmed its end."""
    server.call("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}?gracePeriodSeconds=0")


@dataclass
class PodProcess:
    """A process that takes a pod's part."""

    id: str
    process: "subprocess.Popen[bytes]"
    rest: str = ""

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; wait for the end if it is one."""
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait(timeout=30)


@dataclass
class JobOnKubernetes:
    """The gated job of the local tests, on Kubernetes."""

    server: ApiServer
    namespace: str
    path: Path
    job: GatedJob
    account: Path
    uid: str
    jobmanagers: list[PodProcess] = field(default_factory=list)
    taskmanagers: list[PodProcess] = field(default_factory=list)
    processes: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    ports: list[int] = field(default_factory=lambda: free_ports(4))

    @classmethod
    def create(cls, server: ApiServer, namespace: str, path: Path) -> "JobOnKubernetes":
        """The resource, its account, its Lease, its certificates and its token; no process yet."""
        install_definition(server)
        job = GatedJob.create(path / "job")
        manifest = yaml.safe_load(job.manifest.read_text())
        manifest["metadata"]["namespace"] = namespace
        configuration = manifest["spec"]["flinkConfiguration"]
        configuration |= {
            **TIMES,
            "high-availability.storageDir": str(path / "ha"),
            "jobmanager.failover.operation-log-store": "filesystem",
        }
        made = server.call("POST", f"/apis/flinkjob.io/v1alpha1/namespaces/{namespace}/flinkjobs", manifest)
        manifest["metadata"]["uid"] = made["metadata"]["uid"]
        job.manifest.write_text(yaml.safe_dump(manifest))
        server.call(
            "POST",
            f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases",
            {"metadata": {"name": f"{JOB}-leader"}},
        )
        authority = make_authority(path / "authority")
        place(make_certificate(authority, "localhost", usage="serverAuth,clientAuth"), path / "jobmanager-tls")
        place(make_certificate(authority, "taskmanager", usage="clientAuth"), path / "taskmanager-tls")
        (path / "token").write_text("sesame\n")
        account = make_account(server, namespace)
        return cls(server, namespace, path, job, account, made["metadata"]["uid"])

    def start_jobmanager(self, number: int, *, kubeconfig: Path | None = None) -> PodProcess:
        """Start a JobManager's container, or the next one in its pod; without a kubeconfig it has its own account's."""
        port, rest = self.ports[2 * number : 2 * number + 2]
        name = f"{JOB}-jobmanager-{number}"
        process = self._start(
            name,
            *("jobmanager", "--id", name, "--host", "127.0.0.1", "--port", str(port), "--rest-port", str(rest)),
            *("--address", f"localhost:{port}", "--rest-address", f"localhost:{rest}"),
            *("--kubernetes", "--pod-uid", f"uid-{number}", "--tls-dir", str(self.path / "jobmanager-tls")),
            *("--rest-token-file", str(self.path / "token"), "--module-dir", str(self.job.path)),
            str(self.job.manifest),
            kubeconfig=kubeconfig,
        )
        jobmanager = PodProcess(name, process, f"http://localhost:{rest}")
        self.jobmanagers = [each for each in self.jobmanagers if each.id != name] + [jobmanager]
        return jobmanager

    def start_taskmanager(self, suffix: str, *, tls: Path | None = None, metrics_port: int | None = None) -> PodProcess:
        """Start a TaskManager with two slots, and make its pod."""
        name = f"{JOB}-taskmanager-{suffix}"
        make_pod(self.server, self.namespace, name)
        addresses = ",".join(f"localhost:{port}" for port in self.ports[::2])
        process = self._start(
            name,
            *("taskmanager", "--id", name, "--jobmanagers", addresses, "--slots", "2"),
            *("--tls-dir", str(tls or self.path / "taskmanager-tls"), "--module-dir", str(self.job.path)),
            *("--work-dir", str(self.path / "work" / name)),
            *(("--metrics-port", str(metrics_port)) if metrics_port is not None else ()),
        )
        taskmanager = PodProcess(name, process)
        self.taskmanagers.append(taskmanager)
        return taskmanager

    def resource(self) -> dict[str, Any]:
        """The FlinkJob as it is."""
        return self.server.call("GET", f"/apis/flinkjob.io/v1alpha1/namespaces/{self.namespace}/flinkjobs/{JOB}")

    def status(self) -> dict[str, Any]:
        """Its status."""
        status: dict[str, Any] = self.resource().get("status") or {}
        return status

    def until_status(self, what: str, **wanted: Any) -> dict[str, Any]:
        """Wait until ``what`` is so; ``wanted`` has fields of ``jobStatus.tasks`` or ``state``, ``failovers``."""

        def reached() -> dict[str, Any] | None:
            status = self.status()
            job = status.get("jobStatus") or {}
            flat = {**status, **job, **(job.get("tasks") or {})}
            return status if all(flat.get(key) == value for key, value in wanted.items()) else None

        return eventually(reached, what)

    def leader(self) -> PodProcess:
        """The one that the status names."""
        pod = eventually(lambda: (self.status().get("leader") or {}).get("pod"), "the status names a leader")
        return next(each for each in self.jobmanagers if each.id == pod)

    def lease(self) -> dict[str, Any]:
        """The Lease."""
        return self.server.call("GET", f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/{JOB}-leader")

    def events(self) -> list[dict[str, Any]]:
        """All Events about the FlinkJob."""
        listed = self.server.call("GET", f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")
        return [event for event in listed["items"] if event["regarding"].get("kind") == "FlinkJob"]

    def close(self) -> None:
        """End all processes."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait(timeout=30)
            assert process.stdin is not None
            process.stdin.close()

    def log_of(self, process: PodProcess) -> str:
        """What a process has said, with all its predecessors of the same name."""
        return (self.path / f"{process.id}.log").read_text()

    def _start(self, name: str, *arguments: str, kubeconfig: Path | None = None) -> "subprocess.Popen[bytes]":
        environment = {key: value for key, value in os.environ.items() if not key.startswith("KUBERNETES_")}
        environment |= {"KUBECONFIG": str(kubeconfig or self.account), "FLINKJOB_END_WITH_STDIN": "1"}
        with (self.path / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "flinkjob", *arguments],
                # The write end is here: when the test dies, they end.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment,
            )
        self.processes.append(process)
        return process


def tls_files(job: JobOnKubernetes, name: str) -> TlsFiles:
    """The certificates of the JobManagers or the TaskManagers."""
    return TlsFiles.below(job.path / f"{name}-tls")


def pretty(value: Any) -> str:
    """For messages of failing tests."""
    return json.dumps(value, indent=1)
