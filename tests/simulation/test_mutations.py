"""The simulator bites: each deliberate bug is found within so many seeds, and by the promise that it breaks."""

from collections.abc import Callable

import pytest

from jobmaster.invariants import everything_is_in_the_result_once, nothing_is_built_of_two_attempts

from . import leaderpromises as lp
from . import mutations as bugs
from . import promises as p
from .simulate import try_seed

Bug = Callable[[pytest.MonkeyPatch], None]
Promise = Callable[..., object]

Found = tuple[int, Promise, *tuple[Promise, ...]]

PRODUCT: dict[Bug, Found] = {
    # the log
    bugs.effects_are_released_before_they_are_durable: (20, p.a_successor_would_know),
    bugs.effects_wait_for_the_decision_before: (
        20,
        p.a_successor_would_know,
        p.splits_are_logged_before_they_are_given,
    ),
    bugs.blocks_written_in_vain_count: (2000, p.no_sound_log_is_damaged, p.every_operation_applies),
    bugs.a_repeated_block_counts_twice: (1500, p.every_operation_applies, p.the_replay_is_the_fold),
    bugs.a_torn_end_is_damage: (300, p.no_sound_log_is_damaged),
    bugs.the_last_block_is_taken_for_torn: (100, p.nothing_acknowledged_is_lost, p.the_log_ends_with_a_block),
    bugs.a_snapshot_forgets_what_is_to_run_again: (300, p.the_log_folds_to_the_graph, p.the_replay_is_the_fold),
    bugs.what_a_snapshot_covers_is_applied_again: (600, p.every_operation_applies, p.the_replay_is_the_fold),
    # the election
    bugs.a_term_never_ends: (400, lp.one_leads_at_a_time),
    bugs.the_lease_is_taken_too_early: (100, lp.one_leads_at_a_time),
    bugs.a_term_counts_from_the_answer: (400, lp.one_leads_at_a_time),
    bugs.a_confirmation_is_not_believed: (200, lp.a_confirmed_term_goes_on),
    # the graph
    bugs.a_failover_renews_the_budget: (1000, p.the_budget_is_kept),
    bugs.a_reset_gives_the_splits_back: (100, p.splits_are_dealt_out_once),
    bugs.a_reset_keeps_the_attempt_number: (
        100,
        p.an_attempt_runs_once,
        p.ends_are_logged_before_they_are_acknowledged,
        p.a_successor_would_know,
    ),
    # the JobMaster
    bugs.a_running_task_is_a_conflict: (100, p.nothing_consistent_fails),
    bugs.a_deployment_that_never_arrived_is_continued: (200, p.it_comes_to_an_end),
    bugs.a_task_that_is_gone_is_continued: (400, p.it_comes_to_an_end),
    bugs.a_cancelled_task_that_is_gone_is_waited_for: (3000, p.it_comes_to_an_end),
    bugs.a_cancellation_is_not_repeated: (2500, p.orphans_are_stopped, p.it_comes_to_an_end),
    bugs.a_lost_deployment_becomes_a_new_attempt: (200, p.a_successor_would_know),
    bugs.an_orphan_is_left_running: (600, p.orphans_are_stopped, p.it_comes_to_an_end),
    bugs.partitions_are_not_verified: (500, p.a_failover_finds_lost_partitions),
    bugs.a_terminal_state_is_left: (600, p.terminal_is_terminal, p.the_log_folds_to_the_graph),
    bugs.consumers_go_on_with_what_was_thrown_away: (2000, nothing_is_built_of_two_attempts, p.finished_is_finished),
    bugs.a_lost_input_is_not_produced_again: (300, p.it_comes_to_an_end),
    bugs.a_report_that_comes_twice_is_news: (100, p.every_operation_applies),
    bugs.a_taskmanager_is_given_up_at_once: (50, p.nothing_consistent_fails, p.only_absent_taskmanagers_are_given_up),
    bugs.a_silent_taskmanager_is_waited_for_for_ever: (600, p.it_comes_to_an_end),
    bugs.a_split_is_dealt_out_at_each_request: (100, p.it_comes_to_an_end, everything_is_in_the_result_once),
    bugs.tasks_begin_before_their_inputs_are_there: (20, p.inputs_are_there),
    bugs.restarted_producers_are_not_waited_for: (400, p.inputs_are_there),
    # the JobManager's connections
    bugs.silence_counts_in_doubt: (1000, lp.no_silence_counts_in_doubt),
    # the TaskManager
    bugs.a_deposed_leader_is_registered_with: (3000, p.the_deposed_are_not_obeyed),
    bugs.a_lost_connection_cancels_the_tasks: (50, p.nothing_consistent_fails),
    bugs.an_end_is_forgotten_with_the_connection: (50, p.one_live_attempt_is_accepted),
    bugs.a_split_is_not_asked_for_again: (100, p.it_comes_to_an_end),
    bugs.a_deployment_that_comes_twice_begins_twice: (400, p.an_attempt_runs_once),
    bugs.a_split_that_comes_twice_is_given_twice: (400, p.it_comes_to_an_end, everything_is_in_the_result_once),
}
"""Within how many seeds each bug in the product is found, and which promises it breaks, any of which may be the first.

There are about three times as many seeds as it takes, so that another one may find it too.
"""

SHELL: dict[Bug, Found] = {
    bugs.the_fence_is_not_asked: (300, p.epochs_do_not_interleave, lp.only_the_newest_is_confirmed),
    bugs.the_fence_is_asked_before_the_sync: (2000, p.epochs_do_not_interleave),
    bugs.predecessors_are_not_fenced: (400, p.epochs_do_not_interleave, p.no_sound_log_is_damaged),
    bugs.only_the_last_predecessor_is_fenced: (3000, p.epochs_do_not_interleave, p.no_sound_log_is_damaged),
    bugs.an_epoch_is_claimed_twice: (50, p.nothing_acknowledged_is_lost, p.epochs_do_not_interleave),
    bugs.a_snapshot_does_not_wait_until_it_is_durable: (600, p.the_log_ends_with_a_block),
    bugs.snapshots_are_listed_from_a_cache: (1500, p.no_sound_log_is_damaged),
    bugs.a_store_that_hangs_is_waited_for: (800, p.it_comes_to_an_end),
    bugs.the_log_is_not_asked_in_an_outage: (400, lp.only_the_newest_is_confirmed),
}
"""The same of what the simulator plays itself, step by step: the store, the writer, and when the fence is asked."""


@pytest.mark.parametrize("bug", PRODUCT | SHELL, ids=lambda bug: bug.__name__)
def test_the_bug_is_found_by_the_promise_that_it_breaks(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, *expected = (PRODUCT | SHELL)[bug]
    bug(monkeypatch)
    found = next((broken for seed in range(seeds) if (broken := try_seed(seed)) is not None), None)
    assert found is not None, "nobody has noticed"
    assert found.name in {promise.__name__ for promise in expected}, str(found)


def test_most_of_the_bugs_are_in_the_product() -> None:
    assert len(PRODUCT) >= 15
