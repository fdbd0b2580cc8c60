"""``make bench-operator``: so many FlinkJobs at once on a real API server, their pods run by kwok's simulated nodes.

Everything but the nodes and the JobManagers is real: etcd, API server, controllers, scheduler, and the operator as a process
of its own. Each job has two JobManagers and one TaskManager. As soon as its JobManagers are ready, one of them is said to
lead. A round has settled when every FlinkJob is Ready. Then the operator is left alone, and after that leaders are killed.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import report
from bench import machine

from cluster.tools import TOOLS
from flinkjob.api.flinkjob import job_id
from flinkjob.election.apiserver import APPLY, KubernetesApi
from kube.apiserver import ApiServer, api_server
from stores.servers import free_ports

HERE = Path(__file__).parent
RESULTS = HERE / "operator.json"
CRD = HERE.parent / "crds" / "flinkjobs.yaml"
NAMESPACES = 10
NODES = 10
AT_ONCE = 16
IDLE_SECONDS = 60.0
KILLS = 20
PATIENCE = 1800.0

Object = dict[str, Any]


def flinkjob(name: str) -> Object:
    """One of many jobs."""
    vertices = [{"name": f"vertex{n}", "parallelism": 4, "task": {"command": ["true"]}} for n in range(3)]
    return {
        "apiVersion": "flinkjob.io/v1alpha1",
        "kind": "FlinkJob",
        "metadata": {"name": name},
        "spec": {
            "image": "flinkjob:bench",
            "flinkConfiguration": {"high-availability.storageDir": "s3://bucket/jobs"},
            "jobManager": {"replicas": 2},
            "taskManager": {"replicas": 1, "taskSlots": 4},
            "job": {"vertices": vertices},
        },
    }


def node(name: str) -> Object:
    """One of kwok's nodes, with room for many pods."""
    room = {"cpu": "10000", "memory": "100Ti", "pods": "10000"}
    return {
        "metadata": {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "status": {"allocatable": room, "capacity": room},
    }


@contextmanager
def program(*command: str | Path, log: Path) -> Iterator[int]:
    """A process for the block's time; yields its pid."""
    with log.open("wb") as output:
        process = subprocess.Popen([*map(str, command)], stdout=output, stderr=output, start_new_session=True)
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait(timeout=30)


class Leaders:
    """Plays the JobManagers that lead: reads all FlinkJobs now and then, and lets one lead where nobody does."""

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api
        self._limit = asyncio.Semaphore(AT_ONCE)
        self.jobs: list[Object] = []

    async def look(self) -> int:
        """Look once; returns how many jobs are Ready."""
        self.jobs = await listed(self._api, "/apis/flinkjob.io/v1alpha1/flinkjobs")
        waiting = [job for job in self.jobs if _ready_jobmanagers(job) == 2 and "leader" not in job["status"]]
        await asyncio.gather(*(self.lead(job, 0) for job in waiting))
        return sum(_is_ready(job) for job in self.jobs)

    async def lead(self, job: Object, ordinal: int) -> None:
        """The JobManager of that number takes the Lease and says in the status that it leads."""
        name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
        async with self._limit:
            pod_name = f"{name}-jobmanager-{ordinal}"
            pod = await self._api.request("GET", f"/api/v1/namespaces/{namespace}/pods/{pod_name}")
            path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}-leader"
            lease = await self._api.request("GET", path)
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            holder = f"{pod_name}_{pod['metadata']['uid']}_00000000"
            spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": ordinal + 1}
            await self._api.request("PUT", path, body={**lease, "spec": spec | {"acquireTime": now, "renewTime": now}})
            status = {
                "jobStatus": {
                    "jobId": job_id(namespace, name, job["metadata"]["uid"]),
                    "state": "RUNNING",
                    "startTime": now,
                    "tasks": {"total": 12, "running": 4, "created": 8},
                },
                "leader": {"pod": pod_name, "epoch": ordinal + 1, "since": now},
                "reconciling": False,
                "failovers": ordinal,
                "log": {"writable": True},
            }
            body = {**{key: job[key] for key in ("apiVersion", "kind")}, "metadata": {"name": name}, "status": status}
            path = f"/apis/flinkjob.io/v1alpha1/namespaces/{namespace}/flinkjobs/{name}/status"
            query = {"fieldManager": "flinkjob-jobmanager", "force": "true"}
            await self._api.request("PATCH", path, query=query, body=body, content_type=APPLY)


