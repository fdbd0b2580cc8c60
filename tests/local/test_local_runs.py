"""The life of a `flinkjob run`: interrupted, resumed, cancelled; its files and addresses; what damage does to it."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from flinkjob.rpc.codec import encode_message, frame
from flinkjob.rpc.connection import PROTOCOL_ERROR, TASKMANAGER_PATH
from flinkjob.worker import protocol as msg

from .clusters import (
    DEADLINE,
    RESULT,
    GatedJob,
    Run,
    alive,
    check_nobody_is_left,
    eventually,
    everybody,
    get,
    storage_of,
)
from .conftest import Start


class TestResuming:
    def test_a_job_goes_on_after_everything_was_killed(self, start: Start) -> None:
        run = start()
        before = run.in_second()
        first, pids = run.job.starts("first"), everybody(run)
        run.kill_all()
        check_nobody_is_left(pids)
        again = start()
        again.running("second", 4, epoch=2)
        outcome = again.finish()
        assert outcome.code == 0
        assert outcome.report["outputs"] == RESULT
        assert again.job.starts("first") == first
        assert set(again.job.starts("second")) == {*before, *((subtask, 1) for subtask, _ in before)}
        (failover,) = outcome.report["failovers"]
        assert failover["gap_ms"] is None
        assert failover["verdicts"]["restarted"] == 4
        assert all("the cluster was stopped" in told["reason"] for told in failover["restarted"])
        assert outcome.report["tasks"] == {"total": 7, "finished": 7, "restarted": 4}

    def test_an_ended_job_is_not_run_again(self, start: Start) -> None:
        first = start().finish()
        run = start()
        again = run.end()
        assert again.code == 0
        assert again.report == first.report
        assert "has ended already" in again.stderr
        assert {len(marks) for marks in run.job.starts("second").values()} == {1}

    def test_a_state_directory_serves_one_run_at_a_time(self, start: Start) -> None:
        run = start()
        before = run.in_second()
        outcome = start().end()
        assert outcome.code == 2
        assert outcome.stdout == ""
        assert outcome.stderr == f"Error: --state-dir {run.state} is in use by process {run.process.pid}\n"
        assert run.finish().code == 0
        assert run.job.starts("second") == before

    def test_a_state_directory_is_one_jobs(self, start: Start, job: GatedJob) -> None:
        assert start().finish().code == 0
        job.manifest.write_text(job.manifest.read_text().replace("name: gated}", "name: other}"))
        outcome = start().end()
        assert outcome.code == 2
        assert "holds another job (default/gated)" in outcome.stderr


class TestCancelling:
    def test_ctrl_c_cancels_the_job_and_leaves_nobody_behind(self, start: Start) -> None:
        run = start()
        run.in_second()
        pids = everybody(run)
        assert len(pids) == 2 + 2 + 4
        run.process.send_signal(signal.SIGINT)
        outcome = run.end()
        assert outcome.code == 1
        assert outcome.report["job"]["state"] == "CANCELED"
        assert outcome.report["tasks"]["finished"] == 2
        check_nobody_is_left(pids)
        cluster = json.loads((run.state / "cluster.json").read_text())
        assert (cluster["pid"], cluster["jobmanagers"], cluster["taskmanagers"]) == (0, [], [])

    def test_ctrl_c_cancels_also_while_the_leader_is_being_replaced(self, start: Start) -> None:
        run = start()
        run.in_second()
        os.kill(run.leader()["pid"], signal.SIGKILL)
        run.process.send_signal(signal.SIGINT)
        outcome = run.end()
        assert outcome.code == 1
        assert outcome.report["job"]["state"] == "CANCELED"
        check_nobody_is_left(everybody(run))

    def test_ctrl_c_twice_stops_at_once(self, start: Start) -> None:
        run = start()
        run.in_second()
        pids = everybody(run)
        # The job cannot end as long as this one does not say that its tasks have.
        os.kill(run.cluster()["taskmanagers"][0]["pid"], signal.SIGSTOP)
        run.process.send_signal(signal.SIGINT)
        eventually(lambda: (view := run.progress()) and view["state"] == "CANCELLING", "the job is being cancelled")
        run.process.send_signal(signal.SIGINT)
        outcome = run.end()
        assert outcome.code == 130
        assert outcome.stdout == ""
        assert "Traceback" not in outcome.stderr
        check_nobody_is_left(pids)
        again = start().end()
        assert again.code == 1
        assert again.report["job"]["state"] == "CANCELED"

    def test_a_job_can_be_cancelled_over_rest(self, start: Start) -> None:
        run = start()
        run.in_second()
        job_id = run.cluster()["job_id"]
        # The standby sends the request on.
        assert get(f"{run.standby()['rest']}/v1/jobs/{job_id}", method="PATCH") is None
        assert get(f"{run.leader()['rest']}/v1/jobs/{job_id}", method="PATCH") == {}
        outcome = run.end()
        assert outcome.code == 1
        assert outcome.report["job"]["state"] == "CANCELED"

    def test_nobody_outlives_the_one_who_keeps_the_cluster(self, start: Start) -> None:
        run = start()
        run.in_second()
        pids = everybody(run)
        os.kill(run.process.pid, signal.SIGKILL)
        check_nobody_is_left(pids)


class TestLookingFromOutside:
    def test_cluster_json_tells_who_runs_where(self, start: Start) -> None:
        run = start("--jobmanagers", "3", "--taskmanagers", "4", "--slots", "1")
        run.in_second()
        leader = run.leader()
        cluster = run.cluster()
        assert set(cluster) == {"pid", "job_id", "jobmanagers", "taskmanagers", "ended"}
        assert [set(entry) for entry in cluster["jobmanagers"]] == [{"id", "pid", "rest", "leader"}] * 3
        assert [set(entry) for entry in cluster["taskmanagers"]] == [{"id", "pid"}] * 4
        assert [entry["id"] for entry in cluster["jobmanagers"] if entry["leader"]] == [leader["id"]]
        for kind in ("jobmanager", "taskmanager"):
            for entry in cluster[f"{kind}s"]:
                command = Path(f"/proc/{entry['pid']}/cmdline").read_text().split("\0")
                assert kind in command
                assert entry["id"] in command
        os.kill(leader["pid"], signal.SIGKILL)
        successor = run.leader(but=leader["id"])
        flags = {entry["id"]: entry["leader"] for entry in run.cluster()["jobmanagers"]}
        assert {id for id, leads in flags.items() if leads} == {successor["id"]}
        assert run.finish().code == 0

    def test_a_standby_sends_questions_on_to_whoever_leads(self, start: Start) -> None:
        run = start()
        run.in_second()
        dead, standby, job_id = run.leader(), run.standby(), run.cluster()["job_id"]
        path = f"/v1/jobs/{job_id}/status?x=1"
        assert redirect_of(standby["rest"] + path) == dead["rest"] + path
        assert get(standby["rest"] + path) == {"status": "RUNNING"}
        assert get(f"{standby['rest']}/leader")["leading"] is False
        os.kill(dead["pid"], signal.SIGKILL)
        run.running("second", 4, epoch=2)
        # The one that sent questions on answers them now; the one that came back sends them on.
        assert redirect_of(standby["rest"] + path) is None
        eventually(
            lambda: redirect_of(dead["rest"] + path) == standby["rest"] + path, "the new standby knows the leader"
        )
        assert get(dead["rest"] + path) == {"status": "RUNNING"}
        assert run.finish().code == 0


def redirect_of(url: str) -> str | None:
    """Where a URL sends its client, with 307."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *args: object) -> None:
            return None

    try:
        urllib.request.build_opener(Stay).open(url, timeout=5).close()
    except urllib.error.HTTPError as answer:
        answer.close()
        return answer.headers["Location"] if answer.code == 307 else None
    except OSError:
        return None
    return None


