"""Pods on a real API server say which TaskManagers have ended; an outage says nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from flinkjob.election.apiserver import KubernetesApi
from flinkjob.jobmanager.podwatch import PodWatch
from kube.apiserver import ApiServer
from kube.proxy import Fault, Proxy, proxy_to

from .pods import delete_pod, make_pod, set_pod_status


@pytest.fixture
def proxy(apiserver: ApiServer) -> Iterator[Proxy]:
    with proxy_to(apiserver, "tests-proxied", groups=["system:masters"]) as proxy:
        yield proxy


@pytest.fixture
async def watch(proxy: Proxy, namespace: str, tmp_path: Path) -> AsyncIterator[PodWatch]:
    async with AsyncExitStack() as ends:
        api = await ends.enter_async_context(await KubernetesApi.connect(proxy.kubeconfig(tmp_path)))
        selector = "flinkjob.io/job=job,app.kubernetes.io/component=taskmanager"
        watch = PodWatch(api, namespace=namespace, selector=selector, container="taskmanager")
        running = asyncio.create_task(watch.run())
        yield watch
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


def seen(watch: PodWatch, *names: str) -> Callable[[], bool]:
    return lambda: set(names) <= set(watch._mirror.objects)


def container(**state: Any) -> dict[str, Any]:
    one = {"name": "taskmanager", "image": "none", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    return {"containerStatuses": [one]}


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "(Evicted: low on memory)"),
        ({"phase": "Failed"}, "(Failed)"),
        ({"phase": "Succeeded"}, "(Succeeded)"),
        (
            {"phase": "Failed", **container(terminated={"exitCode": 137, "reason": "OOMKilled"})},
            "exit code 137 (OOMKilled)",
        ),
        ({"phase": "Failed", **container(terminated={"exitCode": 1, "reason": "Error"})}, "exit code 1"),
        ({"phase": "Running", **container(terminated={"exitCode": 143, "signal": 15})}, "killed by signal 15"),
    ],
)
async def test_a_pod_that_has_ended_says_why(
    watch: PodWatch, apiserver: ApiServer, namespace: str, status: dict[str, Any], cause: str
) -> None:
    for name in ("a", "b"):
        make_pod(apiserver, namespace, name, job="job")
    await until(seen(watch, "a", "b"))
    assert watch.ended(["a", "b"]) == {}
    set_pod_status(apiserver, namespace, "a", **status)
    await until(lambda: watch.ended(["a", "b"]))
    ended = watch.ended(["a", "b"])
    assert list(ended) == ["a"]
    assert cause in ended["a"]


async def test_a_pod_that_is_gone_is_ended_and_one_on_its_way_out_is_not(
    watch: PodWatch, apiserver: ApiServer, namespace: str
) -> None:
    for name in ("a", "b"):
        make_pod(apiserver, namespace, name, job="job")
    await until(seen(watch, "a", "b"))
    apiserver.call("DELETE", f"/api/v1/namespaces/{namespace}/pods/a?gracePeriodSeconds=600")
    delete_pod(apiserver, namespace, "b")
    await until(lambda: watch.ended(["a", "b"]))
    assert watch.ended(["a", "b"]) == {"b": "its pod is gone"}
    assert watch.ended(["a"]) == {}


async def test_one_that_was_gone_before_the_watch_began_is_found_out(watch: PodWatch) -> None:
    await until(lambda: watch._mirror.synced)
    assert watch.ended(["long-gone"]) == {}
    await until(lambda: watch.ended(["long-gone"]))
    assert watch.ended(["long-gone"]) == {"long-gone": "its pod is gone"}


async def test_one_that_the_watch_does_not_show_yet_is_not_taken_for_gone(
    watch: PodWatch, proxy: Proxy, apiserver: ApiServer, namespace: str
) -> None:
    silent = proxy.inflict(Fault.SILENCE, verb="watch")
    await until(lambda: proxy.drop_watches() or silent.met)
    await until(lambda: silent.met and watch._mirror.synced)
    make_pod(apiserver, namespace, "new", job="job")
    assert watch.ended(["new"]) == {}
    await until(lambda: proxy.calls["get", "pods"])
    await asyncio.sleep(0.3)
    assert watch.ended(["new"]) == {}


async def test_an_outage_ends_nobody(watch: PodWatch, proxy: Proxy, apiserver: ApiServer, namespace: str) -> None:
    make_pod(apiserver, namespace, "a", job="job")
    await until(seen(watch, "a"))
    cut = proxy.cut()
    assert watch.ended(["a", "unknown"]) == {}
    await until(lambda: proxy.drop_watches() or cut.met > 3)
    await until(lambda: cut.met > 3)
    assert watch.ended(["a", "unknown"]) == {}
    delete_pod(apiserver, namespace, "a")
    make_pod(apiserver, namespace, "b", job="job")
    assert watch.ended(["a"]) == {}
    proxy.heal()
    await until(seen(watch, "b"))
    await until(lambda: set(watch.ended(["a", "b", "unknown"])) == {"a", "unknown"})


async def test_a_watch_that_is_too_old_is_begun_anew_from_a_list(
    watch: PodWatch, proxy: Proxy, apiserver: ApiServer, namespace: str
) -> None:
    make_pod(apiserver, namespace, "a", job="job")
    await until(seen(watch, "a"))
    expired = proxy.answer(410, verb="watch", times=1)
    await until(lambda: proxy.drop_watches() or expired.met)
    delete_pod(apiserver, namespace, "a")
    await until(lambda: watch.ended(["a"]))
    assert proxy.calls["list", "pods"] == 2


async def test_pods_of_others_are_none_of_ours(watch: PodWatch, apiserver: ApiServer, namespace: str) -> None:
    make_pod(apiserver, namespace, "theirs", job="another")
    make_pod(apiserver, namespace, "ours", job="job")
    await until(seen(watch, "ours"))
    assert set(watch._mirror.objects) == {"ours"}
