"""The leader's status on a real API server: on change only, and never over a newer leader's."""

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from flinkjob.election.apiserver import KubernetesApi
from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.jobmanager.eventing import EventPoster
from flinkjob.jobmanager.predecessor import Predecessor
from flinkjob.jobmanager.statuswriter import StatusWriter, resource_uid
from flinkjob.jobmanager.surroundings import Leading
from kube.apiserver import ApiServer
from kube.proxy import Fault, Proxy, proxy_to

from .conftest import T
from .pods import install_definition, make_account

SPEC = {"job": {"vertices": [{"name": "only", "task": {"command": ["true"]}}]}}


class FlinkJobs:
    """One FlinkJob, its writers and who comes between."""

    def __init__(self, server: ApiServer, namespace: str, proxy: Proxy, api: KubernetesApi) -> None:
        self.server, self.namespace, self.proxy, self.api = server, namespace, proxy, api
        self.path = f"/apis/flinkjob.io/v1alpha1/namespaces/{namespace}/flinkjobs/job"
        self.uid = self.create()
        self.job_id = "0123456789abcdef" * 2

    def create(self) -> str:
        body = {
            "apiVersion": "flinkjob.io/v1alpha1",
            "kind": "FlinkJob",
            "metadata": {"name": "job", "namespace": self.namespace},
            "spec": SPEC,
        }
        uid = self.server.call("POST", self.path.removesuffix("/job"), body)["metadata"]["uid"]
        assert isinstance(uid, str)
        return uid

    def writer(self, *, uid: str | None = None) -> StatusWriter:
        return StatusWriter(
            self.api, namespace=self.namespace, name="job", uid=uid or self.uid, job_id=self.job_id, pod="jobmanager-9"
        )

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.server.call("GET", self.path).get("status") or {}
        return status

    def operator_says(self, status: dict[str, Any]) -> None:
        body = {"apiVersion": "flinkjob.io/v1alpha1", "kind": "FlinkJob", "metadata": {"name": "job"}, "status": status}
        path = f"{self.path}/status?fieldManager=flinkjob-operator&force=true"
        self.server.call("PATCH", path, body, content_type="application/apply-patch+yaml")


@pytest.fixture
async def jobs(apiserver: ApiServer, namespace: str, tmp_path: Path) -> AsyncIterator[FlinkJobs]:
    install_definition(apiserver)
    with proxy_to(apiserver, "tests-proxied", groups=["system:masters"]) as proxy:
        async with await KubernetesApi.connect(proxy.kubeconfig(tmp_path)) as api:
            yield FlinkJobs(apiserver, namespace, proxy, api)


def leading(
    graph: ExecutionGraph | None,
    *,
    leads: bool = True,
    problem: str = "",
    reason: str = "LogUnreadable",
    since: int = T,
) -> Leading:
    return Leading(lambda: leads, since, graph, None, problem, reason)


async def test_the_status_is_written_on_change_only(jobs: FlinkJobs, graph: ExecutionGraph) -> None:
    writer = jobs.writer()
    await writer.tell(leading(graph))
    status = jobs.status()
    assert (status["jobStatus"]["state"], status["leader"]["epoch"]) == ("RUNNING", 2)
    jobs.proxy.forget_calls()
    for _ in range(5):
        await writer.tell(leading(graph))
    assert sum(jobs.proxy.calls.values()) == 0
    graph.apply(ops.TaskFailed(0, 1, 1, T + 30_000, "oops"))
    await writer.tell(leading(graph))
    assert jobs.status()["jobStatus"]["tasks"]["failed"] == 1
    assert jobs.proxy.calls == {("patch", "flinkjobs/status"): 1}


async def test_what_the_operator_says_stays(jobs: FlinkJobs, graph: ExecutionGraph) -> None:
    writer = jobs.writer()
    await writer.tell(leading(graph))
    jobs.operator_says({"observedGeneration": 7, "tasks": "1/2/3"})
    graph.apply(ops.TaskFailed(0, 1, 1, T + 30_000, "oops"))
    await writer.tell(leading(graph))
    status = jobs.status()
    assert (status["observedGeneration"], status["tasks"]) == (7, "1/2/3")
    assert status["jobStatus"]["tasks"]["failed"] == 1


