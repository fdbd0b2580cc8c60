"""``docs/benchmarks.md`` and its pictures, made of ``results.json`` and ``operator.json``."""

import html
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"

ROWS = [
    ("No-op tasks through a local cluster, log on", "noop_tasks_per_s", "tasks/s", "{:,.0f}"),
    ("The same with the log store `none`", "noop_tasks_per_s_without_log", "tasks/s", "{:,.0f}"),
    ("Log on over log off, median of pairs", "noop_with_log_over_without", "", "{:.2f}"),
    ("Dask, the same machine and run", "dask_tasks_per_s", "tasks/s", "{:,.0f}"),
    ("Ray, the same machine and run", "ray_tasks_per_s", "tasks/s", "{:,.0f}"),
    ("Log: append until durable", "log_append_ops_per_s", "operations/s", "{:,.0f}"),
    ("Log: replay into an ExecutionGraph", "replay_ops_per_s", "operations/s", "{:,.0f}"),
    ("Log: a task's whole life", "log_bytes_per_task", "bytes", "{:.0f}"),
    ("Failover, 1,000 running tasks, 100,000 operations: gap", "failover_gap_ms", "ms", "{:,.0f}"),
    ("The same with 1,000,000 operations and a snapshot", "failover_1m_with_snapshot_gap_ms", "ms", "{:,.0f}"),
    ("A graph of a million subtasks: peak memory", "graph_1m_rss_mb", "MB", "{:,.0f}"),
    ("Cost of a task among 100,000 over one among 1,000", "cost_per_task_100k_over_1k", "", "{:.2f}"),
    ("10,000 TaskManagers: settled after a failover in", "storm_settled_s", "s", "{:.1f}"),
    ("JobManager memory for a TaskManager", "memory_per_taskmanager_kb", "kB", "{:.0f}"),
]

PHASES = [
    ("detect", "#94a3b8", "detect: the dead leader's lease is emptied"),
    ("elect", "#3b82f6", "elect: a standby takes it and claims the epoch"),
    ("replay", "#f59e0b", "replay: the log becomes a graph"),
    ("reconnect", "#22c55e", "reconnect: every TaskManager has found the new leader"),
    ("reconcile", "#14b8a6", "reconcile: every task has its verdict"),
    ("first_decision", "#a855f7", "first decision: a waiting task has been deployed"),
]


def write() -> None:
    """Write the page and the pictures."""
    for name, text in pages(json.loads((HERE / "results.json").read_text())).items():
        (DOCS / name).write_text(text)


def pages(results: dict[str, Any]) -> dict[str, str]:
    """The page and the pictures, by their names in ``docs/``."""
    rates = {
        "flinkjob, log on": ("noop_tasks_per_s", "#2563eb"),
        "flinkjob, log off": ("noop_tasks_per_s_without_log", "#93c5fd"),
        "Ray": ("ray_tasks_per_s", "#94a3b8"),
        "Dask": ("dask_tasks_per_s", "#94a3b8"),
    }
    bars = [(name, [(results[key], colour)]) for name, (key, colour) in rates.items() if results.get(key)]
    gaps = [
        (name, [(max(0.0, results[key][phase]), colour) for phase, colour, _ in PHASES])
        for name, key in (("100,000 operations", "failover"), ("1,000,000 and a snapshot", "failover_1m_with_snapshot"))
    ]
    return {
        "benchmarks.md": _page(results),
        "benchmarks-tasks.svg": _bars("No-op tasks per second", bars, "{:,.0f}"),
        "benchmarks-failover.svg": _bars("A failover with 1,000 running tasks, ms", gaps, "{:,.0f} ms"),
    }


