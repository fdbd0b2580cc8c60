"""docs/metrics.md, made of the modules that make the metrics: their calls say name, meaning and labels.

They are read as text, not run: some metrics are there only in rare states, and all have to be in the documentation.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

HEAD = """\
# Metrics

For Prometheus, as text, read off the live state at the moment of a scrape. Names that end in `_total` are counters, those
with `_bucket` (and `_sum`, `_count`) histograms; the rest are gauges. Times are seconds. JobManagers and TaskManagers have
the usual `process_…` metrics, too. The chart brings a ServiceMonitor, a PodMonitor, alerts and a dashboard behind flags
(`metrics.*` in [its values](../charts/flinkjob-operator/README.md)). This page is made by `make docs`.
"""

SOURCES = (
    ("operator", "Operator", "`http://OPERATOR:8080/metrics`", "controller"),
    ("jobmanager", "JobManager", "`http://JOBMANAGER:8081/metrics`; all but the first two are told by the leader alone",
     "jobmanager"),
    ("taskmanager", "TaskManager", "`http://TASKMANAGER:9249/metrics`", "taskmanager"),
)  # fmt: skip

_KINDS = {
    "_gauge": "",
    "GaugeMetricFamily": "",
    "Gauge": "",
    "_counter": "_total",
    "CounterMetricFamily": "_total",
    "Counter": "_total",
    "HistogramMetricFamily": "_bucket",
    "Histogram": "_bucket",
}


@dataclass(frozen=True, slots=True, order=True)
class Documented:
    """A metric: its full name, labels and meaning."""

    name: str
    labels: tuple[str, ...]
    meaning: str


def metrics() -> str:
    """The page."""
    parts = [HEAD]
    for component, title, where, room in SOURCES:
        parts.append(f"\n## {title}\n\n{where}\n\n| Metric | Labels | Meaning |\n| --- | --- | --- |")
        for metric in documented(component, room):
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            parts.append(f"| `{metric.name}` | {labels} | {metric.meaning} |")
    return "\n".join(parts).replace("\n\n\n", "\n\n") + "\n"


def documented(component: str, room: str) -> list[Documented]:
    """The metrics that a module makes, in its order."""
    source = ROOT / "operator" / "flinkjob" / room / "metrics.py"
    calls = (node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Call))
    found = [(call.lineno, metric) for call in calls for metric in _made(call, f"flinkjob_{component}_")]
    return list(dict.fromkeys(metric for _, metric in sorted(found)))


def _made(call: ast.Call, prefix: str) -> Iterator[Documented]:
    kind = call.func.id if isinstance(call.func, ast.Name) else ""
    if kind not in _KINDS or len(call.args) < 2:
        return
    name, meaning = _text(call.args[0]), _text(call.args[1])
    if not name or not meaning:
        return  # a helper that hands its own arguments on
    labels = next((keyword.value for keyword in call.keywords if keyword.arg in ("labels", "labelnames")), None)
    if labels is None and len(call.args) > 2:
        labels = call.args[2]
    named = tuple(_text(label) for label in labels.elts) if isinstance(labels, ast.List) else ()
    if _KINDS[kind] == "_bucket":
        named = (*named, "le")
    yield Documented(f"{prefix}{name.strip('_')}{_KINDS[kind]}", named, meaning)


def _text(node: ast.expr) -> str:
    """What is constant in an expression; the prefix before it is not."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.BinOp(op=ast.Add(), right=right):
            return _text(right)
        case ast.JoinedStr(values=values):
            return "".join(_text(value) for value in values)
    return ""
