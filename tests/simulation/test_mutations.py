"""The simulator bites: each deliberate bug is found within so many seeds."""

from collections.abc import Callable

import pytest

from . import mutations as bugs
from .simulate import try_seed

TABLE: dict[Callable[[pytest.MonkeyPatch], None], int] = {
    # the log
    bugs.effects_are_released_before_they_are_durable: 20,
    bugs.effects_wait_for_the_decision_before: 20,
    bugs.the_fence_is_not_asked: 300,
    bugs.the_fence_is_asked_before_the_sync: 100,
    bugs.predecessors_are_not_fenced: 300,
    bugs.only_the_last_predecessor_is_fenced: 3000,
    bugs.an_epoch_is_claimed_twice: 50,
    bugs.blocks_written_in_vain_count: 1500,
    bugs.a_repeated_block_counts_twice: 500,
    bugs.a_torn_end_is_damage: 100,
    bugs.the_last_block_is_taken_for_torn: 50,
    bugs.a_snapshot_does_not_wait_until_it_is_durable: 400,
    bugs.a_snapshot_forgets_what_is_to_run_again: 400,
    bugs.what_a_snapshot_covers_is_applied_again: 600,
    # the election
    bugs.a_term_never_ends: 100,
    bugs.the_lease_is_taken_too_early: 100,
    bugs.a_term_counts_from_the_answer: 100,
    # the graph
    bugs.a_failover_renews_the_budget: 300,
    bugs.a_reset_gives_the_splits_back: 100,
    bugs.a_reset_keeps_the_attempt_number: 100,
    # the JobMaster
    bugs.a_running_task_is_a_conflict: 100,
    bugs.a_deployment_that_never_arrived_is_continued: 200,
    bugs.a_task_that_is_gone_is_continued: 200,
    bugs.a_cancelled_task_that_is_gone_is_waited_for: 2000,
    bugs.a_cancellation_is_not_repeated: 400,
    bugs.a_lost_deployment_becomes_a_new_attempt: 200,
    bugs.an_orphan_is_left_running: 300,
    bugs.partitions_are_not_verified: 500,
    bugs.a_terminal_state_is_left: 400,
    bugs.consumers_go_on_with_what_was_thrown_away: 1500,
    bugs.a_lost_input_is_not_produced_again: 200,
    bugs.a_taskmanager_is_given_up_at_once: 50,
    bugs.a_silent_taskmanager_is_waited_for_for_ever: 400,
    bugs.a_split_is_dealt_out_at_each_request: 100,
    bugs.tasks_begin_before_their_inputs_are_there: 20,
    bugs.restarted_producers_are_not_waited_for: 300,
    # the TaskManager
    bugs.a_deposed_leader_is_registered_with: 500,
    bugs.a_lost_connection_cancels_the_tasks: 50,
    bugs.an_end_is_forgotten_with_the_connection: 50,
    bugs.a_split_is_not_asked_for_again: 100,
}
"""Within how many seeds each bug is found: about three times as many as it takes, so that another seed may find it too."""


@pytest.mark.parametrize("bug", TABLE, ids=lambda bug: bug.__name__)
def test_the_bug_is_found(bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    assert any(try_seed(seed) is not None for seed in range(TABLE[bug])), "nobody has noticed"
