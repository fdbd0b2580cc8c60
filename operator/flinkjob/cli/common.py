"""What several commands share: parameters, logging, and the way a process is told to stop."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])

manifest_argument = click.argument("manifest", metavar="JOB.yaml", type=click.Path(path_type=Path))


class _KeyValue(click.ParamType[tuple[str, str]]):
    """``KEY=VALUE`` as a pair."""

    name = "KEY=VALUE"
    envvar_list_splitter = ";"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """The pair."""
        key, equals, text = str(value).partition("=")
        if not equals or not key.strip():
            self.fail(f"{value!r} is not KEY=VALUE", param, ctx)
        return key.strip(), text.strip()


def set_option(function: _F) -> _F:
    """``--set KEY=VALUE``, any number of them; in ``FLINKJOB_SET`` with semicolons between them."""
    return click.option(
        "--set",
        "overrides",
        type=_KeyValue(),
        multiple=True,
        callback=lambda ctx, param, pairs: dict(pairs),
        envvar="FLINKJOB_SET",
        show_envvar=True,
        help="A Flink option that wins over the manifest's. Can be given several times.",
    )(function)


def module_dir_of(manifest: Path, given: Path | None) -> Path:
    """Where the job's modules are: the directory given, or that of the manifest."""
    return (given or manifest.parent).absolute()


def log_to_stderr() -> None:
    """A process's log: one line for each thing that happened, on standard error."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s - %(message)s")


def stop_on_signals() -> asyncio.Event:
    """An event of the running loop that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def end_with_stdin(environment: Mapping[str, str] = os.environ) -> None:
    """End this process at once when standard input closes, if whoever started it wants that (``FLINKJOB_END_WITH_STDIN``).

    The one who keeps a local cluster holds the other end; when it is gone, however that came, nothing is left behind.
    """
    if environment.get("FLINKJOB_END_WITH_STDIN") != "1":
        return

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=wait, name="end-with-stdin", daemon=True).start()
