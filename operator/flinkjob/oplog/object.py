"""The log on an object store: a chain of objects for each epoch, every link of which is made by one writer only.

::

    oplog/0000000003/claim                  the claim of epoch 3; its exclusive creation makes the epoch somebody's
    oplog/0000000003/0000000/0000000001     the first block; the next one has the next number
    oplog/0000000003/0000000/0000000057     the seal: what the successor wrote at the first free number
    oplog/0000000003/0000000/pack-…         copies of many blocks in one object, for quick reading (``objectchain``)
    oplog/0000000003/fence                  who sealed the epoch, and where
    oplog/0000000003/segments               the first number of each segment; there is a new one after each snapshot
    snapshots/00000000000000001000          a snapshot
    snapshots/index                         the LSNs of the snapshots

All objects of the chain are written with create-if-absent, so a number tells who came first. A leader that finds a seal at
its next number has been deposed; behind a seal there can be no block, and all blocks before it can be read. Claims, seals
and fences are never removed: a leader that slept through its whole term must still run into them.

A listing is a hint and no more, for it may lag behind. Claims and blocks are numbered without a gap, so whoever looks for
the end asks for the next number by name until there is none. A leader that trims its own epoch leaves a gap where the
numbers begin. So it changes ``segments`` before it removes anything, and a seal counts only if its number was not before the
first segment after it had been written.
"""

import contextlib
import os
from io import BufferedReader
from typing import BinaryIO, TypeVar

import msgspec

from flinkjob.api.errors import Deposed
from flinkjob.oplog.medium import Segment
from flinkjob.oplog.objectchain import (
    Links,
    Packer,
    claim_name,
    link_name,
    listed_links,
    names_to_remove,
    numbers_in,
    of_epoch,
)
from flinkjob.oplog.objectfile import SEAL, BadObject, SegmentFile, decode_record, encode_link, encode_record
from flinkjob.oplog.objectstore import ObjectStore
from flinkjob.oplog.probe import check_exclusive_creation
from flinkjob.oplog.reader import Place, damaged

_CLAIM = b"C"
_INDEX = "snapshots/index"
_COPIED_AT_ONCE = 64

_T = TypeVar("_T")


class _Fence(msgspec.Struct, frozen=True):
    """Which leader sealed an epoch, and the number of the seal."""

    epoch: int
    leader: str
    end: int


class _Seal(msgspec.Struct, frozen=True):
    epoch: int
    leader: str


class _Segments(msgspec.Struct, frozen=True):
    """The first number of each segment, by the segment's."""

    begins: dict[int, int]


class _Snapshots(msgspec.Struct, frozen=True):
    lsns: list[int]


