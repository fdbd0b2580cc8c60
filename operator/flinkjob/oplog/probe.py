"""Whether a store really creates exclusively: nothing but trying tells.

Many backends only look whether the object exists and then write it, and some servers ignore the condition. So the same
object is created by several threads at once, each with content of its own: exactly one may succeed, and what it wrote must
stay; then one try more must fail. A store that looks first lets more than one through.
"""

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor

from flinkjob.api.errors import UnsupportedStorage
from flinkjob.oplog.objectstore import ObjectStore

CREATORS = 3


def check_exclusive_creation(store: ObjectStore) -> None:
    """Try it, and remove what was tried with.

    Raises:
        UnsupportedStorage: the store cannot be written, or an object was created twice; the message names the store.
        OSError: it cannot be found out now.
    """
    name = f"oplog/probe-{secrets.token_hex(8)}"
    try:
        _check(store, name)
    finally:
        store.remove([name])


def _check(store: ObjectStore, name: str) -> None:
    start = threading.Barrier(CREATORS)

    def create(creator: int) -> bytes | None:
        content = b"creator %d" % creator
        start.wait()
        return content if _created(store, name, content) else None

    with ThreadPoolExecutor(CREATORS) as threads:
        winners = [content for content in threads.map(create, range(CREATORS)) if content is not None]
    if len(winners) > 1:
        raise _refused(store, f"{len(winners)} of {CREATORS} writers created the same object at once")
    if _created(store, name, b"late"):
        raise _refused(store, "an object that exists was created once more")
    if winners and store.read(name) != winners[0]:
        raise _refused(store, "a creation that was refused has changed the object")


def _created(store: ObjectStore, name: str, content: bytes) -> bool:
    try:
        store.create(name, content)
    except FileExistsError:
        return False
    return True


def _refused(store: ObjectStore, reason: str) -> UnsupportedStorage:
    return UnsupportedStorage(
        f"{store.location} cannot keep an operation log: it does not create objects exclusively ({reason}), so a leader "
        "that has been deposed could go on writing; an S3 server has to support If-None-Match in PutObject"
    )
