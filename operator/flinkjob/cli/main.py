"""The command line: ``flinkjob``.

Exit codes: 0 all is well; 1 the job did not finish, or what was asked for cannot be had now; 2 the input is wrong.
"""

import importlib
import sys

import click

from flinkjob.api.errors import FlinkJobError, InvalidInput, UnsupportedStorage

COMMANDS = {
    "run": "flinkjob.cli.run:run",
    "jobmanager": "flinkjob.cli.processes:jobmanager",
    "taskmanager": "flinkjob.cli.processes:taskmanager",
    "plan": "flinkjob.cli.plan:plan",
    "log": "flinkjob.cli.log:log",
    "options": "flinkjob.cli.options:options",
}


class _LazyGroup(click.Group):
    """Imports a command only when it is called: a TaskManager's start must not wait for the rest."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_LazyGroup, context_settings={"auto_envvar_prefix": "FLINKJOB", "max_content_width": 110})
@click.version_option(package_name="flinkjob-operator")
def cli() -> None:
    """Batch jobs that do not notice the death of their JobManager.

    Each flag can be given as an environment variable too: --port of `flinkjob jobmanager` is FLINKJOB_JOBMANAGER_PORT.
    """


def main() -> None:
    """Run the command line; every error of ours ends in one sentence."""
    try:
        # Without its standalone mode click returns an Exit's code instead of ending with it.
        sys.exit(cli(standalone_mode=False))
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
