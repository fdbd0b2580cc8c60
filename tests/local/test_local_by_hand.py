"""A cluster without anybody who keeps it: each process started on its own, as from several shells, by flags or variables."""

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from docs.blocks import ROOT, run_by
from flinkjob.api.flinkjob import job_id
from taskmanager.scripted import children_of

from .clusters import DEADLINE, GatedJob, eventually, get

Shell = Callable[..., "subprocess.Popen[bytes]"]

ELECTION = "high-availability.kubernetes.leader-election"


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Starts ``flinkjob …`` in the background, with environment variables."""
    started = []

    def call(*arguments: object, **environment: object) -> "subprocess.Popen[bytes]":
        variables = {f"FLINKJOB_{name}": str(value) for name, value in environment.items()}
        with (tmp_path / "shells.log").open("ab") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "flinkjob", *map(str, arguments)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **variables},
                )
            )
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def ports() -> list[int]:
    """Two ports that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        return [one.getsockname()[1], two.getsockname()[1]]


@pytest.mark.parametrize(
    ("number", "lease", "deadline"),
    [
        pytest.param(signal.SIGTERM, "1 h", "30 min", id="a clean stop releases the lease"),
        pytest.param(signal.SIGKILL, "3 s", "2 s", id="a lease that nobody renews expires"),
    ],
)
def test_the_standby_takes_over(
    shell: Shell, job: GatedJob, tmp_path: Path, ports: list[int], number: int, lease: str, deadline: str
) -> None:
    options = {
        "jobmanager.failover.operation-log-store": "filesystem",
        "high-availability.storageDir": str(tmp_path / "storage"),
        f"{ELECTION}.lease-duration": lease,
        f"{ELECTION}.renew-deadline": deadline,
        f"{ELECTION}.retry-period": "300 ms",
    }
    flags = [flag for key, value in options.items() for flag in ("--set", f"{key}={value}")]
    first, second = (f"http://127.0.0.1:{port}" for port in ports)
    addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
    path = f"/v1/jobs/{job_id('default', 'gated', 'by-hand')}/status"

    leader = shell("jobmanager", job.manifest, "--id", "one", "--port", ports[0], "--uid", "by-hand", *flags)
    eventually(lambda: get(first + path), "the first JobManager leads")
    shell(
        "jobmanager",
        job.manifest,
        JOBMANAGER_ID="two",
        JOBMANAGER_PORT=ports[1],
        JOBMANAGER_UID="by-hand",
        SET=";".join(f"{key}={value}" for key, value in options.items()),
    )
    eventually(lambda: get(second + path), "the second one knows who leads")
    taskmanagers = [
        shell("taskmanager", "--id", "red", "--jobmanagers", addresses, "--slots", 2, "--module-dir", job.path),
        shell(
            "taskmanager",
            TASKMANAGER_ID="blue",
            TASKMANAGER_JOBMANAGERS=addresses,
            TASKMANAGER_SLOTS=2,
            TASKMANAGER_MODULE_DIR=job.path,
            TASKMANAGER_WORK_DIR=tmp_path / "work",
        ),
    ]
    job.open("first")
    eventually(lambda: len(job.starts("second")) == 4, "the tasks run")
    before = job.starts("second")
    names = {entry["id"] for entry in get(f"{first}/taskmanagers")["taskmanagers"]}
    assert names == {"red", "blue"}
    leader.send_signal(number)
    code = leader.wait(DEADLINE)
    assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    eventually(lambda: (get(f"{second}/leader") or {}).get("leading"), "the second JobManager leads")
    assert get(f"{second}/leader")["epoch"] == 2
    # Whoever died can be started again, and stands by.
    again = shell("jobmanager", job.manifest, "--id", "one", "--port", ports[0], "--uid", "by-hand", *flags)
    eventually(lambda: get(first + path) == {"status": "RUNNING"}, "the first one stands by and sends questions on")
    assert get(f"{first}/leader")["leading"] is False
    job.open("second")
    eventually(lambda: get(first + path) == {"status": "FINISHED"}, "the job has finished")
    assert job.starts("second") == before
    # TaskManagers go when there is nothing left to do.
    assert [taskmanager.wait(DEADLINE) for taskmanager in taskmanagers] == [0, 0]
    again.terminate()
    assert again.wait(DEADLINE) == 0


def test_the_readmes_commands_run_its_job(
    shell: Shell, tmp_path: Path, ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (block,) = run_by("tests/local/test_local_by_hand.py")
    text = block.text.replace("/tmp/ha", str(tmp_path / "ha"))
    for shown, port in zip(("8081", "8082"), ports, strict=True):
        text = text.replace(shown, str(port))
    *jobmanagers, taskmanager = (
        shell(*shlex.split(line.removeprefix(".venv/bin/flinkjob "))) for line in text.splitlines()
    )
    overview = f"http://127.0.0.1:{ports[0]}/jobs/overview"
    eventually(
        lambda: [job["state"] for job in (get(overview) or {}).get("jobs", [])] == ["FINISHED"], "the job has finished"
    )
    assert taskmanager.wait(DEADLINE) == 0
    assert all(jobmanager.poll() is None for jobmanager in jobmanagers)


def test_a_taskmanager_goes_when_it_is_told_to(shell: Shell, ports: list[int]) -> None:
    taskmanager = shell("taskmanager", "--jobmanagers", f"127.0.0.1:{ports[0]}")
    (server,) = eventually(lambda: children_of(taskmanager.pid), "it has started its fork server")
    (worker,) = eventually(lambda: children_of(server), "that has forked its worker process")
    taskmanager.terminate()
    assert taskmanager.wait(DEADLINE) == 0
    assert not Path(f"/proc/{worker}").exists()
    assert not Path(f"/proc/{server}").exists()
