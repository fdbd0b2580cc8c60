"""A manifest becomes a typed FlinkJob, or one sentence that names the field."""

import contextlib
import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.api import options
from flinkjob.api.errors import InvalidInput, InvalidManifest, InvalidOption
from flinkjob.api.flinkjob import decode_manifest, parse_manifest
from flinkjob.api.job import Exchange, InputSpec, Partitioner, SplitsSpec, TaskSpec, VertexSpec

WORDCOUNT = """
apiVersion: flinkjob.io/v1alpha1
kind: FlinkJob
metadata: {name: wordcount}
spec:
  flinkConfiguration: {jobmanager.failover.operation-log-store: filesystem, heartbeat.timeout: 10 s}
  jobManager: {replicas: 2}
  taskManager: {replicas: 2, taskSlots: 2}
  job:
    vertices:
      - name: tokenize
        parallelism: 8
        task: {python: "wordcount:tokenize", args: {lower: true}}
        splits: {files: "/usr/lib/python3/**/*.py", maxSplitSize: 64 kb}
      - name: count
        parallelism: 4
        task: {python: "wordcount:count"}
        inputs: [{from: tokenize, partitioner: hash, exchange: blocking}]
      - name: report
        task: {command: ["sh", "-c", "sort -rn part | head"]}
        inputs: [{from: count, partitioner: rebalance}]
"""

MINIMAL = """
apiVersion: flinkjob.io/v1alpha1
kind: FlinkJob
metadata: {name: minimal}
spec: {job: {entrypoint: "jobs.nightly:build"}}
"""

VERTEX = "spec.job.vertices[0]"


def test_the_sample_manifest_is_accepted_as_it_is_meant() -> None:
    job = parse_manifest(WORDCOUNT)
    assert job.metadata.name == "wordcount"
    assert job.metadata.namespace == "default"
    assert (job.spec.job_manager.replicas, job.spec.task_manager.replicas) == (2, 2)
    assert job.spec.job.vertices == (
        VertexSpec(
            name="tokenize",
            parallelism=8,
            task=TaskSpec(python="wordcount:tokenize", args={"lower": True}),
            splits=SplitsSpec(files=("/usr/lib/python3/**/*.py",), max_split_size=65_536),
        ),
        VertexSpec(
            name="count",
            parallelism=4,
            task=TaskSpec(python="wordcount:count"),
            inputs=(InputSpec(source="tokenize", partitioner=Partitioner.HASH, exchange=Exchange.BLOCKING),),
        ),
        VertexSpec(
            name="report",
            task=TaskSpec(command=("sh", "-c", "sort -rn part | head")),
            inputs=(InputSpec(source="count"),),
        ),
    )
    filled = job.spec.configuration.with_defaults({"high-availability.storageDir": "/state"})
    filled.validate()
    assert filled.get(options.HEARTBEAT_TIMEOUT) == 10_000
    assert filled.get(options.NUMBER_OF_TASK_SLOTS) == 2


def test_what_is_left_out_has_its_default() -> None:
    job = parse_manifest(MINIMAL)
    assert job.spec.job.entrypoint == "jobs.nightly:build"
    assert job.spec.job.vertices is None
    assert (job.spec.job_manager.replicas, job.spec.task_manager.replicas) == (1, 1)
    assert job.spec.configuration.get(options.NUMBER_OF_TASK_SLOTS) == 1
    assert job.spec.configuration.to_mapping() == {}


@pytest.mark.parametrize("text", [WORDCOUNT, MINIMAL])
def test_a_job_as_plain_values_decodes_to_itself(text: str) -> None:
    job = parse_manifest(text)
    assert decode_manifest(msgspec.to_builtins(job)) == job


def test_a_job_spec_survives_msgpack() -> None:
    spec = parse_manifest(WORDCOUNT).spec
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=type(spec)) == spec


def test_what_kubernetes_adds_is_accepted() -> None:
    resource: dict[str, Any] = msgspec.to_builtins(parse_manifest(WORDCOUNT))
    resource["metadata"] |= {
        "uid": "b2a1f0de-1111-4222-8333-444455556666",
        "labels": {"app.kubernetes.io/name": "wordcount"},
        "generation": 3,
        "generateName": "w",
        "resourceVersion": "17",
        "creationTimestamp": "2024-01-01T00:00:00Z",
        "managedFields": [{"manager": "kubectl"}],
        "finalizers": [],
    }
    resource["status"] = {"anything": ["at", "all"]}
    job = decode_manifest(resource)
    assert job.metadata.uid == "b2a1f0de-1111-4222-8333-444455556666"
    assert job.metadata.labels == {"app.kubernetes.io/name": "wordcount"}
    assert job.spec == parse_manifest(WORDCOUNT).spec