async def listed(api: KubernetesApi, path: str) -> list[Object]:
    """All objects of a collection."""
    items, query = [], {"limit": "500"}
    while True:
        page = await api.request("GET", path, query=query, timeout=60)
        items += [
            {"apiVersion": page["apiVersion"], "kind": page["kind"].removesuffix("List"), **x} for x in page["items"]
        ]
        if not page["metadata"].get("continue"):
            return items
        query["continue"] = page["metadata"]["continue"]


def _ready_jobmanagers(job: Object) -> int:
    return int(((job.get("status") or {}).get("jobManagers") or {}).get("ready", 0))


def _is_ready(job: Object) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(x["type"] == "Ready" and x["status"] == "True" for x in conditions)


def memory_mb(pid: int, field: str = "VmRSS") -> float:
    """Resident memory of a process, now or (VmHWM) at its most."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", text)
    assert found is not None
    return round(int(found[1]) / 1024, 1)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def scrape(port: int) -> dict[str, float]:
    """The operator's metrics."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as response:
        text = await response.text()
    return {name: float(value) for name, _, value in (x.rpartition(" ") for x in text.splitlines() if x[:1] != "#")}


def calls(metrics: dict[str, float]) -> float:
    """Calls but watches."""
    prefix = "flinkjob_operator_api_calls_total"
    return sum(n for name, n in metrics.items() if name.startswith(prefix) and 'verb="WATCH"' not in name)


async def round_of(server: ApiServer, count: int, directory: Path) -> dict[str, float]:
    """So many FlinkJobs; returns the figures."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "flinkjob", "operator", "--all-namespaces", "--image", "flinkjob:bench"]
    command += ["--lease-namespace", "default", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--kubeconfig", str(server.admin_kubeconfig)]
    log = directory / f"operator-{count}.log"
    async with await KubernetesApi.connect(server.admin_kubeconfig) as api:
        with program(*command, log=log) as pid:
            await until_ready(port)
            leaders = Leaders(api)
            began = time.monotonic()
            await create_jobs(api, count)
            while (ready := await leaders.look()) < count:
                late = time.monotonic() - began > PATIENCE
                assert not late, f"only {ready} of {count} jobs are ready: {log.read_text()[-2000:]}"
                await asyncio.sleep(1.0)
            settled = {
                "settle_s": round(time.monotonic() - began, 1),
                "operator_cpu_s": round(cpu_seconds(pid), 1),
                "calls_per_job": round(calls(await scrape(port)) / count, 1),
            }
            await quiet(port)
            idle_before, cpu_before = calls(await scrape(port)), cpu_seconds(pid)
            await asyncio.sleep(IDLE_SECONDS)
            idle = {
                "idle_calls_per_job_minute": (calls(await scrape(port)) - idle_before) / count / (IDLE_SECONDS / 60),
                "idle_cpu_percent": round((cpu_seconds(pid) - cpu_before) / IDLE_SECONDS * 100, 2),
                "operator_rss_mb": memory_mb(pid),
                "operator_rss_peak_mb": memory_mb(pid, "VmHWM"),
            }
            emptied = [await kill_leader(api, job) for job in random.Random(1).sample(leaders.jobs, KILLS)]
        restarted = await restart(command, port, count, log)
        await delete_jobs(api)
    times = {
        "lease_emptied_ms_median": round(statistics.median(emptied) * 1000, 1),
        "lease_emptied_ms_max": round(max(emptied) * 1000, 1),
    }
    print(f"{count} jobs: settled after {settled['settle_s']} s; {idle}; {times}; {restarted}", file=sys.stderr)
    return {**settled, **idle, **times, **restarted}


async def until_ready(port: int) -> None:
    """Wait until the operator knows everything."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(120):
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


async def quiet(port: int) -> None:
    """Wait until the operator has nothing to do."""
    before = -1.0
    while (now := calls(await scrape(port))) != before:
        before = now
        await asyncio.sleep(5.0)


