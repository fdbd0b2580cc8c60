"""No-op tasks through a real local cluster: processes, connections, the log, everything but work.

``taskbench.py SLOTS RUNS`` prints the same for another number of slots of each TaskManager, and of pairs of runs.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

VERTICES = 8
PARALLELISM = 30_000
TASKS = VERTICES * PARALLELISM
"""So many that the start of the processes does not count for much."""
TASKMANAGERS = 2
SLOTS = 64
RUNS = 7

MANIFEST = f"""
apiVersion: flinkjob.io/v1alpha1
kind: FlinkJob
metadata: {{name: noop}}
spec:
  taskManager: {{replicas: {TASKMANAGERS}}}
  job:
    vertices:
"""
VERTEX = '      - {name: noop%d, parallelism: %d, task: {python: "noop:noop"}}\n'


def _run(directory: Path, store: str, slots: int) -> float:
    """Tasks a second, from the start of the job to its end."""
    command = [sys.executable, "-m", "flinkjob", "run", str(directory / "noop.yaml"), "--output", "json"]
    command += ["--slots", str(slots), "--set", f"jobmanager.failover.operation-log-store={store}"]
    child = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    report = json.loads(child.stdout)
    return float(report["tasks"]["finished"] / (report["job"]["duration_ms"] / 1000))


def tasks(slots: int = SLOTS, runs: int = RUNS) -> dict[str, Any]:
    """With the log and without it, in turn, so that both see the same machine."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        vertices = "".join(VERTEX % (number, PARALLELISM) for number in range(VERTICES))
        (directory / "noop.yaml").write_text(MANIFEST + vertices)
        (directory / "noop.py").write_text("def noop(context):\n    pass\n")
        _run(directory, "none", slots)
        rates: dict[str, list[float]] = {"filesystem": [], "none": []}
        for number in range(runs):
            # Each comes first in every other pair: a machine that grows faster or slower is to favour neither.
            for store in sorted(rates, reverse=bool(number % 2)):
                rates[store].append(_run(directory, store, slots))
    with_log, without = rates["filesystem"], rates["none"]
    return {
        "noop_tasks": TASKS,
        "noop_taskmanagers": TASKMANAGERS,
        "noop_slots": TASKMANAGERS * slots,
        "noop_tasks_per_s": round(statistics.median(with_log)),
        "noop_tasks_per_s_runs": [round(one) for one in with_log],
        "noop_tasks_per_s_without_log": round(statistics.median(without)),
        "noop_tasks_per_s_without_log_runs": [round(one) for one in without],
        "noop_with_log_over_without": round(
            statistics.median(a / b for a, b in zip(with_log, without, strict=True)), 3
        ),
    }


if __name__ == "__main__":
    print(json.dumps(tasks(*map(int, sys.argv[1:])), indent=2))
