"""CPU and memory of a pod, written as Flink writes them (``1.5``, ``2048m``) or as Kubernetes does (``500m``, ``2Gi``).

The two disagree on one spelling: ``2048m`` of memory is 2048 mebibytes to Flink and two bytes to Kubernetes. Nobody wants
a pod of two bytes, so memory is read as Flink reads it, and as a quantity of Kubernetes where Flink has no such unit. For
CPU there is no quarrel: ``500m`` is half a core.
"""

import re

from flinkjob.api.errors import InvalidInput
from flinkjob.api.fields import shown
from flinkjob.api.units import LARGEST, parse_memory

CPU_FORMAT = "an amount of CPU such as 2, 0.5 or '500m'"
POD_MEMORY_FORMAT = "a memory size such as '2048m', '2 gb' or '2Gi'"

CPU_PATTERN = r"^\s*([0-9]{1,6}(\.[0-9]{0,3})?|[0-9]{1,9}m)\s*$"
"""RE2, for the schema; what fits is CPU unless it is zero."""
POD_MEMORY_PATTERN = r"^(?i)\s*[0-9]{1,18}\s*(b|bytes|[kmgt]|[kmgt]b|[kmgt]i|(kibi|mebi|gibi|tebi)bytes)?\s*$"
"""RE2, for the schema."""

_CPU = re.compile(CPU_PATTERN)
_BINARY = re.compile(r"([0-9]{1,18})([KMGT])i")


def parse_cpu(value: str | int | float) -> int:
    """Thousandths of a core.

    Raises:
        InvalidInput: it is no amount of CPU, or none at all.
    """
    text = str(value).strip()
    if not _CPU.fullmatch(text):
        raise InvalidInput(f"{shown(value)} is not {CPU_FORMAT}")
    millicores = int(text[:-1]) if text.endswith("m") else round(float(text) * 1000)
    if millicores < 1:
        raise InvalidInput(f"{shown(value)} is no CPU at all; expected {CPU_FORMAT}")
    return millicores


def parse_pod_memory(value: str | int | float) -> int:
    """Bytes.

    Raises:
        InvalidInput: it is no memory size, or less than a mebibyte, which no process could start in.
    """
    text = str(value).strip()
    quantity = _BINARY.fullmatch(text)
    try:
        size = parse_memory(f"{quantity[1]} {quantity[2]}b" if quantity else text)
    except InvalidInput:
        raise InvalidInput(f"{shown(value)} is not {POD_MEMORY_FORMAT}") from None
    if not 1 << 20 <= size <= LARGEST:
        raise InvalidInput(f"{shown(value)} is less than 1 mebibyte; expected {POD_MEMORY_FORMAT}")
    return size


def cpu_quantity(millicores: int) -> str:
    """The amount in Kubernetes' canonical form: ``500m``, ``2``."""
    return f"{millicores}m" if millicores % 1000 else str(millicores // 1000)


def memory_quantity(size: int) -> str:
    """The size in Kubernetes' canonical form: ``2Gi``, ``1536Mi``."""
    for suffix, factor in (("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if size % factor == 0:
            return f"{size // factor}{suffix}"
    return str(size)
