"""What may go wrong around the operator: its own death, its twin, foreign objects, and an API server that fails."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import pytest

from controller.playing import QUICK, World, flinkjob, options, running
from flinkjob.controller import names
from kube.proxy import Fault, Proxy, proxy_to
from stores.servers import free_ports


@pytest.fixture
def proxy(world: World) -> Iterator[Proxy]:
    """A proxy before the API server, for the operator alone."""
    with proxy_to(world.server, "operator", groups=["system:masters"]) as between:
        yield between


def holder(world: World) -> str:
    """Who holds the operator's own Lease."""
    lease = world.get("leases", "flinkjob-operator")
    return ((lease or {}).get("spec") or {}).get("holderIdentity") or ""


def uids(world: World) -> set[str]:
    """The uids of all pods."""
    return {pod["metadata"]["uid"] for pod in world.pods()}


async def test_an_object_of_somebody_else_is_neither_taken_nor_fought_over(world: World) -> None:
    foreign = {"metadata": {"name": "job-rest"}, "spec": {"ports": [{"port": 80}]}}
    world.create("services", foreign)
    async with running(world.server.admin_kubeconfig, options(world.namespace)) as operator:
        world.create("flinkjobs", flinkjob())
        await world.until(lambda: world.condition("Ready").get("reason") == "NameTaken")
        assert "job-rest" in world.condition("Ready")["message"]
        looks = operator.looks
        await world.for_a_while(2.0)
        assert operator.looks - looks <= 2
        service = world.get("services", "job-rest")
        assert service is not None
        assert "ownerReferences" not in service["metadata"]
        assert service["spec"]["ports"][0]["port"] == 80
        assert not world.all("pods")
        world.delete("services", "job-rest")
        # Nobody watches what is not labelled; a change of the FlinkJob, or time, brings the next look.
        world.patch("flinkjobs", "job", {"spec": {"taskManager": {"replicas": 1}}})
        await world.until_ready()


