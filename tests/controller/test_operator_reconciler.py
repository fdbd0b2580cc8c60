"""Single looks at a FlinkJob on a real API server, with a clock of the test's own."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from controller.playing import World, flinkjob
from flinkjob.api.errors import ApiRefused, ApiUnavailable
from flinkjob.controller import names
from flinkjob.controller.cache import Cache, JobKey, slim
from flinkjob.controller.cluster import FLINK_JOB, KINDS, POD, SECRET, STATEFUL_SET, Cluster
from flinkjob.controller.following import FOLLOWED
from flinkjob.controller.metrics import Milestones
from flinkjob.controller.observed import parse_time
from flinkjob.controller.reconciler import DOUBT, SOON, Reconciler
from flinkjob.controller.target import OperatorSettings
from flinkjob.election.apiserver import KubernetesApi

RESOURCES = {"pods": POD, "statefulsets": STATEFUL_SET, "flinkjobs": FLINK_JOB}


@dataclass
class Bench:
    """A reconciler whose watches are the test: the cache gets the API server's state before each look."""

    world: World
    cluster: Cluster
    now: float = 0.0
    leads: bool = True
    milestones: list[Milestones] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cache = Cache(lambda job: None)
        self.reconciler = Reconciler(
            self.cluster,
            self.cache,
            settings=OperatorSettings(image="flinkjob:default"),
            leads=lambda: self.leads,
            milestone=lambda before, after: self.milestones.append(after),
            now=lambda: self.now,
        )
        self.job = JobKey(self.world.namespace, "job")

    async def look(self) -> float | None:
        """Let the cache know everything, and look once."""
        kinds = {kind.plural: kind for kind in FOLLOWED} | RESOURCES
        for plural, kind in kinds.items():
            listing = await self.cluster.list_metadata(kind, self.world.namespace)
            for each in self.world.all(plural):
                self.cache.saw(kind, slim(kind, {"apiVersion": kind.api_version, "kind": kind.kind, **each}))
            self.cache.compare(kind, self.world.namespace, listing)
        return (await self.reconciler.look(self.job)).again_in

    async def look_until_nothing_is_written(self) -> None:
        """A few looks, the last of which changes nothing."""
        for _ in range(10):
            before = self.written
            await self.look()
            if self.written == before:
                return
        pytest.fail(f"looks do not come to an end: {self.cluster.calls}")

    @property
    def written(self) -> int:
        """Calls so far that write."""
        return sum(n for (verb, _, _), n in self.cluster.calls.items() if verb in ("POST", "PUT", "PATCH", "DELETE"))


@pytest.fixture
async def bench(world: World) -> AsyncIterator[Bench]:
    async with await KubernetesApi.connect(world.server.admin_kubeconfig) as api:
        created = world.create("flinkjobs", flinkjob(taskManager={"replicas": 1}, jobManager={"replicas": 1}))
        now = parse_time(created["metadata"]["creationTimestamp"])
        assert now is not None
        yield Bench(world, Cluster(api), now=now)


async def test_looks_come_to_an_end_and_then_cost_nothing(bench: Bench) -> None:
    await bench.look_until_nothing_is_written()
    asked = bench.cluster.calls["GET", "secrets", True]
    before = bench.written
    await bench.look()
    assert bench.written == before
    assert bench.cluster.calls["GET", "secrets", True] == asked


async def test_a_replica_that_does_not_lead_writes_nothing(bench: Bench) -> None:
    bench.leads = False
    with pytest.raises(ApiUnavailable, match="acts no more"):
        await bench.look()
    assert bench.written == 0


async def test_certificates_are_renewed_when_their_time_comes(bench: Bench) -> None:
    await bench.look_until_nothing_is_written()
    name = names.jobmanager_tls("job")
    old = secret(bench, name)
    for _ in range(10):
        if secret(bench, name)["data"] != old["data"]:
            break
        # A look that has just issued something says nothing of the next time; the change itself brings the next look.
        bench.now += await bench.look() or 1.0
    new = secret(bench, name)
    assert new["data"]["ca.crt"] == old["data"]["ca.crt"]
    assert new["data"]["tls.crt"] != old["data"]["tls.crt"]
    await bench.look_until_nothing_is_written()


async def test_a_secret_that_somebody_deleted_comes_back_when_a_pod_waits_for_it(bench: Bench) -> None:
    await bench.look_until_nothing_is_written()
    name = names.taskmanager_tls("job")
    bench.world.delete("secrets", name)
    await bench.look_until_nothing_is_written()
    assert bench.world.get("secrets", name) is None, "nobody watches Secrets"
    bench.now += DOUBT
    await bench.look_until_nothing_is_written()
    assert bench.world.get("secrets", name) is not None
    authority = bench.cache.get(SECRET, bench.world.namespace, names.authority("job"))
    assert authority is not None


async def test_what_the_api_server_refuses_is_told_in_the_status(bench: Bench) -> None:
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    bench.world.server.call("POST", bench.world.path("resourcequotas"), quota)
    with pytest.raises(ApiRefused, match="quota"):
        await bench.look()
    with pytest.raises(ApiRefused, match="quota"):
        await bench.look()
    assert bench.world.condition("Ready")["reason"] == "RefusedByApiServer"
    assert "quota" in bench.world.condition("Ready")["message"]
    bench.world.server.call("DELETE", bench.world.path("resourcequotas", "none"))
    await bench.look_until_nothing_is_written()
    assert bench.world.condition("Ready")["reason"] != "RefusedByApiServer"


async def test_milestones_are_told_once(bench: Bench) -> None:
    await bench.look_until_nothing_is_written()
    status: dict[str, Any] = {"jobStatus": {"state": "RUNNING", "startTime": "2026-11-23T00:00:00Z"}}
    bench.world.patch("flinkjobs", "job", {"status": status}, "status")
    await bench.look_until_nothing_is_written()
    assert [(each.state, each.started is not None) for each in bench.milestones] == [("RUNNING", True)]


async def test_nothing_is_left_of_a_job_that_is_gone(bench: Bench) -> None:
    await bench.look_until_nothing_is_written()
    bench.world.delete("flinkjobs", "job")
    before = bench.written
    await bench.look()
    assert bench.written == before


def secret(bench: Bench, name: str) -> dict[str, Any]:
    found = bench.world.get("secrets", name)
    assert found is not None
    return found


async def test_a_pod_that_another_replica_has_made_is_not_made_once_more_though_no_watch_has_told_of_it(
    bench: Bench,
) -> None:
    await bench.look_until_nothing_is_written()
    late = Bench(bench.world, bench.cluster, now=bench.now)
    for kind in KINDS.values():
        if kind != POD:
            for known in list(bench.cache.of_job(bench.job, kind)):
                late.cache.saw(kind, known)
    assert (await late.reconciler.look(bench.job)).again_in == SOON
    assert len(bench.world.pods("taskmanager")) == 1
