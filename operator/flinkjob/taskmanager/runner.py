"""A worker process: it runs one task after another for its TaskManager.

It is forked once per slot, by the fork server, and lives as long as its tasks behave, so that a task costs a message and not
a process. It leads a session of its own, to which everything that its tasks start belongs, and it never outlives its
TaskManager: a thread waits for the control channel to hang up, and then kills it with all that it has started.

SIGTERM means that the present task is to stop. It raises TaskCancelled in the main thread, but only while the task's own
code runs: a message must not be cut in two, nor the end of a task be mistaken.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
from types import FrameType

from flinkjob.api.errors import PartitionUnavailable, TaskCancelled
from flinkjob.api.job import TaskSpec
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.operations import InputSplit
from flinkjob.taskmanager.channel import Ready, Run, RunnerChannel, Setup, SplitGiven, TaskManagerGone, encode
from flinkjob.taskmanager.context import TaskContext
from flinkjob.taskmanager.failures import describe_failure
from flinkjob.taskmanager.loading import load_function
from flinkjob.taskmanager.processes import MARK, kill_members
from flinkjob.taskmanager.storage import Storage, open_storage
from flinkjob.worker.events import Cancelled, Failed, Finished, FromRunner, ProgressMade, SplitWanted
from flinkjob.worker.protocol import AttemptId, Deployment


class Cancellation:
    """SIGTERM, as an exception where the task can bear it and as a mark everywhere else."""

    def __init__(self) -> None:
        self.requested = False
        self._task_runs = False
        self._interruptible = False

    def install(self) -> None:
        """Handle SIGTERM from now on."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def idle(self) -> None:
        """No task runs: SIGTERM ends the process."""
        self._task_runs = False

    def begin(self) -> None:
        """A task runs, but not yet its own code."""
        self._task_runs = True

    def enter(self) -> None:
        """The task's own code begins or goes on.

        Raises:
            TaskCancelled: it has been told to stop meanwhile.
        """
        self._interruptible = True
        if self.requested:
            self._interruptible = False
            raise TaskCancelled("the task was told to stop")

    def leave(self) -> bool:
        """The task's own code ends or pauses; says whether it was running."""
        was = self._interruptible
        self._interruptible = False
        return was

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._task_runs:
            os._exit(0)
        if not self.requested:
            self.requested = True
            if self._interruptible:
                # Once only: whatever cleans up after the task is left in peace.
                self._interruptible = False
                raise TaskCancelled("the task was told to stop")


class RunnerPort:
    """The task's way to the TaskManager (``context.Port``)."""

    def __init__(self, channel: RunnerChannel, cancellation: Cancellation) -> None:
        self._channel = channel
        self._cancellation = cancellation

    @property
    def cancelled(self) -> bool:
        """Whether the task has been told to stop."""
        return self._cancellation.requested

    def request_split(self, attempt: AttemptId, index: int) -> InputSplit | None:
        """The attempt's split of this number; waits for it."""
        self._send(SplitWanted(attempt, index))
        while True:
            answer = self._channel.receive()
            if isinstance(answer, SplitGiven) and answer.index == index:
                return answer.split

    def report_progress(self, attempt: AttemptId, fraction: float, records: int, size: int) -> None:
        """Say how far the attempt is."""
        self._send(ProgressMade(attempt, fraction, records, size))

    def _send(self, message: FromRunner) -> None:
        was_running = self._cancellation.leave()
        self._channel.send(message)
        if was_running:
            self._cancellation.enter()


class Runner:
    """The loop of a worker process.

    Args:
        channel: to the TaskManager.
        module_dir: where the tasks' modules are.
        scratch: directory for command tasks, this process's own.
    """

    def __init__(self, channel: RunnerChannel, *, module_dir: str, scratch: str) -> None:
        self._channel = channel
        self._module_dir = module_dir
        self._scratch = scratch
        self._cancellation = Cancellation()
        self._port = RunnerPort(channel, self._cancellation)
        self._graph: JobGraph | None = None
        self._storage: Storage | None = None

    def run(self) -> None:
        """Serve until the TaskManager is gone.

        Raises:
            TaskManagerGone: it is.
        """
        self._cancellation.install()
        self._channel.send(Ready())
        while True:
            message = self._channel.receive()
            if isinstance(message, Run):
                self._cancellation.begin()
                self._channel.send_frame(self._outcome(message.deployment))
                self._cancellation.idle()
            elif isinstance(message, Setup):
                self._graph = JobGraph.decode(message.job_graph)
                self._storage = open_storage(message.storage)

    def _outcome(self, deployment: Deployment) -> bytes:
        """Run the attempt and say, as a frame, how it ended."""
        assert self._graph is not None, "Setup comes before the first Run"
        assert self._storage is not None
        context: TaskContext | None = None
        try:
            context = TaskContext(self._graph, deployment, storage=self._storage, port=self._port)
            self._call(self._graph.vertices[deployment.attempt.vertex].task, context)
            if not self._cancellation.requested:
                return encode(Finished(deployment.attempt, context.writer.finish(), context.accumulators))
            # A task that swallowed its TaskCancelled has produced who knows what.
            outcome: FromRunner = Cancelled(deployment.attempt)
        except TaskCancelled:
            outcome = Cancelled(deployment.attempt)
        except TaskManagerGone:
            raise
        except BaseException as error:
            outcome = _failure(deployment, context, error)
        if context is not None:
            context.writer.discard()
        return encode(outcome)

    def _call(self, task: TaskSpec, context: TaskContext) -> None:
        try:
            self._cancellation.enter()
            if task.python is not None:
                load_function(task.python, self._module_dir)(context)
            else:
                from flinkjob.taskmanager.command import run_command

                run_command(context, task, scratch=self._scratch, module_dir=self._module_dir)
        finally:
            self._cancellation.leave()


def _failure(deployment: Deployment, context: TaskContext | None, error: BaseException) -> FromRunner:
    lost = context.lost_input if context is not None else None
    if isinstance(error, PartitionUnavailable):
        lost = (error.vertex, error.subtask)
    return Failed(deployment.attempt, describe_failure(error), lost)


def die_with_taskmanager(control: socket.socket) -> None:
    """Wait until the TaskManager is gone, then kill this process and all that it has started."""
    poll = select.poll()
    poll.register(control, 0)  # nothing asked for: a hang-up is told anyway, and only that
    poll.poll()
    kill_members(os.getsid(0), os.environ.get(MARK, ""))


def main(control: socket.socket, module_dir: str, scratch: str) -> None:
    """All that the process does; it is killed when its TaskManager is gone.

    Args:
        control: its end of the control channel.
        module_dir: where the tasks' modules are.
        scratch: directory for command tasks, this process's own.
    """
    control.set_inheritable(False)
    threading.Thread(target=die_with_taskmanager, args=(control,), daemon=True).start()
    for stream in (sys.stdout, sys.stderr):
        # The process ends by a signal sooner or later; what a task has printed must not be lost with it.
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with contextlib.suppress(TaskManagerGone):
        Runner(RunnerChannel(control), module_dir=module_dir, scratch=scratch).run()
    kill_members(os.getsid(0), os.environ.get(MARK, ""))
