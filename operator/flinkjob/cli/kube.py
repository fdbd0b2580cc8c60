"""A cluster as kubectl's users have it: their kubeconfig, one API server, and sentences where something cannot be had.

Objects are plain values, as JSON has them. The client library brings what it is good at: kubeconfigs with all their ways to
log in, and the connection. Its typed methods stay out of the way, and so do its redirects: what the API server passes on
from a pod may point to where only pods can go.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import urllib3
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.client.rest import RESTResponse

from flinkjob.api.errors import AlreadyChanged, ApiRefused, ApiUnavailable, ClusterError, InvalidInput

Object: TypeAlias = dict[str, Any]
"""A Kubernetes object."""

CONNECT_TIMEOUT = 5.0
"""Seconds until the API server must have accepted a connection."""
ANSWER_TIMEOUT = 30.0
"""Seconds until it must have answered."""

MERGE_PATCH = "application/merge-patch+json"

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_SILENT = urllib3.Retry(total=0, redirect=False, status=False)
_FORBIDDEN = re.compile(r".*? is forbidden: (?P<why>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whatever it says.

    Attributes:
        status: of HTTP.
        headers: case does not matter.
        body: as it came.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def values(self) -> Object:
        """The JSON object of the body; empty where it is none."""
        try:
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except msgspec.DecodeError:
            return {}


class Kube:
    """A connection to the API server of a kubeconfig's context. To be closed, or used in a ``with``.

    Attributes:
        namespace: the one that was asked for, or else the context's.
        server: the API server's URL.
    """

    def __init__(self, configuration: Configuration, namespace: str) -> None:
        configuration.retries = _SILENT
        self._client = ApiClient(configuration)
        self.namespace = namespace
        self.server = str(configuration.host)

    @classmethod
    def connect(
        cls, *, kubeconfig: Path | None = None, context: str | None = None, namespace: str | None = None
    ) -> "Kube":
        """As kubectl does: the file given, else ``KUBECONFIG``, else ``~/.kube/config``, else the pod that this is.

        Nothing is asked of the API server yet.

        Raises:
            InvalidInput: there is no such file or context, or it cannot be used.
        """
        files = str(kubeconfig or os.environ.get("KUBECONFIG") or Path("~/.kube/config").expanduser())
        configuration = Configuration()
        try:
            if not any(Path(file).exists() for file in files.split(os.pathsep)):
                if (
                    kubeconfig is None
                    and context is None
                    and config.incluster_config.SERVICE_HOST_ENV_NAME in os.environ
                ):
                    config.load_incluster_config(configuration)
                    return cls(configuration, namespace or _NAMESPACE_FILE.read_text(encoding="utf-8").strip())
                raise InvalidInput(f"no cluster: there is no kubeconfig at {files}")
            config.load_kube_config(files, context, client_configuration=configuration, persist_config=False)
            return cls(configuration, namespace or _namespace_of(files, context))
        except config.ConfigException as error:
            raise InvalidInput(f"no cluster: {files}: {_without_prefix(error)}") from None
        except (OSError, ValueError, TypeError, AttributeError, KeyError, yaml.YAMLError) as error:
            # The library takes the file's shape for granted.
            reason = f"no kubeconfig that can be used ({type(error).__name__})"
            raise InvalidInput(f"no cluster: {files}: {reason}") from None

    def __enter__(self) -> "Kube":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def get(self, path: str) -> Object:
        """An object, or a list of them.

        Raises:
            ApiUnavailable: the API server does not answer, fails, or is too busy.
            ApiRefused: it does not allow this, or there is no such thing (``status`` 404).
        """
        return _accepted(self.send("GET", path))

    def patch(self, path: str, body: Object) -> Object:
        """The object after a JSON merge patch.

        Raises:
            ApiUnavailable: as for `get`.
            ApiRefused: as for `get`, or what the object would become is invalid.
            AlreadyChanged: the object has another version than the body says.
        """
        return _accepted(self.send("PATCH", path, body=body, headers={"Content-Type": MERGE_PATCH}))

    def send(
        self, method: str, path: str, *, body: Object | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Whatever the API server answers, or the pod behind it.

        Raises:
            ApiUnavailable: there is no answer.
        """
        with self._open(method, path, body, headers or {}, ANSWER_TIMEOUT) as response:
            try:
                return Reply(response.status, response.headers, response.read())
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise self._unanswered(error) from None

    def watch(self, path: str, *, selector: str, version: str, seconds: int) -> Iterator[Object]:
        """What happens to objects from a resourceVersion on, as ``{"type": …, "object": …}``, for so many seconds.

        Raises:
            ApiUnavailable: the stream could not be had, or broke.
            ApiRefused: the API server does not accept this; the resourceVersion is too old (``status`` 410).
        """
        query = f"watch=1&fieldSelector={selector}&resourceVersion={version}&timeoutSeconds={seconds}"
        with self._open("GET", f"{path}?{query}", None, {}, seconds + ANSWER_TIMEOUT) as response:
            if response.status >= 400:
                _accepted(Reply(response.status, response.headers, response.read()))
            try:
                for event in _lines(response):
                    if event.get("type") == "ERROR":
                        said = event.get("object") or {}
                        raise ApiRefused(str(said.get("message", "the watch failed")), status=said.get("code", 500))
                    yield event
            except (urllib3.exceptions.HTTPError, msgspec.DecodeError, OSError) as error:
                raise self._unanswered(error) from None

    def _open(
        self, method: str, path: str, body: Object | None, headers: Mapping[str, str], seconds: float
    ) -> "_Opened":
        client = self._client
        sent = {"Accept": "application/json", "Content-Type": "application/json", **headers}
        try:
            request = client.param_serialize(method, path, header_params=sent, body=body, auth_settings=["BearerToken"])
            return _Opened(client.call_api(*request, _request_timeout=(CONNECT_TIMEOUT, seconds)))
        except (urllib3.exceptions.HTTPError, ApiException, OSError, config.ConfigException) as error:
            raise self._unanswered(error) from None

    def _unanswered(self, error: Exception) -> ApiUnavailable:
        return ApiUnavailable(f"the API server at {self.server} cannot be reached: {_reason(error)}")


