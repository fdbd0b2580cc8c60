"""Following a job from outside, over the leader's REST API, through the changes of leaders."""

from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec

from flinkjob.election.filestore import read_lease

REQUEST_TIMEOUT = 2.0


class VertexView(msgspec.Struct, frozen=True, rename="kebab"):
    """A vertex in ``/jobs/:id/progress``; ``tasks`` counts its subtasks by state, ``done`` is a share, 0 to 1."""

    name: str
    parallelism: int
    tasks: dict[str, int]
    splits: int
    splits_taken: int
    done: float

    @property
    def begun(self) -> int:
        """How many subtasks have been deployed or more."""
        return self.parallelism - self.tasks.get("CREATED", 0)


class JobView(msgspec.Struct, frozen=True, rename="kebab"):
    """``/jobs/:id/progress``."""

    name: str
    state: str
    start_time: int
    epoch: int
    restarts: int
    done: float
    last_failure: str
    last_failed_task: str
    vertices: list[VertexView]


class _LeaderView(msgspec.Struct, frozen=True):
    """``/leader``, as far as it is of interest here."""

    problem: str = ""


@dataclass(slots=True)
class Monitor:
    """Asks whoever leads.

    Attributes:
        lease_file: names the leader.
        job_id: the job's id in the REST API.
    """

    lease_file: Path
    job_id: str
    leader: str = ""
    _session: aiohttp.ClientSession | None = field(default=None)

    async def __aenter__(self) -> "Monitor":
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT))
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def job(self) -> JobView | None:
        """The job now; None while nobody leads."""
        answer = await self._ask("GET", f"/jobs/{self.job_id}/progress")
        return msgspec.json.decode(answer[1], type=JobView) if answer and answer[0] == 200 else None

    async def problem(self) -> str:
        """Why the leader leads nothing until a person comes (a damaged log, say); empty when all is well."""
        answer = await self._ask("GET", "/leader")
        return msgspec.json.decode(answer[1], type=_LeaderView).problem if answer and answer[0] == 200 else ""

    async def cancel(self) -> bool:
        """Ask for the job to be cancelled; whether the leader took the request."""
        answer = await self._ask("PATCH", f"/jobs/{self.job_id}?mode=cancel")
        return answer is not None and answer[0] in (202, 409)

    async def _ask(self, method: str, path: str) -> tuple[int, bytes] | None:
        record = read_lease(self.lease_file)
        self.leader = record.holder if record else ""
        if record is None or not record.holder or not record.address or self._session is None:
            return None
        try:
            url = f"http://{record.address}{path}"
            async with self._session.request(method, url, allow_redirects=False) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError):
            return None
