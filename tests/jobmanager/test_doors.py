"""Who may change something by REST."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from flinkjob.jobmanager.doors import changes_need_token
from flinkjob.jobmanager.rest import RestBackend, add_rest_routes

from .conftest import Client

JOB = "/jobs/" + "0123456789abcdef" * 2


@pytest.fixture
async def guarded(make_backend: Callable[..., RestBackend], tmp_path: Path) -> "Callable[[], Awaitable[Client]]":
    async def start() -> Client:
        app = web.Application()
        add_rest_routes(app, make_backend())
        app.middlewares.append(changes_need_token(tmp_path / "token"))
        client = TestClient(TestServer(app))
        await client.start_server()
        return client

    return start


Guarded = Callable[[], Awaitable[Client]]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Basic c2VzYW1lOg=="}, 401),
        ({"Authorization": "sesame"}, 401),
        ({"Flinkjob-Token": "wrong"}, 401),
        ({"Flinkjob-Token": ""}, 401),
        ({"Authorization": "Bearer sesame"}, 202),
        ({"Authorization": "bearer sesame"}, 202),
        ({"Flinkjob-Token": "sesame"}, 202),
    ],
)
async def test_a_change_needs_the_token(
    guarded: Guarded, tmp_path: Path, calls: list[str], headers: dict[str, str], status: int
) -> None:
    (tmp_path / "token").write_text("sesame\n")
    client = await guarded()
    answer = await client.patch(JOB, headers=headers)
    assert answer.status == status
    assert calls == (["cancel"] if status == 202 else [])
    if status == 401:
        assert "Authorization: Bearer TOKEN" in (await answer.json())["errors"][0]
    await client.close()


async def test_reading_needs_none(guarded: Guarded) -> None:
    client = await guarded()
    assert (await client.get(JOB)).status == 200
    assert (await client.get("/healthz")).status == 200
    await client.close()


async def test_a_token_that_is_not_there_or_empty_lets_nobody_change_anything(
    guarded: Guarded, tmp_path: Path, calls: list[str]
) -> None:
    client = await guarded()
    for content in (None, "", " \n"):
        if content is not None:
            (tmp_path / "token").write_text(content)
        for headers in ({}, {"Flinkjob-Token": ""}, {"Authorization": "Bearer "}):
            assert (await client.patch(JOB, headers=headers)).status == 503
    assert calls == []
    await client.close()


async def test_a_new_token_counts_at_once(guarded: Guarded, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old")
    client = await guarded()
    (tmp_path / "token").write_text("new")
    assert (await client.patch(JOB, headers={"Flinkjob-Token": "old"})).status == 401
    assert (await client.patch(JOB, headers={"Flinkjob-Token": "new"})).status == 202
    await client.close()


async def test_a_preview_is_told_to_everybody(guarded: Guarded) -> None:
    client = await guarded()
    told = await (await client.get(f"{JOB}/failover-preview")).json()
    assert told["verdicts"] == {"continued": 1, "advanced": 0, "redeployed": 0, "restarted": 1, "orphaned": 0}
    assert told["waited-for"] == ["tm-2"]
    [task] = told["tasks"]
    assert (task["task"], task["subtask"], task["verdict"]) == ("read[2]", 2, "restarted")
    assert "tm-2 is not connected" in task["reason"]
    await client.close()
