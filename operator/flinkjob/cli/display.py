"""What ``flinkjob run`` shows on the way: progress by vertex, and the failovers as they happen."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flinkjob.local.cluster import Death
from flinkjob.local.monitor import JobView

_KINDS = {"jobmanager": "JobManager", "taskmanager": "TaskManager"}


class Display:
    """Live bars on a terminal; plain lines where the output is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: dict[str, TaskID] = {}
        self._done: set[str] = set()
        self._restarts = 0
        self._progress = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(),
            TextColumn("{task.fields[finished]:>9} finished, {task.fields[running]} running"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def job(self, view: JobView) -> None:
        """Move the bars; tell of failures and of vertices that are done."""
        if view.restarts > self._restarts:
            self._restarts = view.restarts
            self.note(f"restarting after {view.last_failed_task} failed: {view.last_failure}")
        for vertex in view.vertices:
            finished, running = vertex.tasks.get("FINISHED", 0), vertex.tasks.get("RUNNING", 0)
            if vertex.name not in self._bars:
                self._bars[vertex.name] = self._progress.add_task(vertex.name, total=1.0, finished="", running=0)
            self._progress.update(
                self._bars[vertex.name],
                completed=vertex.done,
                finished=f"{finished}/{vertex.parallelism}",
                running=running,
            )
            if finished == vertex.parallelism and vertex.name not in self._done and not self._console.is_terminal:
                self._done.add(vertex.name)
                self.note(f"{vertex.name}: all {finished} tasks have finished")

    def death(self, death: Death) -> None:
        """Somebody died."""
        role = "the leader" if death.was_leader else _KINDS[death.kind]
        self._console.print(f"[red]{role} {death.id} is gone[/]: {death.cause}", highlight=False)

    def leader(self, leader: str) -> None:
        """Somebody leads."""
        self._console.print(f"[green]{leader} leads[/]", highlight=False)

    def note(self, text: str) -> None:
        """Something else."""
        self._console.print(text, highlight=False, markup=False)
