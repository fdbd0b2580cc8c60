"""The result of a job for people: the records of the vertices that nobody reads."""

from itertools import islice
from typing import Any

from flinkjob.graph.operations import ResultPartition
from flinkjob.jobmanager.result import JobResult
from flinkjob.oplog.storage import JobStorage
from flinkjob.taskmanager.exchange import read_result

MAX_RECORDS = 1000
"""How many records of a vertex are shown; all of them lie in the job's storage."""


def read_outputs(storage: JobStorage, result: JobResult) -> dict[str, list[Any]]:
    """The first records of each such vertex, in the order of its subtasks.

    Raises:
        PartitionUnavailable: a partition is missing or damaged.
    """
    outputs: dict[str, list[Any]] = {}
    for output in result.outputs:
        records = outputs.setdefault(output.vertex, [])
        partition = ResultPartition(output.size, output.records, output.checksum)
        written = read_result(storage.url, output.run, output.vertex_index, output.subtask, output.attempt, partition)
        records.extend(islice(written, MAX_RECORDS - len(records)))
    return outputs
