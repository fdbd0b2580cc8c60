"""The operator's ears: kopf watches what happens, and its handlers only pass it on.

There is one handler, for every event of FlinkJobs, their pods and their StatefulSets; it decides nothing and changes
nothing. So kopf puts no annotation and no finalizer on anything, keeps no state in the cluster, and may come and go.

It runs in a thread and a loop of its own. When kopf ends it cancels whatever task it finds in its loop; and a burst of
events must not keep the lease's renewal waiting. When it gives up (a watch error that it takes for fatal), it is started
again.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import kopf
from kubernetes.aio.client import Configuration

from flinkjob.controller.cache import slim
from flinkjob.controller.cluster import FLINK_JOB, POD, STATEFUL_SET, Kind
from flinkjob.controller.names import JOB_LABEL
from flinkjob.controller.observed import Manifest

logger = logging.getLogger(__name__)

HEARD = (FLINK_JOB, POD, STATEFUL_SET)
"""The kinds that kopf watches."""
PAUSE_BEFORE_RESTART = 5.0
"""Seconds until kopf is started again after it has given up."""
TLS_GOODBYE = 0.1
"""Seconds that TLS connections get to end properly, before their loop is closed; aiohttp does not wait for them."""
STOP_TIMEOUT = 3.0
"""Seconds that kopf gets to end; then it is left alone, for the process ends anyway."""


@dataclass(frozen=True, slots=True)
class News:
    """What has been heard of an object.

    Attributes:
        kind: its kind.
        manifest: what is kept of it, as it is or was last.
        gone: whether it has been deleted.
        listed: whether this comes of a list; then a deletion may have gone unheard before it.
    """

    kind: Kind
    manifest: Manifest
    gone: bool
    listed: bool


class Ears:
    """Kopf in its thread.

    Args:
        tell: gets the news, in the loop that calls `start`.
        namespaces: where to listen; empty: everywhere.
    """

    def __init__(
        self, configuration: Configuration, *, tell: Callable[[News], None], namespaces: Collection[str] = ()
    ) -> None:
        self._configuration = configuration
        self._tell = tell
        self._namespaces = tuple(namespaces)
        self._home: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[], object] = lambda: None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    @property
    def failed(self) -> bool:
        """Whether the thread has ended though nobody told it to."""
        return self._home is not None and not self._stopping and not self._thread.is_alive()

    def start(self) -> None:
        """Begin to listen."""
        self._home = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """End it; news that is still on its way may come after this."""
        self._stopping = True
        self._stop()
        await asyncio.to_thread(self._thread.join, STOP_TIMEOUT)

    def _run(self) -> None:
        asyncio.run(self._listen())

    async def _listen(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        while not stop.is_set() and not self._stopping:
            try:
                await kopf.operator(
                    registry=self._registry(),
                    settings=_settings(),
                    memo=_NoMemo(),
                    standalone=True,
                    clusterwide=not self._namespaces,
                    namespaces=self._namespaces,
                    stop_flag=stop,
                )
            except Exception as error:
                logger.warning("watching was given up and begins anew: %s", error)
            if not stop.is_set():
                await _pause(stop)
        await asyncio.sleep(TLS_GOODBYE)

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        for kind in HEARD:
            group, _, version = kind.api_version.rpartition("/")
            heard = kopf.on.event(group=group, version=version, plural=kind.plural, param=kind, registry=registry)
            heard(self._heard)
        return registry

    async def _login(self, **_: Any) -> kopf.ConnectionInfo:
        configuration = self._configuration
        header = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        scheme, token = header.split(" ", 1) if header else ("", "")
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            ca_data=configuration.ca_cert_data,
            insecure=not configuration.verify_ssl,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            scheme=scheme.capitalize() or None,
            token=token or None,
            trust_env=True,
        )

    async def _heard(self, *, event: Any, param: Any = None, **_: Any) -> None:
        kind: Kind = param
        home, manifest = self._home, slim(kind, event["object"])
        news = News(kind, manifest, gone=event["type"] == "DELETED", listed=event["type"] is None)
        if home is not None and not home.is_closed():
            home.call_soon_threadsafe(self._tell, news)


class _Patience:
    """Pauses between the attempts of a request, without end: an outage is waited out, however long it lasts."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.2, 0.5, 1.0, 2.0)
        while True:
            yield 5.0


class _NoMemo:
    """What kopf keeps for its user with each object: nothing, and the same nothing for all."""

    def __copy__(self) -> "_NoMemo":
        return self


class _NoDifferences(kopf.DiffBaseStorage):
    """Kopf compares each object with its former self, for handlers of a sort that there are none of here."""

    def build(self, **_: Any) -> Any:
        """Nothing of an object is ever compared."""
        return {}

    def fetch(self, **_: Any) -> Any:
        """Nothing is stored."""
        return None

    def store(self, **_: Any) -> None:
        """Nothing is to be stored."""


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.request_timeout = 60.0
    settings.networking.connect_timeout = 5.0
    settings.networking.error_backoffs = _Patience()
    settings.watching.chunk_size = 100
    settings.watching.label_selectors["pods"] = JOB_LABEL
    settings.watching.label_selectors["apps", "statefulsets"] = JOB_LABEL
    # A worker that waits for more keeps the whole object, and its place among the workers: none does.
    settings.queueing.idle_timeout = 0.01
    settings.queueing.exit_timeout = 0.5
    settings.process.ultimate_exiting_timeout = None
    settings.persistence.diffbase_storage = _NoDifferences()
    return settings


async def _pause(stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(PAUSE_BEFORE_RESTART):
            await stop.wait()
    except TimeoutError:
        pass
