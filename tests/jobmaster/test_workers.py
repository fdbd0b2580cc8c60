"""Who is away, and until when that is borne."""

from hypothesis import given
from hypothesis import strategies as st

from flinkjob.jobmaster.workers import Worker, Workers


def test_one_that_left_twice_at_the_same_moment_is_overdue_once() -> None:
    workers = Workers()
    worker = Worker("tm", 0, 1)
    workers.add(worker)
    workers.left(worker, now=1, deadline=5)
    workers.came(worker)
    workers.left(worker, now=1, deadline=5)
    assert workers.next_deadline() == 5
    assert workers.overdue(4) == []
    assert workers.overdue(5) == [worker]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["left", "came", "lost"]), st.integers(1, 9)), max_size=40)
)
def test_the_next_deadline_is_the_earliest_of_those_that_are_away(moves: list[tuple[int, str, int]]) -> None:
    workers = Workers()
    members = [Worker(f"tm-{index}", index, 1) for index in range(4)]
    for member in members:
        workers.add(member)
    away: dict[int, int] = {}
    lost: set[int] = set()
    for now, (index, move, patience) in enumerate(moves):
        if index in lost:
            continue
        if move == "left":
            workers.left(members[index], now=now, deadline=now + patience)
            away[index] = now + patience
        elif move == "came":
            workers.came(members[index])
            away.pop(index, None)
        else:
            workers.remove(members[index])
            away.pop(index, None)
            lost.add(index)
        assert workers.next_deadline() == min(away.values(), default=None)
