"""The CustomResourceDefinition of FlinkJob, made of the typed values: their fields, types, defaults and docstrings.

What a type cannot say stands in tables here: bounds and patterns (`_BOUNDS`) and rules in CEL (`_RULES`), each with the
sentence that the API server answers with. The API server checks what it can see in one object within a bounded time;
what it cannot (an unknown option, an input that no vertex has, a cycle) the operator tells as a condition.

Sources: Kubernetes' *Structural schemas* and *Validation rules* (CEL), apiextensions.k8s.io/v1.
"""

import enum
import inspect
import re
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo, fields

from flinkjob.api import options as opt
from flinkjob.api import status as st
from flinkjob.api.flinkjob import GROUP, JOB_NAME_PATTERN, KIND, MAX_JOB_NAME, VERSION, FlinkJobSpec
from flinkjob.api.job import (
    MAX_NAME_LENGTH,
    MAX_PARALLELISM,
    MAX_VERTICES,
    InputSpec,
    JobSpec,
    SplitsSpec,
    TaskSpec,
    VertexSpec,
)
from flinkjob.api.option_types import ValueType
from flinkjob.api.pods import (
    MAX_JOB_MANAGERS,
    MAX_TASK_MANAGERS,
    MAX_TASK_SLOTS,
    MODULE_SOURCES,
    OUR_PATHS,
    STORAGE_SOURCES,
    JobManagerSpec,
    ResourceSpec,
    StorageSpec,
    TaskManagerSpec,
)
from flinkjob.api.quantities import CPU_PATTERN, POD_MEMORY_PATTERN

Schema = dict[str, Any]

PLURAL, SINGULAR, SHORT_NAME = "flinkjobs", "flinkjob", "fj"

_ANY_OBJECT: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_ANY: Schema = {"x-kubernetes-preserve-unknown-fields": True}
_INT_OR_STRING: Schema = {"x-kubernetes-int-or-string": True}

_FUNCTION = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
_OBJECT_NAME = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
_DURATION = r"^\s*([0-9]{1,19}\s*[A-Za-zµμ]*|[pP][0-9dDtThHmMsS.]+)\s*$"
_MEMORY = r"^\s*[0-9]{1,19}\s*[A-Za-z]*\s*$"
_NONCE: Schema = {"minimum": 0, "maximum": 2**31 - 1}
_NAMES: Schema = {"maxItems": 100, "items": {"type": "string", "maxLength": 253, "pattern": _OBJECT_NAME}}
_RFC3339: Schema = {"type": "string", "format": "date-time"}


def _one_of_sources(sources: tuple[str, ...], *, refused: Mapping[str, str] | None = None) -> Schema:
    """A core/v1 Volume without its name: one source, whose own fields are Kubernetes' business."""
    properties = {source: dict(_ANY_OBJECT) for source in (*sources, *(refused or {}))}
    rules = [{"rule": f"!has(self.{source})", "message": message} for source, message in (refused or {}).items()]
    exactly_one: Schema = {"minProperties": 1, "maxProperties": 1}
    return {
        "type": "object",
        "properties": properties,
        **exactly_one,
        **({"x-kubernetes-validations": rules} if rules else {}),
    }


_OWN_VOLUME = "an emptyDir is seen by one pod only, and all pods of the job have to share the volume"

