"""A mirror of objects in the API server, kept by one list and a watch.

What is in it was true at some moment, and is never taken back because nobody answers: an outage makes the mirror old, not
empty. Only the API server's own word, an event or a newer list, removes an object.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from flinkjob.api.errors import ApiRefused, ClusterError
from flinkjob.election.apiserver import EXPIRED, KubernetesApi, Object

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 10.0
"""Seconds between two tries while the API server is out of reach; each is longer by half at random."""

T = TypeVar("T")


class Reflector(Generic[T]):
    """Runs in a task of its own, ``run``.

    Attributes:
        objects: what ``keep`` made of each object, by name.
        synced: whether the objects have been listed once.
        changes: how many times something has changed.
        problem: why the mirror is not kept at the moment; empty when it is.
    """

    def __init__(
        self,
        api: KubernetesApi,
        path: str,
        *,
        query: Mapping[str, str],
        keep: Callable[[Object], T],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Mirror a collection.

        Args:
            path: the collection's, as in ``/api/v1/namespaces/default/pods``.
            query: ``labelSelector`` or ``fieldSelector``.
            keep: what is kept of an object.
            on_change: called after each change.
        """
        self._api = api
        self._path = path
        self._query = dict(query)
        self._keep = keep
        self._on_change = on_change
        self._version = ""
        self.objects: dict[str, T] = {}
        self.synced = False
        self.changes = 0
        self.problem = ""

    async def run(self) -> None:
        """Keep the mirror until cancelled."""
        pause = FIRST_PAUSE
        while True:
            before = self.changes
            try:
                if not self._version:
                    await self._list()
                await self._follow()
            except ClusterError as error:
                if isinstance(error, ApiRefused) and error.status == EXPIRED:
                    self._version = ""
                if not self.problem:
                    logger.warning("what is seen of %s is getting old: %s", self._path, error)
                self.problem = str(error)
            # A stream that has brought something was a good one, whatever ended it.
            pause = FIRST_PAUSE if self.changes > before else min(2 * pause, LONGEST_PAUSE)
            await asyncio.sleep(pause * (1 + random.random() / 2))

    async def _list(self) -> None:
        listed = await self._api.request("GET", self._path, query=self._query)
        self.objects = {item["metadata"]["name"]: self._keep(item) for item in listed.get("items") or ()}
        self._version = listed["metadata"]["resourceVersion"]
        self.synced = True
        self._changed()

    async def _follow(self) -> None:
        async for event in self._api.watch(self._path, query=self._query, version=self._version):
            item = event["object"]
            self._version = item["metadata"]["resourceVersion"]
            self.problem = ""
            if event["type"] == "BOOKMARK":
                continue
            name = item["metadata"]["name"]
            if event["type"] == "DELETED":
                self.objects.pop(name, None)
            else:
                self.objects[name] = self._keep(item)
            self._changed()
        self.problem = ""

    def _changed(self) -> None:
        self.problem = ""
        self.changes += 1
        self._on_change()
