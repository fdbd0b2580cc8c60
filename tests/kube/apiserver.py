"""A real Kubernetes API server for tests: etcd, kube-apiserver and kube-controller-manager on loopback, in seconds.

There is no scheduler and no node: a pod stays pending, unless a test says by its status how it fares. What the controllers
do is real (garbage collection by owner references, the pods of a StatefulSet, service accounts). Access is by RBAC; a test
asks for a kubeconfig of whom it wants to be. The programs come from KUBEBUILDER_ASSETS or from the user's cache, where ``make
test-kube`` puts them; tests never build anything.
"""

import json
import os
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

import yaml

from cluster.tools import API_SERVER, TOOLS
from kube.authority import Authority, encoded, write_key_pair
from stores.servers import end, free_ports, wait_until

ASSETS = "KUBEBUILDER_ASSETS"
"""The environment variable by which controller-runtime's tests, too, are told where the programs are."""


_launcher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")
"""A thread that lives as long as the test run."""


class ApiServerMissing(Exception):
    """No API server can be had here; the text says why."""


def programs() -> dict[str, Path]:
    """Where each program is.

    Raises:
        ApiServerMissing: one is in neither place.
    """
    assets = os.environ.get(ASSETS)
    found = {}
    for name in API_SERVER:
        places = [Path(assets) / name] if assets else []
        found[name] = next((path for path in [*places, TOOLS[name].path] if path.exists()), Path())
    if missing := [name for name, path in found.items() if not path.name]:
        raise ApiServerMissing(
            f"no {', '.join(missing)} in {ASSETS} or the cache: `make test-kube` builds them, with go"
        )
    return found


class Program:
    """One process of the server, which can be ended and started again with what it has on its disk."""

    def __init__(self, command: Sequence[str], *, log: Path, serves: Callable[[], bool]) -> None:
        # It must not outlive a test run that is killed. The kernel ties it to the thread that starts it.
        tied = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        self._command = [*tied, *command]
        self._log = log
        self._serves = serves
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def launch(self) -> None:
        """Start it, unless it runs."""
        if self.running:
            return
        self._process = _launcher.submit(self._spawn).result()

    def start(self) -> None:
        """Start it, unless it runs, and wait until it serves."""
        self.launch()
        assert self._process is not None
        wait_until(self._serves, self._process, self._log)

    def _spawn(self) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as output:
            return subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def stop(self) -> None:
        """kill -9."""
        if self._process is not None:
            end(self._process)