class ObjectMedium:
    """The ``oplog/`` and ``snapshots/`` of a job's directory in an object store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._fences: dict[int, _Fence] = {}  # those that have been read: a fence never changes
        self._listed: dict[int, dict[int, int]] = {}  # the segments of epochs, as ``segments`` has found them

    @property
    def location(self) -> str:
        """The job's directory."""
        return self._store.location

    # Claiming

    def claim(self) -> int:
        """See Medium: the exclusive creation of object 0 is the claim.

        Raises:
            UnsupportedStorage: the store does not create exclusively; it is asked before the first epoch of a job.
        """
        epoch = self._newest_epoch() + 1
        if epoch == 1:
            check_exclusive_creation(self._store)
        mine = _CLAIM + os.urandom(16)
        while True:
            try:
                self._store.create(claim_name(epoch), mine)
                return epoch
            except FileExistsError:
                # It may be one's own: the first try succeeded, and its answer was lost.
                if self._store.read(claim_name(epoch)) == mine:
                    return epoch
            epoch += 1

    def fence(self, epoch: int, leader: str) -> None:
        """See Medium. Oldest first: what lies below a fence is sealed, and nobody need look there again."""
        unfenced = []
        for lower in range(epoch - 1, 0, -1):
            if self._fence(lower) is not None:
                break
            unfenced.append(lower)
        for lower in reversed(unfenced):
            fence = _Fence(epoch, leader, self._seal(lower, _Seal(epoch, leader)))
            with contextlib.suppress(FileExistsError):
                self._store.create(of_epoch(lower, "fence"), encode_record(fence))
                self._fences[lower] = fence

    def check_fence(self, epoch: int) -> None:
        """See Medium."""
        fence = self._fence(epoch)
        if fence is not None:
            raise self._deposed(epoch, fence)

    def appender(self, epoch: int) -> "ObjectAppender":
        """See Medium."""
        return ObjectAppender(self, self._store, epoch)

    def _seal(self, epoch: int, seal: _Seal) -> int:
        """Make sure that nobody writes to the epoch any more; the number of its seal."""
        number = self._last_listed(epoch)
        if not number or _seal_in(self._read(link_name(epoch, number))) is None:
            number += 1
        while True:
            number = max(number, self._begin(epoch))
            try:
                self._store.create(link_name(epoch, number), SEAL + encode_record(seal))
                sealed = True
            except FileExistsError:
                sealed = _seal_in(self._read(link_name(epoch, number))) is not None
            # A seal where the leader has trimmed the log meanwhile stops nobody.
            if sealed and self._begin(epoch) <= number:
                return number
            number += 1

    def _deposed(self, epoch: int, by: _Fence | _Seal) -> Deposed:
        return Deposed(f"epoch {epoch} is over: a newer leader claimed epoch {by.epoch} {by.leader} of {self.location}")

    # Epochs and numbers

    def _newest_epoch(self) -> int:
        epoch = max(numbers_in(self._store.names("oplog")), default=0)
        while self._read(claim_name(epoch + 1)) is not None:
            epoch += 1
        return epoch

    def _fence(self, epoch: int) -> _Fence | None:
        if epoch not in self._fences:
            data = self._read(of_epoch(epoch, "fence"))
            if data is not None:
                self._fences[epoch] = _record(of_epoch(epoch, "fence"), data, _Fence)
        return self._fences.get(epoch)

    def _begins(self, epoch: int) -> dict[int, int]:
        return _begins_in(epoch, self._read(of_epoch(epoch, "segments")))

    def _begin(self, epoch: int) -> int:
        return min(self._begins(epoch).values(), default=1)

    def _write_begins(self, epoch: int, begins: dict[int, int]) -> None:
        self._store.put(of_epoch(epoch, "segments"), encode_record(_Segments(begins)))

    def _last_listed(self, epoch: int) -> int:
        return max(listed_links(self._store, epoch, newest=True), default=0)

    def _end(self, epoch: int, begin: int) -> int:
        """The number of the seal, or that which the next block will get."""
        if (fence := self._fence(epoch)) is not None:
            return fence.end
        number = max(begin, self._last_listed(epoch))
        while (data := self._read(link_name(epoch, number))) is not None and _seal_in(data) is None:
            number += 1
        return number

    def _read(self, name: str) -> bytes | None:
        try:
            return self._store.read(name)
        except FileNotFoundError:
            return None

    # Segments

    def segments(self) -> list[Segment]:
        """See Medium."""
        epochs = range(1, self._newest_epoch() + 1)
        answers = self._store.read_many([of_epoch(epoch, "segments") for epoch in epochs])
        self._listed = {epoch: _begins_in(epoch, data) for epoch, data in zip(epochs, answers, strict=True)}
        return sorted(Segment(epoch, number) for epoch, begins in self._listed.items() for number in begins)

    def describe(self, segment: Segment) -> str:
        """See Medium."""
        return f"{of_epoch(segment.epoch)}, segment {segment.number}"

    def open_segment(self, segment: Segment) -> BinaryIO:
        """See Medium."""
        # After its fence an epoch is at most trimmed, which shows in that objects are missing.
        listed = self._listed.get(segment.epoch) if segment.epoch in self._fences else None
        begins = listed if listed is not None else self._begins(segment.epoch)

        def error(name: str, reason: str) -> Exception:
            if segment.number not in self._begins(segment.epoch):
                return FileNotFoundError(f"{self.describe(segment)} has been removed meanwhile")
            return damaged(Place(name, 0), 0, reason)

        links = Links(self._store, segment.epoch, self._extent(segment, begins))
        return BufferedReader(SegmentFile(links, error))

    def settle(self, epoch: int) -> None:
        """See Medium: an object that can be read is durable."""

    def remove_segment(self, segment: Segment) -> None:
        """See Medium. Forgotten first: an interruption leaves objects that nobody reads, and the next removal takes them."""
        begins = self._begins(segment.epoch)
        if segment.number not in begins:
            return
        extent = self._extent(segment, begins)
        doomed = set(extent)
        if extent.start == min(begins.values()):
            doomed |= set(listed_links(self._store, segment.epoch, below=extent.start))
        del begins[segment.number]
        self._write_begins(segment.epoch, begins)
        self._store.remove(name for number in sorted(doomed) for name in names_to_remove(segment.epoch, number))

    def _extent(self, segment: Segment, begins: dict[int, int]) -> range:
        """The numbers of a segment's objects."""
        begin = begins.get(segment.number)
        if begin is None:
            return range(0)
        later = [other for number, other in begins.items() if number > segment.number]
        return range(begin, min(later) if later else self._end(segment.epoch, begin))

    # Snapshots

    def snapshots(self) -> list[int]:
        """See Medium. The index has what a listing may not show yet, and the listing what a lost index had."""
        return sorted({*numbers_in(self._store.names("snapshots")), *self._indexed()})

    def describe_snapshot(self, lsn: int) -> str:
        """See Medium."""
        return _snapshot(lsn)

    def read_snapshot(self, lsn: int) -> bytes:
        """See Medium."""
        return self._store.read(_snapshot(lsn))

    def put_snapshot(self, lsn: int, file: bytes) -> None:
        """See Medium."""
        self._store.put(_snapshot(lsn), file)
        self._store.put(_INDEX, encode_record(_Snapshots(sorted({*self._indexed(), lsn}))))

    def remove_snapshot(self, lsn: int) -> None:
        """See Medium."""
        self._store.put(_INDEX, encode_record(_Snapshots(sorted({*self._indexed()} - {lsn}))))
        self._store.remove([_snapshot(lsn)])

    def _indexed(self) -> list[int]:
        try:
            return decode_record(self._store.read(_INDEX), _Snapshots).lsns
        except (FileNotFoundError, BadObject):
            return []

    # Damage

    def set_aside(self, epoch: int) -> str:
        """See Medium. All is copied before anything is removed, and the oldest goes first, after the snapshots: what an
        interruption leaves still reads as damaged.
        """
        place = self._new_place(epoch)
        snapshots = self.snapshots()
        segments = [segment for segment in self.segments() if segment.epoch < epoch]
        names = [_INDEX, *(_snapshot(lsn) for lsn in snapshots)]
        for lower in sorted({segment.epoch for segment in segments}):
            end = self._end(lower, self._begin(lower))
            names += [claim_name(lower), of_epoch(lower, "segments"), of_epoch(lower, "fence")]
            names += [link_name(lower, number) for number in range(1, end + 1)]
        for start in range(0, len(names), _COPIED_AT_ONCE):
            some = names[start : start + _COPIED_AT_ONCE]
            for name, data in zip(some, self._store.read_many(some), strict=True):
                if data:
                    self._store.put(f"{place}/{name}", data)
        for lsn in snapshots:
            self.remove_snapshot(lsn)
        for segment in segments:
            self.remove_segment(segment)
        return f"{self.location}/{place}"

    def _new_place(self, epoch: int) -> str:
        number = 1
        while True:
            try:
                self._store.create(f"damaged-{number}/set-aside", b"by the leader of epoch %d\n" % epoch)
                return f"damaged-{number}"
            except FileExistsError:
                number += 1


