"""A Kubernetes cluster as its users have it: kubectl and helm as they type them, and what can be told of a job's tasks.

The suite asks again and again for one thing: for each running task, where it is and since when. `Task` is that, taken from
outside: the REST API says which attempt runs where, the kubelet which container that is, the kernel which processes.
"""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from cluster.kindcluster import Cluster

T = TypeVar("T")
CHART = Path(__file__).parents[1] / "charts" / "flinkjob-operator"
OPERATOR = "flinkjob-operator"
"""The operator's release, and its namespace."""
OURS = {"e2e": "true"}
"""The label of what the suite makes for itself in the whole cluster, so that a later run knows it for its own."""
PATIENCE = 120.0
"""Seconds until what is bound to happen has happened."""


RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""The security context of a container in a namespace of this suite."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a container: its id there, and when it began, in ticks since the node's start."""

    pid: int
    began: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A running task: what must be the same after a failover that it was before.

    Attributes:
        attempt: its number. pod: of its TaskManager. container: id of that pod's container.
        processes: the TaskManager and the workers that its tasks run in.
        counting: attempt, pod and process id as the task itself tells them; empty where it tells nothing.
        count: how far it had counted; it grows while the task runs, and so is not compared.
    """

    attempt: int
    pod: str
    container: str
    processes: frozenset[Process]
    counting: str = ""
    count: int = field(default=0, compare=False)


Tasks = dict[tuple[str, int], Task]
"""By the vertex's name and the subtask's index."""
Places = dict[str, tuple[str, frozenset[Process]]]
"""By the TaskManager's pod: the id of its container, and the processes in that."""

