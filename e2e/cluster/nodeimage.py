"""kind's node image where it cannot be pulled: Debian from packages, kind's own files, and Kubernetes built from its source.

The image's tag is a digest of what it is made of, so that another version, or another way to make it, is another image.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.commands import environment, run
from cluster.engine import Engine, need_packages
from cluster.ociimage import write_image
from cluster.tools import COREDNS, ETCD, KIND, KUBERNETES, MODULE, PAUSE, cache, locked, provide, say

DNS_TAG = COREDNS
ETCD_TAG = f"{ETCD.removeprefix('v')}-0"
PAUSE_TAG = PAUSE.removeprefix("v")
NETWORK_IMAGE = "registry.k8s.io/flinkjob-network:v1"
"""What the nodes' routes are set with: a shell, and nothing else."""

_SUITE = "bookworm"
"""The last Debian whose systemd starts on version 1 of control groups, and whose containerd Kubernetes 1.34 takes."""
_PACKAGES = (
    *("systemd", "dbus", "conntrack", "iptables", "nftables", "iproute2", "ethtool", "util-linux", "mount", "kmod"),
    *("libseccomp2", "pigz", "e2fsprogs", "bash", "ca-certificates", "curl", "jq", "procps", "containerd", "runc"),
    *("containernetworking-plugins", "hostname", "mawk", "socat", "busybox-static"),
)
_COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
_PROGRAMS = (*_COMPONENTS, "kube-proxy", "kubelet", "kubeadm", "kubectl-node", "etcd", "coredns", "pause")
_PROXY_HELPERS = ("nft", "xtables-nft-multi", "conntrack")

# Units that a container has no use for, or that would change the machine; kind's own image is without them too.
_CLEANING = r"""
find /lib/systemd/system/sysinit.target.wants/ -name systemd-tmpfiles-setup.service -delete
rm -f /lib/systemd/system/multi-user.target.wants/* /etc/systemd/system/*.wants/* \
    /lib/systemd/system/local-fs.target.wants/* /lib/systemd/system/sockets.target.wants/*udev* \
    /lib/systemd/system/sockets.target.wants/*initctl* /lib/systemd/system/basic.target.wants/*
echo ReadKMsg=no >> /etc/systemd/journald.conf
ln -sf /usr/lib/systemd/systemd /sbin/init
systemctl enable kubelet.service containerd.service undo-mount-hacks.service
systemctl mask systemd-binfmt.service
mkdir -p /etc/kubernetes/manifests /kind/manifests /opt/cni/bin
cp /usr/lib/cni/* /opt/cni/bin/
ctr oci spec | jq '.hooks.createContainer += [{"path": "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' \
    > /etc/containerd/cri-base.json
"""

# The images are put where the node's containerd finds them, by that containerd itself.
_IMPORTING = r"""
mount --bind "$1" "$1" && mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/run" && mount --bind "$2" "$1/mnt"
cd "$1" && exec chroot . sh -ec '
    containerd --log-level error &
    until ctr version >/dev/null 2>&1; do sleep 0.1; done
    for image in /mnt/*.tar; do ctr --namespace k8s.io images import "$image" >/dev/null; done
    kill $!
    wait $! || true
'
"""


def node_image(engine: Engine) -> str:
    """The node image's name in this engine; it is made if it is not there.

    Raises:
        ClusterError: it cannot be made.
    """
    name = f"flinkjob/node:{_key()}"
    with locked("node-image"):
        if not engine.has_image(name):
            _make(engine, name)
    return name


def _key() -> str:
    sources = [Path(__file__), MODULE / "go.sum", Path(__file__).with_name("ociimage.py")]
    parts = [*(path.read_bytes() for path in sources), KIND.encode(), COREDNS.encode(), PAUSE.encode()]
    return f"{KUBERNETES}-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:10]}"


def _make(engine: Engine, name: str) -> None:
    programs = provide(_PROGRAMS)
    with scratch("node") as place:
        root = place / "root"
        say("node image: Debian, from its packages")
        bootstrap(root, _PACKAGES)
        _add_kind_files(root)
        for program in ("kubelet", "kubeadm", "kubectl-node"):
            shutil.copy(programs[program], root / "usr/bin" / programs[program].name)
        run("chroot", root, "sh", "-ec", _CLEANING)
        say("node image: the images of Kubernetes' components")
        images = place / "images"
        images.mkdir()
        _write_images(images, root, programs)
        run("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", _IMPORTING, "sh", root, images)
        shutil.rmtree(images)
        say("node image: into the engine")
        import_root(
            engine, root, name, 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]', "ENV container=docker"
        )
    # What an import cannot be told.
    stopping = f"FROM {name}\nSTOPSIGNAL SIGRTMIN+3\n"
    legacy = {**engine.variables, "DOCKER_BUILDKIT": "0"}
    run("docker", "build", "--quiet", "--tag", name, "-", given=stopping, extra=legacy)
    engine.keep_only(name)