class ObjectAppender:
    """The pen of an ObjectMedium's epoch: the number of its next block, and where that lies in its segment."""

    def __init__(self, medium: ObjectMedium, store: ObjectStore, epoch: int) -> None:
        self._medium = medium
        self._store = store
        self._epoch = epoch
        self._number = 1
        self._offset = 0
        self._packer = Packer(epoch)

    def append(self, block: bytes) -> None:
        """See Appender: whoever creates the next number has it."""
        name, data = link_name(self._epoch, self._number), encode_link(block, self._offset)
        try:
            self._store.create(name, data)
        except FileExistsError:
            self._check_mine(name, data)
        except OSError:
            # One who cannot write may be deposed all the same, and is to know it now.
            with contextlib.suppress(OSError):
                self._medium.check_fence(self._epoch)
            raise
        for pack, content in self._packer.add(self._number, data):
            with contextlib.suppress(OSError):
                self._store.put(pack, content)
        self._number += 1
        self._offset += len(block)

    def roll(self) -> None:
        """See Appender."""
        if self._offset:
            begins = self._medium._begins(self._epoch)
            self._medium._write_begins(self._epoch, {**begins, max(begins, default=0) + 1: self._number})
            self._offset = 0

    def close(self) -> None:
        """See Appender: nothing is open."""

    def _check_mine(self, name: str, data: bytes) -> None:
        """The next number is taken: by an earlier try, whose answer was lost, or by a successor.

        Raises:
            Deposed: by a successor, or there has been one since.
        """
        found = self._store.read(name)
        if found == data:
            self._medium.check_fence(self._epoch)
            return
        seal = _seal_in(found)
        if seal is None:
            raise Deposed(f"epoch {self._epoch} is over: somebody else wrote {name} of {self._medium.location}")
        raise self._medium._deposed(self._epoch, seal)


def _seal_in(data: bytes | None) -> _Seal | None:
    if data is None or not data.startswith(SEAL):
        return None
    try:
        return decode_record(data.removeprefix(SEAL), _Seal)
    except BadObject:
        return None


def _begins_in(epoch: int, data: bytes | None) -> dict[int, int]:
    """The first numbers of the epoch's segments; the first segment begins behind the claim."""
    name = of_epoch(epoch, "segments")
    return {0: 1} if data is None else dict(_record(name, data, _Segments).begins)


def _record(name: str, data: bytes, kind: type[_T]) -> _T:
    try:
        return decode_record(data, kind)
    except BadObject as error:
        raise damaged(Place(name, 0), 0, str(error)) from None


def _snapshot(lsn: int) -> str:
    return f"snapshots/{lsn:020d}"