# The command lines name what the processes are; the one that runs this names it too.
_LIST_PROCESSES = """
import os, pathlib
for path in pathlib.Path('/proc').glob('[0-9]*'):
    try:
        if path.name != str(os.getpid()) and b'flinkjob' in (path / 'cmdline').read_bytes():
            print(path.name, (path / 'stat').read_text().rpartition(')')[2].split()[19])
    except OSError:
        pass
"""


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """A cluster to test on.

    Attributes:
        kubeconfig: of one who may do everything. image: the project's, which its nodes have or can pull.
        nodes: how its nodes can be reached from outside; None on a cluster that somebody else gave.
        storage_class: that makes volumes for many pods; empty where the nodes have a directory in common.
    """

    kubeconfig: Path
    image: str
    kubectl_path: Path
    helm_path: Path
    nodes: Cluster | None
    storage_class: str = ""

    def kubectl(self, *arguments: str | Path, given: str | None = None) -> str:
        """What kubectl prints.

        Raises:
            CalledProcessError: it failed; ``stderr`` says why.
        """
        return self._run(self.kubectl_path, *arguments, given=given)

    def helm(self, *arguments: str | Path) -> str:
        """What helm prints.

        Raises:
            CalledProcessError: it failed; ``stderr`` says why.
        """
        return self._run(self.helm_path, *arguments)

    def send(self, file: BinaryIO, namespace: str, pod: str, script: str) -> None:
        """Run a shell script in a pod that reads a file.

        Raises:
            CalledProcessError: it failed.
        """
        command = (self.kubectl_path, "--namespace", namespace, "exec", "-i", pod, "--", "sh", "-ec", script)
        subprocess.run(command, stdin=file, env=self._environment, check=True, timeout=300)

    def get(self, namespace: str, *what: str) -> dict[str, Any]:
        """An object, or a List of objects, as kubectl gets it."""
        found = json.loads(self.kubectl("--namespace", namespace, "get", *what, "--output=json"))
        assert isinstance(found, dict)
        return found

    def rest(self, namespace: str, pod: str, path: str) -> Any:
        """What a JobManager's REST API answers, asked through the API server."""
        return json.loads(self.kubectl("get", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}:8081/proxy{path}"))

    def holder(self, namespace: str, job: str) -> str:
        """The process that holds the job's Lease, as pod, uid and a random part; empty if nobody does."""
        return str(self.get(namespace, "lease", f"{job}-leader")["spec"].get("holderIdentity") or "")

    def leader(self, namespace: str, job: str) -> str:
        """The pod that holds the job's Lease; empty if nobody does."""
        return self.holder(namespace, job).partition("_")[0]

    def tasks(self, namespace: str, job: str) -> Tasks:
        """All tasks of a job that run at this moment."""
        leader = self.leader(namespace, job)
        places = self.places(namespace, job)
        found: Tasks = {}
        for running in self.rest(namespace, leader, "/jobs")["jobs"]:
            where = f"/jobs/{running['id']}"
            for vertex in self.rest(namespace, leader, where)["vertices"]:
                details = self.rest(namespace, leader, f"{where}/vertices/{vertex['id']}")
                for subtask in details["subtasks"]:
                    pod = subtask["taskmanager-id"]
                    if subtask["status"] == "RUNNING" and pod in places:
                        container, processes = places[pod]
                        found[vertex["name"], subtask["subtask"]] = Task(
                            attempt=subtask["attempt"], pod=pod, container=container, processes=processes
                        )
        return found

    def places(self, namespace: str, job: str) -> Places:
        """Where a job's tasks can run at this moment, also while nobody leads who could tell which do."""
        pods = self.get(namespace, "pods", f"--selector=flinkjob.io/job={job},app.kubernetes.io/component=taskmanager")
        return {pod["metadata"]["name"]: self._place(namespace, pod) for pod in pods["items"] if _container(pod)}

    def _place(self, namespace: str, pod: dict[str, Any]) -> tuple[str, frozenset[Process]]:
        name = pod["metadata"]["name"]
        listed = self.kubectl("--namespace", namespace, "exec", name, "--", "python3", "-c", _LIST_PROCESSES)
        processes = (Process(*map(int, line.split())) for line in listed.splitlines())
        return _container(pod), frozenset(processes)

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def _run(self, program: Path, *arguments: str | Path, given: str | None = None) -> str:
        done = subprocess.run(
            [program, *arguments],
            input=given,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        if done.returncode:
            # pytest shows what an error prints, not what it holds.
            print(done.stderr)
            done.check_returncode()
        return done.stdout


def image_values(image: str) -> list[str]:
    """helm's options for an image's reference: a repository, whose host may have a port, with a tag or a digest."""
    name, _, digest = image.partition("@")
    repository, _, tag = name.rpartition(":")
    if not repository or "/" in tag:
        repository, tag = name, "" if digest else "latest"
    values = {"repository": repository, "tag": tag, "digest": digest}
    return [word for key, value in values.items() for word in ("--set-string", f"image.{key}={value}")]


def install_operator(kubernetes: Kubernetes) -> None:
    """Install the operator by its chart for the whole cluster, two replicas, where only restricted pods may run."""
    labels = {**OURS, "pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR, "labels": labels}}
    kubernetes.kubectl("apply", "-f", "-", given=json.dumps(namespace))
    kubernetes.helm(
        *("upgrade", "--install", OPERATOR, CHART, "--namespace", OPERATOR, "--take-ownership"),
        *("--wait", "--timeout=5m", "--set", "replicas=2", *image_values(kubernetes.image)),
    )


def uninstall_operator(kubernetes: Kubernetes) -> None:
    """Take the operator away, and its namespace."""
    kubernetes.helm("uninstall", OPERATOR, "--namespace", OPERATOR, "--ignore-not-found", "--wait")
    kubernetes.kubectl("delete", "namespace", OPERATOR, "--ignore-not-found", "--timeout=180s")


@contextlib.contextmanager
def operator_of_chart(kubernetes: Kubernetes) -> Iterator[str]:
    """The operator, installed while the block runs; the name of its namespace."""
    install_operator(kubernetes)
    try:
        yield OPERATOR
    finally:
        uninstall_operator(kubernetes)


def _container(pod: dict[str, Any]) -> str:
    """The id of a pod's only container; empty while it does not run."""
    statuses = pod["status"].get("containerStatuses") or []
    return next((str(status["containerID"]) for status in statuses if "running" in status["state"]), "")


def eventually(probe: Callable[[], T], what: str, *, patience: float = PATIENCE) -> T:
    """What a probe finds, asked until that is something; a command of its that fails has found nothing yet.

    Raises:
        AssertionError: it found nothing for so many seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(subprocess.CalledProcessError):
            if found := probe():
                return found
        assert time.monotonic() < deadline, f"not within {patience:.0f} s: {what}"
        time.sleep(0.2)