_BOUNDS: Mapping[tuple[type[Struct], str], Schema] = {
    (FlinkJobSpec, "image"): {"minLength": 1, "maxLength": 1024, "pattern": r"^\S+$"},
    (FlinkJobSpec, "imagePullSecrets"): _NAMES,
    (FlinkJobSpec, "serviceAccount"): {"maxLength": 253, "pattern": _OBJECT_NAME},
    (FlinkJobSpec, "secrets"): _NAMES,
    (FlinkJobSpec, "restartNonce"): _NONCE,
    (FlinkJobSpec, "failoverNonce"): _NONCE,
    (FlinkJobSpec, "ttlSecondsAfterFinished"): _NONCE,
    (FlinkJobSpec, "modules"): _one_of_sources(MODULE_SOURCES, refused={"emptyDir": _OWN_VOLUME}),
    (FlinkJobSpec, "env"): {
        "maxItems": 1000,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[^=]+$"},
                "value": {"type": "string"},
                "valueFrom": _ANY_OBJECT,
            },
            "x-kubernetes-validations": [
                {"rule": "!(has(self.value) && has(self.valueFrom))", "message": "needs one of value, valueFrom, not both"},
                {"rule": "!(self.name in ['POD_NAME', 'POD_UID'])", "message": "POD_NAME and POD_UID are set by the operator",
                 "fieldPath": ".name"},
            ],
        },
    },
    (JobManagerSpec, "replicas"): {"minimum": 1, "maximum": MAX_JOB_MANAGERS},
    (TaskManagerSpec, "replicas"): {"minimum": 1, "maximum": MAX_TASK_MANAGERS},
    (TaskManagerSpec, "taskSlots"): {"minimum": 1, "maximum": MAX_TASK_SLOTS},
    (ResourceSpec, "cpu"): {"pattern": CPU_PATTERN},
    (ResourceSpec, "memory"): {"pattern": POD_MEMORY_PATTERN},
    (StorageSpec, "volume"): _one_of_sources(STORAGE_SOURCES, refused={"emptyDir": _OWN_VOLUME}),
    (StorageSpec, "mountPath"): {"maxLength": 1024, "pattern": r"^(/[^/:]+)+$"},
    (JobSpec, "vertices"): {
        "minItems": 1,
        "maxItems": MAX_VERTICES,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
    },
    (JobSpec, "entrypoint"): {"maxLength": 1024, "pattern": _FUNCTION},
    (VertexSpec, "name"): {"maxLength": MAX_NAME_LENGTH, "pattern": r"^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$"},
    (VertexSpec, "parallelism"): {"minimum": 1, "maximum": MAX_PARALLELISM},
    (VertexSpec, "inputs"): {
        "maxItems": MAX_VERTICES,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["from"],
    },
    (InputSpec, "from"): {"maxLength": MAX_NAME_LENGTH},
    (TaskSpec, "python"): {"maxLength": 1024, "pattern": _FUNCTION},
    (TaskSpec, "command"): {"minItems": 1, "maxItems": 10_000},
    (TaskSpec, "env"): {"maxProperties": 1000},
    (SplitsSpec, "python"): {"maxLength": 1024, "pattern": _FUNCTION},
    (SplitsSpec, "maxSplitSize"): {"pattern": _MEMORY},
}  # fmt: skip
"""What narrows a field further than its type does."""

_STORE = "self.flinkConfiguration.jobmanager__dot__failover__dot__operation__dash__log__dash__store"
_DIR = "self.flinkConfiguration.high__dash__availability__dot__storageDir"


def _same(path: str, has: str) -> str:
    """CEL: a field that may be missing is as it was."""
    old = (path.replace("self.", "oldSelf."), has.replace("self.", "oldSelf."))
    return f"({has} ? ({old[1]} && {path} == {old[0]}) : !({old[1]}))"


def _kept_unless_restarted(path: str, has: str, name: str) -> Schema:
    restarted = "self.restartNonce != oldSelf.restartNonce"
    return {
        "rule": f"{restarted} || {_same(path, has)}",
        "message": f"{name} cannot be changed while the job runs; change spec.restartNonce with it, to run the job anew",
    }


_RULES: Mapping[type[Struct], list[Schema]] = {
    FlinkJobSpec: [
        {
            "rule": f"!(has(self.flinkConfiguration) && has({_STORE}) && {_STORE}.lowerAscii() == 'filesystem') || "
            f"has(self.storage) || has({_DIR})",
            "message": f"{opt.OPERATION_LOG_STORE.key}: filesystem needs a place that all pods share: set spec.storage, or "
            f"{opt.STORAGE_DIR.key} in spec.flinkConfiguration",
        },
        _kept_unless_restarted("self.job.vertices", "has(self.job.vertices)", "spec.job.vertices"),
        _kept_unless_restarted("self.job.entrypoint", "has(self.job.entrypoint)", "spec.job.entrypoint"),
        _kept_unless_restarted("self.job.args", "has(self.job.args)", "spec.job.args"),
        _kept_unless_restarted("self.storage", "has(self.storage)", "spec.storage"),
        _kept_unless_restarted(
            f"{_STORE}.lowerAscii()", f"(has(self.flinkConfiguration) && has({_STORE}))",
            f"spec.flinkConfiguration: {opt.OPERATION_LOG_STORE.key}",
        ),
        _kept_unless_restarted(
            _DIR, f"(has(self.flinkConfiguration) && has({_DIR}))", f"spec.flinkConfiguration: {opt.STORAGE_DIR.key}"
        ),
    ],
    StorageSpec: [
        {
            "rule": f"!(self.mountPath + '/').startsWith('{path}/') && !'{path}/'.startsWith(self.mountPath + '/')",
            "message": f"mountPath collides with {path}, where the pods have files of their own",
            "fieldPath": ".mountPath",
        }
        for path in OUR_PATHS
    ],
    JobSpec: [
        {"rule": "has(self.vertices) != has(self.entrypoint)", "message": "needs exactly one of vertices, entrypoint"},
        {
            "rule": "!has(self.args) || has(self.entrypoint)",
            "message": "args is only for an entrypoint; a vertex has its arguments at task.args",
        },
    ],
    VertexSpec: [
        {
            "rule": "!has(self.splits) || !has(self.inputs) || self.inputs.size() == 0",
            "message": "splits is only for a vertex without inputs",
        },
    ],
    TaskSpec: [
        {"rule": "has(self.python) != has(self.command)", "message": "needs exactly one of python, command"},
        {"rule": "!has(self.args) || has(self.python)", "message": "args is only for a python task; a command has its "
         "arguments in the list itself"},
        {"rule": "!has(self.env) || has(self.command)", "message": "env is only for a command; a python task is told "
         "by args"},
    ],
    SplitsSpec: [
        {"rule": "!has(self.maxSplitSize) || !has(self.python)", "message": "maxSplitSize is only for files; a python "
         "enumerator cuts its own splits"},
        {"rule": "!has(self.args) || has(self.python)", "message": "args is only for a python enumerator, not for files"},
    ],
}  # fmt: skip
"""What fields demand of each other."""