def test_an_empty_field_is_as_good_as_none() -> None:
    text = MINIMAL.replace("spec: {", "spec: {jobManager: , flinkConfiguration: ~, ")
    assert parse_manifest(text) == parse_manifest(MINIMAL)


def test_options_may_be_any_scalar() -> None:
    configuration = {
        "taskmanager.numberOfTaskSlots": 3,
        "restart-strategy.exponential-delay.backoff-multiplier": 2.5,
        "restart-strategy.type": False,
    }
    resource = msgspec.to_builtins(parse_manifest(MINIMAL))
    resource["spec"]["flinkConfiguration"] = configuration
    read = decode_manifest(resource).spec.configuration
    assert read.get(options.NUMBER_OF_TASK_SLOTS) == 3
    assert read.get(options.EXPONENTIAL_DELAY_MULTIPLIER) == 2.5
    assert read.get(options.RESTART_STRATEGY) is options.RestartStrategyType.DISABLE


def test_slots_may_be_said_twice_alike() -> None:
    text = WORDCOUNT.replace("heartbeat.timeout: 10 s", "taskmanager.numberOfTaskSlots: 2")
    assert parse_manifest(text).spec.configuration.get(options.NUMBER_OF_TASK_SLOTS) == 2


def test_several_patterns_are_taken() -> None:
    text = WORDCOUNT.replace('files: "/usr/lib/python3/**/*.py"', "files: [a/*.txt, b/*.txt]")
    vertices = parse_manifest(text).spec.job.vertices
    assert vertices is not None
    assert vertices[0].splits == SplitsSpec(files=("a/*.txt", "b/*.txt"), max_split_size=65_536)


