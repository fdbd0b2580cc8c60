"""The cache: news in any order, deletions that nobody told, and how little is kept."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.controller.cache import Cache, JobKey, job_of, slim
from flinkjob.controller.cluster import FLINK_JOB, LEASE, POD, STATEFUL_SET, Kind, Listing
from flinkjob.controller.names import COMPONENT_LABEL, JOB_LABEL
from flinkjob.controller.observed import Pod

JOB = JobKey("ns", "job")


def pod(name: str = "pod", *, uid: str = "u1", version: int = 1, job: str = "job") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(version), "labels": {JOB_LABEL: job},
        },
    }  # fmt: skip


@pytest.fixture
def changes() -> list[JobKey]:
    return []


@pytest.fixture
def cache(changes: list[JobKey]) -> Cache:
    return Cache(changes.append)


def test_news_is_told_by_job(cache: Cache, changes: list[JobKey]) -> None:
    cache.saw(POD, pod(job="a"))
    cache.saw(POD, pod("other", uid="u2", job="b"))
    assert changes == [JobKey("ns", "a"), JobKey("ns", "b")]
    assert [x["metadata"]["name"] for x in cache.of_job(JobKey("ns", "b"))] == ["other"]
    assert set(cache.jobs()) == {JobKey("ns", "a"), JobKey("ns", "b")}


def test_old_news_changes_nothing_and_is_not_told(cache: Cache, changes: list[JobKey]) -> None:
    cache.saw(POD, pod(version=10))
    cache.saw(POD, pod(version=9))
    cache.saw(POD, pod(version=10))
    assert changes == [JOB]
    assert cache.get(POD, "ns", "pod") == pod(version=10)


def test_what_was_deleted_does_not_come_back_by_late_news(cache: Cache) -> None:
    cache.saw(POD, pod())
    cache.lost(POD, "ns", "pod", "u1")
    cache.saw(POD, pod(version=5))
    assert cache.get(POD, "ns", "pod") is None
    assert not cache.jobs()


def test_what_has_lost_its_label_may_get_it_back(cache: Cache) -> None:
    cache.saw(POD, pod())
    cache.lost(POD, "ns", "pod", "u1", 5)
    cache.saw(POD, pod(version=4))
    assert cache.get(POD, "ns", "pod") is None
    cache.saw(POD, pod(version=6))
    assert cache.get(POD, "ns", "pod") == pod(version=6)


def test_the_end_of_a_predecessor_does_not_end_the_successor(cache: Cache, changes: list[JobKey]) -> None:
    cache.saw(POD, pod(uid="u1"))
    cache.saw(POD, pod(uid="u2", version=5))
    cache.lost(POD, "ns", "pod", "u1")
    assert cache.get(POD, "ns", "pod") == pod(uid="u2", version=5)
    assert changes == [JOB, JOB]


def test_an_object_that_moves_to_another_job_leaves_the_first(cache: Cache) -> None:
    cache.saw(POD, pod(job="a"))
    cache.saw(POD, pod(job="b", version=2))
    assert list(cache.of_job(JobKey("ns", "a"))) == []
    assert list(cache.of_job(JobKey("ns", "b"))) == [pod(job="b", version=2)]


def test_a_list_tells_of_deletions_that_no_event_told(cache: Cache, changes: list[JobKey]) -> None:
    for n in range(3):
        cache.saw(POD, pod(f"pod{n}", uid=f"u{n}", version=n + 1))
    changes.clear()
    assert cache.compare(POD, None, Listing([pod("pod1", uid="u1", version=2)], "10"))
    assert [x["metadata"]["name"] for x in cache.of_job(JOB, POD)] == ["pod1"]
    assert changes == [JOB, JOB]


def test_what_is_newer_than_a_list_is_not_missing_from_it(cache: Cache) -> None:
    cache.saw(POD, pod("new", version=11))
    cache.compare(POD, None, Listing([], "10"))
    assert cache.get(POD, "ns", "new") is not None


def test_a_list_of_one_namespace_says_nothing_of_others(cache: Cache) -> None:
    cache.saw(POD, pod())
    cache.compare(POD, "elsewhere", Listing([], "10"))
    assert cache.get(POD, "ns", "pod") is not None


def test_a_list_shows_whether_everything_is_known(cache: Cache) -> None:
    listing = Listing([pod()], "10")
    assert not cache.compare(POD, None, listing)
    cache.saw(POD, pod())
    assert cache.compare(POD, None, listing)
    cache.lost(POD, "ns", "pod", "u1")
    assert cache.compare(POD, None, listing)
    assert not cache.compare(POD, None, Listing([pod(uid="u2", version=3)], "10"))


def test_what_is_forgotten_may_be_seen_again(cache: Cache) -> None:
    lease = {**pod("lease"), "kind": "Lease"}
    cache.saw(LEASE, lease)
    cache.saw(POD, pod())
    cache.forget(JOB, LEASE)
    assert cache.get(LEASE, "ns", "lease") is None
    assert cache.get(POD, "ns", "pod") is not None
    cache.saw(LEASE, lease)
    assert cache.get(LEASE, "ns", "lease") == lease


@given(st.permutations(range(1, 8)), st.integers(0, 7))
def test_whatever_the_order_of_the_news_the_newest_counts(order: list[int], deleted_after: int) -> None:
    cache = Cache(lambda job: None)
    for place, version in enumerate(order):
        if place == deleted_after:
            cache.lost(POD, "ns", "pod", "u1")
        cache.saw(POD, pod(version=version))
    expected = None if deleted_after < len(order) else pod(version=7)
    assert cache.get(POD, "ns", "pod") == expected


def test_of_a_pod_is_kept_what_is_read_and_no_more() -> None:
    full = {
        **pod(),
        "spec": {"nodeName": "node", "containers": [{"name": "jobmanager", "image": "large" * 100}]},
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [
                {"name": "jobmanager", "restartCount": 2, "state": {"running": {"startedAt": "2026-11-23T00:00:00Z"}}}
            ],
        },
    }
    full["metadata"] |= {
        "managedFields": [{"manager": "kubelet"}],
        "labels": {JOB_LABEL: "job", COMPONENT_LABEL: "jobmanager", "team": "a"},
        "annotations": {"flinkjob.io/spec-hash": "abc", "cni": "x" * 100},
        "ownerReferences": [{"uid": "owner", "controller": True}, {"uid": "other"}],
        "creationTimestamp": "2026-11-23T00:00:00Z",
    }
    slimmed = slim(POD, full)
    assert Pod.of(slimmed) == Pod.of(full)
    assert "managedFields" not in slimmed["metadata"]
    assert "containers" not in slimmed["spec"]
    assert "team" not in slimmed["metadata"]["labels"]
    assert slimmed["metadata"]["annotations"] == {"flinkjob.io/spec-hash": "abc"}


def test_a_flinkjob_is_kept_whole_but_for_its_own_copies() -> None:
    last = "kubectl.kubernetes.io/last-applied-configuration"
    full: dict[str, Any] = {
        "apiVersion": FLINK_JOB.api_version,
        "kind": "FlinkJob",
        "metadata": {"name": "job", "namespace": "ns", "managedFields": [], "annotations": {last: "{}", "mine": "1"}},
        "spec": {"job": {}},
        "status": {"tasks": "1/2/3"},
    }
    slimmed = slim(FLINK_JOB, full)
    assert slimmed["spec"] == full["spec"]
    assert slimmed["status"] == full["status"]
    assert slimmed["metadata"] == {"name": "job", "namespace": "ns", "annotations": {"mine": "1"}}
    assert last in full["metadata"]["annotations"], "what was heard is somebody else's, too"


@pytest.mark.parametrize(
    ("kind", "expected"), [(FLINK_JOB, JobKey("ns", "pod")), (POD, JOB), (STATEFUL_SET, JOB)], ids=lambda x: str(x)
)
def test_an_object_belongs_to_the_job_of_its_label_and_a_flinkjob_to_itself(kind: Kind, expected: JobKey) -> None:
    assert job_of(kind, pod()) == expected


def test_what_many_objects_have_in_common_is_kept_once() -> None:
    one, other = (slim(POD, json.loads(json.dumps(pod(name, uid=name)))) for name in ("pod-0", "pod-1"))
    assert one["metadata"]["name"] != other["metadata"]["name"]
    assert one["metadata"]["namespace"] is other["metadata"]["namespace"]
    assert {id(key) for key in one["metadata"]["labels"]} == {id(key) for key in other["metadata"]["labels"]}
    assert one["metadata"]["labels"][JOB_LABEL] is other["metadata"]["labels"][JOB_LABEL]
