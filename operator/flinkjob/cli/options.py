"""``flinkjob options``: the table of all options."""

import click

from flinkjob.api.options import options_table


@click.command()
def options() -> None:
    """Print all options of flinkConfiguration as a Markdown table."""
    click.echo(options_table(), nl=False)
