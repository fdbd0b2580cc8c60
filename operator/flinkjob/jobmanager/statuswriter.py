"""Writes the leader's part of the status into the FlinkJob: by server-side apply, on change only, at most once a second.

A leader that has been deposed must not write over its successor's word. It does not write once its term is over; and a
write that was on its way by then names the version of the FlinkJob that it was based on, and is refused if the successor
has written since. After such a conflict the FlinkJob is read again, and one in which a newer leader of the same run has
put its epoch is left alone.
"""

import logging
import re
from typing import Any
from urllib.parse import quote

import msgspec

from flinkjob.api.errors import AlreadyChanged, ApiRefused, ClusterError
from flinkjob.api.flinkjob import API_VERSION, KIND
from flinkjob.api.status import LEADER_FIELDS, FlinkJobStatus, LeaderStatus, Trouble
from flinkjob.election.apiserver import APPLY, NOT_FOUND, KubernetesApi, Object
from flinkjob.jobmanager.status import MAX_TEXT, leader_status, log_status, timestamp
from flinkjob.jobmanager.surroundings import Leading

logger = logging.getLogger(__name__)

FIELD_MANAGER = "flinkjob-jobmanager"

_RESTART = re.compile(r"-r[0-9]+$")


def resource_uid(uid: str | None) -> str | None:
    """A FlinkJob's uid, of that of one of its runs, which ends in the number of the restart."""
    return _RESTART.sub("", uid) if uid else None


class StatusWriter:
    """One FlinkJob's.

    Args:
        uid: of the FlinkJob; one of another uid is another job. None: not known.
        job_id: of the run that this JobManager is of.
        pod: this JobManager's.
    """

    def __init__(
        self, api: KubernetesApi, *, namespace: str, name: str, uid: str | None, job_id: str, pod: str
    ) -> None:
        self._api = api
        self._path = f"/apis/{API_VERSION}/namespaces/{quote(namespace)}/flinkjobs/{quote(name)}"
        self._metadata = {"name": name, "namespace": namespace}
        self._uid = uid
        self._job_id = job_id
        self._pod = pod
        self._present: Object | None = None
        self._written: Object | None = None
        self._complained = False

    async def tell(self, leading: Leading | None) -> None:
        """Write what has changed; to be called about once a second. What goes wrong is logged, once."""
        if leading is None:
            # The next term begins with a look at what others have written meanwhile.
            self._present = self._written = None
            return
        try:
            try:
                await self._tell(leading)
            except AlreadyChanged:
                # The operator answers each of our words with some of its own, so this is the rule.
                self._present = None
                await self._tell(leading)
            self._complained = False
        except ClusterError as error:
            self._present = None
            if not self._complained:
                self._complained = True
                logger.warning("the status cannot be written: %s", error)

    async def _tell(self, leading: Leading) -> None:
        status = leader_status(leading)
        if status is None and not leading.problem:
            return
        told = msgspec.to_builtins(status, str_keys=True) if status is not None else None
        if told is not None and told == self._written:
            return
        if self._present is None:
            self._present = await self._api.request("GET", self._path)
        present: Object = self._present.get("status") or {}
        if told is None:
            told = self._troubled(present, leading)
            if told == self._written:
                return
        if _is_newer(present, told) or not leading.is_leader():
            return
        uid, version = (self._present["metadata"][key] for key in ("uid", "resourceVersion"))
        if self._uid not in (None, uid):
            raise ApiRefused(f"the FlinkJob has uid {uid} now; the one of uid {self._uid} is gone", status=NOT_FOUND)
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {**self._metadata, "resourceVersion": version},
            "status": told,
        }
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        self._present = await self._api.request(
            "PATCH", f"{self._path}/status", query=query, body=body, content_type=APPLY
        )
        self._written = told

    def _troubled(self, present: Object, leading: Leading) -> Object:
        """What one says that was elected and cannot lead: what was known of this run before, and the trouble."""
        problem = leading.problem[:MAX_TEXT]
        known = {key: value for key, value in present.items() if key in LEADER_FIELDS - {"log", "runningTasks"}}
        if (known.get("jobStatus") or {}).get("jobId") != self._job_id:
            known = {"jobStatus": {"jobId": self._job_id}}
        epoch = (known.get("leader") or {}).get("epoch", 0)
        leader = LeaderStatus(pod=self._pod, epoch=epoch, since=timestamp(leading.since))
        trouble = Trouble(reason=leading.reason, message=problem)
        told: Any = msgspec.to_builtins(FlinkJobStatus(leader=leader, trouble=trouble, log=log_status(leading)))
        return {**known, **told, "jobStatus": {**known["jobStatus"], "error": problem}}


def _is_newer(present: Object, told: Object) -> bool:
    """Whether a newer leader of the same run of the job has written what is there."""
    same_run = (present.get("jobStatus") or {}).get("jobId") == (told.get("jobStatus") or {}).get("jobId")
    return same_run and (present.get("leader") or {}).get("epoch", 0) > told["leader"]["epoch"]
