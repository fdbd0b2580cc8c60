"""JobManagers and TaskManagers as real processes, with a real API server, certificates and roles around them."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flinkjob.api.flinkjob import job_id
from kube.apiserver import ApiServer
from kube.proxy import proxy_to
from local.clusters import begun_once, eventually
from rpc.certificates import make_authority, make_certificate, place

from .pods import JOB, JobOnKubernetes, delete_pod, set_pod_status, tls_files


@pytest.fixture
def job(apiserver: ApiServer, namespace: str, tmp_path: Path) -> Iterator[JobOnKubernetes]:
    job = JobOnKubernetes.create(apiserver, namespace, tmp_path)
    yield job
    job.close()


def ask(
    url: str, *, method: str = "GET", headers: dict[str, str] | None = None, context: ssl.SSLContext | None = None
) -> tuple[int, str]:
    request = urllib.request.Request(url, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def in_second(job: JobOnKubernetes) -> Any:
    """Wait until the first vertex is done and all tasks of the second run; they, by (subtask, attempt)."""
    job.job.open("first")
    job.until_status("the second vertex runs", running=4, state="RUNNING")
    return eventually(lambda: len(found := job.job.starts("second")) >= 4 and found, "four tasks tell of themselves")


def reasons(job: JobOnKubernetes) -> set[str]:
    return {event["reason"] for event in job.events()}


def test_a_killed_leader_is_a_non_event_and_the_resource_tells_of_it(job: JobOnKubernetes) -> None:
    job.start_jobmanager(0)
    job.start_jobmanager(1)
    for suffix in "ab":
        job.start_taskmanager(suffix)
    before = in_second(job)
    leader = job.leader()
    lease = job.lease()
    assert lease["spec"]["holderIdentity"].startswith(f"{leader.id}_uid-{leader.id[-1]}_")
    assert lease["metadata"]["annotations"]["flinkjob.io/rest"] == leader.rest.removeprefix("http://")
    standby = next(each for each in job.jobmanagers if each is not leader)
    eventually(lambda: ask_in_vain(f"{standby.rest}/readyz") == 200, "the standby is ready")
    leader.kill()

    status = job.until_status("the failover is told", failovers=1, state="RUNNING", reconciling=False)
    assert status["leader"]["pod"] == standby.id
    assert status["leader"]["epoch"] == 2
    [failover] = status["failoverHistory"]
    assert failover["verdicts"]["continued"] == 4
    assert failover["verdicts"]["restarted"] == 0
    assert (failover["epoch"], failover["leader"]) == (2, standby.id)
    # Nobody has emptied the Lease: it was waited for, and nobody decided anything meanwhile.
    assert failover["cause"] == f"the leader {leader.id} of epoch 1 is gone: it has not renewed its lease for 3 s"
    assert failover["gapMs"] >= 3000 > failover["replayMs"] + failover["reconcileMs"]
    assert sorted(status["runningTasks"].values()) == [2, 2]
    eventually(lambda: reasons(job) >= {"LeaderLost", "LeaderElected", "Replayed", "Reconciled"}, "there are Events")
    assert all(event["regarding"]["uid"] == job.uid for event in job.events())

    job.job.open("second")
    status = job.until_status("the job has finished", state="FINISHED")
    assert status["jobStatus"]["tasks"] == {
        "total": 7, "created": 0, "deploying": 0, "running": 0, "finished": 7, "canceling": 0, "canceled": 0, "failed": 0,
    }  # fmt: skip
    assert [vertex["name"] for vertex in status["jobStatus"]["vertices"]] == ["first", "second", "total"]
    assert status["log"] == {"writable": True, "lagMs": 0}
    assert job.job.starts("second") == before
    assert begun_once(before)
    managers = {entry["manager"] for entry in job.resource()["metadata"]["managedFields"] if "subresource" in entry}
    assert managers == {"flinkjob-jobmanager"}


def test_what_keeps_the_elected_from_leading_is_told_also_of_a_run_in_which_nobody_has_led(
    job: JobOnKubernetes,
) -> None:
    text = job.job.manifest.read_text()
    job.job.manifest.write_text(text.replace("gated:total", "gated:is_not_there"))
    assert job.job.manifest.read_text() != text
    jobmanager = job.start_jobmanager(0)
    trouble = eventually(lambda: job.status().get("trouble"), "the trouble is told")
    assert trouble["reason"] == "JobInvalid"
    assert "is_not_there" in trouble["message"]
    status = job.status()
    assert status["leader"]["pod"] == jobmanager.id
    assert status["jobStatus"] == {"jobId": job_id(job.namespace, JOB, job.uid), "error": trouble["message"]}
    assert "log" not in status
    eventually(lambda: "JobWaits" in reasons(job), "there is an Event")


def test_an_outage_of_the_api_server_does_not_stop_the_job(job: JobOnKubernetes, apiserver: ApiServer) -> None:
    leader = job.start_jobmanager(0)
    job.start_jobmanager(1)
    for suffix in "ab":
        job.start_taskmanager(suffix)
    before = in_second(job)
    leader = job.leader()
    apiserver.stop_api()
    # Much longer than a leader may lead without its lease if nothing else fences it.
    eventually(lambda: job.log_of(leader).count("the API server does not answer") > 12, "the outage is noticed")
    code, text = ask(f"{leader.rest}/leader")
    assert (code, json.loads(text)["leading"]) == (200, True)
    job.job.open("second")
    id = eventually(lambda: json.loads(ask(f"{leader.rest}/jobs")[1])["jobs"][0]["id"], "the leader answers")
    eventually(
        lambda: json.loads(ask(f"{leader.rest}/jobs/{id}/status")[1])["status"] == "FINISHED", "the job finishes"
    )
    apiserver.start_api()
    status = job.until_status("the end is told", state="FINISHED")
    assert (status["failovers"], status["leader"]["epoch"]) == (0, 1)
    assert job.job.starts("second") == before
    assert "leads no more" not in job.log_of(leader)


def test_a_leader_that_alone_is_cut_off_gives_way_and_its_tasks_go_on(
    job: JobOnKubernetes, apiserver: ApiServer, tmp_path: Path
) -> None:
    with proxy_to(apiserver, "tests-proxied", groups=["system:masters"]) as proxy:
        old = job.start_jobmanager(0, kubeconfig=proxy.kubeconfig(tmp_path))
        for suffix in "ab":
            job.start_taskmanager(suffix)
        before = in_second(job)
        new = job.start_jobmanager(1)
        eventually(lambda: ask_in_vain(f"{new.rest}/readyz") == 200, "the standby is ready")
        proxy.cut()
        status = job.until_status("the other one leads", failovers=1, reconciling=False, state="RUNNING")
        assert status["leader"]["pod"] == new.id
        assert status["failoverHistory"][0]["verdicts"]["continued"] == 4
        assert "a newer leader claimed epoch 2" in job.log_of(old)
        job.job.open("second")
        job.until_status("the job has finished", state="FINISHED")
        assert job.job.starts("second") == before
        proxy.heal()
        assert job.status()["leader"]["epoch"] == 2


def ask_in_vain(url: str) -> int:
    """The status of an answer; 0 where nobody answers yet."""
    try:
        return ask(url)[0]
    except OSError:
        return 0


def test_a_container_that_died_is_followed_by_the_next_one_in_its_pod_at_once(job: JobOnKubernetes) -> None:
    first = job.start_jobmanager(0)
    for suffix in "ab":
        job.start_taskmanager(suffix)
    before = in_second(job)
    first.kill()
    job.start_jobmanager(0)
    status = job.until_status("the failover is told", failovers=1, reconciling=False)
    assert status["failoverHistory"][0]["verdicts"]["continued"] == 4
    assert job.job.starts("second") == before


@pytest.mark.parametrize("end", ["failed", "deleted"])
def test_the_tasks_of_a_taskmanager_whose_pod_has_ended_run_again_at_once(
    job: JobOnKubernetes, apiserver: ApiServer, end: str
) -> None:
    job.start_jobmanager(0)
    for suffix in "ab":
        job.start_taskmanager(suffix)
    in_second(job)
    lost = job.taskmanagers[0]
    lost.kill()
    if end == "deleted":
        delete_pod(apiserver, job.namespace, lost.id)
    else:
        terminated = {"exitCode": 137, "reason": "OOMKilled"}
        status = {"name": "taskmanager", "state": {"terminated": terminated}, "ready": False, "restartCount": 0}
        container = {**status, "image": "none", "imageID": ""}
        set_pod_status(apiserver, job.namespace, lost.id, phase="Failed", containerStatuses=[container])
    # The time-outs would take most of a minute.
    job.start_taskmanager("c")
    eventually(lambda: len(job.job.starts("second")) == 6, "two tasks run again")
    events = eventually(
        lambda: [event for event in job.events() if event["reason"] == "TaskRestarted"], "Events tell of it"
    )
    told = events[0]["note"]
    assert lost.id in told
    assert ("OOMKilled" if end == "failed" else "its pod is gone") in told
    job.job.open("second")
    job.until_status("the job has finished", state="FINISHED")


def test_a_clean_stop_of_the_leader_hands_over_at_once(job: JobOnKubernetes) -> None:
    job.start_jobmanager(0)
    job.start_jobmanager(1)
    for suffix in "ab":
        job.start_taskmanager(suffix)
    before = in_second(job)
    leader = job.leader()
    leader.process.terminate()
    assert leader.process.wait(timeout=30) == 0
    job.until_status("the failover is told", failovers=1, reconciling=False)
    assert job.job.starts("second") == before


def test_the_two_doors_let_in_whom_they_should(job: JobOnKubernetes, tmp_path: Path) -> None:
    leader = job.start_jobmanager(0)
    job.leader()
    rpc = f"https://localhost:{job.ports[0]}/taskmanagers/connect"
    # The TaskManagers' door: certificates of this job only, and nothing but TaskManagers.
    nobody = ssl.create_default_context(cafile=tls_files(job, "taskmanager").authority)
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        ask(rpc, context=nobody)
    files = tls_files(job, "taskmanager")
    nobody.load_cert_chain(files.certificate, files.key)
    assert ask(rpc, context=nobody)[0] == 400
    assert ask(rpc.replace("taskmanagers/connect", "jobs"), context=nobody)[0] == 404
    # The other one: reading is free, changing takes the token.
    assert ask(f"{leader.rest}/healthz")[0] == 200
    assert ask(f"{leader.rest}/taskmanagers/connect")[0] == 404
    id = json.loads(ask(f"{leader.rest}/jobs")[1])["jobs"][0]["id"]
    cancel = f"{leader.rest}/jobs/{id}?mode=cancel"
    assert ask(cancel, method="PATCH")[0] == 401
    assert ask(cancel, method="PATCH", headers={"Authorization": "Bearer wrong"})[0] == 401
    code, text = ask(f"{leader.rest}/jobs/{id}/failover-preview")
    assert (code, json.loads(text)["verdicts"]["restarted"]) == (200, 0)
    code, text = ask(f"{leader.rest}/metrics")
    assert code == 200
    assert "flinkjob_jobmanager_leader 1.0" in text
    assert "flinkjob_jobmanager_log_append_seconds_bucket" in text
    # A certificate of another authority leads nowhere.
    strangers = make_authority(tmp_path / "strangers")
    place(make_certificate(strangers, "taskmanager", usage="clientAuth"), tmp_path / "strange")
    stranger = job.start_taskmanager("x", tls=tmp_path / "strange")
    job.start_taskmanager("a", metrics_port=job.ports[3])
    told = f"http://127.0.0.1:{job.ports[3]}"

    eventually(lambda: ask_in_vain(f"{told}/readyz") == 200, "the TaskManager is taken in")
    assert "flinkjob_taskmanager_registered 1.0" in ask(f"{told}/metrics")[1]
    assert stranger.id not in ask(f"{leader.rest}/taskmanagers")[1]
    assert ask(cancel, method="PATCH", headers={"Flinkjob-Token": "sesame"})[0] == 202
    job.until_status("the job is cancelled", state="CANCELED")


def test_new_certificates_are_taken_up_by_processes_that_run(job: JobOnKubernetes, tmp_path: Path) -> None:
    job.start_jobmanager(0)
    first = job.start_taskmanager("a")
    job.until_status("tasks run", running=2)
    anew = make_authority(tmp_path / "anew")
    place(make_certificate(anew, "localhost", usage="serverAuth,clientAuth"), job.path / "jobmanager-tls")
    place(make_certificate(anew, "taskmanager", usage="clientAuth"), job.path / "taskmanager-tls")
    job.start_taskmanager("b")
    job.job.open("first")
    job.until_status("both work", running=4)
    assert first.process.poll() is None
    job.job.open("second")
    job.until_status("the job has finished", state="FINISHED")
