"""The objects of an epoch's chain: their names, and how to read many of them with few requests.

A request costs its client some 2 ms of computing, whatever it carries. So the leader writes the links once more, in *packs*
of 16 and of 256; and 256 of them share a directory, so that the newest one is found without listing them all::

    oplog/0000000003/0000000/0000000001              link 1
    oplog/0000000003/0000000/pack-16-0000000001      the links 1 to 16
    oplog/0000000003/0000000/pack-16-0000000017      the links 17 to 32
    oplog/0000000003/0000000/pack-256-0000000001     the links 1 to 256
    oplog/0000000003/0000001/0000000257              link 257

A pack is a copy and nothing hangs on it: where it is missing, late or damaged, the links are read one by one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

import msgspec

from flinkjob.oplog.objectstore import ObjectStore

PACK_SIZES = (16, 256)
"""Links in a pack: part of the format, since readers ask for packs by name."""

_DIRECTORY = 256
"""Links in a directory. The packs that begin with one of them are there, too."""

_LARGEST_PACK = 1 << 20
"""Bytes. Links that are larger together are quick enough to read by themselves."""

_READ_AT_ONCE = 64
"""Objects."""

_MAGIC = b"P"


def of_epoch(epoch: int, name: str = "") -> str:
    """The name of an object of the epoch, or of its directory."""
    return f"oplog/{epoch:010d}/{name}".rstrip("/")


def claim_name(epoch: int) -> str:
    """The name of the object that makes the epoch somebody's."""
    return of_epoch(epoch, "claim")


def link_name(epoch: int, number: int) -> str:
    """The name of the link of a number, from 1."""
    return _in_directory(epoch, number, f"{number:010d}")


def _in_directory(epoch: int, number: int, name: str) -> str:
    return of_epoch(epoch, f"{(number - 1) // _DIRECTORY:07d}/{name}")


def listed_links(store: ObjectStore, epoch: int, *, newest: bool = False, below: int | None = None) -> list[int]:
    """The numbers of an epoch's links that a listing shows, in order; it may lag behind.

    Args:
        newest: only those of the newest directory. below: only those before a number.
    """
    directories = numbers_in(store.names(of_epoch(epoch)))
    found: list[int] = []
    for directory in reversed(directories):
        if below is None or directory * _DIRECTORY + 1 < below:
            numbers = numbers_in(store.names(of_epoch(epoch, f"{directory:07d}")))
            found += (number for number in numbers if below is None or number < below)
        if found and newest:
            break
    return sorted(found)


def numbers_in(names: list[str]) -> list[int]:
    """The numbers among the names, in order."""
    return sorted(int(name) for name in names if name.isdecimal())


def names_to_remove(epoch: int, number: int) -> list[str]:
    """The names of a link and of the packs that end with it."""
    packs = (_Piece(number - size + 1, size) for size in PACK_SIZES if number % size == 0)
    return [piece.name(epoch) for piece in (_Piece(number, 1), *packs)]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Consecutive links that one object holds: a pack of them or, of size 1, the link itself."""

    first: int
    size: int

    @property
    def stop(self) -> int:
        return self.first + self.size

    def name(self, epoch: int) -> str:
        if self.size == 1:
            return link_name(epoch, self.first)
        return _in_directory(epoch, self.first, f"pack-{self.size}-{self.first:010d}")

    def decode(self, data: bytes | None) -> list[bytes | None] | None:
        """The links; None where a pack is missing or not whole."""
        if self.size == 1:
            return [data]
        if data is None or data[:5] != _MAGIC + crc32(body := data[5:]).to_bytes(4, "big"):
            return None
        try:
            links: list[bytes | None] = list(msgspec.msgpack.decode(body, type=list[bytes]))
        except msgspec.DecodeError:
            return None
        return links if len(links) == self.size else None


def _encode_pack(links: Sequence[bytes]) -> bytes:
    """``P``, a CRC-32, and a msgpack array of the links."""
    body = msgspec.msgpack.encode(links)
    return b"".join((_MAGIC, crc32(body).to_bytes(4, "big"), body))


class _Gathering:
    """The links of the next pack of a size."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._links: list[bytes] = []
        self._bytes = 0

    def add(self, number: int, link: bytes) -> tuple[_Piece, bytes] | None:
        """Take the next link; the pack that it completes, unless that would be too large."""
        self._bytes += len(link)
        if self._bytes <= _LARGEST_PACK:
            self._links.append(link)
        if number % self._size:
            return None
        links, self._links, self._bytes = self._links, [], 0
        if len(links) < self._size:
            return None
        return _Piece(number - self._size + 1, self._size), _encode_pack(links)


class Packer:
    """Makes the packs of an epoch's links while these are written, from number 1 on."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._gatherings = [_Gathering(size) for size in PACK_SIZES]

    def add(self, number: int, link: bytes) -> Iterator[tuple[str, bytes]]:
        """Take the next link; the names and contents of the packs that it completes."""
        packs = [gathering.add(number, link) for gathering in self._gatherings]
        return ((piece.name(self._epoch), data) for piece, data in filter(None, packs))


class Links:
    """Consecutive links of an epoch, to be read in any order."""

    def __init__(self, store: ObjectStore, epoch: int, numbers: range) -> None:
        self._store = store
        self._epoch = epoch
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def name(self, index: int) -> str:
        """The name of one of them."""
        return link_name(self._epoch, self._numbers[index])

    def ends(self) -> tuple[bytes | None, bytes | None]:
        """The first and the last one; None for what is missing."""
        first, *last = self._store.read_many([self.name(0), self.name(-1)][: len(self)])
        return first, last[0] if last else first

    def read(self, index: int) -> list[bytes | None]:
        """Those from one on, as many as can be asked for at once; None for what is missing."""
        number = self._numbers[index]
        pieces = list(self._pieces(number, PACK_SIZES))
        found: list[bytes | None] = []
        for piece, data in zip(pieces, self._store.read_many([p.name(self._epoch) for p in pieces]), strict=True):
            links = piece.decode(data)
            if links is None:
                return found or self._read_without_packs(number)
            found += links[max(0, number - piece.first) :]
        return found

    def _read_without_packs(self, number: int) -> list[bytes | None]:
        return self._store.read_many([piece.name(self._epoch) for piece in self._pieces(number, ())])

    def _pieces(self, number: int, sizes: Sequence[int]) -> Iterator[_Piece]:
        """The fewest objects that hold the links from a number on; the first may hold some before it, too."""
        for _ in range(_READ_AT_ONCE):
            if number >= self._numbers.stop:
                return
            around = (_Piece(number - (number - 1) % size, size) for size in (1, *sizes))
            piece = max((p for p in around if p.stop <= self._numbers.stop), key=lambda p: p.size)
            yield piece
            number = piece.stop
