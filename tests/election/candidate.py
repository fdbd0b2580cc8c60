"""A candidate as a process of its own: prints what becomes of it, with short durations. To be stopped and killed."""

import asyncio
import sys
from pathlib import Path

from flinkjob.election.elector import ElectionTimes
from flinkjob.election.filestore import FileLeaseStore
from flinkjob.election.runner import LeaderElection


async def stand(path: Path, name: str) -> None:
    election = LeaderElection(
        name,
        FileLeaseStore(path),
        times=ElectionTimes(lease_duration=1.8, renew_deadline=1.2, retry_period=0.2),
        on_elected=lambda: print("elected", flush=True),
        on_lost=lambda reason: print("lost", flush=True),
    )
    await election.run()


if __name__ == "__main__":
    asyncio.run(stand(Path(sys.argv[1]), sys.argv[2]))
