"""A whole cluster on a simulated Kubernetes: the job's processes are containers of pods, and the shipped operator keeps them.

The core is that of `cluster`, with all that can happen to it. What replaces the dead there by a few lines does it here as in
life: kubelets restart containers, the StatefulSet makes JobManagers' pods, operators make TaskManagers' and free the Lease.
"""

import random as global_random
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from controller.world import NAMESPACE, flinkjob
from flinkjob.api.flinkjob import job_id
from flinkjob.controller import names
from flinkjob.controller.cache import JobKey
from flinkjob.controller.observed import Manifest, format_time
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.states import JobStatus
from flinkjob.worker import events as wev

from . import operatorfaults, operatorpromises
from .cluster import Cluster
from .faults import Fault
from .jobmanager import JobManager
from .kubelets import Container, Machinery, NodeOfCluster
from .kubernetes import ApiServer
from .logstore import Truth
from .operatorprocess import OperatorProcess
from .podprocesses import JobManagerInPod, LeaseOfApi, NetworkOfNodes, TaskManagerInPod, die
from .scheduler import Process
from .taskmanager import TaskManager

if TYPE_CHECKING:
    import asyncio

NAME = "wordcount"
JOBMANAGERS = 3
"""As many as there can be."""
AT_REST = 12_000
"""Milliseconds without a change after which the operator is asked once more whether there is something to do."""
ANOTHER_LOOK = 1500
"""Milliseconds that it gets for that."""


