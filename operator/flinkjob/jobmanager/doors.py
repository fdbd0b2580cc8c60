"""Where a JobManager can be reached: one port for everything, or one for TaskManagers and one for people and probes.

With two, the TaskManagers' port speaks mutual TLS if there are certificates, and the other one plain HTTP: it is read-only
without the token, and a probe or a scraper of metrics has no certificate to show.
"""

import contextlib
import hmac
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from ssl import SSLContext

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from flinkjob.api.errors import InvalidInput
from flinkjob.jobmanager.rest import Refusal

logger = logging.getLogger(__name__)

BACKLOG = 4096
"""Connections that may wait to be accepted: after a failover all TaskManagers come at once."""

TOKEN_HEADER = "Flinkjob-Token"
"""For those that come through the API server's proxy, which keeps ``Authorization`` to itself."""

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


@contextlib.asynccontextmanager
async def serving(app: web.Application, *, host: str, port: int, tls: SSLContext | None = None) -> AsyncIterator[None]:
    """Serve an application for the length of a block.

    Raises:
        InvalidInput: the address cannot be listened on.
    """
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=BACKLOG, ssl_context=tls).start()
    except OSError as error:
        await runner.cleanup()
        raise InvalidInput(f"{host}:{port} cannot be listened on: {error}") from None
    try:
        yield
    finally:
        await runner.cleanup()


def changes_need_token(file: Path) -> Middleware:
    """Refuse every request that may change something and does not show the token in the file, which may be replaced."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method not in _READING:
            _check_token(request, file)
        return await handler(request)

    return check


def _check_token(request: web.Request, file: Path) -> None:
    try:
        token = file.read_bytes().strip()
    except OSError as error:
        logger.error("REST: the token cannot be read, and nothing can be changed: %s", error)
        token = b""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        given = request.headers.get(TOKEN_HEADER, "")
    if not token:
        raise Refusal(503, "The token that a change needs is not there yet", {"Retry-After": "5"})
    if not hmac.compare_digest(given.strip().encode(), token):
        raise Refusal(
            401,
            f"A change needs the job's token, as 'Authorization: Bearer TOKEN' or '{TOKEN_HEADER}: TOKEN'",
            {"WWW-Authenticate": 'Bearer realm="flinkjob"'},
        )
