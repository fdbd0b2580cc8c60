"""The kind cluster: a control plane and two workers, made, looked at, broken on purpose, and taken away.

Whoever uses it sees the same cluster, whether its nodes' image was pulled or made here, and whichever engine runs them.
"""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.commands import run, succeeds
from cluster.engine import TINY_IMAGE, Engine, existing_engine, own_engine, own_engine_left, remove_own_engine
from cluster.nodeimage import DNS_TAG, ETCD_TAG, node_image
from cluster.tools import ClusterError, cache, locked, provide, say, told

NAME = "flinkjob"
_READY_SECONDS = 180


def directory() -> Path:
    """Where the cluster's kubeconfig is, and what is recorded of it."""
    return cache() / "cluster"


SHARED_ON_NODES = "/var/local/flinkjob"
"""A directory that the workers have in common and anybody may write to: what a cloud's shared volumes are elsewhere."""


def shared() -> Path:
    """Where `SHARED_ON_NODES` is on this machine."""
    return directory() / "shared"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that is up.

    Attributes:
        engine: that runs its nodes. kubeconfig: of its administrator.
        pulls: whether images can be pulled there; where not, every image has to be loaded.
    """

    engine: Engine
    kubeconfig: Path
    pulls: bool

    def kubectl(self, *arguments: str | Path, given: str | None = None, timeout: float = 300) -> str:
        """What kubectl prints as the administrator.

        Raises:
            ClusterError: it failed.
        """
        kubectl = provide(["kubectl"])["kubectl"]
        return run(kubectl, "--kubeconfig", self.kubeconfig, *arguments, given=given, timeout=timeout)

    def nodes(self) -> list[str]:
        """All nodes, which are containers of the engine by the same name."""
        return _kind(self.engine, "get", "nodes", "--name", NAME).split()

    def workers(self) -> list[str]:
        """The nodes that pods run on."""
        return [node for node in self.nodes() if "control-plane" not in node]

    def on_node(self, node: str, *command: str, given: str | bytes | None = None) -> str:
        """What a command prints that is run on a node as root.

        Raises:
            ClusterError: it failed.
        """
        if node not in (nodes := self.nodes()):
            raise ClusterError(f"there is no node {node}; there are {', '.join(nodes)}")
        return self.engine.docker("exec", *(["-i"] if given is not None else []), node, *command, given=given)

    def load(self, image: str) -> None:
        """Bring an image of the engine to the nodes that pods run on.

        Raises:
            ClusterError: the engine has no such image.
        """
        _kind(self.engine, "load", "docker-image", "--name", NAME, "--nodes", ",".join(self.workers()), image)

    def cut(self, node: str) -> None:
        """Cut a node off, as if its cable were pulled: nothing passes to it or from it, and nobody is told."""
        self.on_node(node, "nft", "-f", "/dev/stdin", given=_CUT)

    def heal(self, node: str) -> None:
        """Let a node's packets pass again; does nothing if they do."""
        self.on_node(node, "nft", "-f", "/dev/stdin", given=_HEAL)


# A rule for what comes and one for what goes, the node's own and its pods', before and after everybody else's.
_HEAL = "table inet flinkjob-cut\ndelete table inet flinkjob-cut\n"
_CUT = f"""{_HEAL}
table inet flinkjob-cut {{
    chain coming {{ type filter hook prerouting priority -500; iifname "eth0" drop; }}
    chain going {{ type filter hook postrouting priority 500; oifname "eth0" drop; }}
}}
"""


def current() -> Cluster | None:
    """The cluster that was put up, if it answers."""
    try:
        state = json.loads(_state_file().read_text())
        engine = Engine(state["host"], state["address"])
        cluster = Cluster(engine, directory() / "kubeconfig", state["pulls"])
    except (FileNotFoundError, ValueError, KeyError):
        return None
    answers = [
        "docker",
        "exec",
        f"{NAME}-control-plane",
        "kubectl",
        "--kubeconfig=/etc/kubernetes/admin.conf",
        "get",
        "--raw",
    ]
    return cluster if succeeds(*answers, "/readyz", extra=engine.variables, timeout=20) else None


def need() -> Cluster:
    """The cluster that is up.

    Raises:
        ClusterError: there is none.
    """
    cluster = current()
    if cluster is None:
        raise ClusterError("no cluster is up; `make cluster` puts one up")
    return cluster


def up() -> Cluster:
    """Put the cluster up, unless it is.

    Raises:
        ClusterError: it cannot be had on this machine; the text says why.
    """
    with locked("cluster"):
        cluster = current()
        if cluster is not None:
            say("cluster: is up")
            return cluster
        began = time.monotonic()
        _remove()
        engine = existing_engine()
        pulls = engine is not None and engine.can_pull()
        engine = engine or own_engine()
        cluster = Cluster(engine, directory() / "kubeconfig", pulls)
        if NAME in _kind(engine, "get", "clusters").split():
            raise ClusterError(
                f"a kind cluster named {NAME} is there, and this did not make it; `kind delete cluster --name {NAME}`"
            )
        directory().mkdir(parents=True, exist_ok=True)
        # Written before anything is made, so that it can be taken away whatever happens next; from here on the name is ours.
        _state_file().write_text(json.dumps({"host": engine.host, "address": engine.address, "pulls": pulls}))
        _create(cluster)
        say(f"cluster: up after {time.monotonic() - began:.0f} s; export KUBECONFIG={cluster.kubeconfig}")
        return cluster


