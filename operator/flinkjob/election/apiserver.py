"""The Kubernetes API server: calls with a time limit, watches, and one kind of error.

The client library brings configuration, credentials and connections. Objects are plain values, as JSON has them: one that
goes back to the API server keeps the fields that this program knows nothing of.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import msgspec
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.rest import RESTResponse

from flinkjob.api.errors import AlreadyChanged, ApiRefused, ApiUnavailable, ClusterError, InvalidInput

Object: TypeAlias = dict[str, Any]
"""A Kubernetes object."""

REQUEST_TIMEOUT = 10.0
"""Seconds for a call, unless its caller knows better."""
STREAM_SECONDS = 300
"""After so many seconds the API server ends a watch, and the next one begins where that one ended."""
SILENCE = 90.0
"""Seconds without a word after which a watch counts as dead; the API server sends a bookmark every minute."""
FAREWELL = 0.1
"""Seconds that connections get to end when the client is closed."""

APPLY = "application/apply-patch+yaml"

NOT_FOUND = 404
EXPIRED = 410
_CONFLICT = 409
_TOO_MANY_REQUESTS = 429


class KubernetesApi:
    """A client of the API server. To be closed by whoever made it.

    Attributes:
        configuration: where the API server is, and how to be let in.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self._client = ApiClient(configuration)

    @classmethod
    async def connect(cls, kubeconfig: Path | None = None) -> "KubernetesApi":
        """A client with the credentials of a kubeconfig, or else of the pod that this is, or else of the user's kubeconfig.

        Nothing is asked of the API server yet.

        Raises:
            InvalidInput: there are no credentials, or they cannot be used.
        """
        configuration = Configuration()
        try:
            if kubeconfig is None and config.incluster_config.SERVICE_HOST_ENV_NAME in os.environ:
                config.load_incluster_config(configuration)
            else:
                file = str(kubeconfig) if kubeconfig is not None else None
                await config.load_kube_config(file, client_configuration=configuration, persist_config=False)
            return cls(configuration)
        except (config.ConfigException, OSError) as error:
            raise InvalidInput(f"no access to Kubernetes: {error}") from None

    async def __aenter__(self) -> "KubernetesApi":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()
        # Those of calls that were given up are still saying goodbye by TLS, and nobody else waits for them.
        await asyncio.sleep(FAREWELL)

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
        """Call the API server once.

        Args:
            path: as in ``/api/v1/namespaces/default/pods``.
            accept: the form of the answer, such as objects without all but their metadata.
            timeout: seconds for the whole of it.

        Raises:
            ApiUnavailable: it did not answer in time, fails, or is too busy.
            AlreadyChanged: the object has another version or uid than the body says, or is there already.
            ApiRefused: it does not accept this.
        """
        limit = aiohttp.ClientTimeout(total=timeout)
        headers = {"Accept": accept, "Content-Type": content_type}
        response = await self._send(method, path, query or {}, body, headers, limit)
        try:
            data = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unanswered(method, path, error) from error
        if response.status >= 400:
            raise _refused(method, path, response.status, data, response.headers.get("Retry-After", ""))
        return _decoded(method, path, data)

    async def watch(
        self, path: str, *, query: Mapping[str, str], version: str, accept: str = "application/json"
    ) -> AsyncIterator[Object]:
        """What happens from a resourceVersion on, ``{"type": …, "object": …}``, until the API server ends the stream.

        Raises:
            ApiUnavailable: the stream could not be had, broke, or fell silent.
            ApiRefused: it does not accept this; ``status`` is 410 when the resourceVersion is too old.
        """
        wanted = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(STREAM_SECONDS)}
        limit = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_TIMEOUT, sock_read=SILENCE)
        query = {**query, **wanted, "resourceVersion": version}
        response = await self._send("GET", path, query, None, {"Accept": accept}, limit)
        try:
            if response.status >= 400:
                raise _refused("WATCH", path, response.status, await response.read())
            async for line in response.response.content:
                event = _decoded("WATCH", path, line)
                if event.get("type") == "ERROR":
                    raise _refused("WATCH", path, int(event["object"].get("code", 500)), line)
                yield event
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise _unanswered("WATCH", path, error) from error
        finally:
            # At once: there is nobody at the other end of a watch who would want to be told.
            if response.response.connection is not None and response.response.connection.transport is not None:
                response.response.connection.transport.abort()
            response.response.close()

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None,
        headers: dict[str, str],
        limit: aiohttp.ClientTimeout,
    ) -> RESTResponse:
        client = self._client
        try:
            settings = list(await client.configuration.auth_settings())
            request = await client.param_serialize(
                method, path, query_params=list(query.items()), header_params=headers, body=body, auth_settings=settings
            )
            return await client.call_api(*request, _request_timeout=limit)
        except (aiohttp.ClientError, OSError, TimeoutError, config.ConfigException) as error:
            raise _unanswered(method, path, error) from error


def _unanswered(method: str, path: str, error: Exception) -> ApiUnavailable:
    return ApiUnavailable(f"{method} {path}: the API server does not answer: {error or 'too slow'}")


def _refused(method: str, path: str, status: int, data: bytes, retry_after: str = "") -> ClusterError:
    try:
        said = msgspec.json.decode(data)
        said = said.get("object", said)
        reason = f"{said.get('reason') or status}: {said['message']}"
    except (msgspec.DecodeError, AttributeError, KeyError):
        reason = f"{status} {data[:200].decode(errors='replace')}"
    message = f"{method} {path}: {reason}"
    if status == _CONFLICT:
        return AlreadyChanged(message)
    if status == _TOO_MANY_REQUESTS or status >= 500:
        return ApiUnavailable(message, retry_after=float(retry_after) if retry_after.isdecimal() else 0.0)
    return ApiRefused(message, status=status)


def _decoded(method: str, path: str, data: bytes) -> Object:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ApiUnavailable(f"{method} {path}: the answer is no JSON object: {error}") from None
