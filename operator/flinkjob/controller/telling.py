"""Kubernetes Events about FlinkJobs, for people. One that cannot be written is no reason to fail at anything."""

import logging
import secrets
from datetime import UTC, datetime

from flinkjob.api.errors import ClusterError
from flinkjob.controller.actions import Event
from flinkjob.controller.cluster import Cluster
from flinkjob.controller.observed import Manifest

logger = logging.getLogger(__name__)

MAX_NOTE = 1024
"""Characters of an Event's note (events.k8s.io/v1)."""
REPORTER = "flinkjob.io/operator"


class Recorder:
    """Writes Events."""

    def __init__(self, cluster: Cluster, *, instance: str = "flinkjob-operator") -> None:
        self._cluster = cluster
        self._instance = instance

    async def tell(self, flinkjob: Manifest, event: Event) -> None:
        """Tell something of a FlinkJob."""
        try:
            await self._cluster.create(self._manifest(flinkjob, event))
        except ClusterError as error:
            logger.info("an Event (%s) is lost: %s", event.reason, error)

    def _manifest(self, flinkjob: Manifest, event: Event) -> Manifest:
        metadata = flinkjob["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.{secrets.token_hex(8)}", "namespace": namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": REPORTER,
            "reportingInstance": self._instance,
            "type": "Warning" if event.warning else "Normal",
            "reason": event.reason,
            "action": "Reconcile",
            "note": event.message if len(event.message) <= MAX_NOTE else event.message[: MAX_NOTE - 1] + "…",
            "regarding": {
                "apiVersion": flinkjob["apiVersion"],
                "kind": flinkjob["kind"],
                "name": name,
                "namespace": namespace,
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
        }
