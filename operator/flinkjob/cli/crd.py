"""``flinkjob crd``: the CustomResourceDefinition, to be applied to a cluster."""

from typing import Any

import click
import yaml

from flinkjob.api.crd import custom_resource_definition


class _Dumper(yaml.SafeDumper):
    """Writes equal values out each time: people read the file."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@click.command()
def crd() -> None:
    """Print the CustomResourceDefinition of FlinkJob, for `kubectl apply --server-side -f -`."""
    click.echo(crd_text(), nl=False)


def crd_text() -> str:
    """The CustomResourceDefinition as YAML."""
    head = "# Made by `make crd` of the typed values in operator/flinkjob/api; do not edit.\n"
    values = custom_resource_definition()
    return head + yaml.dump(values, Dumper=_Dumper, sort_keys=False, width=118, allow_unicode=True)