async def create_jobs(api: KubernetesApi, count: int) -> None:
    """Create the FlinkJobs, as fast as the API server takes them."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def create(number: int) -> None:
        async with limit:
            path = f"/apis/flinkjob.io/v1alpha1/namespaces/bench-{number % NAMESPACES}/flinkjobs"
            await api.request("POST", path, body=flinkjob(f"job-{number:04d}"))

    await asyncio.gather(*(create(number) for number in range(count)))


async def kill_leader(api: KubernetesApi, job: Object) -> float:
    """Delete the leader's pod with no grace; returns the seconds until its Lease is empty."""
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    pod = f"/api/v1/namespaces/{namespace}/pods/{name}-jobmanager-0"
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}-leader"
    await api.request("DELETE", pod, body={"gracePeriodSeconds": 0})
    began = time.monotonic()
    while (await api.request("GET", lease))["spec"].get("holderIdentity"):
        assert time.monotonic() - began < 30, f"the Lease of {namespace}/{name} is not emptied"
        await asyncio.sleep(0.002)
    return time.monotonic() - began


async def restart(command: list[str], port: int, count: int, log: Path) -> dict[str, float]:
    """Start another operator in the dead one's place; it has to find that there is nothing to do."""
    with program(*command, log=log.with_suffix(".restarted.log")) as pid:
        began = time.monotonic()
        await until_ready(port)
        while (metrics := await scrape(port)).get('flinkjob_operator_reconciles_total{outcome="success"}', 0) < count:
            await asyncio.sleep(0.2)
            assert time.monotonic() - began < PATIENCE
        return {
            "restart_s": round(time.monotonic() - began, 1),
            "restart_calls_per_job": round(calls(metrics) / count, 2),
            "restart_rss_mb": memory_mb(pid),
        }


async def delete_jobs(api: KubernetesApi) -> None:
    """Delete all FlinkJobs, and wait until the garbage collector has taken what they had."""
    for number in range(NAMESPACES):
        path = f"/apis/flinkjob.io/v1alpha1/namespaces/bench-{number}/flinkjobs"
        await api.request("DELETE", path, timeout=120)
    began = time.monotonic()
    while (await api.request("GET", "/api/v1/pods", query={"limit": "1"}))["items"]:
        assert time.monotonic() - began < PATIENCE
        await asyncio.sleep(1.0)


@contextmanager
def world(directory: Path) -> Iterator[ApiServer]:
    """An API server with a scheduler, kwok's nodes and the CustomResourceDefinition."""
    with ExitStack() as stack:
        server = stack.enter_context(api_server(directory))
        kubeconfig = f"--kubeconfig={server.admin_kubeconfig}"
        server.kubectl("apply", "--server-side", "-f", str(CRD))
        server.until_established("flinkjobs.flinkjob.io")
        for number in range(NODES):
            server.call("POST", "/api/v1/nodes", node(f"kwok-{number}"))
            # A new node is tainted as not ready; here nobody would take that from it.
            untainted: Object = {"spec": {"taints": None}}
            path = f"/api/v1/nodes/kwok-{number}"
            server.call("PATCH", path, untainted, content_type="application/merge-patch+json")
        for number in range(NAMESPACES):
            server.make_namespace(f"bench-{number}")
        scheduler: list[str | Path] = [
            TOOLS["kube-scheduler"].path,
            kubeconfig,
            "--leader-elect=false",
            "--secure-port=0",
        ]
        scheduler += ["--kube-api-qps=1000", "--kube-api-burst=2000"]
        stack.enter_context(program(*scheduler, log=directory / "scheduler.log"))
        kwok: list[str | Path] = [TOOLS["kwok"].path, kubeconfig, f"--config={HERE / 'kwok.yaml'}"]
        kwok += ["--manage-all-nodes", "--node-lease-duration-seconds=40"]
        stack.enter_context(program(*kwok, log=directory / "kwok.log"))
        yield server


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=[200, 1000], help="FlinkJobs in a round")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # nothing is to be left running
    results: Object = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["machine"] = machine()
    with tempfile.TemporaryDirectory(prefix="operatorbench") as directory, world(Path(directory)) as server:
        for count in options.counts or [200, 1000]:
            results[str(count)] = asyncio.run(round_of(server, count, Path(directory)))
            RESULTS.write_text(json.dumps(results, indent=2) + "\n")
            report.write()


if __name__ == "__main__":
    main()
