"""The HTTP side: who answers, how errors look, what cancelling does."""

from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.states import JobStatus
from flinkjob.jobmanager.rest import MAX_REQUEST, RestBackend

Client = TestClient[web.Request, web.Application]
Serve = Callable[[RestBackend], Awaitable[Client]]
MakeBackend = Callable[..., RestBackend]

JOB = "/jobs/0123456789abcdef0123456789abcdef"
UNKNOWN = "f" * 32


@pytest.fixture
def ended(graph: ExecutionGraph) -> Callable[[JobStatus], None]:
    """Brings the job to an end."""

    def end(status: JobStatus) -> None:
        first = {JobStatus.CANCELED: JobStatus.CANCELLING, JobStatus.FAILED: JobStatus.FAILING}.get(status)
        for following in filter(None, (first, status)):
            graph.apply(ops.JobStatusChanged(following, 1_764_000_030_000, "RuntimeError: enough"))

    return end


async def test_a_standby_sends_a_question_on_to_the_leader(serve: Serve, make_backend: MakeBackend) -> None:
    client = await serve(make_backend(served=None, leader="10.1.2.3:8081"))
    for method, path in (("GET", f"/v1{JOB}/exceptions?maxExceptions=3"), ("PATCH", f"{JOB}?mode=cancel")):
        response = await client.request(method, path, allow_redirects=False)
        assert response.status == 307
        assert response.headers["Location"] == f"http://10.1.2.3:8081{path}"


async def test_a_redirected_client_gets_the_leaders_answer(
    serve: Serve, make_backend: MakeBackend, client: Client
) -> None:
    standby = await serve(make_backend(served=None, leader=f"{client.host}:{client.port}"))
    response = await standby.get("/jobs")
    assert (await response.json())["jobs"][0]["status"] == "RUNNING"


@pytest.mark.parametrize("leader", ["", "127.0.0.1:8081"], ids=["nobody known", "itself, not replayed yet"])
async def test_without_a_leader_a_client_is_asked_to_come_again(
    leader: str, serve: Serve, make_backend: MakeBackend
) -> None:
    client = await serve(make_backend(served=None, leader=leader))
    response = await client.get("/overview", allow_redirects=False)
    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert await response.json() == {"errors": ["No JobManager leads the job at the moment"]}


async def test_a_standby_tells_of_itself_what_it_knows(serve: Serve, make_backend: MakeBackend) -> None:
    client = await serve(make_backend(served=None, leader="10.1.2.3:8081", id="jobmanager-0"))
    answer = await (await client.get("/leader")).json()
    assert answer == {"id": "jobmanager-0", "epoch": 0, "address": "10.1.2.3:8081", "leading": False, "problem": ""}


async def test_the_leader_tells_that_it_leads(client: Client) -> None:
    answer = await (await client.get("/leader")).json()
    assert answer == {"id": "jobmanager-1", "epoch": 2, "address": "127.0.0.1:8081", "leading": True, "problem": ""}


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
async def test_readiness_and_liveness_are_different_questions(
    ready: bool, status: int, serve: Serve, make_backend: MakeBackend
) -> None:
    client = await serve(make_backend(served=None, is_ready=ready))
    assert (await client.get("/readyz")).status == status
    healthy = await client.get("/healthz")
    assert (healthy.status, await healthy.text()) == (200, "ok")


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (f"/jobs/{UNKNOWN}", f"Job {UNKNOWN} not found"),
        (f"/jobs/{UNKNOWN}/vertices/{UNKNOWN}", f"Job {UNKNOWN} not found"),
        (f"/applications/{UNKNOWN}", f"Application {UNKNOWN} not found"),
        (f"{JOB}/vertices/{UNKNOWN}", f"JobVertex {UNKNOWN} not found"),
        (f"{JOB}/vertices/{UNKNOWN}/watermarks", f"JobVertex {UNKNOWN} not found"),
        ("/taskmanagers/tm-9", "TaskManager tm-9 not found"),
        ("/taskmanagers/tm-9/metrics", "TaskManager tm-9 not found"),
        ("/no/such/path?x=1", "Not found: /no/such/path?x=1"),
    ],
)
async def test_what_is_not_there_is_404_with_flinks_errors(path: str, error: str, client: Client) -> None:
    response = await client.get(path)
    assert response.status == 404
    assert await response.json() == {"errors": [error]}