class TestNonsense:
    @pytest.mark.parametrize("registered", [False, True])
    @pytest.mark.parametrize("nonsense", [b"", b"\xff\x00nonsense", b"\x93\xa8register", b"\x91" * 2000])
    async def test_is_answered_by_a_disconnection_and_the_job_goes_on(
        self, nonsense_run: Run, nonsense: bytes, registered: bool
    ) -> None:
        rest = nonsense_run.leader()["rest"]
        async with aiohttp.ClientSession() as session, session.ws_connect(rest + TASKMANAGER_PATH) as socket:
            if registered:
                # More than one of this name: each is over when the next one begins.
                register = msg.Register(msg.PROTOCOL_VERSION, "", "stranger", "here", 1, ())
                await socket.send_bytes(frame([encode_message(register)]))
                await socket.receive_bytes(timeout=DEADLINE)
            await socket.send_bytes(nonsense)
            while (answer := await socket.receive(timeout=DEADLINE)).type is aiohttp.WSMsgType.BINARY:
                pass
            assert answer.type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == PROTOCOL_ERROR
        assert nonsense_run.progress()["state"] == "RUNNING"


@pytest.fixture(scope="module")
def nonsense_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run that has to bear all nonsense, and must not have noticed any of it in the end."""
    path = tmp_path_factory.mktemp("nonsense")
    run = Run.start(GatedJob.create(path / "job"), path / "state")
    try:
        before = run.in_second()
        yield run
        outcome = run.finish()
        assert outcome.code == 0
        assert outcome.report["outputs"] == RESULT
        assert outcome.report["failovers"] == []
        assert run.job.starts("second") == before
    finally:
        run.close()


class TestWithoutALog:
    def test_a_new_leader_runs_the_whole_job_again(self, start: Start) -> None:
        run = start(jobmanager_failover_operation__log__store="none")
        before = run.in_second()
        dead = run.leader()
        os.kill(dead["pid"], signal.SIGKILL)
        run.leader(not_pid=dead["pid"])
        eventually(lambda: all(len(m) == 2 for m in run.job.starts("second").values()), "all tasks have begun anew")
        outcome = run.finish()
        assert outcome.code == 0
        assert outcome.report["outputs"] == RESULT
        assert {len(marks) for marks in run.job.starts("first").values()} == {2}
        assert not any(alive(marks[0].pid) for marks in before.values())
        (failover,) = outcome.report["failovers"]
        # What was lost is known from the last look before the leader's death, which may be older than what has run.
        lost = failover["verdicts"].pop("restarted")
        told = [re.fullmatch(r"(first|second) \((\d) tasks\)", one["task"]) for one in failover["restarted"]]
        assert sum(int(match[2]) for match in told if match) == lost <= 6
        assert failover["verdicts"] == {"continued": 0, "advanced": 0, "redeployed": 0, "orphaned": 0}
        assert failover["gap_ms"] >= 0
        assert outcome.report["tasks"]["restarted"] == lost
        assert not list(storage_of(run).glob("oplog/*"))


class TestDamage:
    def damaged(self, run: Run) -> tuple[Path, dict[Path, str]]:
        """A job that was killed, with a byte of its log turned over; the log's file, and what all files hold."""
        run.in_second()
        run.kill_all()
        (log,) = storage_of(run).glob("oplog/*.log")
        data = bytearray(log.read_bytes())
        data[len(data) // 2] ^= 0xFF
        log.write_bytes(data)
        return log, contents(log.parent)

    def test_of_the_log_makes_the_job_wait_for_a_person(self, start: Start) -> None:
        run = start()
        log, before = self.damaged(run)
        outcome = start().end()
        assert outcome.code == 1
        assert outcome.stdout == ""
        last = outcome.stderr.splitlines()[-1]
        assert last.startswith("Error: ")
        assert log.name in last
        assert "offset" in last
        assert "Traceback" not in outcome.stderr
        assert before.items() <= contents(log.parent).items()

    def test_of_the_log_starts_the_job_anew_if_that_is_wanted(self, start: Start) -> None:
        run = start()
        log, before = self.damaged(run)
        again = start(jobmanager_failover_on__corrupted__log="restart")
        outcome = again.finish()
        assert outcome.code == 0, outcome.stderr
        assert outcome.report["outputs"] == RESULT
        assert {len(marks) for marks in again.job.starts("first").values()} == {2}
        # Set aside, and not a byte of it changed.
        assert before[log] in contents(storage_of(run)).values()

    def test_of_the_result_is_told_in_a_sentence(self, start: Start) -> None:
        run = start()
        assert run.finish().code == 0
        (storage_of(run) / "result").write_bytes(b'{"job_id": 7')
        outcome = start().end()
        assert outcome.code == 1
        assert outcome.stdout == ""
        assert outcome.stderr.startswith("Error: the job's result cannot be read")
        assert outcome.stderr.count("\n") == 1


def contents(directory: Path) -> dict[Path, str]:
    """Digests of all files below a directory that hold anything."""
    files = (file for file in directory.rglob("*") if file.is_file() and file.stat().st_size)
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_processes_that_cannot_be_kept_running_end_the_run(start: Start, job: GatedJob) -> None:
    run = start()
    run.running("first", 2)
    # Nobody can start a JobManager from a manifest that is not there any more.
    job.manifest.unlink()
    for entry in run.cluster()["jobmanagers"]:
        os.kill(entry["pid"], signal.SIGKILL)
    outcome = run.end()
    assert outcome.code == 1
    assert outcome.stdout == ""
    last = outcome.stderr.splitlines()[-1]
    assert last.startswith("Error: jobmanager-")
    assert "right after its start (its process ended with exit code 2); see " in last
    log = Path(last.partition("; see ")[2])
    assert "cannot be read: No such file or directory" in log.read_text()


def test_python_m_flinkjob_is_the_command() -> None:
    shown = subprocess.run([sys.executable, "-m", "flinkjob", "--help"], capture_output=True, text=True, check=True)
    assert "taskmanager" in shown.stdout
