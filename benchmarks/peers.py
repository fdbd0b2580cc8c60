"""The same no-op tasks in Dask and Ray, on this machine, in the same invocation.

Both are installed into an environment of their own below the user's cache, so that the project does not depend on them.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

TASKS = 10_000
RUNS = 3
PACKAGES = {"dask": "dask[distributed]==2026.8.0", "ray": "ray==2.60.0"}

SCRIPTS = {
    "dask": """
import time
from distributed import Client, LocalCluster
def noop(number): return number
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        client.gather(client.map(noop, range(100)))
        began = time.perf_counter()
        client.gather(client.map(noop, range(1000, 1000 + {tasks})))
        print({tasks} / (time.perf_counter() - began))
""",
    "ray": """
import time, ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
@ray.remote
def noop(number): return number
ray.get([noop.remote(number) for number in range(100)])
began = time.perf_counter()
ray.get([noop.remote(number) for number in range({tasks})])
print({tasks} / (time.perf_counter() - began))
ray.shutdown()
""",
}


def peers() -> dict[str, Any]:
    """Tasks a second of each peer that can be had; None of one that cannot."""
    results: dict[str, Any] = {}
    for name, script in SCRIPTS.items():
        runs = []
        try:
            python = _environment(name)
            for _ in range(RUNS):
                child = subprocess.run(
                    [python, "-c", script.format(tasks=TASKS)], capture_output=True, text=True, check=True, timeout=600
                )
                runs.append(float(child.stdout.strip().splitlines()[-1]))
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            print(f"{name} cannot be run here: {error}", file=sys.stderr)
        results[f"{name}_tasks_per_s"] = round(statistics.median(runs)) if runs else None
        results[f"{name}_version"] = PACKAGES[name]
    return results


def _environment(name: str) -> str:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "flinkjob" / f"peer-{PACKAGES[name]}"
    python = cache / "bin" / "python"
    if not (cache / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(cache)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", PACKAGES[name]], check=True)
        (cache / "ready").touch()
    return str(python)


if __name__ == "__main__":
    print(json.dumps(peers(), indent=2))
