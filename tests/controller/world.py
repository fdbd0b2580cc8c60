"""A Kubernetes cluster small enough for a test: objects, the controllers that act on them, kubelets, JobManagers that lead.

It does at once what a cluster does sooner or later, one `tick` after the other, in virtual time. What is in it are plain
objects as the API server has them. An operator acts on it by `carry_out`; it sees what `observed` says, which may lag.
"""

import copy
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

from flinkjob.api.flinkjob import job_id
from flinkjob.api.status import OPERATOR_FIELDS
from flinkjob.controller import names
from flinkjob.controller.actions import Plan
from flinkjob.controller.leases import emptied, holder, proof_of_death
from flinkjob.controller.observed import Child, ChildKey, Manifest, Observed, format_time
from flinkjob.controller.plan import plan
from flinkjob.controller.target import OperatorSettings, resolve

SETTINGS = OperatorSettings(image="flinkjob:1")
NAMESPACE = "default"
LEASE_DURATION = 15.0
WITH_GENERATION = ("FlinkJob", "StatefulSet", "PodDisruptionBudget", "Pod")
"""Kinds whose metadata count the changes of their spec."""


def flinkjob(name: str = "wordcount", **spec: Any) -> Manifest:
    """A FlinkJob as a user writes it and the API server fills it in."""
    defaults: dict[str, Any] = {
        "jobManager": {"replicas": 2},
        "taskManager": {"replicas": 2},
        "storage": {"volume": {"persistentVolumeClaim": {"claimName": "flink"}}},
        "job": {"entrypoint": "jobs:build", "state": "running"},
        "restartNonce": 0,
        "failoverNonce": 0,
        "deletionPolicy": "Retain",
    }
    return {
        "apiVersion": "flinkjob.io/v1alpha1",
        "kind": "FlinkJob",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {**defaults, **spec},
    }