class ApiServer:
    """The three processes and the ways to them.

    Attributes:
        url: of the server. authority: the file with the certificate that its own is signed by.
        admin_kubeconfig, admin_context: of one who may do everything, for clients and for TLS.
        etcd, api, controllers: the processes.
    """

    def __init__(self, directory: Path, where: dict[str, Path]) -> None:
        self._directory = directory
        self._kubectl = where["kubectl"]
        etcd_client, etcd_peer, port, controllers_port = free_ports(4)
        self.url = f"https://127.0.0.1:{port}"
        self._certificates = Authority(directory)
        self.authority = self._certificates.certificate
        admin = self._certificates.issue("admin", user="tests-admin", groups=["system:masters"])
        self.admin_context = ssl.create_default_context(cafile=self.authority)
        self.admin_context.load_cert_chain(admin.certificate, admin.key)
        self._opener = build_opener(ProxyHandler({}), HTTPSHandler(context=self.admin_context))
        self.admin_kubeconfig = self._write_kubeconfig("admin", admin.data())
        self.etcd = self._etcd(where["etcd"], f"http://127.0.0.1:{etcd_client}", f"http://127.0.0.1:{etcd_peer}")
        self.api = self._api(where["kube-apiserver"], port, f"http://127.0.0.1:{etcd_client}")
        self.controllers = self._controllers(where["kube-controller-manager"], controllers_port)

    def start(self) -> None:
        """Start all, and wait until they serve."""
        self.etcd.launch()
        self.api.start()
        self.controllers.start()

    def stop(self) -> None:
        """End all."""
        for program in (self.controllers, self.api, self.etcd):
            program.stop()

    def stop_api(self) -> None:
        """An outage: the API server is killed, and nobody listens on its port."""
        self.api.stop()

    def start_api(self) -> None:
        """The end of an outage: the API server is back, on the same port, with all that it knew."""
        if not self.api.running:
            # Left alone they would look for it only now and then, and see a new namespace half a minute late.
            self.controllers.stop()
        self.etcd.start()
        self.api.start()
        self.controllers.start()

    @contextmanager
    def outage(self) -> Iterator[None]:
        """The API server is down for the block's time."""
        self.stop_api()
        try:
            yield
        finally:
            self.start_api()

    def kubeconfig(self, user: str, *, groups: Sequence[str] = ()) -> Path:
        """Of this user, who may do what RBAC grants.

        One who is named ``system:serviceaccount:NAMESPACE:NAME`` has a token of this account, which is made if it is missing.
        """
        name = f"user-{re.sub(r'[^a-z0-9-]', '-', user)}"
        match user.split(":"):
            case ["system", "serviceaccount", namespace, account]:
                return self._write_kubeconfig(name, {"token": self.token(namespace, account)})
        return self._write_kubeconfig(name, self._certificates.issue(name, user=user, groups=groups).data())

    def token(self, namespace: str, account: str) -> str:
        """A token as the pods of a service account get it (TokenRequest), valid for an hour."""
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        if not self.exists(f"{accounts}/{account}"):
            self.call("POST", accounts, {"metadata": {"name": account}})
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        }
        token = self.call("POST", f"{accounts}/{account}/token", request)["status"]["token"]
        assert isinstance(token, str)
        return token

    def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, content_type: str = "application/json"
    ) -> dict[str, Any]:
        """One request as the administrator, such as a test needs beside what it tests.

        Raises:
            HTTPError: the server refuses; its ``reason`` holds the server's message.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        request = Request(self.url + path, data=data, method=method, headers=headers)
        try:
            with self._opener.open(request, timeout=30) as answer:
                decoded = json.loads(answer.read())
        except HTTPError as error:
            with error:
                error.msg = f"{error.msg}: {error.read().decode(errors='replace')[:2000]}"
            raise
        assert isinstance(decoded, dict)
        return decoded

    def kubectl(self, *arguments: str, kubeconfig: Path | None = None, manifest: str | None = None) -> str:
        """What kubectl prints, as the administrator if nobody else is named; ``manifest`` is its standard input.

        Raises:
            CalledProcessError: it failed; ``stderr`` says why.
        """
        done = subprocess.run(
            [self._kubectl, "--kubeconfig", kubeconfig or self.admin_kubeconfig, *arguments],
            input=manifest,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={**os.environ, "HOME": str(self._directory)},
        )
        return done.stdout

    def until_established(self, name: str) -> None:
        """Wait until resources of this definition can be made. `kubectl wait` fails on one without conditions yet."""
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        deadline = time.monotonic() + 30
        while not _established(self.call("GET", path)):
            assert time.monotonic() < deadline, f"{name} is not established"
            time.sleep(0.02)

    def make_namespace(self, name: str, *, labels: dict[str, str] | None = None) -> None:
        """A namespace in which pods can be made: its default service account is there."""
        self.call("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels or {}}})
        deadline = time.monotonic() + 30
        while not self.exists(f"/api/v1/namespaces/{name}/serviceaccounts/default"):
            assert time.monotonic() < deadline, f"the controllers do not see namespace {name}"
            time.sleep(0.02)

    def exists(self, path: str) -> bool:
        """Whether the server has this object."""
        try:
            self.call("GET", path)
        except HTTPError as error:
            if error.code == 404:
                return False
            raise
        return True

    def _answers(self, url: str) -> bool:
        try:
            with self._opener.open(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except HTTPError as error:
            error.close()
        except OSError:
            pass
        return False

    def _write_kubeconfig(self, name: str, user: dict[str, str]) -> Path:
        path = self._directory / f"{name}.kubeconfig"
        server = {"server": self.url, "certificate-authority-data": encoded(self.authority)}
        path.write_text(kubeconfig_text(server, user))
        return path

    def _etcd(self, program: Path, client: str, peer: str) -> Program:
        flags = {
            "data-dir": self._directory / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "unsafe-no-fsync": "true",
        }
        return Program(
            [str(program), *_flags(flags)],
            log=self._directory / "etcd.log",
            serves=lambda: self._answers(f"{client}/health"),
        )

    def _api(self, program: Path, port: int, etcd: str) -> Program:
        names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        serving = self._certificates.issue("server", user="server", hosts=names, addresses=["127.0.0.1", "10.96.0.1"])
        private, public = self._directory / "accounts.key", self._directory / "accounts.pub"
        write_key_pair(private, public)
        flags = {
            "etcd-servers": etcd,
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "secure-port": port,
            "cert-dir": self._directory,
            "tls-cert-file": serving.certificate,
            "tls-private-key-file": serving.key,
            "client-ca-file": self.authority,
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": public,
            "service-account-signing-key-file": private,
            "authorization-mode": "Node,RBAC",
            "service-cluster-ip-range": "10.96.0.0/16",
            "allow-privileged": "true",
            "endpoint-reconciler-type": "none",
        }
        return Program(
            [str(program), *_flags(flags)],
            log=self._directory / "api.log",
            serves=lambda: self._answers(f"{self.url}/readyz"),
        )

    def _controllers(self, program: Path, port: int) -> Program:
        serving = self._certificates.issue("controllers", user="controllers", addresses=["127.0.0.1"])
        flags = {
            "kubeconfig": self.admin_kubeconfig,
            "bind-address": "127.0.0.1",
            "secure-port": port,
            "tls-cert-file": serving.certificate,
            "tls-private-key-file": serving.key,
            "leader-elect": "false",
            # Tests bind pods to nodes that do not exist; these two would delete and evict them.
            "controllers": "*,-pod-garbage-collector-controller,-node-lifecycle-controller",
            "root-ca-file": self.authority,
            "service-account-private-key-file": self._directory / "accounts.key",
            "kube-api-qps": 200,
            "kube-api-burst": 400,
        }
        log, url = self._directory / "controllers.log", f"https://127.0.0.1:{port}/healthz"
        return Program([str(program), *_flags(flags)], log=log, serves=lambda: self._answers(url))


def _flags(flags: dict[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]


def kubeconfig_text(server: dict[str, str], user: dict[str, str]) -> str:
    """A kubeconfig with this server and this user."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": server}],
            "users": [{"name": "tests", "user": user}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
            "current-context": "tests",
        }
    )


@contextmanager
def api_server(directory: Path) -> Iterator[ApiServer]:
    """An API server that runs for the block's time.

    Raises:
        ApiServerMissing: the programs are not there.
    """
    server = ApiServer(directory, programs())
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _established(definition: dict[str, Any]) -> bool:
    conditions = definition.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)
