"""A job whose tasks wait for a gate, so that a test breaks things exactly while they run, and what tasks must not notice.

Each start of a task leaves a line of its own in a file on the job's volume, and while a task holds it counts in another. A
task that began twice has two lines, whatever anybody reports, and one that stands still or begins anew does not count on; so
the suite's promises are checked on what the tasks themselves have done.
"""

import json
import subprocess
from dataclasses import dataclass, replace
from typing import Any

from kubernetes_cluster import OURS, Kubernetes, Tasks, eventually

GROUP = "flinkjob.io/v1alpha1"
STORAGE = "/flinkjob/storage"
SHARED = "/var/local/flinkjob"
"""The directory that the nodes of the cluster have in common."""

MODULE = """
import contextlib
import os
import time
from pathlib import Path


def begin(context):
    here = Path(context.args["gate"])
    here.mkdir(parents=True, exist_ok=True)
    with (here / f"{context.vertex}-{context.subtask}.starts").open("a") as starts:
        starts.write(f"{context.attempt} {os.uname().nodename} {os.getpid()}\\n")
    return here


def hold(context):
    here = begin(context)
    count = 0
    while not (here / "open").exists():
        if context.cancelled:
            return
        if count % 10 == 0:
            beat(context, here, count)
        count += 1
        time.sleep(0.05)
    context.emit(context.subtask + 1)


def beat(context, here, count):
    alive = here / f"{context.vertex}-{context.subtask}.alive"
    written = alive.with_suffix(f".{os.uname().nodename}-{os.getpid()}")
    with contextlib.suppress(OSError):  # a full volume
        written.write_text(f"{context.attempt} {os.uname().nodename} {os.getpid()} {count}\\n")
        written.replace(alive)


def tick(context):
    here = begin(context)
    while not (here / "ticking").exists():
        if context.cancelled:
            return
        time.sleep(0.05)
    if not (here / "open").exists():
        time.sleep(0.3)
    context.emit(1)


def first(context):
    context.emit(context.subtask)


def total(context):
    context.emit(sum(context.read()))
"""


