"""docs/reference.md, made of the CustomResourceDefinition."""

from collections.abc import Iterator, Mapping
from typing import Any

HEAD = """\
# FlinkJob reference

`{api}`, kind `FlinkJob`, short name `{short}`. Made from `crds/flinkjobs.yaml` by `make docs`; `kubectl explain
flinkjob.spec` says the same. The options of `spec.flinkConfiguration` are in [options.md](options.md).
"""

COLLAPSED = ("spec.flinkConfiguration", "spec.storage.volume", "spec.modules", "spec.env[]")
"""Objects whose fields are Kubernetes' own, or described elsewhere."""


def reference(crd: Mapping[str, Any]) -> str:
    """The page."""
    spec = crd["spec"]
    (version,) = spec["versions"]
    names = spec["names"]
    schema = version["schema"]["openAPIV3Schema"]
    parts = [HEAD.format(api=f"{spec['group']}/{version['name']}", short=names["shortNames"][0])]
    for part, title in (("spec", "Spec"), ("status", "Status")):
        parts.append(f"\n## {title}\n\n| Field | Type | Default | Meaning |\n| --- | --- | --- | --- |")
        parts += [_row(*field) for field in _fields(schema["properties"][part], part)]
    parts.append("\n\n## What the API server refuses\n\nBeside values of a wrong type or out of range:\n")
    parts += [f"- {message}" for message in _messages(schema)]
    parts.append("\n## Columns of `kubectl get flinkjobs`\n\n| Column | Path | Meaning |\n| --- | --- | --- |")
    parts += [
        f"| {column['name']} | `{column['jsonPath']}` | {column.get('description', '')} |"
        for column in version["additionalPrinterColumns"]
    ]
    return "\n".join(parts).replace("\n\n\n", "\n\n") + "\n"


def _row(path: str, field: Mapping[str, Any], required: bool) -> str:
    meaning = " ".join(field.get("description", "").split()).replace("|", "\\|")
    return f"| `{path}` | {_type(field)} | {_default(field, required)} | {meaning} |"


def _fields(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Each field below a schema, by its path."""
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        yield here, field, name in required
        inner, there = field, here
        while inner.get("type") == "array":
            inner, there = inner["items"], f"{there}[]"
        if there not in COLLAPSED and inner.get("type") == "object":
            yield from _fields(inner, there)


def _type(field: Mapping[str, Any]) -> str:
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}s"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    return str(field.get("type", "any value"))


def _default(field: Mapping[str, Any], required: bool) -> str:
    if required:
        return "needed"
    if "default" not in field or field["default"] in ({}, []):
        return ""
    return f"`{field['default']}`"


def _messages(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """What the rules in CEL answer with, by the field that has them."""
    for rule in schema.get("x-kubernetes-validations", ()):
        where = f"{path}{rule.get('fieldPath', '')}".lstrip(".")
        yield f"`{where or 'metadata'}`: {rule['message']}"
    for name, field in schema.get("properties", {}).items():
        yield from _messages(field, f"{path}.{name}")
    if isinstance(items := schema.get("items"), Mapping):
        yield from _messages(items, f"{path}[]")