def bootstrap(root: Path, packages: tuple[str, ...]) -> None:
    """Debian with these packages in a new directory.

    Raises:
        ClusterError: this user cannot make one, or not on this machine.
    """
    need_packages("mmdebstrap")
    wanted = ",".join(packages)
    skipped = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
    lean = '--aptopt=APT::Install-Recommends "false"'
    options = ["--variant=minbase", f"--include={wanted}", *skipped, lean, "--quiet"]
    run("mmdebstrap", *options, _SUITE, root)


def import_root(engine: Engine, root: Path, name: str, *changes: str) -> None:
    """A directory as an image."""
    options = [word for change in changes for word in ("--change", change)]
    archive = root.parent / "root.tar"
    run("tar", "-C", root, "--numeric-owner", "--xattrs", "--one-file-system", "-cf", archive, ".")
    shutil.rmtree(root)
    engine.docker("import", *options, archive, name)
    archive.unlink()


def _add_kind_files(root: Path) -> None:
    """The entry point, units and settings of kind's base image, from its Go module."""
    source = Path(
        json.loads(run("go", "mod", "download", "-json", f"sigs.k8s.io/kind@{KIND}", extra=environment()))["Dir"]
    )
    files = source / "images/base/files"
    for path in sorted(files.rglob("*")):
        target = root / path.relative_to(files)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        elif "LICENSES" not in path.parts:
            shutil.copyfile(path, target)
            target.chmod(0o755 if "bin" in path.relative_to(files).parts else 0o644)
    _change(root / "etc/systemd/system/containerd.service", "/usr/local/bin/containerd", "/usr/bin/containerd")
    containerd = root / "etc/containerd/config.toml"
    _change(containerd, "restrict_oom_score_adj = false", "restrict_oom_score_adj = true")
    _change(containerd, "SystemdCgroup = true", "SystemdCgroup = false")
    _change(containerd, 'pause:3.10"', f'pause:{PAUSE_TAG}"')
    (root / "kind/version").write_text(KUBERNETES)


def _change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} of kind {KIND} is without {old!r}"
    path.write_text(text.replace(old, new))


def _write_images(directory: Path, root: Path, programs: dict[str, Path]) -> None:
    registry = "registry.k8s.io"
    for program in _COMPONENTS:
        files = {f"usr/local/bin/{program}": programs[program]}
        write_image(directory / f"{program}.tar", name=f"{registry}/{program}:{KUBERNETES}", files=files)
    proxy = {"usr/local/bin/kube-proxy": programs["kube-proxy"], **_with_libraries(root)}
    write_image(directory / "kube-proxy.tar", name=f"{registry}/kube-proxy:{KUBERNETES}", files=proxy)
    etcd = {"usr/local/bin/etcd": programs["etcd"]}
    write_image(directory / "etcd.tar", name=f"{registry}/etcd:{ETCD_TAG}", files=etcd)
    dns = {"coredns": programs["coredns"]}
    name = f"{registry}/coredns/coredns:{DNS_TAG}"
    write_image(directory / "coredns.tar", name=name, files=dns, entrypoint=["/coredns"])
    pause = {"pause": programs["pause"]}
    write_image(directory / "pause.tar", name=f"{registry}/pause:{PAUSE_TAG}", files=pause, entrypoint=["/pause"])
    busybox = root / "bin/busybox"
    applets = run(busybox, "--list").split()
    shell = {f"bin/{applet}": busybox for applet in applets if applet in ("sh", "sleep", "cat", "mv", "ip")}
    write_image(directory / "network.tar", name=NETWORK_IMAGE, files=shell)


def _with_libraries(root: Path) -> dict[str, Path]:
    """The programs that kube-proxy calls, and the libraries that they load."""
    found = {}
    for program in _PROXY_HELPERS:
        listed = run("chroot", root, "ldd", f"/usr/sbin/{program}")
        libraries = [word for word in listed.split() if word.startswith("/")]
        for place in [f"/usr/sbin/{program}", *libraries]:
            found[place.removeprefix("/")] = Path(run("chroot", root, "realpath", place).strip())
    return {place: root / str(path).removeprefix("/") for place, path in found.items()}


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """A directory of this user's cache, which is gone when the block ends; for one process at a time.

    A predecessor that was killed may have left one, and what it started may write there yet: so each has another.
    """
    place = cache() / "making"
    place.mkdir(parents=True, exist_ok=True)
    for left in place.glob(f"{name}-*"):
        shutil.rmtree(left, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=place))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
