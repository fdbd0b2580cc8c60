"""Who says that a TaskManager will not come back: the API server, by the state of its pod.

A TaskManager has ended when its pod has (phase Failed or Succeeded, or its container ended and is never started again),
or when there is no such pod any more. While the API server does not answer, nobody ends: what was seen last still holds.

The mirror may be older than a TaskManager that has just come and was lost again. So a pod that the mirror has never shown
is asked for by its name before its absence counts.
"""

import asyncio
import logging
from collections.abc import Collection
from typing import Any
from urllib.parse import quote

from flinkjob.api.errors import ApiRefused, ClusterError
from flinkjob.election.apiserver import NOT_FOUND, KubernetesApi, Object
from flinkjob.election.reflector import Reflector

logger = logging.getLogger(__name__)

ASK_PAUSE = 2.0
"""Seconds before a pod that could not be asked for is asked for again."""

ALIVE = ""
_GONE = "its pod is gone"


class PodWatch:
    """A TaskManagerWatch over the pods of a job's TaskManagers; ``run`` keeps it.

    Args:
        selector: the labels of those pods.
        container: the one whose end is the TaskManager's.
    """

    def __init__(self, api: KubernetesApi, *, namespace: str, selector: str, container: str) -> None:
        self._api = api
        self._pods = f"/api/v1/namespaces/{quote(namespace)}/pods"
        self._container = container
        self._mirror: Reflector[str] = Reflector(
            api, self._pods, query={"labelSelector": selector}, keep=self._end_of, on_change=self._remember
        )
        self._seen: set[str] = set()
        self._absent: set[str] = set()
        self._asked: set[str] = set()
        self._questions: asyncio.Queue[str] = asyncio.Queue()

    def ended(self, among: Collection[str]) -> dict[str, str]:
        """Those of the given ids whose pods have ended or are gone: why, by id."""
        if not self._mirror.synced:
            return {}
        found = {}
        for id in among:
            cause = self._mirror.objects.get(id)
            if cause is None:
                cause = _GONE if self._is_gone(id) else ALIVE
            if cause:
                found[id] = cause
        return found

    async def run(self) -> None:
        """Watch, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._mirror.run())
            tasks.create_task(self._ask())

    def _is_gone(self, id: str) -> bool:
        if id in self._seen or id in self._absent:
            return True
        if id not in self._asked:
            self._asked.add(id)
            self._questions.put_nowait(id)
        return False

    def _remember(self) -> None:
        self._seen.update(self._mirror.objects)

    async def _ask(self) -> None:
        while True:
            id = await self._questions.get()
            if id in self._seen:
                continue
            try:
                await self._api.request("GET", f"{self._pods}/{quote(id, safe='')}")
            except ClusterError as error:
                if isinstance(error, ApiRefused) and error.status == NOT_FOUND:
                    self._absent.add(id)
                    continue
                logger.warning("whether TaskManager %s still has a pod cannot be found out now: %s", id, error)
                await asyncio.sleep(ASK_PAUSE)
            else:
                # It is there: the mirror will show it, or does not get to see it (other labels); then it is asked for again.
                await asyncio.sleep(ASK_PAUSE)
            self._asked.discard(id)

    def _end_of(self, pod: Object) -> str:
        """Why the TaskManager in a pod has ended; ALIVE if it has not."""
        status: dict[str, Any] = pod.get("status") or {}
        phase = status.get("phase")
        for container in status.get("containerStatuses") or ():
            ended = (container.get("state") or {}).get("terminated")
            if container.get("name") == self._container and ended:
                return _container_end(ended)
        if phase in ("Failed", "Succeeded"):
            reason = ": ".join(filter(None, (status.get("reason"), status.get("message"))))
            return f"its pod has ended ({reason or phase})"
        return ALIVE


def _container_end(ended: dict[str, Any]) -> str:
    code, reason = ended.get("exitCode"), ended.get("reason") or ""
    if ended.get("signal"):
        return f"its container was killed by signal {ended['signal']}"
    told = f" ({reason})" if reason and reason not in ("Error", "Completed") else ""
    return f"its container ended with exit code {code}{told}"
