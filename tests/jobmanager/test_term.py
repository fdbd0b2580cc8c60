"""A term by itself: what is left of one that is closed before it leads."""

import asyncio
from pathlib import Path

from flinkjob.api.flinkjob import parse_manifest
from flinkjob.jobmanager.clock import Clock
from flinkjob.jobmanager.job import Job
from flinkjob.jobmanager.liveness import NoWatch
from flinkjob.jobmanager.term import Term, TermHooks

MANIFEST = """
apiVersion: flinkjob.io/v1alpha1
kind: FlinkJob
metadata: {name: words}
spec:
  flinkConfiguration: {jobmanager.failover.operation-log-store: filesystem}
  job:
    vertices:
      - {name: a, task: {command: ["true"]}}
"""


async def test_a_term_that_is_closed_as_it_opens_leaves_no_writer_behind(tmp_path: Path) -> None:
    settings = {"high-availability.storageDir": str(tmp_path)}
    term = Term(
        job=Job(parse_manifest(MANIFEST), overrides=settings, module_dir=tmp_path),
        leader="jobmanager-0",
        lease_term=1,
        hooks=TermHooks(send=lambda id, message: None, is_leader=lambda: True, over=lambda error: None),
        clock=Clock(),
        watch=NoWatch(),
    )
    opening = asyncio.create_task(term.open())
    await term.close(flush=False)
    await opening
    assert term.master is None
    assert term.writer is not None
    left = asyncio.all_tasks() - {asyncio.current_task()}
    async with asyncio.timeout(10):
        await asyncio.gather(*left)
