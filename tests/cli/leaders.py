"""FlinkJobs on a real API server, and a leader JobManager behind its pod proxy: one that a test tells what to answer.

There is no node, so that a test says what a pod's address is. The API server connects to any address but loopback.
"""

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from flinkjob.api.flinkjob import API_VERSION
from kube.apiserver import ApiServer

CRD = Path(__file__).parents[2] / "crds" / "flinkjobs.yaml"
TOKEN = "s3cret"
JOB_ID = "0123456789abcdef0123456789abcdef"

Answer = tuple[int, dict[str, str], bytes]


def install_crd(apiserver: ApiServer) -> None:
    """Make FlinkJobs known, and wait until they are served."""
    apiserver.kubectl("apply", "--server-side", "-f", str(CRD))
    apiserver.until_established("flinkjobs.flinkjob.io")


@dataclass
class FlinkJobs:
    """The FlinkJobs of a namespace, as the operator and leaders keep them."""

    server: ApiServer
    namespace: str

    def path(self, name: str = "", subresource: str = "") -> str:
        """Where one is, or all are."""
        parts = ["apis", API_VERSION, "namespaces", self.namespace, "flinkjobs", name, subresource]
        return "/" + "/".join(part for part in parts if part)

    def create(self, name: str = "wordcount", status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
        """A FlinkJob of one vertex."""
        job = {"vertices": [{"name": "count", "parallelism": 4, "task": {"command": ["true"]}}]}
        manifest = {"apiVersion": API_VERSION, "kind": "FlinkJob", "metadata": {"name": name}}
        made = self.server.call("POST", self.path(), {**manifest, "spec": {"job": job, **spec}})
        if status is not None:
            self.say(name, status)
        return made

    def say(self, name: str, status: dict[str, Any]) -> None:
        """Change its status, as by the leader and the operator."""
        kind = "application/merge-patch+json"
        self.server.call("PATCH", self.path(name, "status"), {"status": status}, content_type=kind)

    def get(self, name: str = "wordcount") -> dict[str, Any]:
        """As it is."""
        return self.server.call("GET", self.path(name))

    def delete(self, name: str = "wordcount") -> None:
        """Delete it."""
        self.server.call("DELETE", self.path(name))

    def add_token(self, name: str = "wordcount", token: str = TOKEN) -> None:
        """The Secret with the token for changes by REST."""
        data = {"token": base64.b64encode(token.encode()).decode()}
        body = {"metadata": {"name": f"{name}-rest-token"}, "data": data}
        self.server.call("POST", f"/api/v1/namespaces/{self.namespace}/secrets", body)

    def add_pod(self, name: str, address: str) -> None:
        """A pod that has this address."""
        pods = f"/api/v1/namespaces/{self.namespace}/pods"
        self.server.call(
            "POST", pods, {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "any"}]}}
        )
        status = {"podIP": address, "podIPs": [{"ip": address}]}
        self.server.call(
            "PATCH", f"{pods}/{name}/status", {"status": status}, content_type="application/merge-patch+json"
        )


@dataclass
class Leader:
    """A JobManager that answers what it is told to, by method and path; it remembers what it was asked.

    Attributes:
        address: of its machine. port: of its REST API.
        answers: what to answer, made when it is asked. asked: method, path with query and headers of all requests.
    """

    address: str
    port: int = 0
    answers: dict[tuple[str, str], Callable[[], Answer]] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def says(self, method: str, path: str, value: object, *, status: int = 200, **headers: str) -> None:
        """From now on this is the answer."""
        self.answers[method, path] = lambda: (status, headers, json.dumps(value).encode())

    def answer(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        """What a request is answered with; Flink's words for what there is not."""
        self.asked.append((method, path, headers))
        make = self.answers.get((method, path.partition("?")[0]))
        return make() if make else (404, {}, json.dumps({"errors": [f"Not found: {path}"]}).encode())


@contextmanager
def leader_on(address: str) -> Iterator[Leader]:
    """A leader that serves for the block's time."""
    leader = Leader(address)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            headers = {key.lower(): value for key, value in self.headers.items()}
            status, more, body = leader.answer(self.command, self.path, headers)
            self.send_response(status)
            for key, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **more}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PATCH = answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer((address, 0), Handler) as server:
        leader.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield leader
        finally:
            server.shutdown()
            thread.join()


def until(holds: Callable[[], bool]) -> None:
    """Return as soon as that is so."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def machine_address() -> str | None:
    """An address of this machine that is not loopback; None where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if address.startswith("127.") else address


def running(**changes: Any) -> dict[str, Any]:
    """The status of a job that runs well."""
    counts = {"total": 4, "running": 3, "finished": 1}
    leader = changes.get("leader", {"pod": "wordcount-jobmanager-0", "epoch": 1, "since": "2026-01-01T00:00:00Z"})
    return {
        "observedGeneration": 1,
        "tasks": "3/1/4",
        "failovers": 0,
        "reconciling": False,
        "leader": leader,
        "currentLeader": leader["pod"] if leader else None,
        "log": {"writable": True, "lagMs": 3.2},
        "jobManagers": {"wanted": 2, "ready": 2},
        "taskManagers": {"wanted": 2, "ready": 2},
        "jobStatus": {
            "jobId": JOB_ID,
            "state": "RUNNING",
            "startTime": "2026-01-01T00:00:00Z",
            "tasks": counts,
            "vertices": [{"name": "count", "parallelism": 4, "tasks": counts}],
        },
        "conditions": [condition("Ready", "True", "Running", "wordcount-jobmanager-0 leads 2 TaskManagers")],
        **changes,
    }


def ended(state: str, **changes: Any) -> dict[str, Any]:
    """The status of a job that has ended."""
    status = running(**changes)
    status["jobStatus"] = {**status["jobStatus"], "state": state, "endTime": "2026-01-01T00:01:30Z"}
    return status


def condition(type: str, status: str, reason: str, message: str) -> dict[str, Any]:
    """A condition."""
    since = "2026-01-01T00:00:00Z"
    return {"type": type, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}


def failover(epoch: int, leader: str, **changes: Any) -> dict[str, Any]:
    """A failover that kept three tasks."""
    return {
        "epoch": epoch,
        "leader": leader,
        "cause": "the leader handed over",
        "detectedAt": "2026-01-01T00:00:30Z",
        "replayMs": 12.4,
        "reconcileMs": 200.0,
        "gapMs": 812.0,
        "replayedOperations": 57,
        "verdicts": {"continued": 2, "advanced": 1, "redeployed": 0, "restarted": 0, "orphaned": 0},
        "restarted": [],
        **changes,
    }
