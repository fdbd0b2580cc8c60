"""``make bench-takeover``: from the deletion of a leader's pod to the new leader's first decision, on the kind cluster.

The pod is deleted by force, as a lost node or an impatient administrator does: nobody has told the leader, and its Lease is
held. All pods have the clock of this machine, so that the times in the FlinkJob's status can be compared with one taken here.
"""

import json
import secrets
import statistics
import subprocess
import time
from datetime import datetime
from pathlib import Path

import report

from cluster.kindcluster import need
from cluster.projectimage import IMAGE
from cluster.tools import provide
from jobs import Job
from kubernetes_cluster import Kubernetes, operator_of_chart

RESULTS = Path(__file__).parent / "operator.json"
ROUNDS = 10


def take_over(job: Job, epoch: int) -> float:
    """Seconds until somebody else has decided, as the leader of this epoch."""
    leader = job.leader()
    began = time.time()
    job.kubectl("delete", "pod", leader, "--force", "--grace-period=0", "--wait=false")
    told = job.failover(epoch)
    assert told["verdicts"]["restarted"] == 0, told
    job.holding(epoch)
    # Not the gap: that one began with the old leader's last sign of life.
    replay_began = datetime.fromisoformat(told["detectedAt"]).timestamp()
    taken_ms = float(told.get("replayMs", 0)) + float(told.get("reconcileMs", 0))
    return replay_began + taken_ms / 1000 - began


def main() -> None:
    """See the module."""
    cluster, tools = need(), provide(["kubectl", "helm"])
    kubernetes = Kubernetes(cluster.kubeconfig, IMAGE, tools["kubectl"], tools["helm"], cluster)
    with operator_of_chart(kubernetes):
        namespace = f"bench-takeover-{secrets.token_hex(3)}"
        kubernetes.kubectl("create", "namespace", namespace)
        job = Job(kubernetes, namespace)
        try:
            job.create()
            job.holding()
            seconds = [take_over(job, epoch) for epoch in range(2, 2 + ROUNDS)]
            job.finish()
        finally:
            job.remove()
            kubernetes.kubectl("delete", "namespace", namespace, "--wait=false")
    results = json.loads(RESULTS.read_text())
    results["takeover_s"] = round(statistics.median(seconds), 2)
    results["takeover_s_all"] = [round(each, 2) for each in sorted(seconds)]
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    report.write()
    print(f"takeover: median {results['takeover_s']} s of {results['takeover_s_all']}")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"takeover: {error}") from None
