"""The API server that other tests stand on: it is a real one, it refuses, it goes and comes back."""

import asyncio
import subprocess
import time
from pathlib import Path
from urllib.error import HTTPError

import pytest

from kube.apiserver import ASSETS, ApiServer, ApiServerMissing, programs


def config_map(name: str, owner: dict[str, str] | None = None) -> dict[str, object]:
    metadata = {"name": name, "ownerReferences": [owner] if owner else []}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def test_a_namespace_is_made_and_pods_can_be_made_in_it(apiserver: ApiServer, namespace: str) -> None:
    made = apiserver.kubectl("run", "p", "--image=any", "--namespace", namespace, "--output=name")
    assert made.strip() == "pod/p"


def test_what_rbac_does_not_grant_is_refused_and_what_it_grants_is_not(apiserver: ApiServer, namespace: str) -> None:
    account = f"system:serviceaccount:{namespace}:default"
    kubeconfig = apiserver.kubeconfig(account)
    read = ("get", "configmaps", "--namespace", namespace)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        apiserver.kubectl(*read, kubeconfig=kubeconfig)
    assert f'User "{account}" cannot list resource "configmaps"' in refused.value.stderr
    everybody = f"--group=system:serviceaccounts:{namespace}"
    apiserver.kubectl("create", "rolebinding", "r", "--clusterrole=view", everybody, "--namespace", namespace)
    deadline = time.monotonic() + 30
    while "yes" not in may_list(apiserver, namespace, kubeconfig):
        assert time.monotonic() < deadline
    assert "kube-root-ca.crt" in apiserver.kubectl(*read, kubeconfig=kubeconfig)


def may_list(apiserver: ApiServer, namespace: str, kubeconfig: Path) -> str:
    """What the server says; a binding counts a moment after it is made."""
    try:
        return apiserver.kubectl("auth", "can-i", "list", "configmaps", "-n", namespace, kubeconfig=kubeconfig)
    except subprocess.CalledProcessError as error:
        return str(error.stdout)


def test_a_service_account_has_a_token_that_the_server_accepts(apiserver: ApiServer, namespace: str) -> None:
    token = apiserver.token(namespace, "default")
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    status = apiserver.call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)["status"]
    assert status["user"]["username"] == f"system:serviceaccount:{namespace}:default"


def test_what_an_owner_owned_goes_with_it(apiserver: ApiServer, namespace: str) -> None:
    place = f"/api/v1/namespaces/{namespace}/configmaps"
    owner = apiserver.call("POST", place, config_map("owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    apiserver.call("POST", place, config_map("owned", reference))
    apiserver.call("DELETE", f"{place}/owner")
    apiserver.kubectl("wait", "--for=delete", "configmap/owned", "--namespace", namespace, "--timeout=30s")


def test_after_an_outage_the_server_is_where_it_was_with_what_it_knew(apiserver: ApiServer, namespace: str) -> None:
    place = f"/api/v1/namespaces/{namespace}/configmaps"
    made = apiserver.call("POST", place, config_map("kept"))
    with apiserver.outage(), pytest.raises(OSError, match="refused"):
        apiserver.call("GET", f"{place}/kept")
    assert apiserver.call("GET", f"{place}/kept")["metadata"]["uid"] == made["metadata"]["uid"]


async def test_it_can_go_and_come_back_under_a_test_that_awaits(apiserver: ApiServer, namespace: str) -> None:
    await asyncio.to_thread(apiserver.stop_api)
    assert not apiserver.api.running
    await asyncio.to_thread(apiserver.start_api)
    assert apiserver.exists(f"/api/v1/namespaces/{namespace}")


def test_a_restarted_etcd_has_what_it_had(apiserver: ApiServer, namespace: str) -> None:
    apiserver.etcd.stop()
    apiserver.start_api()
    assert apiserver.exists(f"/api/v1/namespaces/{namespace}")


def test_a_refusal_tells_the_servers_reason(apiserver: ApiServer, namespace: str) -> None:
    with pytest.raises(HTTPError, match="name or generateName is required"):
        apiserver.call("POST", f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {}})


def test_where_the_programs_are_not_the_reason_says_how_to_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(ASSETS, raising=False)
    with pytest.raises(ApiServerMissing, match=r"no etcd, kube-apiserver.*make test-kube"):
        programs()


def test_the_programs_of_kubebuilder_assets_come_first(
    tmp_path: Path, apiserver: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert apiserver.api.running
    (tmp_path / "etcd").touch()
    monkeypatch.setenv(ASSETS, str(tmp_path))
    found = programs()
    assert found["etcd"] == tmp_path / "etcd"
    assert found["kube-apiserver"].parent != tmp_path