WRONG = [
    # what is replaced in the sample, by what, and what the message says
    ("apiVersion: flinkjob.io/v1alpha1", "", "apiVersion: is missing: flinkjob.io/v1alpha1 is needed here"),
    ("v1alpha1", "v2", "apiVersion: 'flinkjob.io/v2' is not flinkjob.io/v1alpha1"),
    ("kind: FlinkJob", "kind: FlinkDeployment", "kind: 'FlinkDeployment' is not FlinkJob"),
    ("kind: FlinkJob", "kind:", "kind: is missing: FlinkJob is needed here"),
    (
        "kind: FlinkJob",
        "kind: FlinkJob\nspecs: {}",
        "unknown field 'specs' (did you mean 'spec'?); allowed: apiVersion",
    ),
    ("metadata: {name: wordcount}", "", "metadata: is missing: a mapping is needed here"),
    ("{name: wordcount}", "{}", "metadata.name: is missing: a string is needed here"),
    ("{name: wordcount}", "[wordcount]", "metadata: expected a mapping, got a list"),
    ("{name: wordcount}", "{name: 42}", "metadata.name: expected a string, got the number 42; quote it"),
    ("{name: wordcount}", "{name: Word_Count}", "metadata.name: 'Word_Count' is not a DNS-1123 label"),
    ("{name: wordcount}", "{name: " + "a" * 64 + "}", "is not a DNS-1123 label: 1 to 63"),
    ("{name: wordcount}", "{name: a, namespace: -a}", "metadata.namespace: '-a' is not a DNS-1123 label"),
    ("{name: wordcount}", "{name: a, namspace: b}", "metadata: unknown field 'namspace' (did you mean 'namespace'?)"),
    ("{name: wordcount}", "{name: a, uid: ../../etc}", "metadata.uid: '../../etc' is not a uid"),
    ("{name: wordcount}", "{name: a, labels: {x/y: 1}}", "metadata.labels['x/y']: expected a string, got the number 1"),
    ("jobManager: {replicas: 2}", "jobmanager: {}", "spec: unknown field 'jobmanager' (did you mean 'jobManager'?)"),
    ("jobManager: {replicas: 2}", "zzz: {}", "allowed: flinkConfiguration, image, imagePullPolicy, "),
    ("jobManager: {replicas: 2}", "jobManager: 2", "spec.jobManager: expected a mapping, got the number 2"),
    ("jobManager: {replicas: 2}", "jobManager: {replicas: 0}", "spec.jobManager.replicas: 0 is less than 1"),
    (
        "jobManager: {replicas: 2}",
        "jobManager: {replicas: '2'}",
        "replicas: expected a whole number, got the string '2'",
    ),
    ("jobManager: {replicas: 2}", "jobManager: {replicas: yes}", "replicas: expected a whole number, got true"),
    ("replicas: 2, taskSlots: 2", "replicas: -1", "spec.taskManager.replicas: -1 is less than 1"),
    ("taskSlots: 2", "taskSlots: 0", "spec.taskManager.taskSlots: 0 is less than 1"),
    ("taskSlots: 2", "taskSlots: 1.5", "spec.taskManager.taskSlots: expected a whole number, got the number 1.5"),
    ("taskSlots: 2", "slots: 2", "spec.taskManager: unknown field 'slots' (did you mean 'taskSlots'?)"),
    (
        "heartbeat.timeout: 10 s",
        "taskmanager.numberOfTaskSlots: 4",
        "spec.taskManager.taskSlots: 2 contradicts taskmanager.numberOfTaskSlots: 4 in flinkConfiguration",
    ),
    ("heartbeat.timeout: 10 s", "heartbeat.timeout: [1]", "spec.flinkConfiguration['heartbeat.timeout']: expected"),
    (
        "heartbeat.timeout: 10 s",
        "heartbeat.timeout:",
        "['heartbeat.timeout']: expected a string, a whole number, a number or",
    ),
    ("heartbeat.timeout: 10 s", "heartbeat.timeout: 10 x", "spec.flinkConfiguration: heartbeat.timeout: '10 x' has"),
    (
        "heartbeat.timeout: 10 s",
        "heartbeat.timout: 1",
        "spec.flinkConfiguration: unknown option 'heartbeat.timout' (did",
    ),
    ("store: filesystem", "store: memory", "operation-log-store: 'memory' is not one of none, filesystem"),
    ("name: tokenize", "name: Tokenize", f"{VERTEX}.name: 'Tokenize' is not a vertex name: at most 63 lower-case"),
    ("name: tokenize", "name: tokenize-", f"{VERTEX}.name: 'tokenize-' is not a vertex name"),
    ("name: tokenize", f"name: {'t' * 64}", f"{VERTEX}.name: '{'t' * 64}' is not a vertex name"),
    ("name: tokenize", "nam: tokenize", f"{VERTEX}: unknown field 'nam' (did you mean 'name'?); allowed: name, paral"),
    ("name: count", "name: tokenize", "vertices[1].name: 'tokenize' is already the name of vertices[0]"),
    ("parallelism: 8", "parallelism: 0", f"{VERTEX}.parallelism: 0 is not between 1 and 32768"),
    ("parallelism: 8", "parallelism: 32769", f"{VERTEX}.parallelism: 32769 is not between 1 and 32768"),
    ("parallelism: 8", "parallelism: eight", f"{VERTEX}.parallelism: expected a whole number, got the string 'eight'"),
    ('"wordcount:tokenize"', '"wordcount.tokenize"', f"{VERTEX}.task.python: 'wordcount.tokenize' is not of the form"),
    (
        '"wordcount:tokenize"',
        '"word-count:tokenize"',
        f"{VERTEX}.task.python: 'word-count:tokenize' is not of the form",
    ),
    ('"wordcount:tokenize"', '"wordcount:"', f"{VERTEX}.task.python: 'wordcount:' is not of the form module:function"),
    (
        'python: "wordcount:tokenize"',
        "command: [x], python: 'a:b'",
        f"{VERTEX}.task: needs exactly one of python, comm",
    ),
    ('python: "wordcount:tokenize"', "command: [sh]", f"{VERTEX}.task.args: is only for a python task"),
    ('python: "wordcount:tokenize", ', "", f"{VERTEX}.task: needs exactly one of python, command"),
    ("args: {lower: true}", "args: [lower]", f"{VERTEX}.task.args: expected a mapping, got a list"),
    ("args: {lower: true}", "env: {A: b}", f"{VERTEX}.task.env: is only for a command"),
    ("args: {lower: true}", "arg: {}", f"{VERTEX}.task: unknown field 'arg' (did you mean 'args'?)"),
    (
        '["sh", "-c", "sort -rn part | head"]',
        "sort",
        "vertices[2].task.command: expected a list, got the string 'sort'",
    ),
    ('["sh", "-c", "sort -rn part | head"]', "[]", "vertices[2].task.command: needs the program to run"),
    (
        '["sh", "-c", "sort -rn part | head"]',
        "[sleep, 5]",
        "task.command[1]: expected a string, got the number 5; quote",
    ),
    ('["sh", "-c", "sort -rn part | head"]', '["a", "\\0"]', "task.command[1]: a program's argument cannot hold a NUL"),
    ('head"]}', 'head"], env: {A: 1}}', "vertices[2].task.env.A: expected a string, got the number 1; quote it"),
    ('head"]}', 'head"], env: {A=B: x}}', "vertices[2].task.env: 'A=B' is not the name of an environment variable"),
    ('head"]}', 'head"], env: {A: "\\0"}}', "vertices[2].task.env.A: an environment variable cannot hold a NUL"),
    (
        "partitioner: hash",
        "partitioner: hsh",
        "inputs[0].partitioner: 'hsh' is not one of forward, hash, rebalance, bro",
    ),
    ("partitioner: hash", "partitioner: [hash]", "vertices[1].inputs[0].partitioner: ['hash'] is not one of forward"),
    ("exchange: blocking", "exchange: pipelined", "inputs[0].exchange: 'pipelined' is not supported: every exchange"),
    ("exchange: blocking", "exchange: hybrid", "vertices[1].inputs[0].exchange: 'hybrid' is not blocking"),
    ("{from: tokenize, ", "{", "spec.job.vertices[1].inputs[0].from: is missing: a string is needed here"),
    ("{from: tokenize, ", "{source: tokenize, ", "inputs[0]: unknown field 'source'; allowed: from, partitioner, exch"),
    ("[{from: count, partitioner: rebalance}]", "count", "vertices[2].inputs: expected a list, got the string 'count'"),
    ("[{from: count, partitioner: rebalance}]", "[count]", "vertices[2].inputs[0]: expected a mapping, got the string"),
    ("maxSplitSize: 64 kb", "maxSplitSize: 64 qb", f"{VERTEX}.splits.maxSplitSize: '64 qb' has the unknown unit 'qb'"),
    ("maxSplitSize: 64 kb", "maxSplitSize: 0", f"{VERTEX}.splits.maxSplitSize: 0 bytes is less than 1 byte"),
    ("maxSplitSize: 64 kb", "maxSplitSize: 1.5", f"{VERTEX}.splits.maxSplitSize: expected a memory size such as 64 kb"),
    ("maxSplitSize: 64 kb", "args: {a: 1}", f"{VERTEX}.splits.args: is only for a python enumerator"),
    ("maxSplitSize: 64 kb", "maxSplitsize: 1", "unknown field 'maxSplitsize' (did you mean 'maxSplitSize'?)"),
    ('files: "/usr/lib/python3/**/*.py"', 'python: "a:b"', f"{VERTEX}.splits.maxSplitSize: is only for files"),
    ('files: "/usr/lib/python3/**/*.py", ', "", f"{VERTEX}.splits: needs exactly one of files, python"),
    ('"/usr/lib/python3/**/*.py"', "[]", f"{VERTEX}.splits.files: needs at least one pattern"),
    ('"/usr/lib/python3/**/*.py"', "[a, '']", f"{VERTEX}.splits.files[1]: '' is not a file pattern"),
    (
        '"/usr/lib/python3/**/*.py"',
        "[a, 1]",
        f"{VERTEX}.splits.files[1]: expected a string, got the number 1; quote it",
    ),
    (
        '"/usr/lib/python3/**/*.py"',
        "{a: b}",
        f"{VERTEX}.splits.files: expected a string or a list of strings, got a map",
    ),
    (
        "inputs: [{from: count,",
        "splits: {files: a}\n        inputs: [{from: count,",
        "splits: is only for a vertex without inputs",
    ),
    ("job:\n", "job:\n    entrypoint: 'a:b'\n", "spec.job: needs exactly one of vertices, entrypoint"),
    ("job:\n", "job:\n    args: {a: 1}\n", "spec.job.args: is only for an entrypoint"),
    ("job:\n", "jobs:\n", "spec: unknown field 'jobs' (did you mean 'job'?)"),
]


