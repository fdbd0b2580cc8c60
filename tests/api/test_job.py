"""The values of a job check themselves when they are made in Python, too."""

import pytest

from flinkjob.api.errors import InvalidManifest
from flinkjob.api.fields import FieldError, render_path
from flinkjob.api.job import MAX_PARALLELISM, Exchange, InputSpec, JobSpec, SplitsSpec, TaskSpec, VertexSpec

TASK = TaskSpec(python="m:f")


@pytest.mark.parametrize("name", ["a", "0", "count", "a-b_c.d", "a" * 63])
def test_a_good_name_is_taken(name: str) -> None:
    assert VertexSpec(name=name, task=TASK).name == name


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", ".", "a b", "a\n", "é", "a" * 64])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(FieldError, match=r"^name: .* is not a vertex name: at most 63 lower-case letters"):
        VertexSpec(name=name, task=TASK)


def test_parallelism_has_flinks_bounds() -> None:
    assert VertexSpec(name="a", task=TASK, parallelism=MAX_PARALLELISM).parallelism == 32768
    for parallelism in (0, -1, MAX_PARALLELISM + 1):
        with pytest.raises(FieldError, match=f"^parallelism: {parallelism} is not between 1 and 32768$"):
            VertexSpec(name="a", task=TASK, parallelism=parallelism)


@pytest.mark.parametrize("reference", ["m:f", "a.b.c:d", "a:B.method", "_a:_b"])
def test_a_function_is_named_by_module_and_name(reference: str) -> None:
    assert TaskSpec(python=reference).python == reference


@pytest.mark.parametrize(
    "reference", ["", ":", "m", "m:", ":f", "m:f:g", "m.:f", "a b:c", "../m:f", "m:f()", "m.py:f-"]
)
def test_what_names_no_function_is_refused(reference: str) -> None:
    for make in (lambda: TaskSpec(python=reference), lambda: SplitsSpec(python=reference)):
        with pytest.raises(FieldError, match=r"^python: .* is not of the form module:function$"):
            make()
    with pytest.raises(FieldError, match=r"^entrypoint: .* is not of the form module:function$"):
        JobSpec(entrypoint=reference)


def test_two_vertices_of_one_name_are_refused() -> None:
    vertices = tuple(VertexSpec(name=name, task=TASK) for name in ("a", "b", "a"))
    with pytest.raises(FieldError, match=r"^vertices\[2\]\.name: 'a' is already the name of vertices\[0\]$"):
        JobSpec(vertices=vertices)


def test_splits_beside_inputs_are_refused() -> None:
    with pytest.raises(FieldError, match=r"^splits: is only for a vertex without inputs$"):
        VertexSpec(name="a", task=TASK, inputs=(InputSpec(source="b"),), splits=SplitsSpec(files=("x",)))


def test_only_blocking_exchanges_exist_and_a_pipelined_one_is_explained() -> None:
    assert list(Exchange) == [Exchange("blocking")]
    with pytest.raises(FieldError, match="'pipelined' is not supported: every exchange of a batch job is blocking"):
        Exchange("pipelined")
    with pytest.raises(ValueError, match="hybrid"):
        Exchange("hybrid")


def test_a_refusal_gains_its_path_from_the_inside_out() -> None:
    refusal = FieldError("is wrong", "python").under("task").under("vertices", 1)
    assert str(refusal) == "vertices[1].task.python: is wrong"
    assert isinstance(refusal, InvalidManifest)
    assert str(FieldError("is wrong")) == "is wrong"


def test_a_path_quotes_what_is_no_plain_name() -> None:
    assert render_path(("labels", "app.kubernetes.io/name")) == "labels['app.kubernetes.io/name']"
    assert render_path(("a-b", 0, 1, "c")) == "a-b[0][1].c"
