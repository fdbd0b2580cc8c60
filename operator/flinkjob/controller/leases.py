"""When the operator may take the Lease from a leader: only when the leader cannot be running any more.

An expired Lease needs nobody; standbys take it by themselves. Before that there are two proofs of death. The pod is gone:
the API server has no pod of the leader's uid. Or its container has terminated, as the kubelet on its own node tells, after
the Lease was taken: both moments are read from the clock of the same node, so that they can be compared. A node that
cannot be reached proves nothing, nor does a pod that is being deleted.

Whoever uses this reads the Lease first, the pod after it, and writes with the Lease's resourceVersion.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from flinkjob.controller import names
from flinkjob.controller.observed import Manifest, Pod, parse_time
from flinkjob.election.leasestore import ADDRESS, ENDED, REST


class Holder(NamedTuple):
    """Who holds a Lease.

    Attributes:
        pod: its pod.
        uid: the pod's uid.
    """

    pod: str
    uid: str


def holder(lease: Mapping[str, Any]) -> Holder | None:
    """Who holds the Lease; None where nobody does, or somebody who does not say which pod he is."""
    pod, _, rest = ((lease.get("spec") or {}).get("holderIdentity") or "").partition("_")
    uid = rest.partition("_")[0]
    return Holder(pod, uid) if pod and uid else None


def proof_of_death(lease: Mapping[str, Any], pod: Mapping[str, Any] | None) -> str | None:
    """Why the Lease's holder is certainly dead, in words; None where it is not certain.

    Args:
        lease: the Lease, just read.
        pod: the pod of the holder's name, read after the Lease; None where there is none.
    """
    held_by = holder(lease)
    if held_by is None:
        return None
    if pod is None or pod["metadata"]["uid"] != held_by.uid:
        return f"the pod {held_by.pod} is gone"
    seen = Pod.of(pod)
    if seen.ended is None or seen.ended.at is None or not _said_by_kubelet(pod):
        return None
    spec = lease["spec"]
    acquired, renewed = parse_time(spec.get("acquireTime")), parse_time(spec.get("renewTime"))
    # The kubelet drops what is below a second: a moment within that second may be before or after the end.
    if acquired is None or acquired > seen.ended.at or (renewed is not None and renewed >= seen.ended.at + 1):
        return None
    return f"the container of {held_by.pod} has ended with exit code {seen.ended.exit_code}"


def emptied(lease: Mapping[str, Any], why: str = "") -> Manifest:
    """The Lease without its holder, to be written if nobody has changed it since.

    Args:
        lease: the Lease, just read.
        why: the proof of death, for the successor; "" where its holder has released it.
    """
    metadata = dict(lease["metadata"])
    annotations = metadata.get("annotations") or {}
    kept = {key: value for key, value in annotations.items() if key not in (ADDRESS, REST, ENDED)}
    metadata["annotations"] = kept | ({ENDED: why} if why else {})
    return {**lease, "metadata": metadata, "spec": {**lease["spec"], "holderIdentity": ""}}


def _said_by_kubelet(pod: Mapping[str, Any]) -> bool:
    """Whether the main container itself is told to have terminated or to wait for its next start."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    container: Mapping[str, Any] = next((each for each in statuses if each.get("name") == names.JOBMANAGER), {})
    state = container.get("state") or {}
    return "terminated" in state or ("waiting" in state and "terminated" in (container.get("lastState") or {}))
