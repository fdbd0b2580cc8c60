"""What ``flinkjob run`` shows on the way: progress by vertex, and the failovers as they happen."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flinkjob.local.cluster import Death
from flinkjob.local.monitor import JobView


class Display:
    """Live bars on a terminal; plain lines where the output is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: dict[str, TaskID] = {}
        self._finished: dict[str, int] = {}
        self._progress = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[running]:>3} running"),
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
        """Move the bars."""
        for vertex in view.vertices:
            finished, running = vertex.tasks.get("FINISHED", 0), vertex.tasks.get("RUNNING", 0)
            if vertex.name not in self._bars:
                self._bars[vertex.name] = self._progress.add_task(vertex.name, total=vertex.parallelism, running=0)
            self._progress.update(self._bars[vertex.name], completed=finished, running=running)
            if not self._console.is_terminal and finished != self._finished.get(vertex.name, 0):
                if finished == vertex.parallelism:
                    self.note(f"{vertex.name}: all {finished} tasks have finished")
                self._finished[vertex.name] = finished

    def death(self, death: Death) -> None:
        """Somebody died."""
        role = "the leader" if death.was_leader else death.kind.replace("manager", "Manager").capitalize()
        self._console.print(f"[red]{role} {death.id} is gone[/]: {death.cause}", highlight=False)

    def leader(self, leader: str) -> None:
        """Somebody leads."""
        self._console.print(f"[green]{leader} leads[/]", highlight=False)

    def note(self, text: str) -> None:
        """Something else."""
        self._console.print(text, highlight=False, markup=False)