@pytest.mark.parametrize(
    ("old", "new", "problem"), WRONG, ids=[f"{new or 'without ' + old}"[:50] for old, new, _ in WRONG]
)
def test_a_wrong_manifest_is_refused_with_the_field_named(old: str, new: str, problem: str) -> None:
    assert old in WORDCOUNT
    text = WORDCOUNT.replace(old, new, 1)
    with pytest.raises(InvalidInput) as refused:
        parse_manifest(text, "job.yaml")
    message = str(refused.value)
    assert message.startswith("job.yaml: ")
    assert problem in message
    assert "\n" not in message


WRONG_MINIMAL = [
    ('{entrypoint: "jobs.nightly:build"}', "", "spec.job: is missing: a mapping is needed here"),
    ('{entrypoint: "jobs.nightly:build"}', "{}", "spec.job: needs exactly one of vertices, entrypoint"),
    ('{entrypoint: "jobs.nightly:build"}', "{vertices: []}", "spec.job.vertices: needs at least one vertex"),
    ('{entrypoint: "jobs.nightly:build"}', "{vertices: {}}", "spec.job.vertices: expected a list, got a mapping"),
    ('{entrypoint: "jobs.nightly:build"}', "{vertices: [~]}", "vertices[0]: expected a mapping, got nothing"),
    ('{entrypoint: "jobs.nightly:build"}', "{vertices: [{name: a}]}", "vertices[0].task: is missing: a mapping is"),
    ('"jobs.nightly:build"', "build", "spec.job.entrypoint: 'build' is not of the form module:function"),
    ('"jobs.nightly:build"', "{}", "spec.job.entrypoint: expected a string, got a mapping"),
]


