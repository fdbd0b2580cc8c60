"""A pod template is merged as kubectl merges a strategic patch."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.controller.merging import merge

CONTAINER = {
    "name": "jobmanager",
    "image": "a",
    "env": [{"name": "A", "value": "1"}],
    "resources": {"requests": {"cpu": "1"}},
}
BASE: dict[str, Any] = {
    "spec": {"containers": [CONTAINER], "volumes": [{"name": "tmp", "emptyDir": {}}], "nodeSelector": {"a": "b"}}
}


@pytest.mark.parametrize(
    ("patch", "where", "result"),
    [
        ({"nodeSelector": {"c": "d"}}, "nodeSelector", {"a": "b", "c": "d"}),
        ({"nodeSelector": None}, "nodeSelector", None),
        ({"containers": [{"name": "jobmanager", "image": "b"}]}, "containers", [{**CONTAINER, "image": "b"}]),
        ({"containers": [{"name": "sidecar"}]}, "containers", [CONTAINER, {"name": "sidecar"}]),
        (
            {"containers": [{"name": "jobmanager", "env": [{"name": "B"}, {"name": "A", "valueFrom": {}}]}]},
            "containers",
            [{**CONTAINER, "env": [{"name": "A", "valueFrom": {}}, {"name": "B"}]}],
        ),
        (
            {"containers": [{"name": "jobmanager", "resources": {"limits": {"cpu": "2"}}}]},
            "containers",
            [{**CONTAINER, "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}],
        ),
        (
            {"volumes": [{"name": "tmp", "ephemeral": {}}, {"name": "x", "secret": {}}]},
            "volumes",
            [{"name": "tmp", "ephemeral": {}}, {"name": "x", "secret": {}}],
        ),
        (
            {"tolerations": [{"key": "gpu", "operator": "Exists"}]},
            "tolerations",
            [{"key": "gpu", "operator": "Exists"}],
        ),
        (
            {"containers": [{"name": "jobmanager", "command": ["a", "b"]}]},
            "containers",
            [{**CONTAINER, "command": ["a", "b"]}],
        ),
    ],
)
def test_a_patch_is_laid_over(patch: dict[str, Any], where: str, result: Any) -> None:
    assert merge(BASE, {"spec": patch})["spec"].get(where) == result


PLAIN = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("abc"), PLAIN), st.dictionaries(st.sampled_from("abc"), PLAIN))
def test_merging_twice_is_merging_once_and_changes_neither(base: dict[str, Any], patch: dict[str, Any]) -> None:
    before = (repr(base), repr(patch))
    once = merge(base, patch)
    assert merge(once, patch) == once
    assert merge(base, {}) == base
    assert (repr(base), repr(patch)) == before