async def test_one_who_has_been_deposed_writes_nothing(jobs: FlinkJobs, graph: ExecutionGraph) -> None:
    await jobs.writer().tell(leading(graph, leads=False))
    assert jobs.status() == {}
    writer = jobs.writer()
    await writer.tell(leading(graph))
    await writer.tell(None)
    assert jobs.status()["leader"]["epoch"] == 2


async def test_one_who_does_not_know_yet_that_there_is_a_newer_leader_does_not_write_over_its_word(
    jobs: FlinkJobs, graph: ExecutionGraph
) -> None:
    old = jobs.writer()
    await old.tell(leading(graph))
    newer = ExecutionGraph.restore(graph.job_graph, graph.snapshot())
    newer.apply(ops.EpochStarted(3, "jobmanager-0", T + 60_000))
    await jobs.writer().tell(leading(newer))
    graph.apply(ops.TaskFailed(0, 1, 1, T + 30_000, "oops"))
    await old.tell(leading(graph))
    status = jobs.status()
    assert status["leader"] == {"pod": "jobmanager-0", "epoch": 3, "since": ANY}
    assert status["jobStatus"]["tasks"]["failed"] == 0


async def test_a_new_run_of_the_job_begins_with_epoch_one_again(jobs: FlinkJobs, graph: ExecutionGraph) -> None:
    jobs.operator_says(
        {"leader": {"pod": "old", "epoch": 9, "since": "2025-01-01T00:00:00Z"}, "jobStatus": {"jobId": "x"}}
    )
    await jobs.writer().tell(leading(graph))
    assert jobs.status()["leader"]["epoch"] == 2


async def test_another_flinkjob_of_the_same_name_is_left_alone(jobs: FlinkJobs, graph: ExecutionGraph) -> None:
    writer = jobs.writer()
    jobs.server.call("DELETE", jobs.path)
    jobs.create()
    await writer.tell(leading(graph))
    assert jobs.status() == {}


async def test_a_leader_that_cannot_replay_tells_the_trouble_and_keeps_what_was_known(
    jobs: FlinkJobs, graph: ExecutionGraph
) -> None:
    await jobs.writer().tell(leading(graph))
    writer = jobs.writer()
    await writer.tell(leading(None, problem="block 7 is damaged", since=T + 1000))
    status = jobs.status()
    assert status["log"] == {"writable": False, "problem": "block 7 is damaged"}
    assert status["jobStatus"]["error"] == "block 7 is damaged"
    assert status["trouble"] == {"reason": "LogUnreadable", "message": "block 7 is damaged"}
    assert (status["jobStatus"]["state"], status["failovers"]) == ("RUNNING", 1)
    assert (status["leader"]["pod"], status["leader"]["epoch"]) == ("jobmanager-9", 2)
    jobs.proxy.forget_calls()
    await writer.tell(leading(None, problem="block 7 is damaged", since=T + 1000))
    assert jobs.proxy.calls["patch", "flinkjobs/status"] == 0


async def test_one_that_cannot_build_the_job_tells_so_of_a_run_of_which_nothing_else_is_known(
    jobs: FlinkJobs, graph: ExecutionGraph
) -> None:
    jobs.job_id = "fedcba9876543210" * 2
    jobs.operator_says(
        {"leader": {"pod": "old", "epoch": 9, "since": "2025-01-01T00:00:00Z"}, "jobStatus": {"jobId": "x"}}
    )
    await jobs.writer().tell(leading(None, problem="jobs:build is not there", reason="JobInvalid"))
    status = jobs.status()
    assert status["jobStatus"] == {"jobId": jobs.job_id, "error": "jobs:build is not there"}
    assert status["trouble"] == {"reason": "JobInvalid", "message": "jobs:build is not there"}
    assert status["leader"] == {"pod": "jobmanager-9", "epoch": 0, "since": ANY}
    assert "log" not in status, "there is nothing wrong with the log"
    jobs.job_id = graph.job_graph.id
    await jobs.writer().tell(leading(graph))
    assert "trouble" not in jobs.status(), "who leads has none"


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_write_that_failed_is_made_good(jobs: FlinkJobs, graph: ExecutionGraph, status: int) -> None:
    writer = jobs.writer()
    jobs.proxy.answer(status)
    await writer.tell(leading(graph))
    jobs.proxy.heal()
    assert jobs.status() == {}
    await writer.tell(leading(graph))
    assert jobs.status()["leader"]["epoch"] == 2