class OperatedCluster(Cluster):
    """One run.

    Attributes:
        api: the API server. machinery: the rest of Kubernetes. job, uid: the FlinkJob's name and uid.
        operators: replicas by name. away: those that are not to be started again for the moment.
        candidates: all JobManagers' processes that ever were, by their name in the Lease.
        disowned: processes whose pods somebody has deleted by force, so that nobody believes in them any more.
        oversight: what the promises about the operator remember.
    """

    patience = 600_000
    max_steps = 60_000
    api: ApiServer
    machinery: Machinery

    def _populate(self, random: Random) -> None:
        global_random.seed(self.seed)  # of which the shipped shells take their jitter
        self.network: NetworkOfNodes = NetworkOfNodes(self.scheduler, self._node_of)
        self.job, self.uid = NAME, ""
        self.api = ApiServer(lambda: format_time(self.wall(None)), self.network)
        self.lease = LeaseOfApi(self.api, names.lease(NAME))
        self.addresses = [names.jobmanager_pod(NAME, ordinal) for ordinal in range(JOBMANAGERS)]
        self.slots = random.choice((1, 2, 2))
        self.wanted = random.choice((1, 2, 2, 3))
        self.oversight = operatorpromises.Oversight(self)
        self._make_job(random)
        nodes = [NodeOfCluster(f"node-{number}", random.randrange(-2000, 2000)) for number in range(3)]
        self.machinery = Machinery(self, nodes)
        self.operators: dict[str, OperatorProcess] = {}
        self.away: set[str] = set()
        self.failures: list[BaseException] = []
        self.candidates: dict[str, JobManagerInPod] = {}
        self.disowned: set[Process] = set()
        self._started = 0
        self._looks_again_at: int | None = None
        self._calm_at = 0
        for number in range(random.choice((1, 1, 2))):
            self.start_operator(f"operator-{number}")

    def _make_job(self, random: Random) -> None:
        manifest = flinkjob(
            NAME,
            storage=None,
            jobManager={"replicas": random.choice((1, 2, 2, 3))},
            taskManager={"replicas": self.wanted},
            flinkConfiguration={
                "high-availability.storageDir": "s3://bucket/path",
                "taskmanager.numberOfTaskSlots": str(self.slots),
            },
        )
        del manifest["spec"]["storage"]
        self.uid = self.api.create(manifest)["metadata"]["uid"]
        self.job_graph = msgspec.structs.replace(self.job_graph, id=job_id(NAMESPACE, NAME, self.uid))
        self.truth = Truth(ExecutionGraph(self.job_graph))
        self.beginning = self.truth.node

    # Running it

    def run(self) -> JobStatus:
        """See Cluster."""
        try:
            return super().run()
        finally:
            for process in (*self.operators.values(), *self.candidates.values()):
                die(process)

    @property
    def over(self) -> bool:
        """Whether the job is over and all has come to rest, and another look of the operator's has been taken."""
        return self._looks_again_at is not None and self.scheduler.now > self._looks_again_at + ANOTHER_LOOK

    @property
    def changed_by_another_look(self) -> bool:
        """Whether anything was changed when all had come to rest."""
        return self._looks_again_at is not None and self.oversight.changed_at > self._looks_again_at

    def strike(self, fault: Fault) -> None:
        """See Cluster."""
        if fault.kind in operatorfaults.FAULTS:
            self.scheduler.note("FAULT", fault)
            operatorfaults.FAULTS[fault.kind][0](self, fault)
        else:
            super().strike(fault)

    def check_step(self) -> None:
        """See Cluster. Whatever is on a TaskManager that has no pod any more is lost, sooner or later."""
        if self.holdings_changed:
            for process in self.disowned:
                if isinstance(process, TaskManager):
                    self.broken.update(report.attempt for report in process.executor.reports)
        super().check_step()
        if self.scheduler.steps % 16 == 0:
            operatorpromises.check_often(self)
            self._look_again_at_rest()
        if self.failures:
            raise self.failures[0]

    def _look_again_at_rest(self) -> None:
        now = self.scheduler.now
        if self._looks_again_at is not None or not self._calm or not super().over:
            return
        if now > max(self._calm_at, self.oversight.changed_at) + AT_REST:
            self._looks_again_at = now
            for operator in self.operators.values():
                operator.look_again(JobKey(NAMESPACE, self.job))

    def check_end(self) -> None:
        """See Cluster."""
        super().check_end()
        operatorpromises.check_end(self)

    def wall(self, node: NodeOfCluster | None) -> float:
        """The time of day, seconds of the Unix epoch, as a node's clock has it; None: as it is."""
        return (self.epoch_of_time + self.scheduler.now + (node.skew if node is not None else 0)) / 1000

    def suffix(self) -> str:
        """The end of a pod's name."""
        self._number += 1
        return f"{self._number:05d}"

    def must_not_end(self, task: "asyncio.Task[None]") -> None:
        """A shell that runs for ever has broken down."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.failures.append(error)

    def _node_of(self, process: str) -> str:
        return self.machinery.node_of(process)

    def calm_down(self) -> None:
        """See Cluster."""
        super().calm_down()
        self._calm_at = self.scheduler.now
        self.api.down, self.api.storm, self.api.lossy = False, 0.0, 0.0
        for node in self.machinery.nodes:
            node.cordoned = node.draining = False
            if node.cut_at is not None:
                self.mend(node)
        self.away.clear()
        for name, operator in list(self.operators.items()):
            operator.trap, operator.api.lag = None, 60
            if not operator.alive:
                self.start_operator(name)
        spec = self.flinkjob["spec"]
        self.edit(
            job={**spec["job"], "state": "running"}, taskManager={"replicas": max(1, spec["taskManager"]["replicas"])}
        )

    # The FlinkJob

    @property
    def flinkjob(self) -> Manifest:
        """The FlinkJob as it is."""
        return self.api.objects["flinkjobs", self.job]

    def edit(self, **spec: Any) -> None:
        """A person changes the FlinkJob's spec, once the operator has named the run: JobManagers here know no other."""
        if "run" not in self.flinkjob.get("status", {}):
            return
        self.api.update(("flinkjobs", self.job), self.uid, spec={**self.flinkjob["spec"], **spec})

    # Containers

    def start_in(self, container: Container) -> Process:
        """A container's process begins."""
        random = self.scheduler.random
        if container.component == names.JOBMANAGER:
            skew = 2.0 if self.clocks_are_wrong else 1.1
            rate = 1.0 if self._calm else skew ** random.uniform(-1, 1)
            self._started += 1
            made = JobManagerInPod(self, container, rate=rate, offset=self.scheduler.below(2000), number=self._started)
            self.jobmanagers[container.pod] = made
            self.candidates[made.identity] = made
            return made
        rate = 1.0 if self._calm else 1.1 ** random.uniform(-1, 1)
        self.taskmanagers[container.pod] = taskmanager = TaskManagerInPod(self, container, self.slots, rate=rate)
        return taskmanager

    def terminate(self, process: Process) -> None:
        """SIGTERM."""
        assert isinstance(process, JobManagerInPod | TaskManagerInPod)
        self.scheduler.at(self.scheduler.now, process, process.terminate)

    def kill(self, process: Process) -> None:
        """SIGKILL."""
        if process.alive:
            assert isinstance(process, JobManagerInPod | TaskManagerInPod)
            process.die()

    def jobmanager_died(self, jobmanager: JobManager, told_after: int) -> None:
        """Its peers notice, and its kubelet."""
        if jobmanager.term is not None and self.scheduler.random.random() < 0.3:
            self.store.forget(jobmanager.term.epoch, self.scheduler.random.random())
        self.network.buried(jobmanager, told_after or self.scheduler.step_time())
        self.process_ended(jobmanager, 137)

    def jobmanager_left(self, jobmanager: JobManager) -> None:
        """It has stopped as it was told to."""
        self.process_ended(jobmanager, 0)

    def taskmanager_died(self, taskmanager: TaskManager, told_after: int) -> None:
        """Its tasks die with it."""
        self._broken(taskmanager)
        self.network.buried(taskmanager, told_after or self.scheduler.step_time())
        self.process_ended(taskmanager, 137)

    def taskmanager_left(self, taskmanager: TaskManager, effect: wev.ShutDown) -> None:
        """It has shut itself down."""
        self.note(taskmanager, effect)
        self._broken(taskmanager)
        self.process_ended(taskmanager, effect.code)

    def process_ended(self, process: Process, code: int) -> None:
        """A process of a container is over."""
        self.scheduler.note(process.name, f"ends with exit code {code}")
        self.lease.watchers.pop(process.name, None)
        die(process)
        self.machinery.ended(process, code)

    def disown(self, pod: Manifest) -> None:
        """Somebody deletes a pod by force: to all the cluster its process is dead, whatever it does."""
        metadata = pod["metadata"]
        container = next((c for c in self.machinery.containers() if c.uid == metadata["uid"]), None)
        self.api.delete(("pods", metadata["name"]), metadata["uid"], now=True)
        process = container.process if container is not None else None
        if process is None:
            return
        self.disowned.add(process)
        if isinstance(process, TaskManager):
            self.broken.update(report.attempt for report in process.executor.reports)
            self.taskmanagers.pop(process.name, None)
            return
        # Its successor gets its name, and can be on another node.
        watcher = self.lease.watchers.pop(process.name, None)
        self.jobmanagers.pop(process.name, None)
        process.name += "~"
        if watcher is not None:
            self.lease.watchers[process.name] = watcher

    # Operators and nodes

    def start_operator(self, name: str) -> None:
        """A replica of the operator begins."""
        known = self.operators.get(name)
        if name not in self.away and (known is None or not known.alive):
            self._started += 1
            self.operators[name] = OperatorProcess(self, name, self._started)

    def operator_died(self, operator: OperatorProcess) -> None:
        """Its kubelet starts it again, unless it is to be away."""
        self.scheduler.note(operator.name, "is dead")
        self.scheduler.at(
            self.scheduler.now + 500 + self.scheduler.below(1500), None, self.start_operator, operator.name
        )

    def cut_off(self, node: NodeOfCluster) -> None:
        """A node reaches nobody any more."""
        node.cut_at = self.scheduler.now
        self.network.cut.add(node.name)

    def mend(self, node: NodeOfCluster) -> None:
        """It does again."""
        node.cut_at = None
        self.network.mend(node.name)
