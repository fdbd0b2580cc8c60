"""Running one job on a local cluster, from its start, or from where an earlier run left it, to its end."""

import asyncio
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from flinkjob.api.errors import LogUnavailable
from flinkjob.jobmanager.job import Job
from flinkjob.jobmanager.result import JobResult, decode_result
from flinkjob.local.cluster import ClusterFailed, ClusterOptions, Death, LocalCluster
from flinkjob.local.monitor import JobView, Monitor
from flinkjob.local.outputs import read_outputs
from flinkjob.local.report import Failover, LeaderDeath, Report, replayed_failover, unlogged_failover
from flinkjob.local.statedir import StateDir

POLL_INTERVAL = 0.05
"""Seconds between two looks at the job."""


class Observer(Protocol):
    """Whom a run tells what it sees, for people."""

    def job(self, view: JobView) -> None:
        """The job, as it is now."""

    def death(self, death: Death) -> None:
        """A process ended that was to run."""

    def leader(self, leader: str) -> None:
        """Somebody leads, for the first time or anew."""

    def note(self, text: str) -> None:
        """Something a person should know."""


@dataclass(slots=True)
class LocalRun:
    """One ``flinkjob run``.

    Attributes:
        job: what to run. state: where it is kept. options: the cluster's.
        kill_leader_at: shares of the job done (0 to 1) at which the leader is killed.
        observer: told what happens.
    """

    job: Job
    state: StateDir
    options: ClusterOptions
    kill_leader_at: Sequence[float]
    observer: Observer
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    _view: JobView | None = None
    _deaths: list[LeaderDeath] = field(default_factory=list)
    _unlogged: list[Failover] = field(default_factory=list)
    _leader: str = ""
    _started_at: int = 0

    async def run(self) -> Report:
        """Run the job to its end; when ``stop`` is set, cancel it.

        Raises:
            ClusterFailed: the processes cannot be kept running, or the leader cannot lead.
        """
        ended = self._result()
        if ended is None:
            cluster = LocalCluster(self.options, self.state, on_death=self._died, job_ended=self._ended)
            async with Monitor(self.state.lease_file, self.job.id) as monitor:
                try:
                    await cluster.start()
                    ended = await self._follow(cluster, monitor)
                finally:
                    await cluster.stop()
        else:
            self.observer.note(f"the job in {self.state.path} has ended already")
        outputs = read_outputs(self.job.storage, ended)
        return Report(ended, self._started_at or ended.started_at, self._failovers(ended), outputs)

    async def _follow(self, cluster: LocalCluster, monitor: Monitor) -> JobResult:
        kills = sorted(self.kill_leader_at)
        cancelled = False
        while (ended := await asyncio.to_thread(self._result_if_known)) is None:
            if cluster.failure is not None:
                raise cluster.failure
            view = await monitor.job()
            cluster.set_leader(monitor.leader)
            if view is not None:
                self._seen(view, monitor.leader)
                if kills and view.state == "RUNNING" and view.done >= kills[0]:
                    kills = kills[1:]
                    self.observer.note(f"killing the leader, {monitor.leader}")
                    cluster.kill(monitor.leader, signal.SIGKILL)
            elif problem := await monitor.problem():
                raise ClusterFailed(problem)
            if self.stop.is_set() and not cancelled:
                cancelled = await monitor.cancel()
            await asyncio.sleep(POLL_INTERVAL)
        for share in kills:
            self.observer.note(f"the job ended before the leader could be killed at {share:.0%}")
        if not self._leader and (view := await monitor.job()) is not None:
            self._seen(view, monitor.leader)  # the job was over before anybody had looked
        return ended

    def _seen(self, view: JobView, leader: str) -> None:
        if leader != self._leader:
            self.observer.leader(leader)
            if not self.job.logged and self._deaths and len(self._unlogged) < len(self._deaths):
                death = self._deaths[-1]
                self._unlogged.append(unlogged_failover(view, leader=leader, death=death))
            self._leader = leader
        self._started_at = self._started_at or view.start_time
        self._view = view
        self.observer.job(view)

    def _died(self, death: Death) -> None:
        self.observer.death(death)
        if death.was_leader:
            detected = max(0, int(time.time() * 1000) - death.at)
            self._deaths.append(LeaderDeath(death.id, death.cause, death.at, detected, self._view))
            self._leader = ""

    def _ended(self) -> bool:
        return self._result_if_known() is not None

    def _result_if_known(self) -> JobResult | None:
        """The job's end; None also while the storage does not answer: the leader holds back until it does, and so do we."""
        try:
            return self._result()
        except LogUnavailable:
            return None

    def _result(self) -> JobResult | None:
        data = self.job.storage.read_result()
        return decode_result(data) if data is not None else None

    def _failovers(self, result: JobResult) -> list[Failover]:
        """The failovers that the log has, each with the death that this run saw before it."""
        told = []
        for failover in result.failovers:
            deaths = [death for death in self._deaths if death.at <= failover.decided_at]
            told.append(replayed_failover(failover, deaths[-1] if deaths else None))
            self._deaths = [death for death in self._deaths if death not in deaths]
        return told + self._unlogged