class _Opened:
    """A response whose connection is given back in the end."""

    def __init__(self, response: RESTResponse) -> None:
        self._response = response

    def __enter__(self) -> RESTResponse:
        return self._response

    def __exit__(self, *exc: object) -> None:
        # A watch that nobody reads any more must not be read to its end, as giving the connection back would.
        self._response.response.close()


def status_message(reply: Reply) -> str | None:
    """What the API server itself says about a request that it refused; None where the answer is from somebody behind it."""
    values = reply.values
    return str(values.get("message", "")) if values.get("kind") == "Status" else None


def refusal(reply: Reply) -> ClusterError:
    """The error that an answer of the API server amounts to."""
    said = status_message(reply) or reply.body[:200].decode(errors="replace").strip()
    if reply.status == 401:
        return ApiRefused("the API server does not know these credentials; log in to the cluster again", status=401)
    if reply.status == 403:
        why = _FORBIDDEN.fullmatch(said)
        return ApiRefused(f"not allowed: {why['why'] if why else said}", status=403)
    if reply.status == 409:
        return AlreadyChanged(said)
    if reply.status == 429 or reply.status >= 500:
        return ApiUnavailable(f"the API server cannot answer at the moment ({reply.status}): {said}")
    return ApiRefused(said or f"the API server refuses this ({reply.status})", status=reply.status)


def _accepted(reply: Reply) -> Object:
    if not 200 <= reply.status < 300:
        raise refusal(reply)
    if not (values := reply.values):
        raise ApiUnavailable("what answers in the API server's place is something else")
    return values


def _namespace_of(files: str, context: str | None) -> str:
    contexts, active = config.list_kube_config_contexts(files)
    chosen = next((entry for entry in contexts if entry["name"] == context), active)
    return str(chosen["context"].get("namespace") or "default")


def _lines(response: RESTResponse) -> Iterator[Object]:
    rest = b""
    for chunk in response.response.stream(amt=None, decode_content=True):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield msgspec.json.decode(line, type=dict[str, Any])


def _without_prefix(error: Exception) -> str:
    return str(error).removeprefix("Invalid kube-config file. ").removeprefix("Invalid kube-config. ").rstrip(".")


def _reason(error: BaseException) -> str:
    """The innermost words: the library wraps what the system said several times."""
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason is not None:
        return _reason(error.reason)
    if isinstance(error, urllib3.exceptions.HTTPError):
        # A ProtocolError has its cause as an argument.
        causes = (error.__cause__, error.__context__, *error.args)
        if (cause := next((each for each in causes if isinstance(each, OSError)), None)) is not None:
            return _reason(cause)
    if isinstance(error, (urllib3.exceptions.TimeoutError, TimeoutError)):
        return "it does not answer in time"
    if isinstance(error, ApiException):
        return " ".join(str(error.reason or error).split())
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