async def test_a_write_whose_answer_was_lost_does_no_harm(jobs: FlinkJobs, graph: ExecutionGraph) -> None:
    writer = jobs.writer()
    jobs.proxy.inflict(Fault.LOSE_ANSWER, verb="patch", times=1)
    await writer.tell(leading(graph))
    await writer.tell(leading(graph))
    assert jobs.status()["leader"]["epoch"] == 2


async def test_the_account_of_a_jobmanager_may_write_status_and_events(
    jobs: FlinkJobs, graph: ExecutionGraph, apiserver: ApiServer
) -> None:
    account = make_account(apiserver, jobs.namespace, "job")
    async with await KubernetesApi.connect(account) as api:
        place = {"namespace": jobs.namespace, "name": "job", "uid": jobs.uid, "pod": "job-jobmanager-0"}
        await StatusWriter(api, **place, job_id=jobs.job_id).tell(leading(graph))
        await EventPoster(api, **place).tell(leading(graph))
    assert jobs.status()["leader"]["epoch"] == 2
    listed = apiserver.call("GET", f"/apis/events.k8s.io/v1/namespaces/{jobs.namespace}/events")["items"]
    assert {event["reason"] for event in listed} >= {"LeaderElected", "Reconciled"}
    assert {event["reportingInstance"] for event in listed} == {"job-jobmanager-0"}


async def test_events_that_cannot_be_made_disturb_nobody(jobs: FlinkJobs, graph: ExecutionGraph) -> None:
    poster = EventPoster(jobs.api, namespace=jobs.namespace, name="job", uid=jobs.uid, pod="p")
    jobs.proxy.answer(500)
    await poster.tell(leading(graph))
    jobs.proxy.heal()
    await poster.tell(leading(graph))
    assert jobs.server.call("GET", f"/apis/events.k8s.io/v1/namespaces/{jobs.namespace}/events")["items"] == []


async def told_by(
    jobs: FlinkJobs, poster: EventPoster, leading: Leading | None, losses: list[str]
) -> set[tuple[str, str]]:
    """Reason and note of the Events after a look."""
    queue = deque(losses)
    await poster.tell_losses(queue)
    await poster.tell(leading)
    assert not queue
    listed = jobs.server.call("GET", f"/apis/events.k8s.io/v1/namespaces/{jobs.namespace}/events")["items"]
    return {(event["reason"], event["note"]) for event in listed}


async def test_a_leader_that_loses_its_term_tells_so_itself(jobs: FlinkJobs) -> None:
    poster = EventPoster(jobs.api, namespace=jobs.namespace, name="job", uid=jobs.uid, pod="p")
    assert await told_by(jobs, poster, None, ["epoch 3 has claimed the log"]) == {
        ("LeaderLost", "p leads no more: epoch 3 has claimed the log")
    }


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("expired", ("LeaderLost", "pod-0 has gone.")),
        ("replaced", ("LeaderLost", "pod-0 has gone.")),
        ("released", ("HandedOver", "The last leader stopped cleanly, and its lease was free at once.")),
        ("dead", None),
        ("none", None),
    ],
)
async def test_the_successor_tells_how_its_predecessor_ended_unless_the_operator_has(
    jobs: FlinkJobs, graph: ExecutionGraph, end: Any, expected: tuple[str, str] | None
) -> None:
    poster = EventPoster(jobs.api, namespace=jobs.namespace, name="job", uid=jobs.uid, pod="p")
    predecessor = Predecessor(end=end, name="pod-0", cause="has gone", seen=0)
    told = await told_by(jobs, poster, replace(leading(graph), predecessor=predecessor), [])
    assert {each for each in told if each[0] in ("LeaderLost", "HandedOver")} == ({expected} if expected else set())


def test_the_uid_of_a_run_leads_to_that_of_the_resource() -> None:
    uid = "0b0ab0f4-8a7c-4f5e-9c9e-3a1f2b3c4d5e"
    assert resource_uid(uid) == uid
    assert resource_uid(f"{uid}-r12") == uid
    assert resource_uid(None) is None
