"""The API server as a process meets it: calls take time, fail, are refused for the moment, or lose their answer; watches lag.

It stands where `KubernetesApi` does, so that all that is built on that runs unchanged: the operator's `Cluster`, `Following`
and leadership, a JobManager's status and its watch of pods.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from flinkjob.api.errors import ApiUnavailable
from flinkjob.election.apiserver import REQUEST_TIMEOUT, KubernetesApi, Object, _refused

from .asyncprocess import AsyncProcess
from .kubernetes import ApiServer, Call, Happened, Refusal, selected
from .network import END

CONNECTION_REFUSED = 300
"""Milliseconds after which a call to a server that is down fails."""
LOOK_AGAIN = 200
"""Milliseconds between two looks whether a stream that nothing comes through has come to life again."""


class ClientApi(KubernetesApi):
    """One process' client.

    Args:
        user: who it is, for the audit.
        known: which generation of the FlinkJob the process goes by.

    Attributes:
        lag: milliseconds that watches are late, at most.
        calls: how many there were that would change something.
    """

    def __init__(
        self, server: ApiServer, process: AsyncProcess, user: str, *, known: Callable[[], int] = lambda: 0
    ) -> None:
        self.configuration: Any = None
        self._server = server
        self._process = process
        self._user = user
        self._known = known
        self.lag = 60
        self.calls = 0

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: float = REQUEST_TIMEOUT,
    ) -> Object:
        """See KubernetesApi."""
        process, scheduler = self._process, self._process.scheduler
        if not process.alive:
            raise ApiUnavailable(f"{method} {path}: the process is dead")
        call = Call(self._user, method, path, query or {}, body, content_type, self._known())
        answer: asyncio.Future[Object] = asyncio.get_running_loop().create_future()
        if method != "GET":
            self.calls += 1
            self._trap(answer, call)
        sent = max(scheduler.now, process.paused_until) + scheduler.step_time()
        if process.alive or process.trap is None:
            scheduler.at(sent, None, self._serve, call, answer)
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise ApiUnavailable(f"{method} {path}: the API server does not answer: too slow") from None

    def _trap(self, answer: "asyncio.Future[Object]", call: Call) -> None:
        """The process may die or stop here: when all is decided and nothing has been sent, or before it knows the answer."""
        process, trap = self._process, self._process.trap
        if trap is None or trap.point not in ("call", "answer"):
            return
        if trap.passes:
            trap.passes -= 1
            return
        process.trap = None
        process.scheduler.note(process.name, f"{'stops' if trap.pause else 'dies'} at {call.method} {call.path}")
        if trap.pause:
            process.pause(trap.pause)
            return
        if trap.point == "call":
            answer.cancel()
        process.scheduler.at(process.scheduler.now, None, process.die)

    def _serve(self, call: Call, answer: "asyncio.Future[Object]") -> None:
        server, scheduler = self._server, self._process.scheduler
        if answer.cancelled() and not self._process.alive:
            return
        if not self._reaches():
            return
        if server.down:
            scheduler.at(scheduler.now + CONNECTION_REFUSED, self._process, self._fail, answer, _unanswered(call))
            return
        if server.storm and scheduler.random.random() < server.storm:
            status = 429 if scheduler.random.random() < 0.5 else 500
            self._answer(answer, error=_refused(call.method, call.path, status, b"too much", ""))
            return
        try:
            answered = server.serve(call)
        except Refusal as refusal:
            said = msgspec.json.encode({"reason": refusal.reason, "message": str(refusal)})
            self._answer(answer, error=_refused(call.method, call.path, refusal.status, said))
            return
        if server.lossy and scheduler.random.random() < server.lossy:
            scheduler.at(scheduler.now + CONNECTION_REFUSED, self._process, self._fail, answer, _unanswered(call))
        elif self._reaches():
            self._answer(answer, answered)

    def _answer(
        self, answer: "asyncio.Future[Object]", answered: Object | None = None, *, error: Exception | None = None
    ) -> None:
        process = self._process
        if answered is not None:
            process.soon(self._succeed, answer, answered)
        else:
            process.soon(self._fail, answer, error)

    @staticmethod
    def _succeed(answer: "asyncio.Future[Object]", answered: Object) -> None:
        if not answer.done():
            answer.set_result(answered)

    @staticmethod
    def _fail(answer: "asyncio.Future[Object]", error: Exception) -> None:
        if not answer.done():
            answer.set_exception(error)

    def _reaches(self) -> bool:
        return self._server.network.reaches(self._process.name, self._server.name)

    async def watch(
        self, path: str, *, query: Mapping[str, str], version: str, accept: str = "application/json"
    ) -> AsyncIterator[Object]:
        """See KubernetesApi."""
        await self.request("GET", "/apis/flinkjob.io/v1alpha1", timeout=REQUEST_TIMEOUT)  # the way there
        stream = _Stream(self, path.rpartition("/")[2], query)
        try:
            try:
                stream.begin(int(version))
            except Refusal as refusal:
                said = msgspec.json.encode({"reason": refusal.reason, "message": str(refusal)})
                raise _refused("WATCH", path, refusal.status, said) from None
            while (happened := await stream.next()) is not None:
                manifest = {**happened.object, "metadata": dict(happened.object["metadata"])}
                yield {"type": happened.type, "object": manifest}
            raise ApiUnavailable(f"WATCH {path}: the API server does not answer: the stream broke")
        finally:
            stream.close()


class _Stream:
    """The events of a watch, in their order, each as late as it likes."""

    def __init__(self, client: ClientApi, plural: str, query: Mapping[str, str]) -> None:
        self._client = client
        self._plural = plural
        self._query = query
        self._here: deque[Happened | object] = deque()
        self._coming: deque[Happened | object] = deque()
        self._arrived = asyncio.Event()
        self._last = 0
        self._open = True
        client._server.listeners.append(self._tell)

    def begin(self, version: int) -> None:
        for happened in self._client._server.since(self._plural, self._query, version):
            self._send(happened)

    async def next(self) -> Happened | None:
        """None: the stream has ended."""
        while not self._here:
            self._arrived.clear()
            await self._arrived.wait()
        happened = self._here.popleft()
        return happened if isinstance(happened, Happened) else None

    def close(self) -> None:
        if self._open:
            self._open = False
            self._client._server.listeners.remove(self._tell)

    def _tell(self, plural: str, happened: Happened) -> None:
        if plural == self._plural and selected(happened.object, self._query):
            self._send(happened)
        elif plural == "":
            self._send(END)

    def _send(self, happened: Happened | object) -> None:
        scheduler = self._client._process.scheduler
        self._coming.append(happened)
        self._last = max(self._last, scheduler.now + scheduler.below(self._client.lag + 1))
        scheduler.at(self._last, self._client._process, self._arrive)

    def _arrive(self) -> None:
        if not self._open:
            return
        scheduler = self._client._process.scheduler
        if not self._client._reaches():
            scheduler.at(scheduler.now + LOOK_AGAIN, self._client._process, self._arrive)
        elif self._coming:
            self._here.append(self._coming.popleft())
            self._arrived.set()


def _unanswered(call: Call) -> ApiUnavailable:
    return ApiUnavailable(f"{call.method} {call.path}: the API server does not answer: connection refused")
