"""The project's image, as its Dockerfile says, also where nothing can be fetched while it is built.

There the base is Debian with Python, made from packages, and the wheels that the locks name are fetched beforehand and sent
along. Both are kept: the base by its digest in the engine, the wheels by the locks' digest in the cache.
"""

import hashlib
import io
import sys
import tarfile
from pathlib import Path

from cluster.commands import run
from cluster.engine import Engine
from cluster.kindcluster import Cluster
from cluster.nodeimage import bootstrap, import_root, scratch
from cluster.tools import architecture, cache, fresh, locked, say, told

ROOT = Path(__file__).parents[2]
IMAGE = "flinkjob:e2e"
_LOCKS = ("requirements-image.lock", "requirements-build.lock")
_SENT = ("Dockerfile", "LICENSE", "README.md", "pyproject.toml", "operator/flinkjob", *_LOCKS)
"""What of the repository the Dockerfile copies."""

_BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates", "tzdata")
_BASE_PYTHON = "3.11"
# What a base for running one program has no use for.
_SLIMMING = r"""
dpkg --purge --force-depends $(dpkg-query --show --showformat '${Package} ' perl 'perl-modules-*' 'libperl5*' || true)
rm -rf /var/cache/* /var/log/* /usr/lib/*-linux-gnu/gconv /usr/share/bash-completion
find / -xdev -name __pycache__ -type d -prune -exec rm -rf {} +
"""


def load_project(cluster: Cluster) -> str:
    """Build the project's image and bring it to the cluster's nodes.

    Returns:
        Its name there.

    Raises:
        ClusterError: it cannot be built.
    """
    build_project(cluster.engine, pulls=cluster.pulls)
    cluster.load(IMAGE)
    return IMAGE


def build_project(engine: Engine, *, pulls: bool) -> str:
    """Build the project's image in an engine, under the name `IMAGE`.

    Args:
        pulls: whether what the Dockerfile asks for can be fetched.
    """
    arguments, wheels = ([], None) if pulls else (["--build-arg", f"BASE={base_image(engine)}"], wheel_directory())
    say("image: being built")
    # The older builder is the one that every engine has.
    legacy = {**engine.variables, "DOCKER_BUILDKIT": "0"}
    building = ["docker", "build", "--quiet", "--force-rm", "--tag", IMAGE, *arguments, "-"]
    with told("image"):
        run(*building, given=_context(wheels), extra=engine.variables if pulls else legacy, timeout=1200)
    if engine.own:
        # What a build leaves makes the next one short, for a while; in a developer's engine it is his affair.
        engine.docker("image", "prune", "--force", "--filter", "until=48h")
    return IMAGE


def base_image(engine: Engine) -> str:
    """Debian with Python, and nothing that the project does not need; made if it is not there."""
    made_of = f"{Path(__file__).name} {_BASE_PACKAGES} {_SLIMMING}".encode()
    name = f"flinkjob/python:{hashlib.sha256(made_of).hexdigest()[:10]}"
    with locked("base-image"):
        if not engine.has_image(name):
            say("image: its base, Debian with Python, from packages")
            with told("image: its base"), scratch("python") as place:
                root = place / "root"
                bootstrap(root, _BASE_PACKAGES)
                run("chroot", root, "sh", "-ec", _SLIMMING)
                import_root(engine, root, name, 'CMD ["python3"]', "ENV LANG=C.UTF-8")
            engine.keep_only(name)
    return name


def wheel_directory() -> Path:
    """All that the locks name, for the base's Python; fetched if it is not there."""
    locks = [ROOT / lock for lock in _LOCKS]
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()[:10]
    directory = cache() / "wheels" / digest
    with locked("wheels"):
        if not directory.exists():
            say("image: the wheels that it needs")
            machine = {"amd64": "x86_64", "arm64": "aarch64"}[architecture()]
            platforms = [f"--platform={name}_{machine}" for name in _PLATFORMS]
            python = [f"--python-version={_BASE_PYTHON}", "--implementation=cp", "--only-binary=:all:", *platforms]
            fetching = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", *python]
            with told("image: the wheels"), fresh(directory) as partial:
                for lock in locks:
                    run(*fetching, "--dest", partial, "--requirement", lock)
    return directory


_PLATFORMS = (
    *(f"manylinux_2_{minor}" for minor in (36, 35, 34, 31, 28, 27, 26, 24, 17, 12, 5)),
    "manylinux2014",
    "linux",
)
"""What runs on the base's C library, newest first."""


def _context(wheels: Path | None) -> bytes:
    """What is sent to the builder, as a tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in _SENT:
            tar.add(ROOT / name, name, filter=_without_caches)
        if wheels is not None:
            tar.add(wheels, "wheels")
    return buffer.getvalue()


def _without_caches(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    info.mtime = 0
    return None if info.name.endswith("__pycache__") else info
