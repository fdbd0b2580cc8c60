"""``make bench``: run the benchmarks, write ``results.json``, and make ``docs/benchmarks.md`` of it.

``bench.py [NAME ...]`` runs the named ones only, and keeps what ``results.json`` has of the others. ``--peers`` also runs
Dask and Ray, from an environment of their own.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import clusterbench
import corebench
import peers
import report
import taskbench

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"

BENCHMARKS: dict[str, Callable[[], dict[str, Any]]] = {
    "tasks": taskbench.tasks,
    **corebench.BENCHMARKS,
    **clusterbench.BENCHMARKS,
}


def machine() -> dict[str, Any]:
    """What the figures were taken on, and when, and of what."""
    memory_kb = next(int(x.split()[1]) for x in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in x)
    cpus = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    return {
        "cpu": cpus[0].partition(":")[2].strip() if cpus else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory_kb / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("msgspec", "aiohttp")},
        "load_before": round(os.getloadavg()[0], 1),
        "at": time.strftime("%Y-%m-%d"),
        "commit": _commit(),
    }


def _commit() -> str:
    """Empty where this is no checkout."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False).stdout.strip()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--peers", action="store_true", help="run Dask and Ray beside the tasks benchmark")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["machine"] = machine()
    for name in options.names or BENCHMARKS:
        began = time.perf_counter()
        print(f"{name} …", end=" ", flush=True, file=sys.stderr)
        results.update(BENCHMARKS[name]())
        print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    if options.peers:
        results.update(peers.peers())
    RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
    report.write()


if __name__ == "__main__":
    main()
