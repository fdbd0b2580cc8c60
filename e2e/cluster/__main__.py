"""``python -m cluster COMMAND``: see the package."""

import argparse
import sys

from cluster.kindcluster import current, down, need, remains, up
from cluster.projectimage import load_project
from cluster.tools import FOR_TESTS, TOOLS, ClusterError, provide


def main() -> int:
    """See the package."""
    parser = argparse.ArgumentParser(prog="cluster", description="A real Kubernetes cluster on this machine.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="put the cluster up, unless it is")
    commands.add_parser("down", help="take the cluster away, and all that was started for it")
    commands.add_parser("status", help="tell whether it is up, and how its nodes are; exit status 1 if it is not")
    load = commands.add_parser("load", help="bring an image to the nodes")
    load.add_argument("image", metavar="IMAGE")
    commands.add_parser("image", help="build the project's image and bring it to the nodes")
    commands.add_parser("kubeconfig", help="print the path of the cluster's kubeconfig")
    for name, told in (("cut", "cut a node off from the network"), ("heal", "join it again")):
        commands.add_parser(name, help=told).add_argument("node", metavar="NODE")
    build = commands.add_parser("build", help="build programs into the user's cache; what is there is not built again")
    build.add_argument(
        "names", nargs="*", metavar="PROGRAM", help=f"{', '.join(TOOLS)}; without: what `make test-kube` needs"
    )
    options = parser.parse_args()
    try:
        return _carry_out(options)
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1


def _carry_out(options: argparse.Namespace) -> int:
    match options.command:
        case "up":
            up()
        case "down":
            down()
        case "status":
            return _status()
        case "load":
            need().load(options.image)
        case "image":
            print(load_project(need()))
        case "kubeconfig":
            print(need().kubeconfig)
        case "cut":
            need().cut(options.node)
        case "heal":
            need().heal(options.node)
        case "build":
            for name, path in provide(options.names or FOR_TESTS).items():
                print(f"{name}\t{path}")
    return 0


def _status() -> int:
    cluster = current()
    if cluster is None:
        print("not up, but not taken away; `make cluster-down` does it" if remains() else "down")
        return 1
    print(f"up; its kubeconfig is {cluster.kubeconfig}")
    print(cluster.kubectl("get", "nodes", "--output=wide"), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
