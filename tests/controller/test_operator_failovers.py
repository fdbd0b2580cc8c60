"""When a leader dies: its Lease is emptied at once where it is certainly dead, and left alone where it may live."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from controller.playing import QUICK, World, flinkjob, options, running
from flinkjob.controller import names
from flinkjob.election.apiserver import KubernetesApi
from flinkjob.election.leasestore import KubernetesLeaseStore
from flinkjob.election.record import LeaseRecord
from flinkjob.election.runner import LeaderElection


async def test_the_lease_of_a_leader_whose_pod_is_gone_is_emptied(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)) as operator:
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        assert world.lease_holder().startswith("job-jobmanager-0_")
        world.delete("pods", "job-jobmanager-0", grace=0)
        await world.until(lambda: not world.lease_holder(), kubelet=False)
        assert operator.reconciler.failovers == 1
        await world.until(lambda: "LeaderLost" in dict(world.events()), kubelet=False)
        # Nobody leads now, and nothing says so.
        await world.until(lambda: world.condition("Ready").get("status") == "False")
        assert world.condition("Protected")["status"] == "False"


async def test_the_lease_of_a_leader_whose_container_has_ended_is_emptied(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        await asyncio.sleep(1.1)  # the kubelet's clock has whole seconds
        world.end("job-jobmanager-0", phase=None, code=137)
        await world.until(lambda: not world.lease_holder())
        # The container comes back, and the pod is a standby like any other.
        world.start("job-jobmanager-0", restarts=1)
        await asyncio.to_thread(world.lead, "job-jobmanager-1")
        await world.until(lambda: world.condition("Ready").get("status") == "True")


async def test_the_lease_of_a_leader_on_a_lost_node_is_left_alone(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)) as operator:
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        world.cut_off.add("job-jobmanager-0")
        not_ready = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-11-23T00:00:00Z"}
        world.patch("pods", "job-jobmanager-0", {"status": {"conditions": [not_ready]}}, "status")
        world.delete("pods", "job-jobmanager-0")
        await world.until(lambda: world.condition("Ready").get("status") == "False")
        await world.for_a_while(3.0)
        assert world.lease_holder().startswith("job-jobmanager-0_")
        assert operator.reconciler.failovers == 0
        # The node has come back, and its kubelet lets the pod go.
        world.cut_off.clear()
        await world.until(lambda: not world.lease_holder())


async def test_the_death_of_a_standby_takes_the_lease_from_nobody(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        holder = world.lease_holder()
        world.delete("pods", "job-jobmanager-1", grace=0)
        await world.until(lambda: world.condition("Protected").get("status") == "False", kubelet=False)
        await world.until(lambda: world.condition("Protected").get("status") == "True")
        assert world.lease_holder() == holder


async def test_the_lease_that_a_standby_has_taken_meanwhile_stays_its_own(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        await asyncio.to_thread(world.lead, "job-jobmanager-1")
        holder = world.lease_holder()
        world.delete("pods", "job-jobmanager-0", grace=0)
        await world.until(lambda: len(world.pods(names.JOBMANAGER)) == 2)
        await world.for_a_while(1.0)
        assert world.lease_holder() == holder


@pytest.mark.parametrize("fenced", [True, False], ids=["with a log", "without a log"])
async def test_a_lease_that_is_deleted_under_a_living_leader_is_made_again_and_somebody_leads(
    world: World, fenced: bool
) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)), AsyncExitStack() as stack:
        world.create("flinkjobs", flinkjob())
        await world.until(lambda: (world.status().get("jobManagers") or {}).get("ready") == 2)
        candidates = [await stack.enter_async_context(candidate(world, n, fenced=fenced)) for n in (0, 1)]
        await world.until(lambda: [each for each in candidates if each.is_leader()])
        led = next(each for each in candidates if each.is_leader())
        number = candidates.index(led)
        await asyncio.to_thread(world.say_who_leads, names.jobmanager_pod("job", number), epoch=7)
        await world.until(lambda: world.condition("Ready").get("status") == "True")
        before = (world.get("leases", "job-leader") or {})["metadata"]["uid"]
        world.delete("leases", "job-leader")

        def blind() -> bool:
            """A JobManager that knows of no leader is not ready, and the kubelet tells it."""
            for n, each in enumerate(candidates):
                world.set_ready(names.jobmanager_pod("job", n), each.is_leader() or bool((each.record or FREE).holder))
            lease = world.get("leases", "job-leader")
            return lease is not None and lease["metadata"]["uid"] != before

        await world.until(blind)
        found = await world.until(lambda: [each for each in candidates if each.is_leader() and each.record])
        record = found[0].record
        assert record is not None
        assert record.transitions > 7, "the epochs of a job without a log are counted here"
        await world.until(lambda: sum(each.is_leader() for each in candidates) == 1)


FREE = LeaseRecord()


@asynccontextmanager
async def candidate(world: World, number: int, *, fenced: bool) -> AsyncIterator[LeaderElection]:
    """A JobManager's part in the election, with the account that the operator has made for it."""
    pod = names.jobmanager_pod("job", number)
    uid = (world.get("pods", pod) or {})["metadata"]["uid"]
    account = world.server.kubeconfig(f"system:serviceaccount:{world.namespace}:{names.jobmanagers('job')}")

    async def fence() -> bool:
        return fenced

    async with await KubernetesApi.connect(account) as api:
        store = KubernetesLeaseStore(api, namespace=world.namespace, name="job-leader", field_manager="jobmanager")
        election = LeaderElection(
            f"{pod}_{uid}_00000000",
            store,
            on_elected=lambda: None,
            on_lost=lambda reason: None,
            times=QUICK,
            fence=fence,
        )
        standing = asyncio.create_task(election.run())
        try:
            yield election
        finally:
            standing.cancel()
            await asyncio.wait({standing})
            await store.close()


async def test_a_deleted_lease_is_made_again(world: World) -> None:
    """Nobody watches Leases; one that is missing is noticed when a leader has to be replaced."""
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        await asyncio.sleep(1.1)  # the kubelet's clock has whole seconds
        world.delete("leases", "job-leader")
        world.delete("pods", "job-jobmanager-0", grace=0)
        lease = await world.until(lambda: world.get("leases", "job-leader"))
        assert not (lease.get("spec") or {}).get("holderIdentity")
        assert lease["metadata"]["ownerReferences"][0]["uid"] == world.job()["metadata"]["uid"]
