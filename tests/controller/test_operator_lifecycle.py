"""A FlinkJob's life on a real API server: from apply to deletion, with everything that a user may change in between."""

import asyncio

from controller.playing import World, flinkjob, managers, options, running
from flinkjob.controller import names


async def test_a_job_gets_all_its_children_and_becomes_ready(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        job = world.create("flinkjobs", flinkjob())
        await world.until_ready()
        found = {
            kind: sorted(name for each in world.all(kind) if (name := each["metadata"]["name"]).startswith("job-"))
            for kind in ("serviceaccounts", "roles", "rolebindings", "leases", "configmaps", "secrets", "services",
                         "poddisruptionbudgets", "statefulsets")
        }  # fmt: skip
        assert found == {
            "serviceaccounts": ["job-jobmanager", "job-taskmanager"],
            "roles": ["job-jobmanager"],
            "rolebindings": ["job-jobmanager"],
            "leases": ["job-leader"],
            "configmaps": ["job-job"],
            "secrets": sorted(names.secrets("job")),
            "services": ["job-jobmanager", "job-rest"],
            "poddisruptionbudgets": ["job-jobmanager"],
            "statefulsets": ["job-jobmanager"],
        }
        assert len(world.pods(names.JOBMANAGER)) == 2
        assert len(world.pods(names.TASKMANAGER)) == 2
        status = world.status()
        assert status["observedGeneration"] == job["metadata"]["generation"]
        assert status["taskManagers"] == {"wanted": 2, "ready": 2}
        assert status["jobManagers"] == {"wanted": 2, "ready": 2}
        assert status["tasks"] == "1/0/1"


async def test_kopf_leaves_no_trace_on_a_flinkjob(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        metadata = world.job()["metadata"]
        assert "annotations" not in metadata
        assert "finalizers" not in metadata
        assert set(managers(world.job())) <= {
            "python-urllib",
            "Python-urllib",
            "flinkjob-operator",
            "flinkjob-jobmanager",
        }


async def test_a_lost_taskmanager_is_replaced_under_a_new_name(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        before = pod_names(world, names.TASKMANAGER)
        world.delete("pods", before[0], grace=0)
        after = await world.until(lambda: len(found := pod_names(world, names.TASKMANAGER)) == 2 and found)
        assert before[1] in after
        assert before[0] not in after


async def test_taskmanagers_follow_the_scale_subresource(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        for replicas in (4, 1):
            world.patch("flinkjobs", "job", {"spec": {"replicas": replicas}}, "scale")
            await world.until(lambda: world.status()["taskManagers"] == {"wanted": replicas, "ready": replicas})  # noqa: B023
            assert len(pod_names(world, names.TASKMANAGER)) == replicas
            scale = world.get("flinkjobs", "job/scale")
            assert scale is not None
            assert scale["status"]["replicas"] == replicas


async def test_a_suspended_job_has_no_pods_and_goes_on_when_resumed(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        world.patch("flinkjobs", "job", {"spec": {"job": {"state": "suspended"}}})
        await world.until(lambda: not world.all("pods"))
        await world.until(lambda: world.condition("Ready")["reason"] == "Suspended")
        assert world.status()["jobStatus"]["state"] == "SUSPENDED"
        world.patch("flinkjobs", "job", {"spec": {"job": {"state": "running"}}})
        await world.until_ready()
        assert len(world.pods()) == 4


async def test_of_too_many_taskmanagers_those_go_with_which_the_least_is_lost(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob(taskManager={"replicas": 4}))
        await world.until_ready()
        await world.until(lambda: world.status()["taskManagers"] == {"wanted": 4, "ready": 4})
        there = [pod["metadata"]["name"] for pod in world.pods(names.TASKMANAGER)]
        # Neither the oldest nor the newest, nor in the order of their names.
        tasks = dict(zip(there, (3, 0, 2, 1), strict=True))
        busy = {pod: count for pod, count in tasks.items() if count}
        world.say_who_leads("job-jobmanager-0", epoch=1, runningTasks=busy)
        world.patch("flinkjobs", "job", {"spec": {"taskManager": {"replicas": 2}}})
        left = await world.until(lambda: len(pods := world.pods(names.TASKMANAGER)) == 2 and pods)
        assert {pod["metadata"]["name"] for pod in left} == {there[0], there[2]}


async def test_a_restart_is_another_run_with_new_pods(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        before = {pod["metadata"]["uid"] for pod in world.pods()}
        world.patch("flinkjobs", "job", {"spec": {"restartNonce": 1}})
        await world.until(lambda: len(found := uids(world)) == 4 and not found & before)
        manifest = world.get("configmaps", "job-job")
        assert manifest is not None
        assert (
            f"{world.job()['metadata']['uid']}-r{world.job()['metadata']['generation']}"
            in manifest["data"]["flinkjob.yaml"]
        )
        await world.until_ready()


async def test_a_changed_image_replaces_all_pods_and_the_leader_last(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        leader = (world.get("pods", "job-jobmanager-0") or {})["metadata"]["uid"]
        world.patch("flinkjobs", "job", {"spec": {"image": "flinkjob:new"}})
        await world.until(lambda: images(world, names.JOBMANAGER) == ["flinkjob:new"])
        assert {"flinkjob:new"} == set(images(world, names.TASKMANAGER)) or await world.until(
            lambda: images(world, names.TASKMANAGER) == ["flinkjob:new"]
        )
        told = [note for reason, note in world.events() if reason == "PodDeleted" and "jobmanager" in note]
        assert sorted(note.split()[0] for note in told) == ["job-jobmanager-0", "job-jobmanager-1"]
        assert leader not in uids(world)


async def test_a_handover_deletes_the_leader_once(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        old = (world.get("pods", "job-jobmanager-0") or {})["metadata"]["uid"]
        others = uids(world) - {old}
        world.patch("flinkjobs", "job", {"spec": {"failoverNonce": 1}})
        await world.until(lambda: old not in uids(world) and len(uids(world)) == 4)
        await asyncio.to_thread(world.lead, "job-jobmanager-1")
        await world.until(lambda: world.condition("Ready").get("status") == "True")
        await world.for_a_while(1.5)
        assert others < uids(world)
        assert world.status()["handover"] == {"nonce": 1, "uid": old}


async def test_a_finished_job_keeps_one_jobmanager_until_its_time_is_over(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob(ttlSecondsAfterFinished=6))
        await world.until_ready()
        await asyncio.to_thread(world.lead, "job-jobmanager-0", state="FINISHED")
        await world.until(lambda: pod_names(world) == ["job-jobmanager-0"])
        assert world.condition("Finished")["status"] == "True"
        await world.until(lambda: world.get("flinkjobs", "job") is None)
        await world.until(lambda: not world.all("pods"))


async def test_a_deleted_job_takes_everything_along(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        world.delete("flinkjobs", "job")
        for kind in ("pods", "statefulsets", "services", "secrets", "poddisruptionbudgets", "roles", "rolebindings"):
            await world.until(lambda: not world.all(kind))  # noqa: B023
        await world.for_a_while(1.0)
        assert not world.all("pods")


async def test_data_is_removed_before_a_job_goes_that_says_so(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob(deletionPolicy="Delete"))
        await world.until_ready()
        assert world.job()["metadata"]["finalizers"] == [names.FINALIZER]
        world.delete("flinkjobs", "job")
        await world.until(lambda: pod_names(world) == [names.cleanup_pod("job")])
        await world.until(lambda: world.pods()[0]["status"]["phase"] == "Running")
        assert world.get("flinkjobs", "job") is not None
        world.end(names.cleanup_pod("job"), phase="Succeeded", code=0)
        await world.until(lambda: world.get("flinkjobs", "job") is None and not world.all("pods"))


async def test_a_job_of_the_same_name_begins_anew(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        before = uids(world)
        world.delete("flinkjobs", "job")
        world.create("flinkjobs", flinkjob())
        await world.until(lambda: len(found := uids(world)) == 4 and not found & before)
        await world.until_ready()


async def test_what_somebody_deletes_or_changes_by_hand_is_set_right(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)):
        world.create("flinkjobs", flinkjob())
        await world.until_ready()
        for kind, name in (("services", "job-rest"), ("configmaps", "job-job"), ("roles", "job-jobmanager")):
            world.delete(kind, name)
            await world.until(lambda: world.get(kind, name))  # noqa: B023
        world.patch("services", "job-rest", {"metadata": {"labels": {names.JOB_LABEL: None}}})
        await world.until(lambda: names.JOB_LABEL in (world.get("services", "job-rest") or {})["metadata"]["labels"])
        world.patch("configmaps", "job-job", {"data": {"flinkjob.yaml": "nonsense"}})
        await world.until(lambda: "nonsense" not in (world.get("configmaps", "job-job") or {})["data"]["flinkjob.yaml"])
        world.patch("statefulsets", "job-jobmanager", {"spec": {"replicas": 5}})
        await world.until(lambda: (world.get("statefulsets", "job-jobmanager") or {})["spec"]["replicas"] == 2)


async def test_a_wrong_spec_is_a_condition_and_touches_nothing_that_runs(world: World) -> None:
    async with running(world.server.admin_kubeconfig, options(world.namespace)) as operator:
        job = flinkjob()
        world.create("flinkjobs", job)
        await world.until_ready()
        before = uids(world)
        wrong = job["spec"]["flinkConfiguration"] | {"heartbeat.intervall": "5 s"}
        world.patch("flinkjobs", "job", {"spec": {"flinkConfiguration": wrong}})
        await world.until(lambda: world.condition("Ready")["reason"] == "InvalidSpec")
        assert "heartbeat.intervall" in world.condition("Ready")["message"]
        assert [note for reason, note in world.events() if reason == "InvalidSpec"]
        looks = operator.looks
        await world.for_a_while(2.0)
        assert operator.looks - looks <= 3
        assert uids(world) == before
        world.patch("flinkjobs", "job", {"spec": {"flinkConfiguration": {"heartbeat.intervall": None}}})
        await world.until(lambda: world.condition("Ready")["status"] == "True")
        assert uids(world) == before


def pod_names(world: World, component: str = "") -> list[str]:
    """The names of the pods of one kind."""
    return [pod["metadata"]["name"] for pod in world.pods(component)]


def uids(world: World) -> set[str]:
    """The uids of all pods."""
    return {pod["metadata"]["uid"] for pod in world.pods()}


def images(world: World, component: str) -> list[str]:
    """The images of the pods of one kind, when all run that should."""
    pods = world.pods(component)
    return sorted({pod["spec"]["containers"][0]["image"] for pod in pods}) if len(pods) == 2 else []
