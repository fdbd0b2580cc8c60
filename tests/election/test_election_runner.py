"""The election's shell in virtual time: terms begin and end when they should, whatever the store does."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from flinkjob.api.errors import Deposed, LogUnavailable
from flinkjob.election.record import LeaseRecord
from flinkjob.election.runner import LeaderElection, steady_clock

from .virtualtime import MemoryStore, VirtualLoop, now, run

Scenario = Callable[[], Coroutine[Any, Any, None]]
Fence = Callable[[], Awaitable[bool]]


class Candidate:
    """A LeaderElection and what it has told: (time, "elected") and (time, reason)."""

    def __init__(self, name: str, store: MemoryStore, jitter: float = 0.5, fence: Fence | None = None) -> None:
        self.events: list[tuple[float, str]] = []
        self.election = LeaderElection(
            name,
            store,
            address=f"{name}:6123",
            fence=fence,
            on_elected=lambda: self.events.append((now(), "elected")),
            on_lost=lambda reason: self.events.append((now(), reason)),
            clock=now,
            jitter=lambda: jitter,
            timestamp=lambda: "whenever",
        )
        self.task = asyncio.create_task(self.election.run())

    @property
    def leads(self) -> bool:
        return self.election.is_leader()

    async def kill(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


def test_a_free_lease_is_taken_and_kept() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        first = Candidate("first", store)
        await asyncio.sleep(100.0)
        assert first.leads
        assert [what for _, what in first.events] == ["elected"]
        assert first.events[0][0] < 0.1
        assert store.record is not None
        assert (store.record.holder, store.record.address, store.record.transitions) == ("first", "first:6123", 1)
        renewals = [time for time, call in store.calls if call == "write"]
        assert len(renewals) >= 40
        await first.kill()
        assert not first.leads

    run(scenario())


def test_a_standby_knows_who_leads_and_where() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        first = Candidate("first", store)
        await asyncio.sleep(1.0)
        second = Candidate("second", store)
        await asyncio.sleep(10.0)
        assert first.leads
        assert not second.leads
        assert second.election.record is not None
        assert second.election.record.address == "first:6123"
        await first.kill()
        await second.kill()

    run(scenario())


def test_a_dead_leaders_lease_expires_after_its_duration() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        first = Candidate("first", store)
        second = Candidate("second", store, jitter=0.9)
        await asyncio.sleep(5.0)
        [leader, other] = sorted([first, second], key=lambda candidate: not candidate.leads)
        await leader.kill()
        last_change = max(time for time, call in store.calls if call == "write") + 0.01
        await asyncio.sleep(20.0)
        assert other.leads
        [(elected, _)] = other.events
        assert last_change + 15.0 <= elected <= last_change + 15.0 + 2.5
        assert store.record is not None
        assert store.record.transitions == 2
        await other.kill()

    run(scenario())


def test_a_released_lease_goes_over_at_once() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        first = Candidate("first", store)
        await asyncio.sleep(1.0)
        second = Candidate("second", store)
        await asyncio.sleep(4.1)
        before = now()
        assert await first.election.release()
        assert not first.leads
        await asyncio.sleep(0.5)
        assert second.leads
        assert second.events[0][0] - before < 0.1
        assert [what for _, what in first.events] == ["elected"]
        await second.kill()

    run(scenario())


def test_a_lease_emptied_from_outside_goes_over_at_once() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        first = Candidate("first", store)
        await asyncio.sleep(1.0)
        second = Candidate("second", store)
        await asyncio.sleep(4.1)
        await first.kill()
        assert store.record is not None
        before = now()
        store.put(store.record.released())
        await asyncio.sleep(0.5)
        assert second.leads
        assert second.events[0][0] - before < 0.1
        await second.kill()

    run(scenario())


def test_releasing_frees_also_what_was_just_being_written() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        store.writing_takes = 1.0
        first = Candidate("first", store)
        while not any(call == "write" for _, call in store.calls):
            await asyncio.sleep(0.001)
        assert await first.election.release()
        assert store.record is not None
        assert store.record.holder == ""
        assert first.events == []

    run(scenario())


def test_releasing_without_the_lease_leaves_it_alone() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        store.put(LeaseRecord(holder="other"))
        second = Candidate("second", store)
        await asyncio.sleep(1.0)
        assert not await second.election.release()
        assert store.record is not None
        assert store.record.holder == "other"
        await asyncio.wait({second.task})
        assert second.task.result() is None

    run(scenario())


def test_releasing_gives_up_on_a_store_that_hangs() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        first = Candidate("first", store)
        await asyncio.sleep(1.0)
        store.mode = "hang"
        assert not await first.election.release()
        store.mode = "ok"
        assert not first.leads

    run(scenario())


@pytest.mark.parametrize("mode", ["fail", "hang"])
def test_a_leader_whose_store_is_gone_is_told_when_its_term_ends(mode: str) -> None:
    async def scenario() -> None:
        store = MemoryStore()
        first = Candidate("first", store)
        await asyncio.sleep(5.0)
        last_request = max(time for time, call in store.calls if call == "write")
        store.mode = mode
        await asyncio.sleep(last_request + 10.0 - now() - 0.001)
        assert first.leads
        await asyncio.sleep(0.002)
        assert not first.leads
        ((lost_at, reason),) = first.events[1:]
        assert lost_at == pytest.approx(last_request + 10.0)
        assert reason == "the lease could not be renewed for 10 s"
        store.mode = "ok"
        await asyncio.sleep(10.0)
        assert first.leads
        assert [what for _, what in first.events[2:]] == ["elected"]
        await first.kill()

    run(scenario())


@pytest.mark.parametrize("mode", ["fail", "hang"])
def test_a_leader_whose_fence_confirms_leads_through_an_outage_of_the_store(mode: str) -> None:
    async def scenario() -> None:
        async def fence() -> bool:
            await asyncio.sleep(0.1)
            return True

        store = MemoryStore()
        first = Candidate("first", store, fence=fence)
        await asyncio.sleep(5.0)
        store.mode = mode
        for _ in range(3000):
            await asyncio.sleep(0.1)
            assert first.leads
        store.mode = "ok"
        await asyncio.sleep(20.0)
        assert first.leads
        assert [what for _, what in first.events] == ["elected"]
        assert store.record is not None
        assert (store.record.holder, store.record.transitions) == ("first", 1)
        await first.kill()

    run(scenario())


def test_a_leader_whose_fence_knows_of_a_newer_one_is_told_at_once() -> None:
    async def scenario() -> None:
        newer_since = 200.0

        async def fence() -> bool:
            if now() > newer_since:
                raise Deposed("epoch 2 has begun")
            return True

        store = MemoryStore()
        first = Candidate("first", store, fence=fence)
        await asyncio.sleep(5.0)
        store.mode = "fail"
        await asyncio.sleep(300.0)
        assert [what for _, what in first.events] == ["elected", "epoch 2 has begun"]
        assert first.events[1][0] == pytest.approx(newer_since + 1.25, abs=1.25)
        await first.kill()

    run(scenario())


@pytest.mark.parametrize("answer", ["no", "fail", "hang"])
def test_a_leader_whose_fence_cannot_tell_leads_no_longer_than_without(answer: str) -> None:
    async def scenario() -> None:
        async def fence() -> bool:
            if answer == "fail":
                raise LogUnavailable("no")
            await asyncio.sleep(100.0 if answer == "hang" else 0.1)
            return False

        store = MemoryStore()
        first = Candidate("first", store, fence=fence)
        await asyncio.sleep(5.0)
        last_request = max(time for time, call in store.calls if call == "write")
        store.mode = "fail"
        await asyncio.sleep(20.0)
        ((lost_at, reason),) = first.events[1:]
        assert lost_at == pytest.approx(last_request + 10.0)
        assert reason == "the lease could not be renewed for 10 s"
        await first.kill()

    run(scenario())


def test_a_deleted_lease_is_written_anew_by_its_leader() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        first = Candidate("first", store)
        await asyncio.sleep(5.0)
        store.record = None
        await asyncio.sleep(10.0)
        assert first.leads
        assert [what for _, what in first.events] == ["elected"]
        assert store.record is not None
        assert (store.record.holder, store.record.transitions) == ("first", 1)
        await first.kill()

    run(scenario())


def test_a_renewal_whose_answer_was_lost_costs_nothing() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        first = Candidate("first", store)
        await asyncio.sleep(5.0)
        store.mode = "forget"
        await asyncio.sleep(2.2)
        store.mode = "ok"
        await asyncio.sleep(50.0)
        assert first.leads
        assert len(first.events) == 1
        await first.kill()

    run(scenario())


def test_a_leader_that_sees_another_holder_is_told() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        first = Candidate("first", store)
        await asyncio.sleep(5.0)
        store.put(LeaseRecord(holder="usurper"))
        await asyncio.sleep(4.0)
        assert not first.leads
        assert first.events[1][1] == "the lease is held by 'usurper'"
        await first.kill()

    run(scenario())


def test_a_process_that_was_stopped_finds_itself_deposed_before_its_shell_had_a_turn() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        first = Candidate("first", store)
        await asyncio.sleep(5.0)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        assert first.leads
        loop.skip(10.0)
        assert not first.leads
        assert len(first.events) == 1
        await asyncio.sleep(0.001)
        assert [what for _, what in first.events] == ["elected", "the lease could not be renewed for 10 s"]
        await first.kill()

    run(scenario())


def test_a_store_that_fails_is_not_asked_without_a_pause() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        store.put(LeaseRecord(holder="other"))
        standby = Candidate("standby", store)
        await asyncio.sleep(1.0)
        store.mode = "fail"
        before = len(store.calls)
        await asyncio.sleep(60.0)
        assert len(store.calls) - before <= 30
        await standby.kill()

    run(scenario())


def test_of_many_candidates_one_leads_at_a_time() -> None:
    async def scenario() -> None:
        store = MemoryStore()
        candidates = [Candidate(f"c{n}", store, jitter=n / 7) for n in range(7)]
        for _ in range(len(candidates)):
            await asyncio.sleep(3.0)
            [leader] = [candidate for candidate in candidates if candidate.leads]
            assert await leader.election.release()
            candidates.remove(leader)
        assert store.record is not None
        assert store.record.transitions == 7

    run(scenario())


def test_an_error_of_the_callers_own_ends_the_run_and_the_leading() -> None:
    async def scenario() -> None:
        def refuse() -> None:
            raise ValueError("not now")

        election = LeaderElection("me", MemoryStore(), on_elected=refuse, on_lost=lambda reason: None, clock=now)
        with pytest.raises(ValueError, match="not now"):
            await election.run()
        assert not election.is_leader()

    run(scenario())


def test_the_steady_clock_does_not_go_back() -> None:
    times = [steady_clock() for _ in range(100)]
    assert times == sorted(times)
