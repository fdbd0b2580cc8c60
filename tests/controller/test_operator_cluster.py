"""The API client: what is repeated and what is not, when, and what a call says when it fails. On a real API server."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from flinkjob.api.errors import AlreadyChanged, ApiRefused, ApiUnavailable
from flinkjob.controller.cluster import ATTEMPTS, POD, SECRET, STATEFUL_SET, Cluster, Kind, kind_named
from flinkjob.election.apiserver import KubernetesApi
from kube.apiserver import ApiServer
from kube.proxy import Fault, Proxy, proxy_to

CONFIG_MAP = kind_named("ConfigMap")


@pytest.fixture
def proxy(apiserver: ApiServer, namespace: str) -> Iterator[Proxy]:
    with proxy_to(apiserver, "operator", groups=["system:masters"]) as between:
        yield between


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
async def cluster(proxy: Proxy, pauses: list[float], tmp_path: Path) -> AsyncIterator[Cluster]:
    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async with await KubernetesApi.connect(proxy.kubeconfig(tmp_path)) as api:
        yield Cluster(api, sleep=sleep, jitter=lambda: 0.0)


def config_map(namespace: str, value: str = "1", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "map", "namespace": namespace, **metadata},
        "data": {"key": value},
    }


async def test_what_passes_is_waited_out(cluster: Cluster, proxy: Proxy, pauses: list[float], namespace: str) -> None:
    proxy.answer(500, resource="configmaps", times=ATTEMPTS - 1)
    assert (await cluster.apply(config_map(namespace)))["data"] == {"key": "1"}
    assert pauses == pytest.approx([0.2, 0.4, 0.8])


async def test_no_sooner_than_the_server_asks(
    cluster: Cluster, proxy: Proxy, pauses: list[float], namespace: str
) -> None:
    proxy.answer(429, resource="configmaps", times=1, retry_after=3)
    await cluster.apply(config_map(namespace))
    assert pauses == [3.0]


async def test_one_who_asks_for_too_much_time_is_left_alone(
    cluster: Cluster, proxy: Proxy, pauses: list[float], namespace: str
) -> None:
    proxy.answer(429, resource="configmaps", retry_after=60)
    with pytest.raises(ApiUnavailable) as refused:
        await cluster.apply(config_map(namespace))
    assert refused.value.retry_after == 60
    assert pauses == []


async def test_a_lasting_failure_is_told(cluster: Cluster, proxy: Proxy, pauses: list[float], namespace: str) -> None:
    rule = proxy.inflict(Fault.CLOSE, resource="configmaps")
    with pytest.raises(ApiUnavailable, match="configmaps"):
        await cluster.apply(config_map(namespace))
    assert rule.met == ATTEMPTS
    assert cluster.calls["PATCH", "configmaps", False] == ATTEMPTS


async def test_a_refusal_is_not_repeated(cluster: Cluster, proxy: Proxy, namespace: str) -> None:
    wrong = config_map(namespace) | {"data": {"not a key": "1"}}
    with pytest.raises(ApiRefused, match="not a key") as refused:
        await cluster.apply(wrong)
    assert refused.value.status == 422
    assert proxy.calls["patch", "configmaps"] == 1


async def test_what_others_say_of_other_fields_stays(cluster: Cluster, apiserver: ApiServer, namespace: str) -> None:
    await cluster.apply(config_map(namespace))
    path = f"/api/v1/namespaces/{namespace}/configmaps/map"
    apiserver.call("PATCH", path, {"data": {"theirs": "2"}}, content_type="application/merge-patch+json")
    assert (await cluster.apply(config_map(namespace, "3")))["data"] == {"key": "3", "theirs": "2"}


async def test_another_object_of_that_name_is_not_applied_to(cluster: Cluster, namespace: str) -> None:
    await cluster.apply(config_map(namespace))
    with pytest.raises(AlreadyChanged):
        await cluster.apply(config_map(namespace, uid="00000000-0000-0000-0000-000000000000"))


async def test_an_object_is_made_once(cluster: Cluster, proxy: Proxy, namespace: str) -> None:
    proxy.inflict(Fault.LOSE_ANSWER, verb="create", times=1)
    with pytest.raises(AlreadyChanged):
        await cluster.create(config_map(namespace))
    assert await cluster.get(CONFIG_MAP, namespace, "map") is not None


async def test_only_the_object_of_that_uid_is_deleted(cluster: Cluster, namespace: str) -> None:
    made = await cluster.create(config_map(namespace))
    other = "00000000-0000-0000-0000-000000000000"
    assert await cluster.delete(CONFIG_MAP, namespace, "map", uid=other) is None
    assert await cluster.get(CONFIG_MAP, namespace, "map") is not None
    assert await cluster.delete(CONFIG_MAP, namespace, "map", uid=made["metadata"]["uid"]) is None
    assert await cluster.get(CONFIG_MAP, namespace, "map") is None
    assert await cluster.delete(CONFIG_MAP, namespace, "map", uid=made["metadata"]["uid"]) is None


async def test_a_write_over_an_old_version_is_refused(cluster: Cluster, namespace: str) -> None:
    made = await cluster.create(config_map(namespace))
    changed = await cluster.replace({**made, "data": {"key": "2"}})
    with pytest.raises(AlreadyChanged):
        await cluster.replace({**made, "data": {"key": "3"}})
    await cluster.delete(CONFIG_MAP, namespace, "map", uid=made["metadata"]["uid"])
    with pytest.raises(AlreadyChanged):
        await cluster.replace({**changed, "data": {"key": "3"}})


async def test_finalizers_are_written_over_the_version_that_was_seen(cluster: Cluster, namespace: str) -> None:
    made = await cluster.create(config_map(namespace))
    held = await cluster.set_finalizers(CONFIG_MAP, made["metadata"], ["flinkjob.io/cleanup"])
    assert held["metadata"]["finalizers"] == ["flinkjob.io/cleanup"]
    with pytest.raises(AlreadyChanged):
        await cluster.set_finalizers(CONFIG_MAP, made["metadata"], [])
    await cluster.set_finalizers(CONFIG_MAP, held["metadata"], [])


async def test_a_long_list_comes_in_pages_and_without_content(
    cluster: Cluster, apiserver: ApiServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flinkjob.controller.cluster.PAGE", 2)
    for n in range(5):
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        apiserver.call("POST", path, {"metadata": {"name": f"m{n}", "labels": {"x": "y"}}, "data": {"a": "b"}})
    listing = await cluster.list_metadata(CONFIG_MAP, namespace, "x=y")
    assert sorted(x["metadata"]["name"] for x in listing.items) == [f"m{n}" for n in range(5)]
    assert all(x["kind"] == "ConfigMap" and "data" not in x for x in listing.items)
    assert (await cluster.list_metadata(POD, namespace)).items == []


async def test_a_watch_goes_on_where_the_list_ended(cluster: Cluster, apiserver: ApiServer, namespace: str) -> None:
    listing = await cluster.list_metadata(SECRET, namespace, "x=y")
    path = f"/api/v1/namespaces/{namespace}/secrets"
    apiserver.call("POST", path, {"metadata": {"name": "s", "labels": {"x": "y"}}, "data": {"a": "Yg=="}})
    apiserver.call("DELETE", f"{path}/s")
    seen = []
    async for event, manifest in cluster.watch_metadata(SECRET, namespace, "x=y", listing.version):
        seen.append((event, manifest["metadata"]["name"], "data" in manifest))
        if event == "DELETED":
            break
    assert seen == [("ADDED", "s", False), ("DELETED", "s", False)]


async def test_a_kind_that_is_not_installed_is_not_served(cluster: Cluster) -> None:
    assert not await cluster.served(Kind("example.com/v1", "Thing", "things"))
    assert not await cluster.served(Kind("apps/v1", "Thing", "things"))
    assert await cluster.served(STATEFUL_SET)
