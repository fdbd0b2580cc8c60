"""The CustomResourceDefinition and the typed values say the same, and the committed files are what the generator makes."""

import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from api.manifests import SAMPLE, WRONG, changed
from flinkjob.api.crd import custom_resource_definition
from flinkjob.api.errors import InvalidInput
from flinkjob.api.options import OPTIONS
from flinkjob.api.status import LEADER_FIELDS, OPERATOR_FIELDS
from flinkjob.cli.crd import crd_text
from flinkjob.controller.target import OperatorSettings, resolve

ROOT = Path(__file__).parents[2]
SCHEMA: dict[str, Any] = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


@pytest.mark.parametrize("path", ["crds/flinkjobs.yaml", "charts/flinkjob-operator/files/flinkjobs.yaml"])
def test_the_committed_file_is_what_the_generator_makes(path: str) -> None:
    assert (ROOT / path).read_text() == crd_text(), "run `make crd`"


def test_the_file_reads_as_the_definition() -> None:
    assert yaml.safe_load(crd_text()) == custom_resource_definition()


def test_what_the_api_server_refuses_the_typed_values_refuse_too() -> None:
    def accepted(manifest: dict[str, Any]) -> bool:
        try:
            resolve(manifest, OperatorSettings(image="flinkjob:1"))
        except InvalidInput:
            return False
        return True

    assert accepted(copy.deepcopy(SAMPLE))
    assert [path for path, value, _ in WRONG if accepted(changed(SAMPLE, path, value))] == []


def test_every_field_is_described() -> None:
    def missing(schema: dict[str, Any], path: str) -> list[str]:
        found = []
        for name, below in schema.get("properties", {}).items():
            if "description" not in below and path.count(".") < 6 and name not in ("metadata", "kind", "apiVersion"):
                found.append(f"{path}.{name}")
            found += missing(below, f"{path}.{name}")
        if "items" in schema:
            found += missing(schema["items"], f"{path}[]")
        return found

    volumes = (".spec.storage.volume.", ".spec.modules.", ".spec.env[]")
    assert [path for path in missing(SCHEMA, "") if not path.startswith(volumes)] == []


def test_every_option_is_in_the_schema() -> None:
    assert list(SCHEMA["properties"]["spec"]["properties"]["flinkConfiguration"]["properties"]) == list(OPTIONS)


def test_every_field_of_the_status_has_one_writer() -> None:
    assert set(SCHEMA["properties"]["status"]["properties"]) == LEADER_FIELDS | OPERATOR_FIELDS
    assert not LEADER_FIELDS & OPERATOR_FIELDS


def test_the_definition_is_plain_values() -> None:
    assert msgspec.json.decode(msgspec.json.encode(custom_resource_definition())) == custom_resource_definition()
