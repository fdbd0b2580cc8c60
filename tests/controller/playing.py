"""The parts that nobody else plays in a test of the operator: nodes with their kubelets, and leading JobManagers.

The API server and the controllers are real. There is no scheduler and no node, so pods are bound, started, made ready and
ended here, in the way that a kubelet tells it.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from flinkjob.api.flinkjob import job_id
from flinkjob.controller import names
from flinkjob.controller.operator import Operator, OperatorOptions
from flinkjob.controller.target import OperatorSettings
from flinkjob.election.apiserver import KubernetesApi
from flinkjob.election.elector import ElectionTimes
from kube.apiserver import ApiServer

Object = dict[str, Any]

QUICK = ElectionTimes(lease_duration=3.0, renew_deadline=2.0, retry_period=0.3)
PATIENCE = 60.0


def flinkjob(name: str = "job", **spec: Any) -> Object:
    """A FlinkJob as small as can be; ``spec`` is laid over its own."""
    return {
        "apiVersion": "flinkjob.io/v1alpha1",
        "kind": "FlinkJob",
        "metadata": {"name": name},
        "spec": {
            "image": "flinkjob:test",
            "flinkConfiguration": {"high-availability.storageDir": "s3://bucket/jobs"},
            "jobManager": {"replicas": 2},
            "taskManager": {"replicas": 2},
            "job": {"vertices": [{"name": "only", "task": {"command": ["true"]}}]},
            **spec,
        },
    }


def clock_text() -> str:
    """Now, as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class World:
    """One namespace of an API server, as a test sees it."""

    server: ApiServer
    namespace: str
    cut_off: set[str] = field(default_factory=set)

    def path(self, kind: str, name: str = "", sub: str = "") -> str:
        """Where an object is."""
        group = {
            "flinkjobs": "apis/flinkjob.io/v1alpha1",
            "statefulsets": "apis/apps/v1",
            "leases": "apis/coordination.k8s.io/v1",
            "roles": "apis/rbac.authorization.k8s.io/v1",
            "rolebindings": "apis/rbac.authorization.k8s.io/v1",
            "poddisruptionbudgets": "apis/policy/v1",
            "events": "apis/events.k8s.io/v1",
        }.get(kind, "api/v1")
        parts = [group, "namespaces", self.namespace, kind, name, sub]
        return "/" + "/".join(part for part in parts if part)

    def get(self, kind: str, name: str) -> Object | None:
        """An object; None where there is none."""
        try:
            return self.server.call("GET", self.path(kind, name))
        except HTTPError as error:
            if error.code == 404:
                return None
            raise

    def all(self, kind: str) -> list[Object]:
        """All objects of a kind."""
        return list(self.server.call("GET", self.path(kind))["items"])

    def create(self, kind: str, manifest: Object) -> Object:
        """Make an object."""
        return self.server.call("POST", self.path(kind), manifest)

    def patch(self, kind: str, name: str, change: Object, sub: str = "") -> Object:
        """Merge a change into an object."""
        content = "application/merge-patch+json"
        return self.server.call("PATCH", self.path(kind, name, sub), change, content_type=content)

    def delete(self, kind: str, name: str, grace: int | None = None) -> None:
        """Delete an object."""
        body = {} if grace is None else {"gracePeriodSeconds": grace}
        with contextlib.suppress(HTTPError):
            self.server.call("DELETE", self.path(kind, name), body)

    def job(self, name: str = "job") -> Object:
        """The FlinkJob."""
        found = self.get("flinkjobs", name)
        assert found is not None, f"there is no FlinkJob {name}"
        return found

    def status(self, name: str = "job") -> Object:
        """The FlinkJob's status."""
        return self.job(name).get("status") or {}

    def condition(self, type: str, name: str = "job") -> Object:
        """One condition of the FlinkJob; empty where it has not got it."""
        return next((each for each in self.status(name).get("conditions") or () if each["type"] == type), {})

    def pods(self, component: str = "") -> list[Object]:
        """The pods of one kind that nobody has asked to go, by name."""
        return [
            pod
            for pod in self.all("pods")
            if component in ("", pod["metadata"]["labels"].get(names.COMPONENT_LABEL))
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def events(self) -> list[tuple[str, str]]:
        """Reason and note of each Event of the operator."""
        told = [each for each in self.all("events") if each.get("reportingController") == "flinkjob.io/operator"]
        return [(each["reason"], each["note"]) for each in told]

    # The kubelets

    def play_kubelet(self) -> None:
        """What the kubelets do when they look once: start what is new, and let go of what is to end."""
        for pod in self.all("pods"):
            name = pod["metadata"]["name"]
            with contextlib.suppress(HTTPError):  # gone in the meantime
                if "nodeName" not in pod["spec"]:
                    target = {"apiVersion": "v1", "kind": "Node", "name": "node"}
                    self.server.call(
                        "POST", self.path("pods", name, "binding"), {"metadata": {"name": name}, "target": target}
                    )
                elif name in self.cut_off:
                    continue
                elif "deletionTimestamp" in pod["metadata"]:
                    self.delete("pods", name, grace=0)
                elif pod["status"]["phase"] == "Pending":
                    self.start(name)

    def start(self, name: str, *, restarts: int = 0, last: Object | None = None) -> None:
        """The kubelet says that the pod's container runs and is ready."""
        container = {
            "name": "jobmanager" if "-jobmanager-" in name else "taskmanager" if "-taskmanager-" in name else "cleanup",
            "image": "flinkjob:test",
            "imageID": "",
            "ready": True,
            "started": True,
            "restartCount": restarts,
            "state": {"running": {"startedAt": clock_text()}},
            "lastState": last or {},
        }
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": clock_text()}
        status = {
            "phase": "Running",
            "conditions": [ready],
            "containerStatuses": [container],
            "startTime": clock_text(),
        }
        self.patch("pods", name, {"status": status}, "status")

    def set_ready(self, name: str, ready: bool) -> None:
        """The kubelet says how the readiness probe came out, if that is new."""
        pod = self.get("pods", name) or {"status": {}}
        told = next((each["status"] for each in pod["status"].get("conditions") or () if each["type"] == "Ready"), "")
        if told not in ("", str(ready)):
            condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": clock_text()}
            self.patch("pods", name, {"status": {"conditions": [condition]}}, "status")

    def end(self, name: str, *, phase: str | None = "Failed", code: int = 1) -> None:
        """The kubelet says that the pod's container has ended; without a phase it will start it again."""
        pod = self.get("pods", name)
        assert pod is not None
        container = dict(pod["status"]["containerStatuses"][0])
        terminated = {"exitCode": code, "reason": "Error", "startedAt": clock_text(), "finishedAt": clock_text()}
        container |= {"ready": False, "started": False, "state": {"terminated": terminated}}
        not_ready = {"type": "Ready", "status": "False", "lastTransitionTime": clock_text()}
        status: Object = {"conditions": [not_ready], "containerStatuses": [container]}
        if phase is not None:
            status["phase"] = phase
        self.patch("pods", name, {"status": status}, "status")

    # A leading JobManager

    def lead(self, pod_name: str, *, job: str = "job", state: str = "RUNNING", **status: Any) -> None:
        """The JobManager of that pod takes the Lease and says in the status that it leads."""
        pod = self.get("pods", pod_name)
        assert pod is not None
        lease = self.get("leases", names.lease(job))
        assert lease is not None
        clock = datetime.now(UTC)
        # A kubelet tells whole seconds: of one who dies in the second of his election, nobody knows which came first.
        acquired, now = (time.strftime("%Y-%m-%dT%H:%M:%S.%fZ") for time in (clock - timedelta(seconds=2), clock))
        spec = lease.get("spec") or {}
        transitions = spec.get("leaseTransitions", 0) + 1
        holder = f"{pod_name}_{pod['metadata']['uid']}_00000000"
        spec |= {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": transitions}
        spec |= {"acquireTime": acquired, "renewTime": now}
        # A patch: the operator may be releasing the Lease of a dead leader between the reading and the writing.
        self.patch("leases", names.lease(job), {"spec": spec})
        self.say_who_leads(pod_name, job=job, epoch=transitions, state=state, **status)

    def say_who_leads(
        self, pod_name: str, *, epoch: int, job: str = "job", state: str = "RUNNING", **status: Any
    ) -> None:
        """A JobManager says in the status that it leads."""
        flinkjob, now = self.job(job), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        run = flinkjob["status"]["run"]
        tasks = {"total": 1, "running": int(state == "RUNNING"), "finished": int(state == "FINISHED")}
        times = {"startTime": now} | ({"endTime": now} if state in ("FINISHED", "FAILED", "CANCELED") else {})
        told = {
            "jobStatus": {"jobId": job_id(self.namespace, job, run), "state": state, "tasks": tasks, **times},
            "leader": {"pod": pod_name, "epoch": epoch, "since": now},
            "reconciling": False,
            "failovers": epoch - 1,
            "log": {"writable": True},
            **status,
        }
        body = {"apiVersion": "flinkjob.io/v1alpha1", "kind": "FlinkJob", "metadata": {"name": job}, "status": told}
        path = f"{self.path('flinkjobs', job, 'status')}?fieldManager=flinkjob-jobmanager&force=true"
        self.server.call("PATCH", path, body, content_type="application/apply-patch+yaml")

    def lease_holder(self, job: str = "job") -> str:
        """Who holds the job's Lease; empty: nobody."""
        lease = self.get("leases", names.lease(job))
        return ((lease or {}).get("spec") or {}).get("holderIdentity") or ""

    # The test's own patience

    async def until(self, what: Callable[[], Any], *, kubelet: bool = True, patience: float = PATIENCE) -> Any:
        """Wait until something is so, and return it; the kubelets work meanwhile."""
        async with asyncio.timeout(patience):
            while True:
                if kubelet:
                    await asyncio.to_thread(self.play_kubelet)
                with contextlib.suppress(HTTPError):
                    if value := await asyncio.to_thread(what):
                        return value
                await asyncio.sleep(0.05)

    async def for_a_while(self, seconds: float, *, kubelet: bool = True) -> None:
        """Let things happen that should not."""
        with contextlib.suppress(TimeoutError):
            await self.until(lambda: False, kubelet=kubelet, patience=seconds)

    async def until_ready(self, job: str = "job") -> None:
        """Wait until the job's pods run, make the first JobManager its leader, and wait until the job is ready."""
        await self.until(lambda: (self.status(job).get("jobManagers") or {}).get("ready"))
        leader = names.jobmanager_pod(job, 0)
        await self.until(lambda: ((self.get("pods", leader) or {}).get("status") or {}).get("phase") == "Running")
        await asyncio.to_thread(self.lead, leader, job=job)
        await self.until(lambda: self.condition("Ready", job).get("status") == "True")


def install_crd(server: ApiServer) -> None:
    """The CustomResourceDefinition, as a user installs it."""
    server.kubectl("apply", "--server-side", "--force-conflicts", "-f", "crds/flinkjobs.yaml")
    server.until_established("flinkjobs.flinkjob.io")


def options(namespace: str, *, identity: str = "", **more: Any) -> OperatorOptions:
    """Of an operator for one namespace."""
    values: dict[str, Any] = {
        "identity": identity or f"operator-{os.urandom(4).hex()}",
        "lease_namespace": namespace,
        "namespaces": (namespace,),
        "host": "127.0.0.1",
        "port": 0,
        "settings": OperatorSettings(image="flinkjob:default"),
        **more,
    }
    return OperatorOptions(**values)


@asynccontextmanager
async def running(kubeconfig: Path, chosen: OperatorOptions) -> AsyncIterator[Operator]:
    """An operator that runs in this loop for the block's time; it must not end by itself."""
    stop = asyncio.Event()
    async with await KubernetesApi.connect(kubeconfig) as api:
        operator = Operator(api, chosen)
        task = asyncio.create_task(operator.run(stop))
        try:
            yield operator
        finally:
            ended = task.done()
            stop.set()
            async with asyncio.timeout(10):
                await task
            assert not ended, "the operator has ended by itself"


def managers(manifest: Object) -> Iterator[str]:
    """Who has written an object."""
    yield from (each["manager"] for each in manifest["metadata"].get("managedFields") or ())
