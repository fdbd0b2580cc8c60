"""A process that counts up the transitions of a lease file by compare-and-swap, so many times."""

import asyncio
import sys
from pathlib import Path

import msgspec

from flinkjob.election.filestore import FileLeaseStore
from flinkjob.election.record import LeaseRecord


async def count(path: Path, times: int) -> None:
    store = FileLeaseStore(path)
    while times:
        present = await store.read()
        record = present or LeaseRecord()
        new = msgspec.structs.replace(record, transitions=record.transitions + 1)
        if await store.compare_and_swap(record.version, new) is not None:
            times -= 1


if __name__ == "__main__":
    asyncio.run(count(Path(sys.argv[1]), int(sys.argv[2])))