def _page(results: dict[str, Any]) -> str:
    machine = results["machine"]
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench` (`make bench PEERS=--peers` runs Dask and Ray, too) from `benchmarks/results.json`. Figures",
        "are medians. The machine: "
        + f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}, "
        + f"Python {machine['python']}, msgspec {machine['msgspec']}, aiohttp {machine['aiohttp']}; "
        + f"load before the run {machine['load_before']:.1f}. Taken on {machine['at']}, of commit {machine['commit']}.",
        "",
        "| what | figure |",
        "|---|---:|",
    ]
    for label, key, unit, form in ROWS:
        if results.get(key) is not None:
            lines.append(f"| {label} | {form.format(results[key])} {unit} |")
    runs = len(results["noop_tasks_per_s_runs"])
    lines += [
        "",
        f"A run of no-op tasks is {results['noop_tasks']:,} of them on {results['noop_taskmanagers']} TaskManagers with "
        f"{results['noop_slots']} slots in all,",
        f"by the time from the job's start to its end; {runs} pairs of runs, with the log first and without it first in "
        "turn.",
        "",
        "![No-op tasks per second](benchmarks-tasks.svg)",
        "",
    ]
    lines += _failover(results)
    lines += _operator(json.loads((HERE / "operator.json").read_text()))
    return "\n".join(lines).rstrip() + "\n"


def _failover(results: dict[str, Any]) -> list[str]:
    continued, running = results["failover_continued_of"]
    lines = [
        "## A failover, taken apart",
        "",
        f"`kill -9` of the leader while {running:,} tasks run on 50 simulated TaskManagers; {continued:,} of them were",
        "continued in the worst of the kills. Two JobManager processes, a real log and lease on local disk. One task more",
        "ends while nobody leads: the gap is from the death of the old leader until a waiting task is deployed in its place.",
        "",
        "![The phases of a failover](benchmarks-failover.svg)",
        "",
        "| phase | 100,000 operations | 1,000,000 and a snapshot |",
        "|---|---:|---:|",
    ]
    plain, large = results["failover"], results["failover_1m_with_snapshot"]
    for phase, _, text in [*PHASES, ("gap", "", "**gap**")]:
        lines.append(f"| {text} | {plain[phase]:.0f} ms | {large[phase]:.0f} ms |")
    lines.append(f"| gaps of all kills | {_gaps(plain)} ms | {_gaps(large)} ms |")
    return lines


OPERATOR_ROWS = [
    ("From nothing until all run", "settle_s", "s", "{:.0f}"),
    ("The operator's CPU for that", "operator_cpu_s", "s", "{:.1f}"),
    ("API calls for a job", "calls_per_job", "", "{:.0f}"),
    ("API calls for an idle job in a minute", "idle_calls_per_job_minute", "", "{:.1f}"),
    ("The operator's memory", "operator_rss_mb", "MB", "{:.0f}"),
    ("A dead leader's Lease is emptied after, median", "lease_emptied_ms_median", "ms", "{:.0f}"),
    ("A new operator has looked at all", "restart_s", "s", "{:.1f}"),
]


def _operator(results: dict[str, Any]) -> list[str]:
    sizes = [size for size in ("200", "1000") if size in results]
    return [
        "",
        "## The operator",
        "",
        "`make bench-operator`: FlinkJobs on a real kube-apiserver whose nodes and pods kwok plays.",
        "",
        f"| what | {' | '.join(f'{int(size):,} jobs' for size in sizes)} |",
        "|---|" + "---:|" * len(sizes),
        *(
            f"| {label} | {' | '.join(f'{form.format(results[size][key])} {unit}' for size in sizes)} |"
            for label, key, unit, form in OPERATOR_ROWS
        ),
        "",
        f"`make bench-takeover`, on the kind cluster: {results['takeover_s']:.2f} s from the deletion by force of a leader's",
        f"pod to the new leader's first decision (median; the slowest of {len(results['takeover_s_all'])} took "
        f"{max(results['takeover_s_all']):.1f} s).",
    ]


def _gaps(failover: dict[str, Any]) -> str:
    return ", ".join(f"{gap:.0f}" for gap in sorted(run["gap"] for run in failover["runs"]))


def _bars(title: str, bars: list[tuple[str, list[tuple[float, str]]]], form: str) -> str:
    """Horizontal bars, each of one part or several."""
    widest = max((sum(value for value, _ in parts) for _, parts in bars), default=1.0)
    height = 50 + 34 * len(bars)
    rows = []
    for number, (name, parts) in enumerate(bars):
        y, x = 44 + 34 * number, 190.0
        rows.append(f'<text x="180" y="{y + 16}" text-anchor="end" fill="#0f172a">{html.escape(name)}</text>')
        for value, colour in parts:
            width = 420 * value / widest
            rows.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="22" fill="{colour}"/>')
            x += width
        total = form.format(sum(value for value, _ in parts))
        rows.append(f'<text x="{x + 8:.1f}" y="{y + 16}" fill="#475569">{total}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" font-family="system-ui, Helvetica, sans-serif" '
        f'font-size="13"><rect width="720" height="{height}" fill="#fff"/>'
        f'<text x="16" y="26" font-weight="600" fill="#0f172a">{html.escape(title)}</text>{"".join(rows)}</svg>\n'
    )


if __name__ == "__main__":
    write()