async def test_an_idle_operator_calls_nobody(world: World, proxy: Proxy, tmp_path: Path) -> None:
    async with running(proxy.kubeconfig(tmp_path), options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        await world.for_a_while(2.0)
        proxy.forget_calls()
        await world.for_a_while(5.0)
        calls = {call: n for call, n in proxy.calls.items() if call[0] != "watch" and call[1] != "leases"}
        own_lease = {call.name for call in proxy.history if call.resource == "leases"}
        assert calls == {}
        assert own_lease <= {"flinkjob-operator"}


async def test_an_outage_of_the_api_server_touches_no_pod(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        before = uids(world)
        with world.server.outage():
            await asyncio.sleep(4.0)
        await world.for_a_while(2.0)
        assert uids(world) == before
        world.patch("flinkjobs", "job", {"spec": {"taskManager": {"replicas": 3}}})
        await world.until(lambda: world.status()["taskManagers"] == {"wanted": 3, "ready": 3})
        assert before < uids(world)


async def test_pods_that_go_during_an_outage_are_replaced(world: World, proxy: Proxy, tmp_path: Path) -> None:
    async with running(proxy.kubeconfig(tmp_path), options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        lost = world.pods(names.TASKMANAGER)[0]["metadata"]["name"]
        proxy.cut()
        world.delete("pods", lost, grace=0)
        await asyncio.sleep(1.0)
        proxy.heal()
        found = await world.until(lambda: len(pods := world.pods(names.TASKMANAGER)) == 2 and pods)
        assert lost not in {pod["metadata"]["name"] for pod in found}


@pytest.mark.parametrize("status", [410, 500])
async def test_a_deletion_that_no_watch_told_is_noticed(
    world: World, proxy: Proxy, tmp_path: Path, status: int
) -> None:
    async with running(proxy.kubeconfig(tmp_path), options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        lost = world.pods(names.TASKMANAGER)[0]["metadata"]["name"]
        silence = proxy.inflict(Fault.SILENCE, verb="watch", resource="pods")
        proxy.drop_watches()
        await world.until(lambda: silence.met)
        world.delete("pods", lost, grace=0)
        await asyncio.sleep(0.5)
        proxy.remove(silence)
        expired = proxy.answer(status, verb="watch", resource="pods", times=1)
        proxy.drop_watches()
        await world.until(lambda: expired.met)
        found = await world.until(lambda: len(pods := world.pods(names.TASKMANAGER)) == 2 and pods)
        assert lost not in {pod["metadata"]["name"] for pod in found}


async def test_watching_begins_anew_when_kopf_gives_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine, begun = kopf.operator, []

    async def gives_up_once(**arguments: Any) -> None:
        begun.append(arguments)
        if len(begun) == 1:
            raise RuntimeError("an error that nobody thought of")
        await genuine(**arguments)

    monkeypatch.setattr("flinkjob.controller.handlers.PAUSE_BEFORE_RESTART", 0.1)
    monkeypatch.setattr(kopf, "operator", gives_up_once)
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
    assert len(begun) == 2


@pytest.mark.parametrize("status", [429, 500])
async def test_a_storm_of_refusals_is_weathered(world: World, proxy: Proxy, tmp_path: Path, status: int) -> None:
    chosen = options(world.namespace)
    async with running(proxy.kubeconfig(tmp_path), chosen):
        await world.until(lambda: holder(world) == chosen.identity)
        storms = [
            proxy.answer(status, verb=verb, times=6, retry_after=1 if status == 429 else None)
            for verb in ("create", "patch", "get")
        ]
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        assert all(storm.met == 6 for storm in storms)
        assert len(world.pods()) == 4


@pytest.mark.parametrize("status", [429, 500])
async def test_a_storm_of_refusals_while_it_starts_is_weathered(
    world: World, proxy: Proxy, tmp_path: Path, status: int
) -> None:
    """On every list and watch: of FlinkJobs and pods, which kopf asks for, and of the rest."""
    world.create("flinkjobs", flinkjob())
    after = 1 if status == 429 else None
    storms = [
        proxy.answer(status, verb=verb, resource=resource, times=3, retry_after=after)
        for verb in ("list", "watch")
        for resource in ("flinkjobs", "pods", "statefulsets", "services", "configmaps")
    ]
    async with running(proxy.kubeconfig(tmp_path), options(world.namespace)):
        await world.until_ready()
        await world.until(lambda: all(storm.met == 3 for storm in storms))
        lost = world.pods(names.TASKMANAGER)[0]["metadata"]["name"]
        world.delete("pods", lost, grace=0)  # it hears of what happens
        found = await world.until(lambda: len(pods := world.pods(names.TASKMANAGER)) == 2 and pods)
        assert lost not in {pod["metadata"]["name"] for pod in found}


@pytest.mark.parametrize("status", [429, 500])
async def test_a_storm_of_refusals_against_the_operators_own_lease_is_weathered(
    world: World, proxy: Proxy, tmp_path: Path, status: int
) -> None:
    after = 1 if status == 429 else None
    storms = [
        proxy.answer(status, verb=verb, resource="leases", times=3, retry_after=after) for verb in ("get", "create")
    ]
    chosen = options(world.namespace, times=QUICK)
    async with running(proxy.kubeconfig(tmp_path), chosen):
        await world.until(lambda: holder(world) == chosen.identity)
        assert all(storm.met == 3 for storm in storms)
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        before = uids(world)
        long = proxy.answer(status, verb="update", resource="leases", times=12, retry_after=after)
        await world.until(lambda: long.met == 12)
        await world.until(lambda: holder(world) == chosen.identity)
        world.patch("flinkjobs", "job", {"spec": {"taskManager": {"replicas": 3}}})
        await world.until(lambda: world.status()["taskManagers"] == {"wanted": 3, "ready": 3})
        assert before < uids(world)


async def test_a_lost_answer_makes_no_second_pod(world: World, proxy: Proxy, tmp_path: Path) -> None:
    async with running(proxy.kubeconfig(tmp_path), options(world.namespace)):
        lost = proxy.inflict(Fault.LOSE_ANSWER, verb="create", resource="pods", times=2)
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        assert lost.met == 2
        assert len({pod["metadata"]["name"] for pod in world.all("pods")}) == 4


async def test_a_change_that_was_overtaken_is_made_again(world: World, proxy: Proxy, tmp_path: Path) -> None:
    async with running(proxy.kubeconfig(tmp_path), options(world.namespace)):
        conflicts = proxy.answer(409, verb="patch", times=3)
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        assert conflicts.met == 3


@pytest.mark.parametrize("resource", ["services", "statefulsets", "pods", "secrets", "flinkjobs/status"])
async def test_another_operator_completes_what_a_dead_one_began(
    world: World, proxy: Proxy, tmp_path: Path, resource: str
) -> None:
    verb = "create" if resource == "pods" else "patch"
    hanging = proxy.inflict(Fault.HANG, verb=verb, resource=resource)
    async with running(proxy.kubeconfig(tmp_path), options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until(lambda: hanging.met)
    proxy.heal()
    async with running(proxy.kubeconfig(tmp_path), options(world.namespace)):
        await world.until_ready()
        assert len(world.pods()) == 4


async def test_a_restart_of_the_operator_touches_nothing(world: World, proxy: Proxy, tmp_path: Path) -> None:
    async with running(proxy.kubeconfig(tmp_path), options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
    before, version = uids(world), world.job()["metadata"]["resourceVersion"]
    proxy.forget_calls()
    async with running(proxy.kubeconfig(tmp_path), options(world.namespace)) as operator:
        await world.until(lambda: operator.looks)
        await world.for_a_while(2.0)
    written = {call for call in proxy.calls if call[0] not in ("get", "list", "watch") and call[1] != "leases"}
    assert written == set()
    assert uids(world) == before
    assert world.job()["metadata"]["resourceVersion"] == version


async def test_only_one_of_two_operators_acts_and_the_other_takes_over(
    world: World, proxy: Proxy, tmp_path: Path
) -> None:
    first, second = options(world.namespace, times=QUICK), options(world.namespace, times=QUICK)
    async with running(world.server.admin_kubeconfig, second) as standby:
        await world.until(lambda: holder(world) == second.identity)
        async with running(proxy.kubeconfig(tmp_path), first) as idle:
            world.create("flinkjobs", flinkjob())
            await world.until_ready()
            assert standby.looks
            assert idle.looks == 0
            written = {call for call in proxy.calls if call[0] not in ("get", "list", "watch")}
            assert written == set()
    # Both have released; whoever comes next need not wait.
    assert holder(world) == ""


async def test_a_replica_that_cannot_reach_the_api_server_is_replaced(
    world: World, proxy: Proxy, tmp_path: Path
) -> None:
    first, second = options(world.namespace, times=QUICK), options(world.namespace, times=QUICK)
    async with running(proxy.kubeconfig(tmp_path), first) as cut_off:
        await world.until(lambda: holder(world) == first.identity)
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        before = uids(world)
        async with running(world.server.admin_kubeconfig, second) as standby:
            proxy.cut()
            await world.until(lambda: holder(world) == second.identity)
            world.patch("flinkjobs", "job", {"spec": {"taskManager": {"replicas": 3}}})
            await world.until(lambda: world.status()["taskManagers"] == {"wanted": 3, "ready": 3})
            looks = cut_off.looks
            proxy.heal()
            await world.for_a_while(3.0)
            assert cut_off.looks == looks
            assert standby.looks
            assert before < uids(world)


async def test_the_process_serves_health_and_metrics_and_ends_quickly(world: World, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    command = [
        sys.executable, "-m", "flinkjob", "operator", "--namespace", world.namespace, "--image", "flinkjob:default",
        "--lease-namespace", world.namespace, "--identity", "pod-0", "--host", "127.0.0.1", "--port", str(port),
        "--kubeconfig", str(world.server.admin_kubeconfig),
    ]  # fmt: skip
    log = (tmp_path / "operator.log").open("wb")
    process = subprocess.Popen(command, stderr=log, stdout=log)
    try:
        async with aiohttp.ClientSession() as session:

            async def answers(path: str) -> tuple[int, str]:
                try:
                    async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                        return response.status, await response.text()
                except aiohttp.ClientError:
                    return 0, ""

            async with asyncio.timeout(30):
                while (await answers("/readyz"))[0] != 200:
                    await asyncio.sleep(0.05)
            assert (await answers("/healthz"))[0] == 200
            world.create("flinkjobs", flinkjob())
            await world.until_ready()
            _, metrics = await answers("/metrics")
            assert "flinkjob_operator_leader 1.0" in metrics
            assert 'flinkjob_operator_jobs{state="RUNNING"} 1.0' in metrics
            assert 'flinkjob_operator_reconciles_total{outcome="success"}' in metrics
            assert "flinkjob_operator_job_start_seconds_count 1.0" in metrics
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 10) == 0
        assert holder(world) == ""
    finally:
        process.kill()
        process.wait()
        log.close()
    text = (tmp_path / "operator.log").read_text()
    assert "Traceback" not in text
