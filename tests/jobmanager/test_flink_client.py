"""Flink itself reads the REST API: its command line, and its message classes, which must lose and miss no field.

Opt-in, since it takes Flink 2.x and a JDK: ``FLINKJOB_FLINK_JARS`` names a directory with flink-clients and all that it
depends on, as Maven's ``dependency:copy-dependencies`` leaves them.
"""

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from flinkjob.graph.executiongraph import ExecutionGraph

Client = TestClient[web.Request, web.Application]

JARS = os.environ.get("FLINKJOB_FLINK_JARS", "")

pytestmark = pytest.mark.skipif(
    not JARS or shutil.which("java") is None,
    reason="needs java, and FLINKJOB_FLINK_JARS naming a directory with Flink 2.x's jars",
)

JOB = "/jobs/0123456789abcdef0123456789abcdef"
APPLICATION = "/applications/0123456789abcdef0123456789abcdef"
REST = "org.apache.flink.runtime.rest.messages."
WEB = "org.apache.flink.runtime.messages.webmonitor."

MESSAGES = {
    "/overview": "org.apache.flink.runtime.rest.handler.legacy.messages.ClusterOverviewWithVersion",
    "/config": REST + "DashboardConfiguration",
    "/jobs": WEB + "JobIdsWithStatusOverview",
    "/jobs/overview": WEB + "MultipleJobsDetails",
    "/applications/overview": WEB + "MultipleApplicationsDetails",
    APPLICATION: WEB + "ApplicationDetailsInfo",
    APPLICATION + "/exceptions": REST + "ApplicationExceptionsInfoWithHistory",
    JOB: REST + "job.JobDetailsInfo",
    JOB + "/config": REST + "JobConfigInfo",
    JOB + "/exceptions": REST + "JobExceptionsInfoWithHistory",
    JOB + "/accumulators": REST + "JobAccumulatorsInfo",
    JOB + "/plan": REST + "JobPlanInfo",
    JOB + "/status": WEB + "JobStatusInfo",
    JOB + "/vertices/VERTEX": REST + "JobVertexDetailsInfo",
    JOB + "/vertices/VERTEX/taskmanagers": REST + "JobVertexTaskManagersInfo",
    JOB + "/vertices/VERTEX/accumulators": REST + "JobVertexAccumulatorsInfo",
    JOB + "/vertices/VERTEX/subtasks/accumulators": REST + "job.SubtasksAllAccumulatorsInfo",
    JOB + "/vertices/VERTEX/subtasktimes": REST + "SubtasksTimesInfo",
    JOB + "/vertices/VERTEX/backpressure": REST + "JobVertexBackPressureInfo",
    JOB + "/vertices/VERTEX/flamegraph": "org.apache.flink.runtime.webmonitor.threadinfo.VertexFlameGraph",
    "/taskmanagers": REST + "taskmanager.TaskManagersInfo",
    "/taskmanagers/tm-1": REST + "taskmanager.TaskManagerDetailsInfo",
    "/taskmanagers/tm-1/logs": REST + "LogListInfo",
    "/jobmanager/config": REST + "ConfigurationInfo",
    "/jobmanager/environment": REST + "EnvironmentInfo",
    "/jobmanager/metrics": REST + "job.metrics.MetricCollectionResponseBody",
}

READER = """
import java.nio.file.*;
import org.apache.flink.runtime.rest.util.RestMapperUtils;

public class Reader {
    public static void main(String[] lines) throws Exception {
        var mapper = RestMapperUtils.getStrictObjectMapper();
        for (int i = 0; i < lines.length; i += 2) {
            Path file = Path.of(lines[i + 1]);
            try {
                Object message = mapper.readValue(file.toFile(), Class.forName(lines[i]));
                Files.writeString(file, mapper.writeValueAsString(message));
            } catch (Exception e) {
                throw new RuntimeException(lines[i] + ": " + e.getMessage());
            }
        }
    }
}
"""


async def java(*arguments: str, conf: Path) -> str:
    """What the program prints. Raises AssertionError with it when it fails."""
    command = ("java", "-cp", f"{JARS}/*", *arguments)
    environment = {**os.environ, "FLINK_CONF_DIR": str(conf)}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A configuration directory of Flink's client."""
    (tmp_path / "config.yaml").write_text("rest.address: 127.0.0.1\n")
    return tmp_path


async def flink(action: str, *arguments: str, client: Client, conf: Path) -> str:
    """Runs ``flink ACTION -m HOST:PORT …``."""
    frontend = "org.apache.flink.client.cli.CliFrontend"
    return await java(frontend, action, "-m", f"{client.host}:{client.port}", *arguments, conf=conf)


async def test_flink_list_shows_the_running_job(client: Client, conf: Path, graph: ExecutionGraph) -> None:
    listed = await flink("list", client=client, conf=conf)
    assert f"{graph.job_graph.id} : {graph.job_graph.name} (RUNNING)" in listed


async def test_flink_cancel_cancels_the_job(
    client: Client, conf: Path, graph: ExecutionGraph, calls: list[str]
) -> None:
    assert "Cancelled job" in await flink("cancel", graph.job_graph.id, client=client, conf=conf)
    assert calls == ["cancel"]


async def test_flinks_message_classes_read_every_answer_and_write_it_back(
    client: Client, conf: Path, graph: ExecutionGraph
) -> None:
    answers: dict[str, Any] = {}
    arguments: list[str] = []
    for number, (path, message) in enumerate(MESSAGES.items()):
        response = await client.get(path.replace("VERTEX", graph.vertices[0].job_vertex.id))
        answers[path] = await response.json()
        file = conf / f"{number}.json"
        file.write_text(json.dumps(answers[path]))
        arguments += [message, str(file)]
    (conf / "Reader.java").write_text(READER)
    await java(str(conf / "Reader.java"), *arguments, conf=conf)
    for number, path in enumerate(MESSAGES):
        assert json.loads((conf / f"{number}.json").read_text()) == answers[path], path
