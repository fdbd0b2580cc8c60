"""The proxy: what passes is as it was, what is told to fail fails, and all of it is counted."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path

import pytest

from kube.apiserver import ApiServer
from kube.proxy import Call, Fault, Proxy, parse_call, proxy_to

GONE = (HTTPException, OSError)


@pytest.fixture
def proxy(apiserver: ApiServer) -> Iterator[Proxy]:
    with proxy_to(apiserver, "proxied", groups=["system:masters"]) as running:
        yield running


@contextmanager
def opened(proxy: Proxy, path: str, *, method: str = "GET", body: object = None) -> Iterator[HTTPResponse]:
    connection = HTTPConnection(proxy.url.removeprefix("http://"), timeout=30)
    try:
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        yield connection.getresponse()
    finally:
        connection.close()


def status(proxy: Proxy, path: str, *, method: str = "GET", body: object = None) -> int:
    with opened(proxy, path, method=method, body=body) as answer:
        answer.read()
        return answer.status


def place(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def config_map(name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}


@pytest.mark.parametrize(
    ("method", "path", "query", "verb", "resource", "namespace", "name"),
    [
        ("GET", "/api/v1/pods", "", "list", "pods", "", ""),
        ("GET", "/api/v1/namespaces/a/pods", "watch=true", "watch", "pods", "a", ""),
        ("GET", "/api/v1/namespaces/a/pods/p", "", "get", "pods", "a", "p"),
        ("GET", "/api/v1/namespaces", "", "list", "namespaces", "", ""),
        ("GET", "/api/v1/namespaces/a", "", "get", "namespaces", "", "a"),
        ("POST", "/apis/flinkjob.io/v1alpha1/namespaces/a/flinkjobs", "", "create", "flinkjobs", "a", ""),
        ("PATCH", "/apis/g/v1/namespaces/a/flinkjobs/j/status", "", "patch", "flinkjobs/status", "a", "j"),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/a/leases/l", "", "update", "leases", "a", "l"),
        ("DELETE", "/api/v1/namespaces/a/pods/p", "", "delete", "pods", "a", "p"),
        ("DELETE", "/api/v1/namespaces/a/pods", "", "deletecollection", "pods", "a", ""),
        ("GET", "/version", "", "get", "", "", ""),
    ],
)
def test_a_request_is_told_in_kubernetes_words(
    method: str, path: str, query: str, verb: str, resource: str, namespace: str, name: str
) -> None:
    expected = Call(verb=verb, resource=resource, namespace=namespace, name=name, path=path)
    assert parse_call(method, path, query.split("&")) == expected


def test_what_passes_is_as_the_server_said_it_and_is_counted(
    proxy: Proxy, apiserver: ApiServer, namespace: str
) -> None:
    assert status(proxy, place(namespace), method="POST", body=config_map("c")) == 201
    with opened(proxy, f"{place(namespace)}/c") as answer:
        assert json.loads(answer.read()) == apiserver.call("GET", f"{place(namespace)}/c")
    assert dict(proxy.calls) == {("create", "configmaps"): 1, ("get", "configmaps"): 1}
    assert [call.name for call in proxy.history] == ["", "c"]
    proxy.forget_calls()
    assert not proxy.calls


def test_kubectl_works_by_its_kubeconfig(proxy: Proxy, apiserver: ApiServer, namespace: str, tmp_path: Path) -> None:
    apiserver.kubectl("create", "configmap", "c", "-n", namespace, kubeconfig=proxy.kubeconfig(tmp_path))
    assert apiserver.exists(f"{place(namespace)}/c")


def test_it_is_the_user_that_it_was_made_for(apiserver: ApiServer, namespace: str) -> None:
    with proxy_to(apiserver, "nobody-much") as proxy:
        assert status(proxy, place(namespace)) == 403


def test_a_storm_of_429_meets_only_what_it_names_and_ends(proxy: Proxy, namespace: str) -> None:
    rule = proxy.answer(429, verb="get", resource="configmaps", times=2, retry_after=1)
    with opened(proxy, f"{place(namespace)}/kube-root-ca.crt") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        assert json.loads(answer.read())["reason"] == "TooManyRequests"
    assert status(proxy, place(namespace)) == 200
    assert status(proxy, f"{place(namespace)}/any") == 429
    assert status(proxy, f"{place(namespace)}/any") == 404
    assert rule.met == 2


def test_a_server_that_is_broken_answers_500_until_it_is_healed(proxy: Proxy, namespace: str) -> None:
    proxy.answer(500)
    assert status(proxy, place(namespace)) == 500
    proxy.heal()
    assert status(proxy, place(namespace)) == 200


def test_a_write_whose_answer_is_lost_is_done_all_the_same(proxy: Proxy, apiserver: ApiServer, namespace: str) -> None:
    proxy.inflict(Fault.LOSE_ANSWER, verb="create", times=1)
    with pytest.raises(GONE):
        status(proxy, place(namespace), method="POST", body=config_map("c"))
    assert apiserver.exists(f"{place(namespace)}/c")


def test_a_request_hangs_until_its_rule_is_taken_away(proxy: Proxy, namespace: str) -> None:
    rule = proxy.inflict(Fault.HANG)
    outcome: list[object] = []

    def ask() -> None:
        try:
            outcome.append(status(proxy, place(namespace)))
        except GONE:
            outcome.append("closed")

    thread = threading.Thread(target=ask)
    thread.start()
    while not rule.met:
        assert thread.is_alive()
    assert not outcome
    proxy.remove(rule)
    thread.join(timeout=30)
    assert outcome == ["closed"]


def test_a_watch_tells_what_happens_until_it_is_dropped(proxy: Proxy, apiserver: ApiServer, namespace: str) -> None:
    with opened(proxy, f"{place(namespace)}?watch=true&fieldSelector=metadata.name%3Dc") as answer:
        apiserver.call("POST", place(namespace), config_map("c"))
        assert json.loads(answer.readline())["object"]["metadata"]["name"] == "c"
        assert proxy.drop_watches() == 1
        with pytest.raises(GONE):
            read_to_the_end(answer)
    assert proxy.drop_watches() == 0


def read_to_the_end(answer: HTTPResponse) -> None:
    """Raise as soon as nothing more comes; a stream that is cut between two lines reads as one that ends."""
    while answer.readline():
        pass
    raise OSError("the stream has ended")


def test_a_silent_watch_stays_open_and_tells_nothing(proxy: Proxy, apiserver: ApiServer, namespace: str) -> None:
    proxy.inflict(Fault.SILENCE, verb="watch")
    with opened(proxy, f"{place(namespace)}?watch=true&timeoutSeconds=1") as answer:
        apiserver.call("POST", place(namespace), config_map("c"))
        assert answer.read() == b""


def test_who_is_cut_off_loses_its_watches_and_reaches_nobody(proxy: Proxy, namespace: str) -> None:
    with opened(proxy, f"{place(namespace)}?watch=true") as answer:
        proxy.cut()
        with pytest.raises(GONE):
            read_to_the_end(answer)
        with pytest.raises(GONE):
            status(proxy, place(namespace))
    proxy.heal()
    assert status(proxy, place(namespace)) == 200
