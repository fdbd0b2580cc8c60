"""Which TaskManager pods to make and which to delete.

A TaskManager is never repaired: one that has ended, or that its node is losing, is replaced by a pod of another name. As
many are kept as are wanted, as a ReplicaSet does, with two differences. Which one goes first is chosen by how little is
lost with it; and pods that die soon after their start are replaced more and more slowly, told with their last words, so
that a mistake costs neither the cluster nor the person who looks for its reason.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flinkjob.api.status import Crashes
from flinkjob.controller import names
from flinkjob.controller.observed import Pod, format_time, parse_time

SHORT_LIFE = 60.0
"""Seconds; a TaskManager that ran for less has crashed."""
RECENT = 600.0
"""Seconds after which a crash no longer counts."""
LONGEST_DELAY = 300.0
"""Seconds between two attempts at most (Kubernetes: the kubelet's limit for containers that crash)."""
FIRST_DELAY = 5.0
"""Seconds before the second replacement in a row; the first one is made at once."""
LEAVE = 5.0
"""Seconds after a TaskManager's clean exit before it is replaced: the job may be over, and its status on its way."""
KEPT = 1
"""How many dead pods are kept, for their logs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """A pod to delete.

    Attributes:
        pod: the pod.
        why: in words, for the event; "" where nobody needs to be told.
    """

    pod: Pod
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskManagerPlan:
    """What to do with the TaskManagers.

    Attributes:
        create: names of pods to make.
        delete: pods to delete.
        crashes: what to remember of crashes; None when all is well.
        retry_in: seconds until missing pods may be made; None when nothing waits.
    """

    create: tuple[str, ...] = ()
    delete: tuple[Victim, ...] = ()
    crashes: Crashes | None = None
    retry_in: float | None = None


def plan_taskmanagers(
    pods: Sequence[Pod],
    *,
    job: str,
    wanted: int,
    spec_hash: str,
    run: str,
    crashes: Crashes | None,
    now: float,
    running_tasks: Mapping[str, int],
    suffix: Callable[[], str],
) -> TaskManagerPlan:
    """What brings the TaskManagers to what is wanted.

    Args:
        pods: the TaskManagers' pods.
        job: the job's name.
        wanted: how many there should be.
        spec_hash: what a pod should be made of; others are replaced one after the other.
        run: the run of the job; pods of another one go at once.
        crashes: what is remembered of crashes.
        now: seconds of the Unix epoch.
        running_tasks: tasks by pod, as far as is known.
        suffix: gives the random end of a name.
    """
    stale = [pod for pod in pods if pod.run != run and not pod.deleting]
    own = [pod for pod in pods if pod.run == run]
    alive, dead = [pod for pod in own if pod.counts], [pod for pod in own if pod.dead and not pod.deleting]
    delete = [Victim(pod=pod, why="it belongs to an earlier run of the job") for pod in stale]
    delete += [Victim(pod=pod, why="") for pod in _old_corpses(dead, kept=KEPT if wanted else 0)]
    crashes = _count_crashes(crashes, dead, alive, wanted, now)
    missing = wanted - len(alive)
    if missing > 0:
        retry_in = _wait(crashes, dead, now)
        create = () if retry_in is not None else _new_names(job, missing, {pod.name for pod in pods}, suffix)
        return TaskManagerPlan(create=create, delete=tuple(delete), crashes=crashes, retry_in=retry_in)
    cheapest_first = sorted(alive, key=lambda pod: _cost(pod, spec_hash, running_tasks))
    why = "fewer TaskManagers are wanted" if wanted else "no TaskManager is wanted"
    delete += [Victim(pod=pod, why=why) for pod in cheapest_first[: len(alive) - wanted]]
    if missing == 0:
        delete += _outdated(cheapest_first, spec_hash)
    return TaskManagerPlan(delete=tuple(delete), crashes=crashes)


def delay(count: int) -> float:
    """Seconds before the next attempt after so many crashes in a row."""
    return 0.0 if count < 2 else min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(count - 2, 16))


def _old_corpses(dead: Sequence[Pod], *, kept: int) -> list[Pod]:
    newest_first = sorted(dead, key=_died, reverse=True)
    return newest_first[kept:]


def _died(pod: Pod) -> float:
    return pod.ended.at if pod.ended is not None and pod.ended.at is not None else pod.created


def _count_crashes(
    crashes: Crashes | None, dead: Sequence[Pod], alive: Sequence[Pod], wanted: int, now: float
) -> Crashes | None:
    """Pods that died together are one crash; each is counted once, though its pod may be looked at again and again."""
    last = (parse_time(crashes.last) or 0.0) if crashes is not None else 0.0
    short = [pod for pod in dead if pod.ended is None or pod.ended.ran < SHORT_LIFE]
    new = [pod for pod in short if int(_died(pod)) > last and _died(pod) > now - RECENT]
    if new:
        latest = max(new, key=_died)
        message = str(latest.ended) if latest.ended is not None else "no reason given"
        count = crashes.count + 1 if crashes is not None and last > now - RECENT else 1
        return Crashes(count=count, last=format_time(_died(latest)), message=f"{latest.name}: {message}")
    all_well = len(alive) >= wanted and all(pod.ready for pod in alive)
    return None if crashes is None or (all_well and last <= now - RECENT) else crashes


def _wait(crashes: Crashes | None, dead: Sequence[Pod], now: float) -> float | None:
    """Seconds until missing pods may be made; None: now."""
    due = [_died(pod) + LEAVE for pod in dead if pod.phase == "Succeeded"]
    if crashes is not None:
        due.append((parse_time(crashes.last) or 0.0) + delay(crashes.count))
    left = max(due, default=0.0) - now
    return left if left > 0 else None


def _new_names(job: str, count: int, taken: set[str], suffix: Callable[[], str]) -> tuple[str, ...]:
    made: list[str] = []
    while len(made) < count:
        name = names.taskmanager_pod(job, suffix())
        if name not in taken:
            taken.add(name)
            made.append(name)
    return tuple(made)


def _cost(pod: Pod, spec_hash: str, running_tasks: Mapping[str, int]) -> tuple[bool, bool, bool, int, float, str]:
    """How much is lost with a pod; the newest of equals goes first."""
    return (
        pod.phase == "Running", pod.ready, pod.spec_hash == spec_hash, running_tasks.get(pod.name, 0), -pod.created,
        pod.name,
    )  # fmt: skip


def _outdated(cheapest_first: Sequence[Pod], spec_hash: str) -> list[Victim]:
    outdated = [pod for pod in cheapest_first if pod.spec_hash != spec_hash]
    why = "its specification has changed"
    useless = [Victim(pod=pod, why=why) for pod in outdated if not pod.ready]
    if useless or not all(pod.ready for pod in cheapest_first):
        return useless
    return [Victim(pod=pod, why=why) for pod in outdated[:1]]