_COLUMNS = (
    ("State", "string", ".status.jobStatus.state", "What the job is doing."),
    ("Leader", "string", ".status.currentLeader", "The leading JobManager."),
    ("Epoch", "integer", ".status.leader.epoch", "The leader's term."),
    ("Tasks", "string", ".status.tasks", "Running, finished and all tasks."),
    ("Failovers", "integer", ".status.failovers", "How often the leader has changed."),
    (
        "Protected",
        "string",
        '.status.conditions[?(@.type=="Protected")].status',
        "Whether the leader could be lost now.",
    ),
    ("Age", "date", ".metadata.creationTimestamp", "Since when the FlinkJob exists."),
)


def custom_resource_definition() -> Schema:
    """The CustomResourceDefinition, as plain values."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": SINGULAR,
                "shortNames": [SHORT_NAME],
                "categories": ["all"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [
                        {"name": name, "type": type_, "jsonPath": path, "description": description}
                        for name, type_, path, description in _COLUMNS
                    ],
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.taskManager.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "schema": {"openAPIV3Schema": _root()},
                }
            ],
        },
    }


def _root() -> Schema:
    spec = _struct(FlinkJobSpec)
    spec["properties"]["flinkConfiguration"] = _configuration(spec["properties"]["flinkConfiguration"]["description"])
    # A default where the API server looks for replicas: `kubectl scale` and autoscalers need a number.
    for component in ("jobManager", "taskManager"):
        spec["properties"][component]["default"] = {}
    return {
        "type": "object",
        "description": "A batch job that does not notice the death of its JobManager.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": _status(),
        },
        "x-kubernetes-validations": [
            {
                "rule": f"size(self.metadata.name) <= {MAX_JOB_NAME} && self.metadata.name.matches('{JOB_NAME_PATTERN}')",
                "message": f"metadata.name has to be at most {MAX_JOB_NAME} lower-case letters, digits and inner '-', the "
                "first a letter, so that the names of the job's pods and Services fit",
            }
        ],
    }


def _status() -> Schema:
    status = _struct(st.FlinkJobStatus, open=True)
    status["properties"]["conditions"] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    status["properties"]["conditions"]["items"]["required"] = ["type", "status"]
    return status


def _configuration(description: str) -> Schema:
    """The options, each with its description; unknown ones are kept, so that the operator can say which option was meant."""
    options = {option.key: _option(option) for option in opt.OPTIONS.values()}
    return {**_ANY_OBJECT, "description": description, "properties": options}


def _option(option: opt.ConfigOption[object]) -> Schema:
    default = f" Default: {option.default_text}." if option.default_text else ""
    return {"description": option.description.replace("`", "") + default, **_value(option.type)}


def _value(type_: ValueType[object]) -> Schema:
    if type_.name.startswith("duration"):
        return {**_INT_OR_STRING, "pattern": _DURATION}
    if type_.name.startswith("integer"):
        return {**_INT_OR_STRING, "pattern": r"^\s*[-+]?[0-9]{1,19}\s*$"}
    if type_.name == "path or URL" or type_.name.startswith("none, filesystem"):
        return {"type": "string", "maxLength": 4096, "minLength": 1}
    return _ANY  # numbers with a fraction, and words that YAML takes for a boolean


def _struct(struct: type[Struct], *, open: bool = False) -> Schema:
    """The schema of a struct. An `open` one asks for no field: several writers bring their parts one after the other."""
    described = _descriptions(struct)
    properties, required = {}, []
    for info in fields(struct):
        schema = _field(struct, info, open=open)
        if info.name in described and "description" not in schema:
            schema = {"description": described[info.name], **schema}
        properties[info.encode_name] = schema
        if info.default is NODEFAULT and info.default_factory is NODEFAULT and not open:
            required.append(info.encode_name)
    schema = {"type": "object", "description": _summary(struct), "properties": properties}
    if required:
        schema["required"] = required
    if struct is SplitsSpec:
        # CEL does not see a field that may be a string or a list.
        schema["oneOf"] = [{"required": ["files"]}, {"required": ["python"]}]
    if struct in _RULES:
        schema["x-kubernetes-validations"] = _RULES[struct]
    return schema


def _field(struct: type[Struct], info: FieldInfo, *, open: bool) -> Schema:
    schema = _type(info.type, open=open)
    bounds = _BOUNDS.get((struct, info.encode_name), {})
    if "items" in bounds and "items" in schema:
        schema["items"] = bounds["items"]
    schema = {**schema, **bounds}
    if schema.get("properties") and "x-kubernetes-preserve-unknown-fields" in schema:
        del schema["x-kubernetes-preserve-unknown-fields"]  # the bounds say all that there is
    if info.encode_name in ("time", "startTime", "endTime", "since", "detectedAt", "lastTransitionTime", "last"):
        schema |= _RFC3339
    default = info.default
    if not open and default is not NODEFAULT and default not in (None, (), {}, ""):
        schema["default"] = default.value if isinstance(default, enum.Enum) else default
    return schema


def _type(annotation: Any, *, open: bool) -> Schema:
    arguments = [argument for argument in get_args(annotation) if argument is not type(None)]
    match get_origin(annotation):
        case origin if origin in (Union, UnionType):
            return _type(arguments[0], open=open) if len(arguments) == 1 else _union(set(arguments))
        case origin if origin is Annotated:
            return dict(_INT_OR_STRING) if arguments[1].extra["format"] == "memory" else dict(_ANY)
        case origin if origin is Literal:
            return {"type": "string", "enum": list(arguments)}
        case origin if origin is tuple:
            return {"type": "array", "items": _type(arguments[0], open=open)}
        case origin if origin is dict:
            if arguments[1] is Any:
                return dict(_ANY_OBJECT)
            return {"type": "object", "additionalProperties": _type(arguments[1], open=open)}
    if issubclass(annotation, Struct):
        return _struct(annotation, open=open)
    if issubclass(annotation, enum.Enum):
        return {"type": "string", "enum": [member.value for member in annotation]}
    return {**_SCALARS[annotation]}


_SCALARS: Mapping[type, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer", "format": "int64"},
    float: {"type": "number"},
}


def _union(kinds: set[type]) -> Schema:
    return dict(_INT_OR_STRING) if kinds == {str, int} else dict(_ANY)


def _summary(struct: type[Struct]) -> str:
    text = inspect.cleandoc(struct.__doc__ or "")
    return _plain(re.split(r"\n\s*(?:Attributes|Raises):\n", text)[0])


def _descriptions(struct: type[Struct]) -> dict[str, str]:
    """What the docstring says of each attribute."""
    text = inspect.cleandoc(struct.__doc__ or "")
    section = re.search(r"\nAttributes:\n(.*?)(?=\n\S|\Z)", text, re.DOTALL)
    entries = re.split(r"\n    (?=\w+: )", "\n" + section[1].rstrip()) if section else []
    pairs = (entry.strip().partition(":") for entry in entries if entry.strip())
    return {name: _plain(description) for name, _, description in pairs}


def _plain(text: str) -> str:
    constants = {"MAX_NAME_LENGTH": MAX_NAME_LENGTH, "MAX_PARALLELISM": MAX_PARALLELISM, "MAX_JOB_MANAGERS": MAX_JOB_MANAGERS,
                 "MAX_TASK_MANAGERS": MAX_TASK_MANAGERS}  # fmt: skip
    text = re.sub(r"`([A-Z_]+)`", lambda match: str(constants.get(match[1], match[1])), text)
    text = " ".join(text.replace("`", "").replace("*", "").split())
    return text[:1].upper() + text[1:]
