"""What a failover now would do, as the leader foretells it, in words."""

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from flinkjob.api.errors import ClusterError
from flinkjob.cli.kube import Object

SHOWN_TASKS = 20


class PreviewedTask(Struct, frozen=True, kw_only=True):
    """A task that would not simply go on."""

    task: str
    verdict: str
    reason: str


class Preview(Struct, frozen=True, kw_only=True, rename="kebab"):
    """``/jobs/:id/failover-preview``, as far as it is shown."""

    epoch: int
    leader: str
    verdicts: dict[str, int]
    waited_for: tuple[str, ...] = ()
    tasks: tuple[PreviewedTask, ...] = ()


def preview_lines(values: Object) -> Iterator[str]:
    """The leader's answer, line by line.

    Raises:
        ClusterError: it is none that this program understands.
    """
    try:
        preview = msgspec.convert(values, Preview)
    except msgspec.ValidationError as error:
        raise ClusterError(f"the leader is of another version than this program: {error}") from None
    told = {verdict: count for verdict, count in preview.verdicts.items() if count}
    total = sum(told.values())
    what = ", ".join(f"{count} would be {verdict}" for verdict, count in told.items()) or "there are no tasks under way"
    of = f"of {total} tasks " if total else ""
    yield f"If {preview.leader} (epoch {preview.epoch}) failed over now: {of}{what}."
    for task in preview.tasks[:SHOWN_TASKS]:
        yield f"  {task.verdict}: {task.task}: {task.reason}"
    if (more := len(preview.tasks) - SHOWN_TASKS) > 0:
        yield f"  … and {more} more; --output json has all"
    if preview.waited_for:
        names = ", ".join(preview.waited_for)
        yield f"  A new leader would wait for {names}, up to jobmanager.failover.reconcile-timeout."
