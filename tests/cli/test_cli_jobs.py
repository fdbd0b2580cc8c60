"""``flinkjob status``, ``watch``, ``cancel`` and ``failover`` against a real API server."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import pytest

from flinkjob.api.errors import ApiUnavailable
from flinkjob.cli import kubejobs
from flinkjob.cli.kube import Kube
from kube.proxy import Proxy, proxy_to

from . import leaders
from .conftest import Answer, Call
from .leaders import JOB_ID, TOKEN, FlinkJobs, Leader, condition, ended, failover, running, until

PREVIEW = f"/jobs/{JOB_ID}/failover-preview"

Beside: TypeAlias = Callable[[Callable[[], object]], Future[object]]


def cut_off(proxy: Proxy) -> None:
    """Cut the clients of a proxy off, and return when one has noticed, be its watch open already or not yet."""
    cut = proxy.cut()

    def noticed() -> bool:
        proxy.drop_watches()
        return cut.met > 0

    until(noticed)


@pytest.fixture
def beside() -> Iterator[Beside]:
    """Runs something beside the command, such as what an operator does; what goes wrong there fails the test."""
    with ThreadPoolExecutor() as threads:
        started: list[Future[object]] = []

        def start(action: Callable[[], object]) -> Future[object]:
            started.append(threads.submit(action))
            return started[-1]

        yield start
        for each in started:
            each.result(timeout=30)


class TestStatus:
    def test_lists_the_jobs_of_a_namespace(self, kubectl: Call, jobs: FlinkJobs) -> None:
        jobs.create("wordcount", running(conditions=[condition("Protected", "False", "NoStandby", "…")]))
        jobs.create("another")
        answer = kubectl("status")
        assert (answer.code, answer.err) == (0, "")
        header, *lines = answer.out.splitlines()
        assert header.split() == ["Name", "State", "Leader", "Epoch", "Tasks", "Failovers", "Protected", "Age"]
        another, wordcount = lines
        assert another.split()[:7] == ["another", "-", "-", "-", "-", "0", "-"]
        assert wordcount.split()[:7] == ["wordcount", "RUNNING", "wordcount-jobmanager-0", "1", "3/1/4", "0", "False"]

    def test_names_are_in_full_where_there_is_no_terminal(self, kubectl: Call, jobs: FlinkJobs) -> None:
        name = "a-rather-long-name-for-a-job-of-that-kind"
        leader = {"pod": f"{name}-jobmanager-0", "epoch": 1, "since": "2026-01-01T00:00:00Z"}
        jobs.create(name, running(leader=leader))
        for arguments in ([], [name]):
            assert f"{name}-jobmanager-0" in kubectl("status", *arguments).out

    def test_lists_the_jobs_of_all_namespaces(self, flinkjob: Call, jobs: FlinkJobs) -> None:
        jobs.create()
        answer = flinkjob("status", "-A", "--kubeconfig", jobs.server.admin_kubeconfig)
        assert answer.code == 0
        assert [jobs.namespace, "wordcount"] in [line.split()[:2] for line in answer.out.splitlines()]

    def test_an_empty_namespace_is_no_error(self, kubectl: Call, jobs: FlinkJobs) -> None:
        answer = kubectl("status")
        assert (answer.code, answer.out) == (0, "")
        assert answer.err == f"There are no FlinkJobs in namespace '{jobs.namespace}'.\n"

    def test_shows_all_of_one_job(self, kubectl: Call, jobs: FlinkJobs) -> None:
        lost = [{"task": "count[2]", "reason": "its TaskManager does not have it"}]
        verdicts = {"continued": 2, "restarted": 1}
        jobs.create(
            status=running(
                failovers=1,
                failoverHistory=[failover(2, "wordcount-jobmanager-1", verdicts=verdicts, restarted=lost)],
                conditions=[
                    condition("Ready", "True", "Running", "[all] well"),
                    condition("Protected", "False", "NoStandby", "there is no standby; set spec.jobManager.replicas"),
                ],
            )
        )
        answer = kubectl("status", "wordcount")
        assert (answer.code, answer.err) == (0, "")
        lines = [" ".join(line.split()) for line in answer.out.splitlines()]
        assert f"FlinkJob {jobs.namespace}/wordcount" in lines
        assert "JobManagers 2 of 2 ready" in lines
        assert "Tasks 3/1/4 (running/finished/total)" in lines
        assert "Log writable, 3 ms behind" in lines
        assert any(line.startswith("Leader wordcount-jobmanager-0, epoch 1, for ") for line in lines)
        assert any(line.startswith("Ready True Running") and line.endswith("[all] well") for line in lines)
        assert any("False NoStandby" in line and line.endswith("set spec.jobManager.replicas") for line in lines)
        assert "Vertex Parallelism Created Running Finished" in lines
        assert "count 4 - 3 1" in lines
        assert any(line.startswith("2 wordcount-jobmanager-1 the leader handed over") for line in lines)
        assert "restarted in epoch 2: count[2]: its TaskManager does not have it" in lines

    def test_an_ended_job_has_a_duration_and_its_error(self, kubectl: Call, jobs: FlinkJobs) -> None:
        status = ended("FAILED", leader=None)
        status["jobStatus"]["error"] = "count[1] failed: no space left"
        status["jobStatus"]["vertices"][0]["tasks"] = {"total": 4, "finished": 2, "failed": 1, "canceled": 1}
        jobs.create(status=status)
        lines = [" ".join(line.split()) for line in kubectl("status", "wordcount").out.splitlines()]
        assert "Vertex Parallelism Created Running Finished Canceled Failed" in lines
        assert "count 4 - - 2 1 1" in lines
        assert "State FAILED after 1m30s" in lines
        assert "Error count[1] failed: no space left" in lines
        assert "Leader none" in lines

    def test_a_leader_that_is_gone_is_not_called_one(self, kubectl: Call, jobs: FlinkJobs) -> None:
        jobs.create(status=running(currentLeader=None))
        lines = [" ".join(line.split()) for line in kubectl("status", "wordcount").out.splitlines()]
        assert "Leader none; the last was wordcount-jobmanager-0, epoch 1" in lines
        assert kubectl("status").out.splitlines()[1].split()[2] == "-"

    def test_json_is_the_status_as_the_resource_has_it(self, kubectl: Call, jobs: FlinkJobs) -> None:
        jobs.create(status=running())
        one = kubectl("status", "wordcount", "--output", "json").json
        assert (one["name"], one["namespace"]) == ("wordcount", jobs.namespace)
        assert one["status"]["jobStatus"]["state"] == "RUNNING"
        assert one["status"]["leader"]["epoch"] == 1
        assert kubectl("status", "--output", "json").json == [one]


class TestWatch:
    @pytest.fixture
    def proxy(self, jobs: FlinkJobs) -> Iterator[Proxy]:
        with proxy_to(jobs.server, "tests", groups=["system:masters"]) as proxy:
            yield proxy

    @pytest.fixture
    def watch(
        self, flinkjob: Call, jobs: FlinkJobs, proxy: Proxy, beside: Beside, tmp_path: Path
    ) -> Callable[..., Answer]:
        """``flinkjob watch wordcount`` of a job that runs, and what happens once the command has begun to watch it."""
        jobs.create(status=running())

        def call(then: Callable[[], object], *arguments: str) -> Answer:
            def wait_and_do() -> None:
                until(lambda: proxy.calls["watch", "flinkjobs"] > 0)
                then()

            beside(wait_and_do)
            where = ("-n", jobs.namespace, "--kubeconfig", proxy.kubeconfig(tmp_path))
            return flinkjob("watch", "wordcount", *arguments, *where)

        return call

    def test_ends_with_0_when_the_job_finishes(self, jobs: FlinkJobs, watch: Callable[..., Answer]) -> None:
        answer = watch(lambda: jobs.say("wordcount", ended("FINISHED")), "--output", "json")
        states = [json.loads(line)["status"]["jobStatus"]["state"] for line in answer.out.splitlines()]
        assert states == ["RUNNING", "FINISHED"]
        assert answer.code == 0

    @pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
    def test_ends_with_1_when_it_does_not(self, kubectl: Call, jobs: FlinkJobs, state: str) -> None:
        jobs.create(status=ended(state))
        answer = kubectl("watch", "wordcount")
        assert answer.code == 1
        assert answer.err == f"Error: job 'wordcount' is {state}\n"

    def test_tells_of_changes_and_failovers(self, jobs: FlinkJobs, watch: Callable[..., Answer]) -> None:
        new = {"pod": "wordcount-jobmanager-1", "epoch": 2, "since": "2026-01-01T00:00:40Z"}
        history = [failover(2, "wordcount-jobmanager-1")]

        def fail_over() -> None:
            jobs.say("wordcount", {"leader": new, "reconciling": True})
            jobs.say("wordcount", {"log": {"writable": True, "lagMs": 9.0}})
            jobs.say("wordcount", {"reconciling": False, "failovers": 1, "failoverHistory": history})
            jobs.say("wordcount", ended("FINISHED", leader=new, failoverHistory=history))

        answer = watch(fail_over)
        assert answer.code == 0
        tasks = "3 running, 1 of 4 finished"
        assert [line.partition(" ")[2] for line in answer.out.splitlines()] == [
            f"RUNNING led by wordcount-jobmanager-0 in epoch 1: {tasks}",
            f"RUNNING led by wordcount-jobmanager-1 in epoch 2, reconciling: {tasks}",
            "wordcount-jobmanager-1 leads in epoch 2: of 3 tasks under way 2 were continued, 1 had advanced, 0 were "
            "redeployed, 0 restarted",
            "  replayed 57 operations in 12 ms, reconciled in 200 ms, gap 812 ms",
            f"RUNNING led by wordcount-jobmanager-1 in epoch 2: {tasks}",
            f"FINISHED led by wordcount-jobmanager-1 in epoch 2: {tasks}",
        ]

    def test_a_deleted_job_is_told(self, jobs: FlinkJobs, watch: Callable[..., Answer]) -> None:
        answer = watch(jobs.delete)
        assert answer.code == 1
        assert answer.err == f"Error: the FlinkJob 'wordcount' in namespace '{jobs.namespace}' has been deleted\n"

    def test_a_job_that_was_deleted_and_made_again_is_another(
        self, jobs: FlinkJobs, proxy: Proxy, watch: Callable[..., Answer]
    ) -> None:
        def replace() -> None:
            cut_off(proxy)
            jobs.delete()
            jobs.create(status=ended("FINISHED"))
            proxy.heal()

        answer = watch(replace)
        assert answer.code == 1
        assert answer.err.splitlines()[-1].endswith("has been deleted")

    def test_outlives_an_outage_of_the_api_server(
        self, jobs: FlinkJobs, proxy: Proxy, watch: Callable[..., Answer]
    ) -> None:
        def outage() -> None:
            cut_off(proxy)
            jobs.say("wordcount", ended("FINISHED"))
            proxy.heal()

        answer = watch(outage)
        assert answer.code == 0
        assert answer.out.splitlines()[-1].partition(" ")[2].startswith("FINISHED")
        away, back = answer.err.splitlines()
        assert away.startswith(f"the API server at {proxy.url} cannot be reached: ")
        assert "(" not in away
        assert back == "the API server answers again"

    def test_gives_up_when_the_api_server_stays_away(self, jobs: FlinkJobs, proxy: Proxy, tmp_path: Path) -> None:
        jobs.create(status=running())
        now, said = [0.0], list[str]()

        def sleep(seconds: float) -> None:
            now[0] += seconds

        with Kube.connect(kubeconfig=proxy.kubeconfig(tmp_path), namespace=jobs.namespace) as kube:
            followed = kubejobs.follow(kube, "wordcount", note=said.append, clock=lambda: now[0], sleep=sleep)
            assert next(followed).state == "RUNNING"
            proxy.cut()
            with pytest.raises(ApiUnavailable):
                next(followed)
        assert kubejobs.PATIENCE < now[0] < kubejobs.PATIENCE + 5
        assert len(said) == 1


class TestCancel:
    def test_asks_the_leader_with_the_jobs_token_and_waits(
        self, kubectl: Call, jobs: FlinkJobs, leader: Leader
    ) -> None:
        jobs.create(status=running())
        jobs.add_token()

        def cancel() -> leaders.Answer:
            jobs.say("wordcount", ended("CANCELED"))
            return 202, {}, b"{}"

        leader.answers["PATCH", f"/jobs/{JOB_ID}"] = cancel
        answer = kubectl("cancel", "wordcount")
        assert (answer.code, answer.out) == (0, "Job wordcount is CANCELED.\n")
        ((method, path, headers),) = leader.asked
        assert (method, path) == ("PATCH", f"/jobs/{JOB_ID}?mode=cancel")
        assert headers["flinkjob-token"] == TOKEN
        assert "authorization" not in headers

    def test_follows_a_standby_to_the_leader(self, kubectl: Call, jobs: FlinkJobs, leader: Leader) -> None:
        jobs.create(status=running())
        jobs.add_token()
        jobs.add_pod("wordcount-jobmanager-1", leader.address)
        location = f"http://wordcount-jobmanager-1.wordcount-jobmanager.{jobs.namespace}.svc:8081/jobs/{JOB_ID}"
        answers = iter([(307, {"Location": location}, b"{}"), (202, {}, b"{}")])

        def answer() -> leaders.Answer:
            status, headers, body = next(answers)
            if status == 202:
                jobs.say("wordcount", ended("CANCELED"))
            return status, headers, body

        leader.answers["PATCH", f"/jobs/{JOB_ID}"] = answer
        assert kubectl("cancel", "wordcount", "--output", "json").json["status"]["jobStatus"]["state"] == "CANCELED"
        assert [path for _, path, _ in leader.asked] == [f"/jobs/{JOB_ID}?mode=cancel"] * 2

    def test_a_cancelled_job_is_cancelled(self, kubectl: Call, jobs: FlinkJobs) -> None:
        jobs.create(status=ended("CANCELED"))
        assert kubectl("cancel", "wordcount").code == 0

    def test_a_finished_job_cannot_be_cancelled(self, kubectl: Call, jobs: FlinkJobs) -> None:
        jobs.create(status=ended("FINISHED"))
        answer = kubectl("cancel", "wordcount")
        assert (answer.code, answer.out) == (1, "")
        assert answer.err == "Error: job 'wordcount' cannot be cancelled any more, it is FINISHED\n"

    def test_does_not_wait_for_ever(self, kubectl: Call, jobs: FlinkJobs, leader: Leader) -> None:
        jobs.create(status=running())
        jobs.add_token()
        leader.says("PATCH", f"/jobs/{JOB_ID}", {}, status=202)
        answer = kubectl("cancel", "wordcount", "--timeout", "1 s")
        assert answer.code == 1
        assert "job 'wordcount' is still RUNNING" in answer.err

    @pytest.mark.parametrize(
        ("status", "body", "words"),
        [
            (
                401,
                {"errors": ["the token is wrong"]},
                "JobManager 'wordcount-jobmanager-0' refuses: the token is wrong",
            ),
            (503, {"errors": ["No JobManager leads the job at the moment"]}, "No JobManager leads the job"),
            (500, {}, "JobManager 'wordcount-jobmanager-0' refuses: HTTP status 500"),
        ],
    )
    def test_what_the_leader_refuses_is_told(
        self, kubectl: Call, jobs: FlinkJobs, leader: Leader, status: int, body: object, words: str
    ) -> None:
        jobs.create(status=running())
        jobs.add_token()
        leader.says("PATCH", f"/jobs/{JOB_ID}", body, status=status)
        answer = kubectl("cancel", "wordcount")
        assert answer.code == 1
        assert words in answer.err
        assert answer.err.count("\n") == 1


class TestFailover:
    def test_asks_by_the_nonce_and_tells_what_happened(self, kubectl: Call, jobs: FlinkJobs, beside: Beside) -> None:
        jobs.create(status=running(), failoverNonce=4)

        def hand_over() -> None:
            until(lambda: jobs.get()["spec"]["failoverNonce"] == 5)
            new = {"pod": "wordcount-jobmanager-1", "epoch": 2, "since": "2026-01-01T00:00:40Z"}
            jobs.say("wordcount", {"leader": None})
            jobs.say("wordcount", {"leader": new, "reconciling": True})
            jobs.say(
                "wordcount",
                {"reconciling": False, "failovers": 1, "failoverHistory": [failover(2, "wordcount-jobmanager-1")]},
            )

        beside(hand_over)
        answer = kubectl("failover", "wordcount")
        assert answer.code == 0
        assert answer.out.splitlines() == [
            "wordcount-jobmanager-1 leads in epoch 2: of 3 tasks under way 2 were continued, 1 had advanced, 0 were "
            "redeployed, 0 restarted",
            "  replayed 57 operations in 12 ms, reconciled in 200 ms, gap 812 ms",
        ]
        assert "asked wordcount-jobmanager-0, which leads in epoch 1, to hand over" in answer.err

    def test_an_operator_that_does_nothing_is_told(self, kubectl: Call, jobs: FlinkJobs) -> None:
        jobs.create(status=running())
        answer = kubectl("failover", "wordcount", "--timeout", "1 s")
        assert (answer.code, answer.out) == (1, "")
        assert answer.err.splitlines()[-1] == "Error: the operator has not acted on it in time; is it running?"
        assert jobs.get()["spec"]["failoverNonce"] == 1

    def test_a_leader_that_stays_is_told(self, kubectl: Call, jobs: FlinkJobs) -> None:
        jobs.create(status=running(observedGeneration=9))
        answer = kubectl("failover", "wordcount", "--timeout", "1 s")
        assert answer.code == 1
        assert "nobody has taken over 'wordcount' in time" in answer.err

    def test_an_ended_job_needs_no_leader(self, kubectl: Call, jobs: FlinkJobs) -> None:
        jobs.create(status=ended("FINISHED"))
        for arguments in ([], ["--dry-run"]):
            answer = kubectl("failover", "wordcount", *arguments)
            assert answer.code == 1
            assert "job 'wordcount' is FINISHED: no task of it runs" in answer.err
        assert jobs.get()["spec"].get("failoverNonce", 0) == 0

    def test_a_dry_run_says_what_a_failover_would_do_and_does_nothing(
        self, kubectl: Call, jobs: FlinkJobs, leader: Leader
    ) -> None:
        jobs.create(status=running())
        told = preview(
            verdicts={"continued": 2, "advanced": 0, "redeployed": 1, "restarted": 1, "orphaned": 0},
            tasks=[
                {"task": "count[1]", "verdict": "redeployed", "reason": "its deployment may still be on its way"},
                {"task": "count[2]", "verdict": "restarted", "reason": "TaskManager t is not connected"},
            ],
            **{"waited-for": ["t"]},
        )
        leader.says("GET", PREVIEW, told)
        answer = kubectl("failover", "--dry-run", "wordcount")
        assert (answer.code, answer.err) == (0, "")
        assert answer.out.splitlines() == [
            "If wordcount-jobmanager-0 (epoch 1) failed over now: of 4 tasks 2 would be continued, 1 would be redeployed, "
            "1 would be restarted.",
            "  redeployed: count[1]: its deployment may still be on its way",
            "  restarted: count[2]: TaskManager t is not connected",
            "  A new leader would wait for t, up to jobmanager.failover.reconcile-timeout.",
        ]
        assert kubectl("failover", "--dry-run", "wordcount", "--output", "json").json == told
        assert jobs.get()["spec"].get("failoverNonce", 0) == 0
        assert {headers.get("flinkjob-token") for _, _, headers in leader.asked} == {None}

    def test_a_dry_run_of_a_large_job_names_some_tasks(self, kubectl: Call, jobs: FlinkJobs, leader: Leader) -> None:
        jobs.create(status=running())
        lost = [{"task": f"count[{n}]", "verdict": "restarted", "reason": "lost"} for n in range(1, 31)]
        leader.says("GET", PREVIEW, preview(verdicts={"restarted": 30}, tasks=lost))
        lines = kubectl("failover", "--dry-run", "wordcount").out.splitlines()
        assert len(lines) == 1 + 20 + 1
        assert lines[-1] == "  … and 10 more; --output json has all"

    def test_a_dry_run_without_tasks_under_way(self, kubectl: Call, jobs: FlinkJobs, leader: Leader) -> None:
        jobs.create(status=running())
        leader.says("GET", PREVIEW, preview(verdicts={"continued": 0}))
        out = kubectl("failover", "--dry-run", "wordcount").out
        assert out == "If wordcount-jobmanager-0 (epoch 1) failed over now: there are no tasks under way.\n"

    def test_a_leader_of_another_version_is_told(self, kubectl: Call, jobs: FlinkJobs, leader: Leader) -> None:
        jobs.create(status=running())
        leader.says("GET", PREVIEW, {"epoch": "first"})
        answer = kubectl("failover", "--dry-run", "wordcount")
        assert answer.code == 1
        assert answer.err.startswith("Error: the leader is of another version than this program: ")


def preview(**changes: object) -> dict[str, object]:
    """What a leader answers."""
    job = {"id": JOB_ID, "name": "wordcount", "state": "RUNNING", "epoch": 1, "leader": "wordcount-jobmanager-0"}
    return {**job, "verdicts": {}, "waited-for": [], "tasks": [], **changes}
