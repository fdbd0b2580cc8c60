"""The leading JobManager's REST API, asked through the API server's proxy to its pod: no port has to be forwarded.

A JobManager that does not lead any more names the one that does. The proxy drops ``Authorization``, so that the job's
token goes in a header of its own.
"""

import base64
import binascii
from urllib.parse import quote, urlsplit

from flinkjob.api.errors import ApiRefused, ApiUnavailable, ClusterError
from flinkjob.cli.kube import Kube, Object, Reply, refusal, status_message
from flinkjob.cli.kubejobs import JobOnCluster
from flinkjob.controller import names

TOKEN_HEADER = "Flinkjob-Token"
_HOPS = 3


class LeaderRest:
    """The REST API of a job's leader.

    Raises:
        ClusterError: nobody leads the job.
    """

    def __init__(self, kube: Kube, job: JobOnCluster) -> None:
        if job.status.leader is None or job.status.job_status is None:
            why = "; it is suspended" if job.suspended else "; `flinkjob status` says how it is"
            raise ClusterError(f"nobody leads {job.name!r} at the moment{why}")
        self._kube = kube
        self._job = job
        self._pod = job.status.leader.pod
        self._path = f"/jobs/{job.status.job_status.job_id}"

    def failover_preview(self) -> Object:
        """What a failover at this moment would do, in the leader's words.

        Raises:
            ClusterError: the leader cannot be asked.
        """
        return self._ask("GET", f"{self._path}/failover-preview", {}).values

    def cancel(self) -> None:
        """Cancel the job; returns when that is durable.

        Raises:
            ClusterError: the leader cannot be asked, or refuses.
        """
        self._ask("PATCH", f"{self._path}?mode=cancel", {TOKEN_HEADER: self._token()})

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> Reply:
        pods = f"/api/v1/namespaces/{self._job.metadata.namespace}/pods"
        pod = self._pod
        for _ in range(_HOPS):
            reply = self._kube.send(
                method, f"{pods}/{quote(pod, safe='')}:{names.REST_PORT}/proxy{path}", headers=headers
            )
            if reply.status != 307:
                break
            # Names of pods of a StatefulSet are the first label of their DNS names.
            pod = (urlsplit(reply.headers.get("Location", "")).hostname or "").partition(".")[0]
        return self._answer(reply, pod)

    def _answer(self, reply: Reply, pod: str) -> Reply:
        if reply.status < 300:
            return reply
        said = status_message(reply)
        if said is None:
            errors = reply.values.get("errors") or [f"HTTP status {reply.status}"]
            raise ClusterError(f"JobManager {pod!r} refuses: {'; '.join(map(str, errors))}")
        if reply.status == 404:
            raise ClusterError(f"nobody leads {self._job.name!r} at the moment: the leader's pod {pod!r} is gone")
        if reply.status in (500, 502, 503, 504):
            raise ApiUnavailable(f"the leader's pod {pod!r} cannot be reached by the API server: {said}")
        raise refusal(reply)

    def _token(self) -> str:
        name = names.rest_token(self._job.name)
        try:
            secret = self._kube.get(f"/api/v1/namespaces/{self._job.metadata.namespace}/secrets/{name}")
            return base64.b64decode(secret["data"]["token"], validate=True).decode("ascii").strip()
        except ApiRefused as error:
            if error.status != 404:
                raise
            raise ClusterError(f"the Secret {name!r} with the job's REST token is not there (yet)") from None
        except (KeyError, TypeError, binascii.Error, UnicodeDecodeError):
            raise ClusterError(f"the Secret {name!r} has no key 'token' with the job's REST token") from None