@dataclass(frozen=True, slots=True)
class Job:
    """A FlinkJob of this suite: two tasks that end at once, some that hold until the gate is open, and their sum.

    Attributes:
        held: how many tasks hold.
        ticks: how many tasks beside them are short, once the first of them may begin.
        directory: of the nodes, that is the job's volume.
        storage: where the job's data is: that volume, as pods see it, or the URL that its configuration names.
    """

    kubernetes: Kubernetes
    namespace: str
    name: str = "held"
    held: int = 4
    ticks: int = 0
    directory: str = SHARED
    storage: str = STORAGE

    @property
    def result(self) -> int:
        """What the job gives in the end."""
        return sum(range(1, self.held + 1)) + self.ticks

    @property
    def gate(self) -> str:
        """The directory of the gate, as the pods see it."""
        return f"{STORAGE}/gates/{self.namespace}-{self.name}"

    def manifest(self, **spec: Any) -> dict[str, Any]:
        """The resource; ``spec`` replaces fields of it."""
        arguments = {"args": {"gate": self.gate}}
        hold, tick = ({"python": f"held:{name}", **arguments} for name in ("hold", "tick"))
        waiting = [{"name": "hold", "parallelism": self.held, "task": hold, "inputs": [{"from": "first"}]}]
        if self.ticks:
            waiting.append({"name": "tick", "parallelism": self.ticks, "task": tick, "inputs": [{"from": "first"}]})
        total = {"python": "held:total"}
        return {
            "apiVersion": GROUP,
            "kind": "FlinkJob",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "flinkConfiguration": {
                    "heartbeat.timeout": "10 s",
                    "restart-strategy.type": "fixed-delay",
                    "restart-strategy.fixed-delay.attempts": 10,
                    "restart-strategy.fixed-delay.delay": "10 ms",
                },
                "image": self.kubernetes.image,
                "imagePullPolicy": "IfNotPresent",
                "jobManager": {"replicas": 2},
                "taskManager": {"replicas": 2, "taskSlots": 2},
                "modules": {"configMap": {"name": self.name}},
                "storage": {"volume": {"persistentVolumeClaim": {"claimName": self.name}}},
                "job": {
                    "vertices": [
                        {"name": "first", "parallelism": 2, "task": {"python": "held:first"}},
                        *waiting,
                        {"name": "total", "task": total, "inputs": [{"from": each["name"]} for each in waiting]},
                    ]
                },
                **spec,
            },
        }

    def create(self, **spec: Any) -> None:
        """Create the volume, the module and the job."""
        self.apply(*self.manifests(**spec))

    def manifests(self, **spec: Any) -> list[dict[str, Any]]:
        """The volume, the module and the job."""
        module = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "data": {"held.py": MODULE},
        }
        return [module, *self._volume(), self.manifest(**spec)]

    def apply(self, *manifests: dict[str, Any]) -> None:
        """``kubectl apply``."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubernetes.kubectl("apply", "-f", "-", given=json.dumps(listed))

    def patch(self, **spec: Any) -> None:
        """``kubectl patch``: fields of the spec."""
        self.kubectl("patch", "flinkjob", self.name, "--type=merge", "--patch", json.dumps({"spec": spec}))

    def kubectl(self, *arguments: str) -> str:
        """kubectl in the job's namespace."""
        return self.kubernetes.kubectl("--namespace", self.namespace, *arguments)

    def get(self) -> dict[str, Any]:
        """The resource as it is now."""
        return self.kubernetes.get(self.namespace, "flinkjob", self.name)

    def status(self) -> dict[str, Any]:
        """Its status."""
        return dict(self.get().get("status") or {})

    def state(self) -> str:
        """The job's state."""
        return str((self.status().get("jobStatus") or {}).get("state", ""))

    def condition(self, kind: str) -> dict[str, Any]:
        """A condition; empty where there is none of this type."""
        found = [each for each in self.status().get("conditions") or [] if each["type"] == kind]
        return found[0] if found else {}

    def leader(self) -> str:
        """The pod that leads; empty if nobody does."""
        return self.kubernetes.leader(self.namespace, self.name)

    def standby(self) -> str:
        """The JobManager that does not lead."""
        pods = {f"{self.name}-jobmanager-{index}" for index in range(2)}
        (standby,) = pods - {self.leader()}
        return standby

    def tasks(self) -> Tasks:
        """All tasks that run at this moment, each with its own count if it has begun one in its attempt."""
        tasks = self.kubernetes.tasks(self.namespace, self.name)
        counts = self._counts() if tasks else {}
        for key, task in tasks.items():
            attempt, pod, _, count = counts.get(key, ("", "", "", "0"))
            if (attempt, pod) == (str(task.attempt), task.pod):
                tasks[key] = replace(task, counting=" ".join(counts[key][:3]), count=int(count))
        return tasks

    def _counts(self) -> dict[tuple[str, int], list[str]]:
        script = f"cd {self.gate} && grep '' *.alive /dev/null || true"
        found = {}
        for line in self.in_pod(self._any_pod(), "sh", "-c", script).splitlines():
            name, _, text = line.partition(".alive:")
            vertex, _, subtask = name.rpartition("-")
            found[vertex, int(subtask)] = text.split()
        return found

    def unnoticed(self, before: Tasks, epoch: int = 1) -> None:
        """Check that the tasks run in this epoch in the same places, and that each has counted on in its own process."""
        assert self.holding(epoch) == before
        self.counting_on(before)

    def counting_on(self, before: Tasks) -> None:
        """Wait until each of these tasks has counted on, in the same process and attempt."""

        def counted_on() -> bool:
            now = self.tasks()
            return all((at := now.get(key)) == task and at.count > task.count for key, task in before.items())

        eventually(counted_on, "the tasks count on", patience=60)

    def holding(self, epoch: int = 1, *, protected: bool = True, patience: float = 180) -> Tasks:
        """Wait until all tasks hold in an epoch, and the job is protected, or not to be because nobody stands by; they."""
        wanted = {("hold", index) for index in range(self.held)}

        def held() -> Tasks | None:
            status = self.status()
            if (status.get("leader") or {}).get("epoch") != epoch:
                return None
            if protected and self.condition("Protected").get("status") != "True":
                return None
            tasks = self.tasks()
            return tasks if set(tasks) == wanted and all(task.counting for task in tasks.values()) else None

        found = eventually(held, f"all tasks of {self.name} hold in epoch {epoch}", patience=patience)
        assert found is not None
        return found

    def failover(self, epoch: int) -> dict[str, Any]:
        """What the status tells of the failover that began an epoch, once it does."""

        def told() -> dict[str, Any]:
            history = self.status().get("failoverHistory") or []
            return next((dict(each) for each in history if each["epoch"] == epoch), {})

        return eventually(told, f"the failover to epoch {epoch} is in the status", patience=120)

    def open(self) -> None:
        """Open the gate."""
        self.in_pod(self._any_pod(), "touch", f"{self.gate}/open")

    def finish(self) -> None:
        """Open the gate, wait for the end, and compare the result."""
        self.open()
        eventually(lambda: self.state() == "FINISHED", f"{self.name} is FINISHED", patience=180)
        said = self.in_pod(f"{self.name}-jobmanager-0", "flinkjob", "result", self.data())
        assert said.splitlines()[-1].strip() == str(self.result), said

    def data(self) -> str:
        """The directory of the job's present run, for ``flinkjob log`` and ``flinkjob result``."""
        return f"{self.storage}/{self.namespace}/{self.name}-{self.status()['run']}"

    def log(self) -> dict[str, Any]:
        """What ``flinkjob log verify`` finds of the log, which is not damaged."""
        verify = ("flinkjob", "log", "verify", self.data(), "--output=json")
        return dict(json.loads(self.in_pod(self._any_pod("jobmanager"), *verify)))

    def starts(self, vertex: str = "hold") -> dict[int, int]:
        """How often each task of a vertex has begun, as they have written it themselves."""
        script = f"cd {self.gate} && grep -cH '' {vertex}-*.starts"
        lines = self.in_pod(self._any_pod(), "sh", "-c", script).splitlines()
        found = dict(line.rsplit(":", 1) for line in lines)
        return {
            int(name.removeprefix(f"{vertex}-").removesuffix(".starts")): int(count) for name, count in found.items()
        }

    def once(self) -> dict[int, int]:
        """What `starts` are when nobody has noticed anything."""
        return dict.fromkeys(range(self.held), 1)

    def in_pod(self, pod: str, *command: str) -> str:
        """``kubectl exec``."""
        return self.kubectl("exec", pod, "--", *command)

    def exists(self, kind: str, name: str) -> bool:
        """Whether there is such an object."""
        try:
            self.kubectl("get", kind, name)
        except subprocess.CalledProcessError:
            return False
        return True

    def remove(self) -> None:
        """Delete the job while there is an operator that cleans up, and its volume."""
        self.kubectl("delete", "flinkjob", self.name, "--ignore-not-found", "--timeout=180s")
        volume = f"{self.namespace}-{self.name}"
        self.kubernetes.kubectl("delete", "persistentvolume", volume, "--ignore-not-found", "--wait=false")

    def _any_pod(self, component: str = "") -> str:
        selector = f"flinkjob.io/job={self.name}" + f",app.kubernetes.io/component={component}" * bool(component)
        which = (f"--selector={selector}", "--field-selector=status.phase=Running")
        running = eventually(lambda: self.kubectl("get", "pods", *which, "--output=name").split(), "a pod runs")
        return running[0].removeprefix("pod/")

    def _volume(self) -> list[dict[str, Any]]:
        """The claim; and, unless a storage class makes one for it, the volume, which is a directory of the nodes."""
        given = self.kubernetes.storage_class
        common = {"accessModes": ["ReadWriteMany"], "storageClassName": given or "shared"}
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {**common, "resources": {"requests": {"storage": "1Gi"}}},
        }
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{self.namespace}-{self.name}", "labels": OURS},
            "spec": {
                **common,
                "capacity": {"storage": "1Gi"},
                "hostPath": {"path": self.directory},
                "claimRef": {"namespace": self.namespace, "name": self.name},
            },
        }
        return [claim] if given else [volume, claim]