class World:
    """See the module.

    Attributes:
        objects: all there is, by kind and name.
        now: seconds of the Unix epoch.
        broken_images: pods of these images die as soon as they start.
        lost_nodes: nodes that cannot be reached; the kubelet there goes on, and nobody hears of it.
        stuck: names of pods that get no node.
        calls: changes that the operator has asked for.
        releases: pods whose Lease the operator has emptied, with whether they could have been running.
    """

    def __init__(self, job: Manifest) -> None:
        self.objects: dict[ChildKey, Manifest] = {}
        self.now = 1_800_000_000.0
        self.broken_images: set[str] = set()
        self.lost_nodes: set[str] = set()
        self.stuck: set[str] = set()
        self.calls = 0
        self.events: list[str] = []
        self.releases: list[tuple[str, bool]] = []
        self.settled: dict[ChildKey, str] = {}
        self.job_ends = False
        self._versions = itertools.count(1)
        self._uids = itertools.count(1)
        self._suffixes = itertools.count(1)
        self._renewed: dict[str, float] = {}
        self.name = job["metadata"]["name"]
        self.job_key = ChildKey("FlinkJob", self.name)
        self.create(job)

    # What anybody can do

    def create(self, manifest: Manifest) -> Manifest:
        """Make an object."""
        key = ChildKey(manifest["kind"], manifest["metadata"]["name"])
        assert key not in self.objects, f"{key} exists"
        made = copy.deepcopy(manifest)
        made["metadata"] |= {"uid": f"uid-{next(self._uids)}", "creationTimestamp": format_time(self.now)}
        if key.kind in WITH_GENERATION:
            made["metadata"]["generation"] = 1
        self.objects[key] = made
        self._touch(made)
        return made

    def edit(self, **spec: Any) -> None:
        """Change the FlinkJob's spec."""
        job = self.objects[self.job_key]
        job["spec"] |= spec
        job["metadata"]["generation"] += 1
        self._touch(job)

    def delete(self, key: ChildKey) -> None:
        """Delete an object: pods end, the FlinkJob waits for its finalizers, all else is gone at once."""
        manifest = self.objects.get(key)
        if manifest is None or "deletionTimestamp" in manifest["metadata"]:
            return
        if key.kind == "Pod" or manifest["metadata"].get("finalizers"):
            manifest["metadata"]["deletionTimestamp"] = format_time(self.now)
            self._touch(manifest)
        else:
            del self.objects[key]

    @property
    def job(self) -> Manifest:
        """The FlinkJob."""
        return self.objects[self.job_key]

    @property
    def status(self) -> dict[str, Any]:
        """Its status."""
        status: dict[str, Any] = self.job.setdefault("status", {})
        return status

    def condition(self, type: str) -> str:
        """A condition as ``True Running``; "" when it is not told."""
        found = (x for x in self.status.get("conditions", ()) if x["type"] == type)
        return next((f"{x['status']} {x['reason']}" for x in found), "")

    def pods(self, component: str) -> list[Manifest]:
        """The pods of a kind, by name."""
        kept = [x for x in self.objects.values() if x["kind"] == "Pod" and _component(x) == component]
        return sorted(kept, key=lambda pod: str(pod["metadata"]["name"]))

    def running(self, component: str) -> list[str]:
        """Names of the pods of a kind whose processes run."""
        return [pod["metadata"]["name"] for pod in self.pods(component) if _runs(pod)]

    # The operator

    def observed(self) -> Observed:
        """What the operator sees now."""
        others = [x for key, x in self.objects.items() if key != self.job_key]
        return Observed.of(copy.deepcopy(self.job), copy.deepcopy(others), settled=dict(self.settled))

    def suffix(self) -> str:
        """A new end of a name."""
        return f"{next(self._suffixes):05d}"

    def plan(self, settings: OperatorSettings = SETTINGS) -> Plan:
        """What the operator would do now."""
        return plan(self.observed(), now=self.now, settings=settings, suffix=self.suffix)

    def reconcile(self, *, steps: int = 1_000_000, settings: OperatorSettings = SETTINGS) -> Plan:
        """Plan and carry out, until after so many steps the operator dies."""
        if self.job_key not in self.objects:
            return Plan()
        made = self.plan(settings)
        self.carry_out(made, steps=steps)
        self.events += [event.reason for event in made.events]
        return made

    def carry_out(self, made: Plan, *, steps: int = 1_000_000) -> None:
        """Do what a plan says, until after so many steps the operator dies."""
        self.settled = dict(made.settled)
        for step in self._steps(made)[:steps]:
            step()
            self.calls += 1

    def _steps(self, made: Plan) -> list[Callable[[], None]]:
        steps: list[Callable[[], None]] = []
        if made.check_lease:
            steps.append(self._check_lease)
        if made.add_finalizer:
            steps.append(partial(self._set_finalizers, [names.FINALIZER]))
        if made.status is not None:
            steps.append(partial(self._apply_status, made.status))
        if made.issue_secrets:
            steps.append(self._issue_secrets)
        steps += [partial(self._apply, apply.manifest, apply.uid) for apply in made.applies]
        steps += [partial(self._create_pod, pod) for pod in made.creates]
        steps += [partial(self._delete, delete.key, delete.uid) for delete in made.deletes]
        if made.remove_finalizer:
            steps.append(partial(self._set_finalizers, []))
        if made.delete_job:
            steps.append(partial(self.delete, self.job_key))
        return steps

    def _apply(self, manifest: Manifest, uid: str) -> None:
        key = ChildKey(manifest["kind"], manifest["metadata"]["name"])
        present = self.objects.get(key)
        if present is None:
            assert not uid, f"{key} was to be there"
            self.create(manifest)
        else:
            assert uid in ("", present["metadata"]["uid"]), f"{key} is another one"
            assert self._ours(present) or key.kind == "Lease", f"{key} does not belong to the FlinkJob"
            self._merge(present, manifest)
        self.settled[key] = Child.of(self.objects[key]).version

    def _merge(self, present: Manifest, manifest: Manifest) -> None:
        before = copy.deepcopy(present)
        for part, value in manifest.items():
            if part == "metadata":
                present["metadata"] |= copy.deepcopy(value)
            elif part == "spec":
                present["spec"] = {**present.get("spec", {}), **copy.deepcopy(value)}
            else:
                present[part] = copy.deepcopy(value)
        if before != present:
            if present["kind"] in WITH_GENERATION:
                present["metadata"]["generation"] += before.get("spec") != present.get("spec")
            self._touch(present)

    def _apply_status(self, status: Manifest) -> None:
        kept = {key: value for key, value in self.status.items() if key not in OPERATOR_FIELDS}
        told = copy.deepcopy(status)
        kept["jobStatus"] = {**kept.get("jobStatus", {}), **told.pop("jobStatus", {})}
        self.job["status"] = {**kept, **told}
        self._touch(self.job)

    def _issue_secrets(self) -> None:
        owner = names.owner_reference(resolve(self.job, SETTINGS).job)
        for name in names.secrets(self.name):
            if ChildKey("Secret", name) not in self.objects:
                self.create({"kind": "Secret", "metadata": {"name": name, "ownerReferences": [owner]}})

    def _create_pod(self, pod: Manifest) -> None:
        assert "deletionTimestamp" not in self.job["metadata"] or _component(pod) == names.CLEANUP
        if ChildKey("Pod", pod["metadata"]["name"]) not in self.objects:
            self.create(pod)

    def _delete(self, key: ChildKey, uid: str) -> None:
        manifest = self.objects.get(key)
        if manifest is not None and manifest["metadata"]["uid"] == uid:
            assert self._ours(manifest), f"{key} does not belong to the FlinkJob"
            self.delete(key)

    def _ours(self, manifest: Manifest) -> bool:
        owner = (names.controller_of(manifest) or {}).get("uid")
        own = self.job["metadata"]["uid"]
        if owner == own or manifest["metadata"].get("annotations", {}).get(names.JOB_UID, "").startswith(own):
            return True
        return any(x["metadata"]["uid"] == owner and self._ours(x) for x in self.objects.values() if x is not manifest)

    def _set_finalizers(self, finalizers: list[str]) -> None:
        metadata = self.job["metadata"]
        metadata["finalizers"] = finalizers
        self._touch(self.job)
        if not finalizers and "deletionTimestamp" in metadata:
            del self.objects[self.job_key]

    def _check_lease(self) -> None:
        lease = self.objects.get(ChildKey("Lease", names.lease(self.name)))
        held_by = holder(lease) if lease is not None else None
        if lease is None or held_by is None:
            return
        pod = self.objects.get(ChildKey("Pod", held_by.pod))
        if proof_of_death(lease, pod) is not None:
            alive = pod is not None and pod["metadata"]["uid"] == held_by.uid and _runs(pod)
            self.releases.append((held_by.pod, alive))
            self.objects[ChildKey("Lease", names.lease(self.name))] = emptied(lease)
            self._touch(self.objects[ChildKey("Lease", names.lease(self.name))])

    # The cluster

    def tick(self, seconds: float = 1.0) -> None:
        """Let the cluster work for a second or more."""
        self.now += seconds
        self._collect_garbage()
        self._stateful_set()
        for pod in self.pods(names.JOBMANAGER) + self.pods(names.TASKMANAGER) + self.pods(names.CLEANUP):
            self._kubelet(pod)
        self._elect()

    def settle(self, *, ticks: int = 60, seconds: float = 1.0, reconcile: bool = True) -> None:
        """Let operator and cluster work in turn."""
        for _ in range(ticks):
            if reconcile:
                self.reconcile()
            self.tick(seconds)

    def kill(self, pod: str) -> None:
        """Delete a pod and its processes at once, as a node's sudden death with a forced deletion does."""
        del self.objects[ChildKey("Pod", pod)]

    def crash(self, pod: str, *, exit_code: int = 1, ran: float = 300.0) -> None:
        """The main container's process ends."""
        manifest = self.objects[ChildKey("Pod", pod)]
        component = _component(manifest)
        ended = {
            "exitCode": exit_code,
            "reason": "Error" if exit_code else "Completed",
            "startedAt": format_time(self.now - ran),
            "finishedAt": format_time(self.now),
        }
        phase = "Running" if component == names.JOBMANAGER else "Failed" if exit_code else "Succeeded"
        self._tell(manifest, phase, {"terminated": ended}, ready=False)

    def leader(self) -> str | None:
        """The pod that holds the Lease."""
        lease = self.objects.get(ChildKey("Lease", names.lease(self.name)))
        held_by = holder(lease) if lease is not None else None
        return held_by.pod if held_by is not None else None

    def _collect_garbage(self) -> None:
        uids = {manifest["metadata"]["uid"] for manifest in self.objects.values()}
        for key, manifest in list(self.objects.items()):
            owner = names.controller_of(manifest)
            if owner is not None and owner["uid"] not in uids:
                self.delete(key)

    def _stateful_set(self) -> None:
        key = ChildKey("StatefulSet", names.jobmanagers(self.name))
        if key not in self.objects or (owner := names.controller_of(self.objects[key])) is None or not owner:
            return
        stateful_set = self.objects[key]
        for ordinal in range(100):
            pod_key = ChildKey("Pod", names.jobmanager_pod(self.name, ordinal))
            wanted = ordinal < stateful_set["spec"]["replicas"]
            if wanted and pod_key not in self.objects:
                reference = {
                    "kind": key.kind,
                    "name": key.name,
                    "uid": stateful_set["metadata"]["uid"],
                    "controller": True,
                }
                template = copy.deepcopy(stateful_set["spec"]["template"])
                metadata = {**template["metadata"], "name": pod_key.name, "ownerReferences": [reference]}
                self.create({"kind": "Pod", "metadata": metadata, "spec": template["spec"]})
            elif not wanted:
                self.delete(pod_key)

    def _kubelet(self, pod: Manifest) -> None:
        key = ChildKey("Pod", pod["metadata"]["name"])
        node = pod["spec"].setdefault("nodeName", f"node-{key.name}")
        if node in self.lost_nodes:
            if pod.get("status"):
                pod["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
            return
        if "deletionTimestamp" in pod["metadata"]:
            self._release(pod)
            del self.objects[key]
        elif key.name not in self.stuck and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            self._start(pod)

    def _start(self, pod: Manifest) -> None:
        component = _component(pod)
        if pod["spec"]["containers"][0]["image"] in self.broken_images:
            waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "there is no such image"}}
            if not _runs(pod):
                self._tell(pod, "Pending", waiting, ready=False)
        elif component == names.CLEANUP:
            self.crash(pod["metadata"]["name"], exit_code=0, ran=1)
        elif not _runs(pod):
            self._tell(pod, "Running", {"running": {"startedAt": format_time(self.now)}}, ready=True)

    def _tell(self, pod: Manifest, phase: str, state: dict[str, Any], *, ready: bool) -> None:
        before: dict[str, Any] = next(iter(pod.get("status", {}).get("containerStatuses", ())), {})
        last = {"terminated": before["state"]["terminated"]} if "terminated" in before.get("state", {}) else {}
        restarts = before.get("restartCount", 0) + bool(last and "running" in state)
        status = {"name": _component(pod), "state": state, "lastState": last, "restartCount": restarts}
        conditions = [{"type": "Ready", "status": str(ready)}]
        pod["status"] = {"phase": phase, "conditions": conditions, "containerStatuses": [status]}
        self._touch(pod)

    def _release(self, pod: Manifest) -> None:
        """A JobManager that is asked to end frees the Lease."""
        key = ChildKey("Lease", names.lease(self.name))
        lease = self.objects.get(key)
        held_by = holder(lease) if lease is not None else None
        if lease is not None and held_by is not None and held_by.uid == pod["metadata"]["uid"] and _runs(pod):
            self.objects[key] = emptied(lease)

    def _elect(self) -> None:
        """JobManagers that run renew the Lease or take it, and the leader writes its part of the status."""
        lease = self.objects.get(ChildKey("Lease", names.lease(self.name)))
        if lease is None or self.job_key not in self.objects:
            return
        running = [pod for pod in self.pods(names.JOBMANAGER) if _runs(pod)]
        held_by = holder(lease)
        uid = held_by.uid if held_by is not None else ""
        leader = next((pod for pod in running if pod["metadata"]["uid"] == uid), None)
        same_process = leader is not None and lease["spec"]["holderIdentity"] == self._identity(leader)
        if same_process:
            self._renewed[self.name] = self.now
        elif running and (held_by is None or self._renewed.get(self.name, 0.0) + LEASE_DURATION < self.now):
            started = (pod for pod in running if _started(pod) < format_time(self.now))
            candidates = [pod for pod in started if pod["spec"]["nodeName"] not in self.lost_nodes]
            if candidates:
                self._lead(lease, min(candidates, key=_started))
        if leader is not None and same_process and self.job_ends and "jobStatus" in self.status:
            ended = {"state": "FINISHED", "endTime": self.status["jobStatus"].get("endTime", format_time(self.now))}
            self.status["jobStatus"] |= ended

    def _identity(self, pod: Manifest) -> str:
        restarts = pod["status"]["containerStatuses"][0]["restartCount"]
        return f"{pod['metadata']['name']}_{pod['metadata']['uid']}_{restarts:08x}"

    def _lead(self, lease: Manifest, pod: Manifest) -> None:
        time = format_time(self.now)
        lease["spec"] = {"holderIdentity": self._identity(pod), "acquireTime": time, "renewTime": time}
        self._touch(lease)
        self._renewed[self.name] = self.now
        run = pod["metadata"]["annotations"][names.JOB_UID]
        epoch = self.status.get("leader", {}).get("epoch", 0) + 1
        ran = self.status.get("jobStatus", {})
        id = job_id(NAMESPACE, self.name, run)
        state = ran["state"] if ran.get("jobId") == id and ran.get("state") == "FINISHED" else "RUNNING"
        self.status["jobStatus"] = {
            **(ran if ran.get("jobId") == id else {}),
            "jobId": id,
            "state": state,
            "tasks": {"total": 4, "running": 2, "finished": 1, "created": 1},
        }
        self.status["leader"] = {"pod": pod["metadata"]["name"], "epoch": epoch, "since": time}
        self.status["log"] = {"writable": True, "lagMs": 0.0}
        self.status["reconciling"] = False
        self._touch(self.job)

    def _touch(self, manifest: Manifest) -> None:
        manifest["metadata"]["resourceVersion"] = str(next(self._versions))


def _component(pod: Manifest) -> str:
    return str(pod["metadata"].get("labels", {}).get(names.COMPONENT_LABEL, ""))


def _runs(pod: Manifest) -> bool:
    statuses = pod.get("status", {}).get("containerStatuses", ())
    return any("running" in status["state"] for status in statuses)


def _started(pod: Manifest) -> str:
    return str(pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"])
