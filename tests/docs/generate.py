"""Writes the pages of docs/ that are made of something else: ``python -m docs.generate``."""

import json
from pathlib import Path

import report
import yaml

from docs.metrics import metrics
from docs.reference import reference
from flinkjob.api.options import options_table

ROOT = Path(__file__).parents[2]


def pages() -> dict[str, str]:
    """Each page by its name in docs/."""
    crd = yaml.safe_load((ROOT / "crds" / "flinkjobs.yaml").read_text(encoding="utf-8"))
    figures = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    return {
        "options.md": options_table(),
        "reference.md": reference(crd),
        "metrics.md": metrics(),
        **report.pages(figures),
    }


if __name__ == "__main__":
    for name, text in pages().items():
        (ROOT / "docs" / name).write_text(text, encoding="utf-8")
