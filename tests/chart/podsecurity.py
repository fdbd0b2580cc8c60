"""The restricted profile of Kubernetes' Pod Security Standards, as a function of a pod.

What it asks for is at https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted; a read-only root
file system, limits of memory and no token that nobody uses are asked for beside it.
"""

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
"""The kinds of volumes that the profile allows."""


def violations(spec: dict[str, Any]) -> list[str]:
    """What a pod's spec has that the profile forbids, or lacks that it demands, in words."""
    return [*_of_pod(spec), *(problem for container in _containers(spec) for problem in _of_container(spec, container))]


def beyond(spec: dict[str, Any]) -> list[str]:
    """What this project asks of its pods beside the profile."""
    found = [
        f"{container['name']}: the root file system can be written"
        for container in _containers(spec)
        if not container.get("securityContext", {}).get("readOnlyRootFilesystem")
    ]
    if "automountServiceAccountToken" not in spec:
        found.append("whether it gets a token is left to the account")
    return found


def _containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    kinds = ("initContainers", "containers", "ephemeralContainers")
    return [container for kind in kinds for container in spec.get(kind, [])]


def _of_pod(spec: dict[str, Any]) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"{key} is set"
    for volume in spec.get("volumes", []):
        if kinds := set(volume) - {"name"} - VOLUMES:
            yield f"volume {volume['name']} is of kind {kinds.pop()}"
    if spec.get("securityContext", {}).get("sysctls"):
        yield "sysctls are set"


def _of_container(spec: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    name, own, pod = container["name"], container.get("securityContext", {}), spec.get("securityContext", {})
    both = {**pod, **own}
    if own.get("privileged"):
        yield f"{name}: privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: may escalate its privileges"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield f"{name}: keeps capabilities"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name}: adds capabilities"
    if not both.get("runAsNonRoot") or both.get("runAsUser") == 0:
        yield f"{name}: may run as root"
    if both.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        yield f"{name}: has no seccomp profile"
    if both.get("procMount", "Default") != "Default":
        yield f"{name}: has another /proc"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield f"{name}: takes a port of the host"
