"""The command line: ``flinkjob``.

Exit codes: 0 all is well; 1 the job did not finish, or what was asked for cannot be had now; 2 the input is wrong.
"""

import importlib
import sys
from collections.abc import Mapping
from typing import NoReturn

import click

from flinkjob.api.errors import FlinkJobError, InvalidInput, UnsupportedStorage

CLUSTER_COMMANDS = {
    "status": "flinkjob.cli.jobcommands:status",
    "watch": "flinkjob.cli.jobcommands:watch",
    "cancel": "flinkjob.cli.jobcommands:cancel",
    "failover": "flinkjob.cli.jobcommands:failover",
}
"""For jobs on a cluster; they make up the kubectl plugin."""

COMMANDS = {
    "run": "flinkjob.cli.run:run",
    "jobmanager": "flinkjob.cli.processes:jobmanager",
    "taskmanager": "flinkjob.cli.processes:taskmanager",
    "operator": "flinkjob.cli.operator:operator",
    "plan": "flinkjob.cli.plan:plan",
    "log": "flinkjob.cli.log:log",
    "result": "flinkjob.cli.result:result",
    "storage": "flinkjob.cli.storage:storage",
    "options": "flinkjob.cli.options:options",
    "crd": "flinkjob.cli.crd:crd",
    **CLUSTER_COMMANDS,
}


class _LazyGroup(click.Group):
    """Imports a command only when it is called: a TaskManager's start must not wait for the rest."""

    places: Mapping[str, str] = COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.places:
            return None
        module, name = self.places[cmd_name].split(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command


class _PluginGroup(_LazyGroup):
    """The same for the kubectl plugin."""

    places = CLUSTER_COMMANDS


_SETTINGS = {"auto_envvar_prefix": "FLINKJOB", "max_content_width": 110}


@click.group(cls=_LazyGroup, context_settings=_SETTINGS)
@click.version_option(package_name="flinkjob-operator")
def cli() -> None:
    """Batch jobs that do not notice the death of their JobManager.

    Each flag can be given as an environment variable too: --port of `flinkjob jobmanager` is FLINKJOB_JOBMANAGER_PORT.
    """


@click.group(cls=_PluginGroup, context_settings=_SETTINGS)
@click.version_option(package_name="flinkjob-operator", prog_name="kubectl flinkjob")
def plugin() -> None:
    """Look at the FlinkJobs of a cluster, cancel them, and let their leaders hand over."""


def main() -> None:
    """``flinkjob``."""
    _run(cli, "flinkjob")


def kubectl_main() -> None:
    """``kubectl flinkjob``, which kubectl finds as ``kubectl-flinkjob``."""
    _run(plugin, "kubectl flinkjob")


def _run(command: click.Group, prog_name: str) -> NoReturn:
    """Run the command line; every error of ours ends in one sentence."""
    try:
        # Without its standalone mode click returns an Exit's code instead of ending with it.
        sys.exit(command(prog_name=prog_name, standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except (InvalidInput, UnsupportedStorage) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        # Whoever read our output has had enough, as `head` does.
        sys.stderr.close()
        sys.exit(1)
    except (FlinkJobError, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
