"""The lease in Kubernetes, on a real API server: compare-and-swap, faults, and candidates that stand against each other."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

import msgspec
import pytest

from flinkjob.api.errors import LeaseError
from flinkjob.election.apiserver import KubernetesApi
from flinkjob.election.elector import ElectionTimes
from flinkjob.election.leasestore import ADDRESS, REST, KubernetesLeaseStore
from flinkjob.election.record import LeaseRecord
from flinkjob.election.runner import LeaderElection
from kube.apiserver import ApiServer
from kube.proxy import Fault, Proxy, Rule, proxy_to

QUICK = ElectionTimes(lease_duration=3.0, renew_deadline=2.0, retry_period=0.2)
MINE = LeaseRecord(
    holder="me",
    address="jm-0:6123",
    rest="jm-0:8081",
    lease_duration=15.0,
    acquire_time="2026-01-02T03:04:05.678+00:00",
    renew_time="2026-01-02T03:04:06.5+01:00",
    transitions=3,
)


@pytest.fixture
async def ends() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def store(apiserver: ApiServer, namespace: str, ends: AsyncExitStack) -> KubernetesLeaseStore:
    api = await ends.enter_async_context(await KubernetesApi.connect(apiserver.admin_kubeconfig))
    return make_store(api, namespace, ends)


@pytest.fixture
def proxy(apiserver: ApiServer) -> Iterator[Proxy]:
    with proxy_to(apiserver, "tests-proxied", groups=["system:masters"]) as proxy:
        yield proxy


@pytest.fixture
async def proxied(proxy: Proxy, namespace: str, tmp_path: Path, ends: AsyncExitStack) -> KubernetesLeaseStore:
    api = await ends.enter_async_context(await KubernetesApi.connect(proxy.kubeconfig(tmp_path)))
    return make_store(api, namespace, ends)


def make_store(api: KubernetesApi, namespace: str, ends: AsyncExitStack) -> KubernetesLeaseStore:
    store = KubernetesLeaseStore(
        api, namespace=namespace, name="job-leader", field_manager="tests", labels={"flinkjob.io/job": "job"}
    )
    ends.push_async_callback(store.close)
    return store


def path(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/job-leader"


async def created(store: KubernetesLeaseStore, record: LeaseRecord = MINE) -> LeaseRecord:
    written = await store.compare_and_swap("", record)
    assert written is not None
    return written


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


def _used_up(rules: list[Rule]) -> bool:
    return all(rule.times == 0 for rule in rules)


# Compare and swap


async def test_a_record_is_made_where_there_is_none_and_read_as_it_was_written(
    store: KubernetesLeaseStore, apiserver: ApiServer, namespace: str
) -> None:
    assert await store.read() is None
    written = await created(store)
    assert written == await store.read()
    assert msgspec.structs.replace(written, acquire_time="", renew_time="", version="") == msgspec.structs.replace(
        MINE, acquire_time="", renew_time=""
    )
    assert (written.acquire_time, written.renew_time) == ("2026-01-02T03:04:05.678000Z", "2026-01-02T02:04:06.500000Z")
    lease = apiserver.call("GET", path(namespace))
    assert lease["metadata"]["labels"] == {"flinkjob.io/job": "job"}
    assert lease["metadata"]["annotations"] == {ADDRESS: "jm-0:6123", REST: "jm-0:8081"}
    assert lease["spec"]["leaseDurationSeconds"] == 15


async def test_a_fraction_of_a_second_makes_the_lease_longer_never_shorter(store: KubernetesLeaseStore) -> None:
    written = await created(store, msgspec.structs.replace(MINE, lease_duration=1.2))
    assert written.lease_duration == 2.0


async def test_only_one_of_two_makes_the_record(store: KubernetesLeaseStore) -> None:
    answers = await asyncio.gather(store.compare_and_swap("", MINE), store.compare_and_swap("", MINE))
    assert [answer is None for answer in answers].count(True) == 1


async def test_of_many_writers_of_one_version_one_succeeds(store: KubernetesLeaseStore) -> None:
    version = (await created(store)).version
    records = [msgspec.structs.replace(MINE, transitions=number) for number in range(10, 18)]
    answers = await asyncio.gather(*(store.compare_and_swap(version, record) for record in records))
    assert sum(answer is not None for answer in answers) == 1


async def test_another_version_is_not_written_over(
    store: KubernetesLeaseStore, apiserver: ApiServer, namespace: str
) -> None:
    version = (await created(store)).version
    second = await KubernetesApi.connect(apiserver.admin_kubeconfig)
    async with second:
        other = KubernetesLeaseStore(second, namespace=namespace, name="job-leader", field_manager="other")
        assert await other.compare_and_swap(version, msgspec.structs.replace(MINE, holder="other")) is not None
    assert await store.compare_and_swap(version, MINE) is None
    record = await store.read()
    assert record is not None
    assert record.holder == "other"
    assert await store.compare_and_swap(version, MINE) is None


async def test_a_deleted_record_is_not_written_over_but_can_be_made_anew(
    store: KubernetesLeaseStore, apiserver: ApiServer, namespace: str
) -> None:
    version = (await created(store)).version
    apiserver.call("DELETE", path(namespace))
    assert await store.compare_and_swap(version, MINE) is None
    assert await store.read() is None
    assert (await created(store)).version != version


async def test_what_others_put_on_the_lease_stays(
    store: KubernetesLeaseStore, apiserver: ApiServer, namespace: str
) -> None:
    owner = apiserver.call(
        "POST", f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {"name": "owner"}, "data": {}}
    )
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    lease = {
        "metadata": {
            "name": "job-leader",
            "labels": {"mine": "too"},
            "annotations": {"note": "x"},
            "ownerReferences": [reference],
        }
    }
    apiserver.call("POST", path(namespace).removesuffix("/job-leader"), lease)
    record = await store.read()
    assert record is not None
    assert (record.holder, record.transitions) == ("", 0)
    taken = await store.compare_and_swap(record.version, MINE)
    assert taken is not None
    freed = await store.compare_and_swap(taken.version, taken.released())
    assert freed is not None
    assert (freed.holder, freed.address, freed.rest, freed.transitions) == ("", "", "", 3)
    left = apiserver.call("GET", path(namespace))["metadata"]
    assert left["ownerReferences"] == [reference]
    assert (left["labels"], left["annotations"]) == ({"mine": "too"}, {"note": "x"})


# Waiting for a change


async def test_one_who_waits_is_told_of_a_change_at_once(store: KubernetesLeaseStore) -> None:
    version = (await created(store)).version
    await store.read()
    waiting = asyncio.create_task(store.changed(version, 30.0))
    await until(lambda: store._mirror.synced)
    assert not waiting.done()
    await store.compare_and_swap(version, msgspec.structs.replace(MINE, transitions=9))
    async with asyncio.timeout(5):
        assert await waiting


async def test_one_who_waits_is_told_of_a_deletion(
    store: KubernetesLeaseStore, apiserver: ApiServer, namespace: str
) -> None:
    version = (await created(store)).version
    await store.read()
    waiting = asyncio.create_task(store.changed(version, 30.0))
    await until(lambda: store._mirror.synced)
    apiserver.call("DELETE", path(namespace))
    async with asyncio.timeout(5):
        assert await waiting


async def test_where_nothing_changes_the_time_passes_with_one_watch_and_no_other_call(
    proxied: KubernetesLeaseStore, proxy: Proxy
) -> None:
    version = (await created(proxied)).version
    await proxied.read()
    assert not await proxied.changed(version, 0.5)
    proxy.forget_calls()
    for _ in range(5):
        assert not await proxied.changed(version, 0.1)
    assert sum(proxy.calls.values()) == 0


async def test_a_watch_that_cannot_be_had_leaves_the_waiting_to_time(
    proxied: KubernetesLeaseStore, proxy: Proxy
) -> None:
    version = (await created(proxied)).version
    proxy.answer(500, verb="watch")
    proxy.answer(429, verb="list")
    assert not await proxied.changed(version, 0.3)
    assert (await proxied.read()) is not None


async def test_a_watch_that_broke_is_taken_up_again(proxied: KubernetesLeaseStore, proxy: Proxy) -> None:
    version = (await created(proxied)).version
    await proxied.read()
    waiting = asyncio.create_task(proxied.changed(version, 30.0))
    await until(lambda: proxy.calls["watch", "leases"] == 1)
    await until(lambda: proxy.drop_watches() == 1)
    await until(lambda: proxy.calls["watch", "leases"] == 2)
    await proxied.compare_and_swap(version, msgspec.structs.replace(MINE, transitions=9))
    async with asyncio.timeout(5):
        assert await waiting
    assert proxy.calls["list", "leases"] == 1


# Faults


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_server_that_is_busy_or_broken_is_an_error_of_the_lease(
    proxied: KubernetesLeaseStore, proxy: Proxy, status: int
) -> None:
    version = (await created(proxied)).version
    proxy.answer(status)
    with pytest.raises(LeaseError, match="the proxy was told so"):
        await proxied.read()
    with pytest.raises(LeaseError):
        await proxied.compare_and_swap(version, MINE)
    proxy.heal()
    assert await proxied.compare_and_swap(version, MINE) is not None


async def test_a_write_whose_answer_was_lost_is_found_done(proxied: KubernetesLeaseStore, proxy: Proxy) -> None:
    version = (await created(proxied)).version
    proxy.inflict(Fault.LOSE_ANSWER, verb="update", times=1)
    # The HTTP client may try again by itself, and is told of a conflict then.
    with suppress(LeaseError):
        assert await proxied.compare_and_swap(version, msgspec.structs.replace(MINE, transitions=4)) is None
    assert await proxied.compare_and_swap(version, MINE) is None
    record = await proxied.read()
    assert record is not None
    assert record.transitions == 4


async def test_an_outage_is_an_error_and_passes(
    store: KubernetesLeaseStore, apiserver: ApiServer, namespace: str
) -> None:
    written = await created(store)
    with apiserver.outage():
        with pytest.raises(LeaseError, match="does not answer"):
            await store.read()
        with pytest.raises(LeaseError, match="does not answer"):
            await store.compare_and_swap(written.version, MINE)
    assert await store.read() == written


async def test_who_may_not_make_a_lease_is_told_so(apiserver: ApiServer, namespace: str) -> None:
    async with await KubernetesApi.connect(apiserver.kubeconfig(f"system:serviceaccount:{namespace}:nobody")) as api:
        store = KubernetesLeaseStore(api, namespace=namespace, name="job-leader", field_manager="tests")
        with pytest.raises(LeaseError, match=r"Forbidden.*nobody"):
            await store.compare_and_swap("", MINE)


# Candidates


class Candidate:
    """Stands until it is killed; ``events`` has "elected" and the reasons for which it lost."""

    def __init__(self, name: str, store: KubernetesLeaseStore, *, fenced: bool = False, predecessors: str = "") -> None:
        async def fence() -> bool:
            return True

        self.store = store
        self.events: list[str] = []
        self.election = LeaderElection(
            name,
            store,
            on_elected=lambda: self.events.append("elected"),
            on_lost=self.events.append,
            times=QUICK,
            address=f"{name}:6123",
            rest=f"{name}:8081",
            predecessors=predecessors,
            fence=fence if fenced else None,
        )
        self.task = asyncio.create_task(self.election.run())

    @property
    def leads(self) -> bool:
        return self.election.is_leader()

    async def kill(self) -> None:
        """End without a word, as kill -9 does."""
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


Stand = Callable[..., Awaitable[Candidate]]


@pytest.fixture
async def stand(apiserver: ApiServer, namespace: str, ends: AsyncExitStack) -> Stand:
    async def start(
        name: str, *, through: Path | None = None, fenced: bool = False, predecessors: str = ""
    ) -> Candidate:
        api = await ends.enter_async_context(await KubernetesApi.connect(through or apiserver.admin_kubeconfig))
        candidate = Candidate(name, make_store(api, namespace, ends), fenced=fenced, predecessors=predecessors)
        ends.push_async_callback(candidate.kill)
        return candidate

    return start


async def test_of_two_contenders_one_leads_and_the_other_knows_where(stand: Stand) -> None:
    first, second = await stand("first"), await stand("second")
    await until(lambda: first.leads or second.leads)
    leader, standby = (first, second) if first.leads else (second, first)
    await until(lambda: standby.election.record is not None and bool(standby.election.record.address))
    assert not standby.leads
    record = standby.election.record
    assert record is not None
    name = leader.election.identity
    assert (record.holder, record.address, record.rest) == (name, f"{name}:6123", f"{name}:8081")


async def test_a_clean_stop_hands_the_lease_over(stand: Stand) -> None:
    first = await stand("first")
    await until(lambda: first.leads)
    second = await stand("second")
    await until(lambda: second.election.record is not None and second.election.record.holder == "first")
    assert await first.election.release()
    await until(lambda: second.leads)
    assert second.election.record is not None
    assert second.election.record.transitions == 2


async def test_a_killed_leader_is_followed_when_its_lease_has_expired(stand: Stand) -> None:
    first = await stand("first")
    await until(lambda: first.leads)
    second = await stand("second")
    await until(lambda: second.election.record is not None)
    await first.kill()
    await until(lambda: second.leads)
    assert second.election.record is not None
    assert second.election.record.transitions == 2


async def test_a_container_that_was_restarted_in_its_pod_does_not_wait_for_its_predecessor(stand: Stand) -> None:
    first = await stand("pod-0_uid_a", predecessors="pod-0_uid_")
    await until(lambda: first.leads)
    waiting = await stand("pod-1_uid_a", predecessors="pod-1_uid_")
    await until(lambda: waiting.election.record is not None and waiting.election.record.holder == "pod-0_uid_a")
    await first.kill()
    second = await stand("pod-0_uid_b", predecessors="pod-0_uid_")
    await until(lambda: second.leads or waiting.leads)
    assert second.leads


async def test_a_deleted_lease_costs_the_leader_nothing(stand: Stand, apiserver: ApiServer, namespace: str) -> None:
    first = await stand("first")
    await until(lambda: first.leads)
    apiserver.call("DELETE", path(namespace))
    await until(lambda: apiserver.exists(path(namespace)))
    assert first.leads
    assert first.events == ["elected"]
    assert apiserver.call("GET", path(namespace))["spec"]["holderIdentity"] == "first"


async def test_a_lease_that_was_modified_externally_is_corrected(
    stand: Stand, store: KubernetesLeaseStore, apiserver: ApiServer, namespace: str
) -> None:
    """Flink ``KubernetesLeaderElectionDriverTest.testLeaderConfigMapModifiedExternallyShouldBeCorrected``."""
    first = await stand("first")
    await until(lambda: first.leads)
    record = await store.read()
    assert record is not None
    change = {"metadata": {"annotations": {ADDRESS: "elsewhere:1"}}}
    apiserver.call("PATCH", path(namespace), change, content_type="application/merge-patch+json")
    async with asyncio.timeout(30):
        while (seen := await store.read()) is None or seen.address != record.address:
            await asyncio.sleep(0.02)
    assert first.leads
    assert first.events == ["elected"]


async def test_a_lease_that_another_took_ends_the_term(stand: Stand, store: KubernetesLeaseStore) -> None:
    first = await stand("first")
    await until(lambda: first.leads)
    while True:
        record = await store.read()
        assert record is not None
        usurped = msgspec.structs.replace(record, holder="usurper")
        if await store.compare_and_swap(record.version, usurped) is not None:
            break
    await until(lambda: len(first.events) == 2)  # it leads no more from the end of its term, and is told right after
    assert first.events == ["elected", "the lease is held by 'usurper'"]
    assert not first.leads


async def test_times_of_other_clocks_decide_nothing(stand: Stand, store: KubernetesLeaseStore) -> None:
    await created(store, msgspec.structs.replace(MINE, lease_duration=3.0, renew_time="2036-01-01T00:00:00+00:00"))
    first = await stand("first")
    await until(lambda: first.leads)
    second = await stand("second")
    await until(lambda: second.election.record is not None and second.election.record.holder == "first")
    record = await store.read()
    assert record is not None
    await store.compare_and_swap(
        record.version, msgspec.structs.replace(record, renew_time="1996-01-01T00:00:00+00:00")
    )
    for _ in range(20):
        await asyncio.sleep(0.05)
        assert not second.leads


async def test_an_outage_ends_the_term_of_one_that_nothing_else_fences(stand: Stand, apiserver: ApiServer) -> None:
    first = await stand("first")
    await until(lambda: first.leads)
    apiserver.stop_api()
    await until(lambda: len(first.events) == 2)  # it leads no more from the end of its term, and is told right after
    assert first.events == ["elected", "the lease could not be renewed for 2 s"]
    assert not first.leads
    apiserver.start_api()
    await until(lambda: first.leads)


async def test_an_outage_is_nothing_to_a_leader_that_is_fenced(stand: Stand, apiserver: ApiServer) -> None:
    leader = await stand("leader", fenced=True)
    await until(lambda: leader.leads)
    standby = await stand("standby", fenced=True)
    await until(lambda: standby.election.record is not None and standby.election.record.holder == "leader")
    apiserver.stop_api()
    for _ in range(60):
        await asyncio.sleep(0.1)
        assert leader.leads
    await asyncio.to_thread(apiserver.start_api)
    seen = standby.election.record
    await until(lambda: standby.election.record is not None and standby.election.record != seen)
    assert (leader.events, standby.events) == (["elected"], [])
    assert leader.leads


async def test_a_storm_of_errors_ends_no_term(stand: Stand, proxy: Proxy, tmp_path: Path) -> None:
    first = await stand("first", through=proxy.kubeconfig(tmp_path))
    await until(lambda: first.leads)
    for status in (429, 500, 503):
        rules = [proxy.answer(status, verb="update", times=2), proxy.answer(status, verb="get", times=1)]
        await until(partial(_used_up, rules))
        proxy.forget_calls()
        await until(lambda: proxy.calls["update", "leases"] > 1)
        assert first.leads
    assert first.events == ["elected"]