async def test_checkpoints_are_not_enabled(client: Client) -> None:
    for path in ("/checkpoints", "/checkpoints/config"):
        response = await client.get(JOB + path)
        assert response.status == 404
        assert "not enabled" in (await response.json())["errors"][0]


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/jobs/xyz", "jobid is 'xyz'"),
        (f"/jobs/{UNKNOWN}0", "32 hexadecimal digits"),
        (f"{JOB}/vertices/read", "vertexid is 'read'"),
        (f"{JOB}/exceptions?maxExceptions=-1", "maxExceptions is '-1'"),
    ],
)
async def test_a_malformed_parameter_is_400_and_named(path: str, named: str, client: Client) -> None:
    response = await client.get(path)
    assert response.status == 400
    assert named in (await response.json())["errors"][0]


async def test_an_id_is_read_in_any_case(client: Client) -> None:
    assert (await client.get(JOB.upper().replace("JOBS", "jobs"))).status == 200


async def test_a_wrong_method_is_405_and_told_what_is_allowed(client: Client) -> None:
    for method, path, allowed in (("DELETE", JOB, "GET, HEAD, PATCH"), ("POST", "/overview", "GET, HEAD")):
        response = await client.request(method, path)
        assert response.status == 405
        assert response.headers["Allow"] == allowed
        assert (await response.json())["errors"] == [f"{method} is not allowed for {path}; allowed: {allowed}"]


@pytest.mark.parametrize("query", ["", "?mode=cancel", "?mode=CANCEL"])
async def test_patch_cancels_the_job(query: str, client: Client, calls: list[str]) -> None:
    response = await client.patch(JOB + query, data=b"{}")
    assert response.status == 202
    assert await response.json() == {}
    assert calls == ["cancel"]


async def test_another_mode_than_cancel_is_refused(client: Client, calls: list[str]) -> None:
    response = await client.patch(JOB + "?mode=stop")
    assert response.status == 400
    assert "mode is 'stop'; allowed: cancel" in (await response.json())["errors"][0]
    assert calls == []


async def test_another_job_is_not_cancelled(client: Client, calls: list[str]) -> None:
    assert (await client.patch(f"/jobs/{UNKNOWN}?mode=cancel")).status == 404
    assert calls == []


@pytest.mark.parametrize(
    ("status", "answered"), [(JobStatus.FINISHED, 409), (JobStatus.FAILED, 409), (JobStatus.CANCELED, 202)]
)
async def test_a_job_that_has_ended_is_not_cancelled_again(
    status: JobStatus, answered: int, client: Client, calls: list[str], ended: Callable[[JobStatus], None]
) -> None:
    ended(status)
    assert (await client.patch(JOB + "?mode=cancel")).status == answered
    assert calls == []


async def test_a_cancellation_that_is_not_durable_is_not_accepted(serve: Serve, make_backend: MakeBackend) -> None:
    client = await serve(make_backend(storage_works=False))
    response = await client.patch(JOB)
    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert "No space left on device" in (await response.json())["errors"][0]


async def test_no_get_cancels_the_job(client: Client, calls: list[str]) -> None:
    assert (await client.get(JOB + "/yarn-cancel")).status == 404
    assert (await client.get(JOB + "?mode=cancel")).status == 200
    assert calls == []


@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_a_body_beyond_the_bound_is_refused(method: str, client: Client, calls: list[str]) -> None:
    response = await client.request(method, JOB, data=b"x" * (MAX_REQUEST + 1))
    assert response.status == 413
    assert str(MAX_REQUEST) in (await response.json())["errors"][0]
    assert calls == []
    assert (await client.request(method, JOB, data=b"x" * MAX_REQUEST)).ok


async def test_a_bug_is_an_error_without_a_traceback(
    serve: Serve, make_backend: MakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    client = await serve(make_backend(configuration=None))
    response = await client.get("/jobmanager/config")
    assert response.status == 500
    assert await response.json() == {"errors": ["Internal server error; the JobManager's log tells more"]}
    assert "AttributeError" in caplog.text


async def test_a_password_within_a_url_is_hidden_wherever_options_are_told(client: Client) -> None:
    for path in ("/jobmanager/config", f"{JOB}/jobmanager/config", f"{JOB}/config"):
        text = await (await client.get(path)).text()
        assert "s3://me:******@store/jobs" in text
        assert "word" not in text.replace("word count", "")
