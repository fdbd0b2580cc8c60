"""A proxy before the API server, which shows a client the faults that a real server will not show when asked.

It serves plain HTTP on loopback to anybody, and whoever comes is one user to the server, by impersonation. So each client
under test has a proxy of its own: one contender can be cut off while the other is not. It counts what passes by verb and
resource, in Kubernetes' words.
"""

import asyncio
import ssl
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeVar

import aiohttp
from aiohttp import web

from kube.apiserver import ApiServer, kubeconfig_text

T = TypeVar("T")

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_HOPS = {"connection", "keep-alive", "transfer-encoding", "upgrade", "host", "te", "trailer", "proxy-connection"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, in the words of Kubernetes' authorization.

    Attributes:
        verb: get, list, watch, create, update, patch, delete, deletecollection. resource: with its subresource, as in
            ``pods/status``; empty for a path that is no resource. path: as it was sent, without the query.
    """

    verb: str
    resource: str
    namespace: str
    name: str
    path: str


def parse_call(method: str, path: str, query: Sequence[str]) -> Call:
    """What a request asks for."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:] if parts[0] == "apis" else []
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    resource, name, *sub = [*rest, "", ""][: max(2, len(rest))]
    if method == "GET":
        watching = any(part in ("watch=true", "watch=1", "watch=True") for part in query)
        verb = "watch" if watching else "get" if name or not resource else "list"
    else:
        verb = _VERBS.get(method, method.lower())
        if verb == "delete" and not name:
            verb = "deletecollection"
    return Call(verb=verb, resource="/".join([resource, *sub]), namespace=namespace, name=name, path=path)


class Fault(Enum):
    """What happens to a request that a rule meets."""

    ANSWER = "the proxy answers with a status of its own"
    HANG = "no answer, until the rule is taken away; then the connection is closed"
    CLOSE = "the connection is closed at once"
    LOSE_ANSWER = "the server does it, and the connection is closed in place of its answer"
    SILENCE = "a watch stays open and tells nothing"


@dataclass(slots=True, kw_only=True, eq=False)
class Rule:
    """A fault and the requests that it meets; None meets all.

    Attributes:
        times: how many requests it still meets; None is any number. met: how many it has met.
    """

    fault: Fault
    verb: str | None = None
    resource: str | None = None
    times: int | None = None
    status: int = 0
    retry_after: int | None = None
    met: int = 0

    def meets(self, call: Call) -> bool:
        """Whether this request is one of its own."""
        return self.times != 0 and self.verb in (None, call.verb) and self.resource in (None, call.resource)


class Proxy:
    """A running proxy; made by `proxy_to`. Its methods are called from the test's thread, or its loop.

    Attributes:
        url: where it serves. calls: how many requests came, by (verb, resource). history: all of them, oldest first.
    """

    def __init__(self, upstream: str, context: ssl.SSLContext, *, user: str, groups: Sequence[str]) -> None:
        self._upstream = upstream
        self._context = context
        self._identity = [("Impersonate-User", user), *(("Impersonate-Group", group) for group in groups)]
        self._rules: list[Rule] = []
        self._changed = asyncio.Event()
        self._watches: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self.url = ""
        self.calls: Counter[tuple[str, str]] = Counter()
        self.history: list[Call] = []

    def kubeconfig(self, directory: Path) -> Path:
        """A kubeconfig that leads here."""
        path = directory / f"proxy-{self.url.rpartition(':')[2]}.kubeconfig"
        path.write_text(kubeconfig_text({"server": self.url}, {}))
        return path

    def answer(
        self,
        status: int,
        *,
        verb: str | None = None,
        resource: str | None = None,
        times: int | None = None,
        retry_after: int | None = None,
    ) -> Rule:
        """From now on these requests are answered with this status, as by a server that is overloaded or broken."""
        return self._add(
            Rule(fault=Fault.ANSWER, verb=verb, resource=resource, times=times, status=status, retry_after=retry_after)
        )

    def inflict(
        self, fault: Fault, *, verb: str | None = None, resource: str | None = None, times: int | None = None
    ) -> Rule:
        """From now on this happens to these requests."""
        return self._add(Rule(fault=fault, verb=verb, resource=resource, times=times))

    def cut(self) -> Rule:
        """Cut the client off: open watches end, and every request finds its connection closed."""
        rule = self.inflict(Fault.CLOSE)
        self.drop_watches()
        return rule

    def remove(self, rule: Rule) -> None:
        """Take one fault away; what hangs because of it ends."""
        self._rules = [each for each in self._rules if each is not rule]
        self._wake()

    def heal(self) -> None:
        """Take all faults away."""
        self._rules = []
        self._wake()

    def drop_watches(self) -> int:
        """Close all watches that are open, as a server does that restarts; tells how many."""

        async def drop() -> int:
            watches = list(self._watches)
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
            return len(watches)

        return self._run(drop)

    def forget_calls(self) -> None:
        """Count from nought."""
        self.calls.clear()
        self.history.clear()

    def _add(self, rule: Rule) -> Rule:
        self._rules = [*self._rules, rule]
        return rule

    def _wake(self) -> None:
        async def wake() -> None:
            self._changed.set()
            self._changed = asyncio.Event()

        self._run(wake)

    def _run(self, coroutine: Callable[[], Awaitable[T]]) -> T:
        async def run() -> T:
            return await coroutine()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=30)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = parse_call(request.method, request.path, request.query_string.split("&"))
        self.calls[call.verb, call.resource] += 1
        self.history.append(call)
        rule = next((rule for rule in self._rules if rule.meets(call)), None)
        if rule is not None:
            rule.met += 1
            if rule.times is not None:
                rule.times -= 1
            if rule.fault is Fault.ANSWER:
                return _status(rule)
            if rule.fault is Fault.HANG:
                await self._until_removed(rule)
            if rule.fault in (Fault.HANG, Fault.CLOSE):
                return _close(request)
        return await self._forward(request, call, rule)

    async def _until_removed(self, rule: Rule) -> None:
        while rule in self._rules:
            await self._changed.wait()

    async def _forward(self, request: web.Request, call: Call, rule: Rule | None) -> web.StreamResponse:
        body = await request.read()
        headers = [
            *self._identity,
            *((key, value) for key, value in request.headers.items() if key.lower() not in _HOPS),
        ]
        fault = None if rule is None else rule.fault
        try:
            async with self._session.request(
                request.method, self._upstream + request.path_qs, data=body or None, headers=headers
            ) as answer:
                if fault is Fault.LOSE_ANSWER:
                    await answer.read()
                    return _close(request)
                response = web.StreamResponse(status=answer.status)
                for key, value in answer.headers.items():
                    if key.lower() not in _HOPS:
                        response.headers.add(key, value)
                await response.prepare(request)
                if call.verb != "watch":
                    await response.write(await answer.read())
                elif not await self._stream(answer, response, silent=fault is Fault.SILENCE):
                    return _close(request, response)
        except aiohttp.ClientError:
            return _close(request)
        await response.write_eof()
        return response

    async def _stream(self, answer: aiohttp.ClientResponse, response: web.StreamResponse, *, silent: bool) -> bool:
        """Pass a watch on; False if it was dropped before the server ended it."""

        async def pass_on() -> None:
            async for chunk in answer.content.iter_any():
                if not silent:
                    await response.write(chunk)

        task = asyncio.create_task(pass_on())
        self._watches.add(task)
        try:
            await asyncio.wait([task])
            if task.cancelled():
                return False
            task.result()
            return True
        finally:
            self._watches.discard(task)
            task.cancel()
            # Closed in order, a TLS connection that somebody still writes to could outlast the proxy.
            if answer.connection is not None and answer.connection.transport is not None:
                answer.connection.transport.abort()

    async def _serve(self, started: threading.Event, stopping: asyncio.Event) -> None:
        connector = aiohttp.TCPConnector(ssl=self._context, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as self._session:
            application = web.Application(client_max_size=2**26)
            application.router.add_route("*", "/{path:.*}", self._handle)
            runner = web.AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=0)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://{host}:{port}"
            started.set()
            await stopping.wait()
            await runner.cleanup()

    @contextmanager
    def _running(self) -> Iterator[None]:
        # A loop of its own: a test's loop may be blocked, or closed, while its client still talks to the proxy.
        started, stopping = threading.Event(), asyncio.Event()

        def run() -> None:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve(started, stopping))

        thread = threading.Thread(target=run, name="proxy", daemon=True)
        thread.start()
        assert started.wait(timeout=30), "the proxy does not serve"
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(stopping.set)
            thread.join(timeout=30)


def _status(rule: Rule) -> web.Response:
    reasons = {429: "TooManyRequests", 409: "Conflict", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout"}
    reason = reasons.get(rule.status, "Unknown")
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": rule.status}
    headers = {} if rule.retry_after is None else {"Retry-After": str(rule.retry_after)}
    return web.json_response(
        {**body, "reason": reason, "message": "the proxy was told so"}, status=rule.status, headers=headers
    )


def _close(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return response or web.Response(status=502)


@contextmanager
def proxy_to(server: ApiServer, user: str, *, groups: Sequence[str] = ()) -> Iterator[Proxy]:
    """A proxy that is this user to the server, for the block's time."""
    proxy = Proxy(server.url, server.admin_context, user=user, groups=groups)
    with proxy._running():
        yield proxy
