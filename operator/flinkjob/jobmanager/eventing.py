"""What people are told of a term as Kubernetes Events: the leader, its replay, its verdicts, failed tasks, the log's health.

The news are found by comparing the live state with what was told before, about once a second. Nothing in the term's own
work knows of it, and a burst of failures becomes a few Events.
"""

import logging
import secrets
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import quote

from flinkjob.api.errors import ClusterError
from flinkjob.api.flinkjob import API_VERSION, KIND
from flinkjob.election.apiserver import KubernetesApi
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.operations import FailoverCompleted
from flinkjob.graph.snapshot import ExceptionEntry
from flinkjob.graph.states import JobStatus
from flinkjob.jobmanager.predecessor import Predecessor
from flinkjob.jobmanager.rest_failovers import VERDICTS
from flinkjob.jobmanager.status import log_status
from flinkjob.jobmanager.surroundings import LOG_UNAVAILABLE, Leading

logger = logging.getLogger(__name__)

MAX_NOTE = 1024
"""Characters of an Event's note, by Kubernetes."""
MAX_TASKS = 5
"""Tasks that are told of one by one in one look."""
REPORTER = "flinkjob.io/jobmanager"


@dataclass(frozen=True, slots=True)
class News:
    """One Event to be.

    Attributes:
        reason: a word for programs. action: what was done, in one word. note: a sentence for people.
    """

    reason: str
    action: str
    note: str
    type: Literal["Normal", "Warning"] = "Normal"


class NewsReader:
    """Finds what is new in a term; one reader for each term."""

    def __init__(self) -> None:
        self._since = 0
        self._elected = False
        self._reconciled = False
        self._failures: ExceptionEntry | None = None
        self._log_problem = ""
        self._problem = ""

    def read(self, leading: Leading) -> Iterator[News]:
        """What has happened since the last call."""
        if leading.problem != self._problem and leading.reason != LOG_UNAVAILABLE:
            self._problem = leading.problem
            yield News("JobWaits", "Replay", f"The job waits for a person: {leading.problem}", "Warning")
        graph = leading.graph
        if graph is None:
            return
        if not self._elected:
            self._elected, self._since = True, leading.since
            yield from _end_of(leading.predecessor)
            yield News("LeaderElected", "Elect", f"{graph.leader} leads the job, epoch {graph.epoch}.")
        if not self._reconciled and graph.failovers and graph.failovers[-1].epoch == graph.epoch:
            self._reconciled = True
            yield from _failover(graph, graph.failovers[-1])
        yield from self._failed(graph)
        yield from self._log(leading)

    def _failed(self, graph: ExecutionGraph) -> Iterator[News]:
        news: list[ExceptionEntry] = []
        for entry in reversed(graph.exceptions):
            if entry == self._failures or entry.at < self._since:
                break
            news.insert(0, entry)
        if not news:
            return
        self._failures = news[-1]
        tasks = [entry for entry in news if entry.vertex >= 0]
        again = graph.status in (JobStatus.RUNNING, JobStatus.RECONCILING)
        for entry in tasks[-MAX_TASKS:]:
            where = f" on {graph.taskmanagers[entry.taskmanager].id}" if entry.taskmanager >= 0 else ""
            what = "TaskRestarted" if again else "TaskFailed"
            note = (
                f"{graph.task_name(entry.vertex, entry.subtask)}, attempt {entry.attempt}{where}, failed: {entry.cause}"
            )
            yield News(what, "Restart" if again else "Fail", note, "Warning")
        if len(tasks) > MAX_TASKS:
            yield News("TaskRestarted", "Restart", f"{len(tasks) - MAX_TASKS} more tasks failed.", "Warning")

    def _log(self, leading: Leading) -> Iterator[News]:
        status = log_status(leading)
        problem = (status.problem or "") if status is not None else ""
        if problem and not self._log_problem:
            yield News("LogDegraded", "WriteLog", f"The operation log cannot be written: {problem}", "Warning")
        elif self._log_problem and not problem:
            yield News("LogRecovered", "WriteLog", "The operation log can be written again.")
        self._log_problem = problem


def _end_of(predecessor: Predecessor) -> Iterator[News]:
    """What the successor tells; of a leader that was seen to die the operator has told, who saw it."""
    name = predecessor.name or "the last leader"
    if predecessor.end in ("expired", "replaced"):
        yield News("LeaderLost", "Elect", f"{name} {predecessor.cause}.", "Warning")
    elif predecessor.end == "released":
        yield News("HandedOver", "Elect", "The last leader stopped cleanly, and its lease was free at once.")


def _failover(graph: ExecutionGraph, failover: FailoverCompleted) -> Iterator[News]:
    replay = f"{failover.replayed_operations} operations in {failover.replay_ms:.0f} ms"
    yield News("Replayed", "Replay", f"{failover.leader} replayed {replay}; {failover.cause}.")
    verdicts = ", ".join(f"{failover.verdicts.get(verdict, 0)} {verdict}" for verdict in VERDICTS)
    yield News("Reconciled", "Reconcile", f"Of the tasks that were under way: {verdicts}.")
    for task in failover.restarted[:MAX_TASKS]:
        name = graph.task_name(task.vertex, task.subtask)
        yield News("TaskRestarted", "Restart", f"{name} could not be continued: {task.reason}", "Warning")
    if len(failover.restarted) > MAX_TASKS:
        more = len(failover.restarted) - MAX_TASKS
        yield News("TaskRestarted", "Restart", f"{more} more tasks could not be continued.", "Warning")


class EventPoster:
    """Makes Events (``events.k8s.io/v1``) about one FlinkJob. One that cannot be made is lost, and the log says so.

    Args:
        uid: of the FlinkJob; None: not known.
        pod: this JobManager's.
    """

    def __init__(self, api: KubernetesApi, *, namespace: str, name: str, uid: str | None, pod: str) -> None:
        self._api = api
        self._path = f"/apis/events.k8s.io/v1/namespaces/{quote(namespace)}/events"
        self._namespace = namespace
        self._regarding = {"apiVersion": API_VERSION, "kind": KIND, "namespace": namespace, "name": name}
        if uid is not None:
            self._regarding["uid"] = uid
        self._pod = pod
        self._reader: tuple[int, NewsReader] | None = None

    async def tell(self, leading: Leading | None) -> None:
        """Make Events of what is new; to be called about once a second."""
        if leading is None:
            self._reader = None
            return
        if self._reader is None or self._reader[0] != leading.since:
            self._reader = leading.since, NewsReader()
        for news in self._reader[1].read(leading):
            if not leading.is_leader():
                return
            await self._post_or_lose(news)

    async def tell_losses(self, losses: deque[str]) -> None:
        """Make an Event of each end of a term of this JobManager that was no clean stop, and take it out."""
        while losses:
            news = News("LeaderLost", "StepDown", f"{self._pod} leads no more: {losses.popleft()}", "Warning")
            await self._post_or_lose(news)

    async def _post_or_lose(self, news: News) -> None:
        try:
            await self._post(news)
        except ClusterError as error:
            logger.warning("no Event could be made of %s (%s): %s", news.reason, news.note, error)

    async def _post(self, news: News) -> None:
        name = f"{self._regarding['name']}.{secrets.token_hex(8)}"
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": self._namespace},
            "eventTime": now,
            "reportingController": REPORTER,
            "reportingInstance": self._pod[:128],
            "action": news.action,
            "reason": news.reason,
            "type": news.type,
            "note": news.note[:MAX_NOTE],
            "regarding": self._regarding,
        }
        await self._api.request("POST", self._path, body=body)
