"""The removal of all that a FlinkJob has left in its storage: the directories of all its runs.

A run that was started anew (``spec.restartNonce``) has a number behind the uid, ``<uid>-r<number>``. Nothing else below the
storage directory is touched, nor a job of the same name with another uid.
"""

import re

from flinkjob.api.errors import StorageError
from flinkjob.oplog.filesystem import open_filesystem
from flinkjob.oplog.storage import JobStorage


def remove_job_data(storage_dir: str, *, namespace: str, name: str, uid: str) -> list[str]:
    """Remove a job's directories and say which held anything; none is no error, so that it can be done again.

    Args:
        storage_dir: ``high-availability.storageDir`` of the job.
        namespace: of the job.
        name: of the job.
        uid: of the FlinkJob, without a run's number.

    Raises:
        UnsupportedStorage: the scheme is unknown, or its backend is not installed.
        StorageError: the storage refuses, or does not answer.
    """
    url = JobStorage.below(storage_dir, namespace=namespace, name=name, uid=uid).url
    files, path = open_filesystem(url)
    parent, _, first_run = path.rpartition("/")
    of_this_job = re.compile(rf"{re.escape(first_run)}(-r[0-9]+)?")
    try:
        listed = files.ls(parent, detail=False)
        found = sorted(each for each in listed if of_this_job.fullmatch(each.rstrip("/").rpartition("/")[2]))
        # Some object stores go on listing a directory in which there is nothing any more.
        filled = [x for x in found if any(i["type"] == "file" for i in files.find(x, detail=True).values())]
        for directory in filled:
            files.rm(directory, recursive=True)
    except FileNotFoundError:
        return []
    except Exception as error:  # each backend has errors of its own
        raise StorageError(f"{url}: cannot be removed: {error}") from error
    return filled
