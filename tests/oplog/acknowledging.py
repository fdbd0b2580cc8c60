"""A leader as a process of its own: appends for ever and prints every LSN once it is durable. To be killed."""

import asyncio
import sys

from flinkjob.api.errors import StorageError
from flinkjob.graph.operations import EpochStarted, encode_operations
from flinkjob.oplog.log import OperationLog
from flinkjob.oplog.storage import open_medium


async def lead(url: str, name: str) -> None:
    log = OperationLog.open(open_medium(url), name)
    for _ in log.replay():
        pass
    failed = asyncio.Event()

    def on_failed(error: StorageError) -> None:
        print(type(error).__name__, flush=True)
        failed.set()

    writer = log.writer(on_durable=lambda lsn: print(lsn, flush=True), on_failed=on_failed)
    while True:
        first = writer.last_lsn + 1
        try:
            last = writer.append([EpochStarted(epoch=lsn, leader=name, at=lsn) for lsn in range(first, first + 3)])
            await writer.wait_durable(last)
            if last % 20 == 0:
                await writer.write_snapshot(last, encode_operations([]))
        except StorageError:
            break
    await failed.wait()


if __name__ == "__main__":
    asyncio.run(lead(sys.argv[1], sys.argv[2]))