@pytest.mark.parametrize(("old", "new", "problem"), WRONG_MINIMAL)
def test_a_wrong_job_is_refused_with_the_field_named(old: str, new: str, problem: str) -> None:
    assert old in MINIMAL
    with pytest.raises(InvalidManifest) as refused:
        parse_manifest(MINIMAL.replace(old, new, 1), "job.yaml")
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "job.yaml: the text is empty; one YAML document is expected"),
        ("just words", "job.yaml: expected a mapping, got the string 'just words'"),
        ("[]", "job.yaml: expected a mapping, got a list"),
        ("a: [", "job.yaml: line 1, column 5: not valid YAML: "),
        (MINIMAL + "---" + MINIMAL, "job.yaml: line 7: a second document begins here"),
    ],
)
def test_a_text_that_is_no_manifest_is_refused_with_its_source(text: str, message: str) -> None:
    with pytest.raises(InvalidManifest) as refused:
        parse_manifest(text, "job.yaml")
    assert str(refused.value).startswith(message)


def test_a_wrong_option_is_told_apart_from_a_wrong_field() -> None:
    with pytest.raises(InvalidOption):
        parse_manifest(WORDCOUNT.replace("10 s", "soon"))


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidManifest) as refused:
        parse_manifest(WORDCOUNT.replace("partitioner: hash", f"partitioner: {'h' * 10_000}"))
    assert len(str(refused.value)) < 300


def test_a_key_that_is_no_string_is_refused() -> None:
    with pytest.raises(InvalidManifest, match="the key 1 is not a string"):
        decode_manifest({"apiVersion": "flinkjob.io/v1alpha1", "kind": "FlinkJob", 1: 2})


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(inner for key, item in items for inner in _paths(item, (*path, key)))]


SAMPLE: dict[str, Any] = msgspec.to_builtins(parse_manifest(WORDCOUNT))


@given(
    st.sampled_from(_paths(SAMPLE)[1:]),
    st.sampled_from([None, True, -1, 2**62, 0.5, "", "x", "\0", [], [None], [[]], {}, {"x": "y"}, {"": None}]),
)
def test_no_value_in_any_place_ends_in_anything_but_a_job_or_a_refusal(path: tuple[str | int, ...], value: Any) -> None:
    resource = copy.deepcopy(SAMPLE)
    parent: Any = resource
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    with contextlib.suppress(InvalidInput):
        job = decode_manifest(resource)
        assert decode_manifest(msgspec.to_builtins(job)) == job
