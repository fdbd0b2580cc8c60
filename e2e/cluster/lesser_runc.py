"""runc for a machine without CAP_SYS_RESOURCE: asks for no more than this process may give, and hands over to the real one.

An engine asks runc for that capability in privileged containers, for limits above this process's own, and for a better place
before the out-of-memory killer; the kernel refuses all three, and no container starts. This program stands in front of runc.
It changes the description of the container (``create``, ``run``) or of a process in it (``exec``), then becomes runc.
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

RUNC = "/usr/sbin/runc"
CAPABILITY = "CAP_SYS_RESOURCE"
_OPTIONS = {"create": ("--bundle", "-b"), "run": ("--bundle", "-b"), "exec": ("--process", "-p")}


def lessen(process: dict[str, Any]) -> None:
    """Take out of a process's description (OCI runtime specification, ``process``) what this one may not give."""
    for capabilities in process.get("capabilities", {}).values():
        if CAPABILITY in capabilities:
            capabilities.remove(CAPABILITY)
    own = int(Path("/proc/self/oom_score_adj").read_text())
    if "oomScoreAdj" in process:
        process["oomScoreAdj"] = max(process["oomScoreAdj"], own)
    for limit in process.get("rlimits") or []:
        _, hard = resource.getrlimit(getattr(resource, limit["type"]))
        if hard != resource.RLIM_INFINITY:
            limit["hard"] = min(limit["hard"], hard)
            limit["soft"] = min(limit["soft"], limit["hard"])


def described_in(arguments: list[str]) -> tuple[Path, bool] | None:
    """The file that runc is about to read, and whether it describes a whole container; None if it reads none."""
    command = next((word for word in arguments if word in _OPTIONS), None)
    if command is None:
        return None
    options = _OPTIONS[command]
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, _, joined = word.partition("=")
        if name in options:
            path = Path(joined or following)
            return (path / "config.json", True) if command != "exec" else (path, False)
    return None


def main() -> None:
    """See the module."""
    arguments = sys.argv[1:]
    if (found := described_in(arguments)) is not None:
        path, whole = found
        described = json.loads(path.read_text())
        lessen(described["process"] if whole else described)
        path.write_text(json.dumps(described))
    os.execv(RUNC, [RUNC, *arguments])


if __name__ == "__main__":
    main()
