"""Where the nodes' containers run: the Docker engine that answers, or one of our own.

Our own is a dockerd as root with a network namespace, a mount namespace and a control group of its own, so that it changes
nothing on the machine and can be ended with all that it started, even when it crashed. A pair of virtual interfaces joins its
network to the machine's: what is published on `ADDRESS` can be reached from here. Its images stay in the user's cache. A
machine has one at most: its directory below /run says whose cache it works in, and nobody else ends it.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster import lesser_runc
from cluster.commands import environment, missing, run, succeeds
from cluster.tools import ClusterError, cache, say

NAME = "flinkjob-cluster"
RUN = Path("/run") / NAME
"""Sockets and process files: short paths, and gone when the machine restarts."""
NETWORK = RUN.parent / "netns" / NAME
ADDRESS, OUTSIDE = "172.31.255.2", "172.31.255.1"
"""Of the two ends of the pair: inside and outside of the engine's network."""
TINY_IMAGE = "busybox:stable"
"""What tries out whether images can be pulled; so, where they can, it is there."""
_INNER, _OUTER = "flinkjob-in", "flinkjob-out"
PACKAGES = {
    "dockerd": "docker.io",
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "nft": "nftables",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "nsenter": "util-linux",
}
"""What an engine of our own and its images are made with, and the Debian package of each."""
_PROGRAMS = ("dockerd", "containerd", "runc", "iptables", "nft", "ip", "nsenter")
_CGROUPS = Path("/sys/fs/cgroup")
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that answers.

    Attributes:
        host: DOCKER_HOST of its clients; empty for what docker finds by itself.
        address: what a port that is to be reached from this machine is published on.
    """

    host: str
    address: str

    @property
    def own(self) -> bool:
        """Whether it is ours alone, so that all in it is, too."""
        return self.host == f"unix://{RUN}/docker.sock"

    @property
    def variables(self) -> dict[str, str]:
        """The environment of its clients."""
        return {"DOCKER_HOST": self.host} if self.host else {}

    def docker(self, *arguments: str | Path, given: str | bytes | None = None, timeout: float = 600) -> str:
        """What ``docker ARGUMENTS`` prints.

        Raises:
            ClusterError: it failed.
        """
        return run("docker", *arguments, given=given, extra=self.variables, timeout=timeout)

    def has_image(self, image: str) -> bool:
        """Whether this image is there."""
        return succeeds("docker", "image", "inspect", image, extra=self.variables)

    def keep_only(self, image: str) -> None:
        """Remove what else there is by this image's name, under other tags, unless a container uses it."""
        repository = image.partition(":")[0]
        for other in self.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository).split():
            if other != image:
                succeeds("docker", "image", "rm", other, extra=self.variables)

    def can_pull(self) -> bool:
        """Whether it has a way to a registry, tried with a small image."""
        return succeeds("docker", "pull", "--quiet", TINY_IMAGE, extra=self.variables, timeout=120)


def existing_engine() -> Engine | None:
    """The one that docker finds by itself."""
    return Engine("", "127.0.0.1") if succeeds("docker", "version", timeout=20) else None


def own_engine() -> Engine:
    """Start our own, unless it runs.

    Raises:
        ClusterError: it cannot be had here; the text says what is missing, or whose it is.
    """
    if (owner := _owner()) not in ("", str(cache())):
        raise ClusterError(
            f"a cluster is up whose files are in {owner}, and a machine has one such engine: take it away with "
            f"XDG_CACHE_HOME={Path(owner).parent} `make cluster-down`"
        )
    engine = Engine(f"unix://{RUN}/docker.sock", ADDRESS)
    if _answers(engine):
        return engine
    need_packages(*_PROGRAMS)
    end_own_engine()
    say("engine: being started")
    _claim()
    _make_network()
    _start_daemon(engine)
    _clear(engine)  # of what a predecessor left that crashed
    return engine


def remove_own_engine() -> None:
    """Remove all that it runs, also what is only in its files since it or the machine crashed, and end it; images stay.

    Raises:
        ClusterError: it cannot be started, which that takes.
    """
    _clear(own_engine())
    end_own_engine()


def _clear(engine: Engine) -> None:
    if containers := engine.docker("ps", "--all", "--quiet").split():
        engine.docker("rm", "--force", "--volumes", *containers)
    engine.docker("volume", "prune", "--force")


