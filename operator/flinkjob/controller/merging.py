"""A pod template of the user merged into a pod of ours, as ``kubectl patch`` merges a strategic patch.

Mappings are merged key by key, null removes. Lists whose items have a natural key are merged item by item, in our order, new
items behind: containers are merged in turn, any other item takes the place of ours, so that a volume or a variable can
come from elsewhere. All other lists are replaced as a whole.
"""

from collections.abc import Mapping, Sequence
from typing import Any

MERGE_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "envFrom": ("secretRef", "configMapRef", "prefix"),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "ports": ("containerPort", "protocol"),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "tolerations": ("key", "operator", "value", "effect"),
}
"""By the name of a list in a pod: what makes two items the same (core/v1, ``patchMergeKey``; `tolerations` and `envFrom`
are atomic there, which would take away ours)."""

_DEFAULTS = {"protocol": "TCP"}


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`patch` laid over `base`; neither is changed."""
    merged = dict(base)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value)
        elif key in MERGE_KEYS and isinstance(value, Sequence) and not isinstance(value, str):
            merged[key] = _merge_items(key, merged.get(key) or (), value)
        else:
            merged[key] = value
    return merged


def _merge_items(name: str, base: Sequence[Any], patch: Sequence[Any]) -> list[Any]:
    keys, merged_in_turn = MERGE_KEYS[name], name in ("containers", "initContainers")
    items = {_identity(item, keys): item for item in base}
    for item in patch:
        identity = _identity(item, keys)
        below = items.get(identity)
        both = merged_in_turn and isinstance(below, Mapping) and isinstance(item, Mapping)
        items[identity] = merge(below or {}, item) if both else item
    return list(items.values())


def _identity(item: Any, keys: tuple[str, ...]) -> str:
    if not isinstance(item, Mapping):
        return repr(item)
    return repr([item.get(key, _DEFAULTS.get(key)) for key in keys])
