"""The table of values in the chart's README, made of the comments in values.yaml: ``python -m chart.readme`` writes it."""

import json
import re
import sys

import yaml

from chart.helm import CHART

BEGIN, END = "<!-- values: written by `make chart` -->", "<!-- end of values -->"


def documented_values(text: str) -> list[tuple[str, str, str]]:
    """Key, meaning and default of each value that has a comment beginning with ``# --``, in order."""
    values, rows = yaml.safe_load(text), []
    path: list[tuple[int, str]] = []
    meaning: list[str] = []
    for line in text.splitlines():
        content = line.strip()
        indent = len(line) - len(line.lstrip())
        if content.startswith("# -- "):
            meaning = [content.removeprefix("# -- ")]
        elif content.startswith("#") and meaning:
            meaning.append(content.removeprefix("#").strip())
        elif key := re.match(r"([A-Za-z]\w*):", content):
            path = [*(step for step in path if step[0] < indent), (indent, key[1])]
            if meaning:
                names = [name for _, name in path]
                rows.append((".".join(names), " ".join(meaning), _shown(values, names)))
            meaning = []
    return rows


def _shown(values: object, names: list[str]) -> str:
    for name in names:
        assert isinstance(values, dict)
        values = values[name]
    return f"`{json.dumps(values)}`"


def table(rows: list[tuple[str, str, str]]) -> str:
    """The rows in Markdown."""
    cells = [("Value", "Meaning", "Default"), ("---", "---", "---"), *((f"`{key}`", *rest) for key, *rest in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)


def with_table(readme: str, values: str) -> str:
    """The README with the table between its two marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(documented_values(values))}\n{END}{after}"


def main() -> int:
    """Write it."""
    readme = CHART / "README.md"
    readme.write_text(with_table(readme.read_text(), (CHART / "values.yaml").read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