def remains() -> bool:
    """Whether there is something of a cluster, be it up or not, that `down` takes away."""
    return _state_file().exists() or bool(own_engine_left())


def down() -> None:
    """Take away all that `up` made, the built things in the cache excepted; does nothing if there is nothing.

    Raises:
        ClusterError: something is left.
    """
    with locked("cluster"):
        _remove()
        if left := own_engine_left():
            raise ClusterError(f"these are left: {'; '.join(left)}")
        say("cluster: down")


def _remove() -> None:
    engine = _recorded_engine()
    if engine is not None and not engine.own:
        if not succeeds("docker", "version", extra=engine.variables, timeout=20):
            raise ClusterError("the Docker engine that runs the cluster's nodes does not answer; start it, and repeat")
        _kind(engine, "delete", "cluster", "--name", NAME, "--kubeconfig", str(directory() / "kubeconfig"))
    if own_engine_left() or (engine is not None and engine.own):
        remove_own_engine()
    if directory().exists():
        _remove_directory(engine)


def _recorded_engine() -> Engine | None:
    try:
        state = json.loads(_state_file().read_text())
        return Engine(state["host"], state["address"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _remove_directory(engine: Engine | None) -> None:
    """The pods' files are other users'; where this one may not remove them, what runs in the engine may."""
    try:
        shutil.rmtree(directory())
    except PermissionError as error:
        if engine is None:
            raise ClusterError(f"{directory()} has files of pods, which root has to remove") from error
        emptying = ("find", "/shared", "-mindepth", "1", "-delete")
        engine.docker("run", "--rm", "--volume", f"{shared()}:/shared", TINY_IMAGE, *emptying)
        shutil.rmtree(directory())


def _state_file() -> Path:
    return directory() / "state.json"


def _kind(engine: Engine, *arguments: str, given: str | None = None) -> str:
    return run(provide(["kind"])["kind"], *arguments, given=given, extra=engine.variables)


def _create(cluster: Cluster) -> None:
    shared().mkdir(exist_ok=True)
    shared().chmod(0o777)
    with told("node image"):
        made = None if cluster.pulls else node_image(cluster.engine)
    say("cluster: being created")
    naming = [
        "--name",
        NAME,
        "--kubeconfig",
        str(cluster.kubeconfig),
        *(["--image", made] if made else ["--wait", "180s"]),
    ]
    configured = yaml.safe_dump(configuration(cluster))
    with told("cluster"):
        _kind(cluster.engine, "create", "cluster", *naming, "--config", "-", given=configured)
    if made:
        cluster.kubectl("apply", "--server-side", "-f", Path(__file__).with_name("network.yaml"))
        for node in cluster.nodes():
            cluster.on_node(node, *_MASQUERADE)
    cluster.kubectl("wait", "--for=condition=Ready", "nodes", "--all", f"--timeout={_READY_SECONDS}s")
    system = ("--namespace", "kube-system")
    cluster.kubectl("rollout", "status", "deployment/coredns", *system, f"--timeout={_READY_SECONDS}s")


_PODS = "10.244.0.0/16"
# What a pod sends to somebody who is no pod has its node's address: nobody else knows the way back.
_MASQUERADE = [
    "iptables",
    "-t",
    "nat",
    "-A",
    "POSTROUTING",
    "-s",
    _PODS,
    "!",
    "-d",
    _PODS,
    "-o",
    "eth0",
    "-j",
    "MASQUERADE",
]


def configuration(cluster: Cluster) -> dict[str, Any]:
    """kind's configuration (kind.x-k8s.io/v1alpha4) of this cluster."""
    configured: dict[str, Any] = {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [{"role": "control-plane"}, _worker(), _worker()],
        "networking": {"ipFamily": "ipv4", "apiServerAddress": cluster.engine.address},
    }
    if cluster.engine.host:
        # kind looks for a free port on this machine, where the engine's address is not; over there all are free.
        configured["networking"]["apiServerPort"] = 6443
    if not cluster.pulls:
        configured["networking"] |= {"disableDefaultCNI": True, "kubeProxyMode": "nftables", "podSubnet": _PODS}
        configured["kubeadmConfigPatches"] = [yaml.safe_dump(patch) for patch in _PATCHES]
    return configured


def _worker() -> dict[str, Any]:
    return {"role": "worker", "extraMounts": [{"hostPath": str(shared()), "containerPath": SHARED_ON_NODES}]}


_PATCHES: list[dict[str, Any]] = [
    {
        "kind": "ClusterConfiguration",
        "dns": {"imageTag": DNS_TAG},
        "etcd": {"local": {"imageTag": ETCD_TAG}},
    },
    {
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        # What a machine that gives no more allows.
        "oomScoreAdj": 0,
        "maxOpenFiles": 20000,
    },
    {
        "kind": "KubeProxyConfiguration",
        # The kernel's own limits are the machine's affair.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    },
]