def end_own_engine() -> None:
    """End it and all that it started, however it is; does nothing if there is none, or if it is another cache's."""
    if _owner() not in ("", str(cache())):
        return
    for process in _processes():
        if process.program == "dockerd":
            os.kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE / 2
    while any(process.program == "dockerd" for process in _processes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    while left := list(_processes()):
        for process in left:
            _kill(process.pid)
        time.sleep(0.1)
    for place in _own_cgroups():
        for directory in sorted([place, *(path for path in place.rglob("*") if path.is_dir())], reverse=True):
            directory.rmdir()
    # Its other end goes with it, at once; what goes with the network goes some time later.
    if Path("/sys/class/net", _OUTER).exists():
        run("ip", "link", "delete", _OUTER)
    if NETWORK.exists():
        run("ip", "netns", "delete", NAME)
    for path in sorted(RUN.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    if RUN.exists():
        RUN.rmdir()


def own_engine_left() -> list[str]:
    """What is there of our own engine, for people; empty when nothing is, or when it is another cache's."""
    if _owner() not in ("", str(cache())):
        return []
    left = [f"process {process.pid} ({process.program})" for process in _processes()]
    return [
        *left,
        *(str(path) for path in [*_own_cgroups(), NETWORK, RUN, Path("/sys/class/net", _OUTER)] if path.exists()),
    ]


def enter_network(*command: str) -> list[str]:
    """The command as one that runs in our engine's network."""
    return ["nsenter", f"--net={NETWORK}", *command]


def need_packages(*programs: str) -> None:
    """Install those of these programs that are missing, where this user may.

    Raises:
        ClusterError: this is not root on Linux, who alone can make images and start an engine, or a package cannot be had.
    """
    if os.geteuid() != 0 or sys.platform != "linux":
        raise ClusterError(
            "a cluster needs a Docker engine that answers and can pull images; where there is none, all is made here, "
            "which takes root on Linux"
        )
    needed = sorted({PACKAGES[program] for program in missing(programs)})
    if not needed:
        return
    if missing(["apt-get"]):
        raise ClusterError(f"these Debian packages, or their like, are needed: {', '.join(needed)}")
    say(f"packages: installing {' '.join(needed)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-qq", extra=quiet)
    run("apt-get", "install", "-qq", "--yes", "--no-install-recommends", *needed, extra=quiet)


def _owner() -> str:
    """The directory of the cache that our engine works in; empty while there is no engine."""
    try:
        return (RUN / "cache").read_text()
    except FileNotFoundError:
        return ""


def _claim() -> None:
    """Make the engine's directory with its owner's name in it, in one step: of two that begin at once, one goes on."""
    made = Path(tempfile.mkdtemp(prefix=f"{NAME}-", dir=RUN.parent))
    (made / "cache").write_text(str(cache()))
    try:
        made.rename(RUN)
    except OSError as error:
        shutil.rmtree(made)
        raise ClusterError(f"{RUN} is there: somebody else is starting an engine") from error


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    program: str


def _processes() -> Iterator[_Process]:
    """All that our engine started and that have not ended: they are in its control group, whoever their parent is now."""
    pids = {
        int(pid) for place in _own_cgroups() for file in place.rglob("cgroup.procs") for pid in file.read_text().split()
    }
    for pid in sorted(pids):
        try:
            program, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        # One that has ended and that its parent has not asked after.
        if rest.split()[0] != "Z":
            yield _Process(pid, program)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _own_cgroups() -> list[Path]:
    """Our directories: one in each hierarchy of version 1, or the one of version 2."""
    return [path for path in [_CGROUPS / NAME, *(place / NAME for place in _hierarchies())] if path.is_dir()]


def _hierarchies() -> list[Path]:
    unified = (_CGROUPS / "cgroup.controllers").exists()
    return [_CGROUPS] if unified else [path for path in _CGROUPS.iterdir() if (path / "cgroup.procs").exists()]


def _make_network() -> None:
    run("ip", "netns", "add", NAME)
    run(*enter_network("ip", "link", "set", "lo", "up"))
    run(*enter_network("sysctl", "--quiet", "--write", "net.ipv4.ip_forward=1"))
    run("ip", "link", "add", _OUTER, "type", "veth", "peer", "name", _INNER, "netns", NAME)
    run("ip", "address", "add", f"{OUTSIDE}/30", "dev", _OUTER)
    run("ip", "link", "set", _OUTER, "up")
    run(*enter_network("ip", "address", "add", f"{ADDRESS}/30", "dev", _INNER))
    run(*enter_network("ip", "link", "set", _INNER, "up"))


def _start_daemon(engine: Engine) -> None:
    log = cache() / "engine.log"
    cache().mkdir(parents=True, exist_ok=True)
    places = [hierarchy / NAME / "engine" for hierarchy in _hierarchies()]
    for place in places:
        place.mkdir(parents=True)
        _inherit_cpus(place)
        _weigh(place.parent)
    joining = "; ".join(f"echo $$ > {place}/cgroup.procs" for place in places)
    daemon = " ".join(
        [
            *("dockerd", f"--host {engine.host}", f"--data-root {cache() / 'engine'}", f"--exec-root {RUN}/exec"),
            *(f"--pidfile {RUN}/dockerd.pid", "--bip 172.30.0.1/24", "--storage-driver overlay2"),
            *("--exec-opt native.cgroupdriver=cgroupfs", f"--cgroup-parent /{NAME}", "--oom-score-adjust 0"),
            *_runtime(),
        ]
    )
    # The mounts of its containers are nobody else's, but theirs among themselves have to be shared.
    script = f"{joining}; mount --make-rshared / && exec nsenter --net={NETWORK} {daemon}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment(),
            start_new_session=True,
        )
    deadline = time.monotonic() + _PATIENCE
    while not _answers(engine):
        if process.poll() is not None or time.monotonic() > deadline:
            end_own_engine()
            raise ClusterError(f"dockerd does not serve: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.2)


def _inherit_cpus(place: Path) -> None:
    """In version 1 a new group of the cpuset hierarchy has no processor and no memory node, and takes no process."""
    for directory in (place.parent, place):
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (directory / name).exists() and not (directory / name).read_text().strip():
                (directory / name).write_text((directory.parent / name).read_text())


def _weigh(place: Path) -> None:
    """A group has the share of a single process; a cluster and its pods are dozens, and miss their deadlines with that."""
    for name, default in (("cpu.shares", 1024), ("cpu.weight", 100)):
        if (place / name).exists():
            (place / name).write_text(str(12 * default))


def _runtime() -> list[str]:
    capabilities = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")
    )
    if int(capabilities.split()[1], 16) >> 24 & 1:  # CAP_SYS_RESOURCE
        return []
    program = RUN / "runc"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {lesser_runc.__file__} "$@"\n')
    program.chmod(0o755)
    return [f"--add-runtime lesser={program}", "--default-runtime lesser"]


def _answers(engine: Engine) -> bool:
    return (RUN / "docker.sock").exists() and succeeds("docker", "version", extra=engine.variables, timeout=20)
