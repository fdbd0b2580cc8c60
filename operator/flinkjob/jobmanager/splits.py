"""Finding the input splits of a source vertex: byte ranges of files, or what a custom enumerator gives."""

import asyncio
import glob
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import fsspec

from flinkjob.api.job import SplitsSpec
from flinkjob.graph.operations import InputSplit
from flinkjob.jobmanager.usercode import UserCodeFailed, enumerate_splits


async def find_splits(spec: SplitsSpec, module_dir: Path) -> tuple[InputSplit, ...]:
    """The splits in the order in which they are handed out.

    Raises:
        UserCodeFailed: no file matches, or the enumerator failed.
        OSError: a file system failed.
    """
    if spec.python is not None:
        return await enumerate_splits(spec.python, spec.args, module_dir)
    return await asyncio.to_thread(_file_splits, spec, module_dir)


def _file_splits(spec: SplitsSpec, module_dir: Path) -> tuple[InputSplit, ...]:
    files = {path: size for pattern in spec.files or () for path, size in _matching(pattern, module_dir)}
    if not files:
        raise UserCodeFailed(f"no file matches {', '.join(spec.files or ())}")
    return tuple(split for path in sorted(files) for split in _ranges(path, files[path], spec.max_split_size))


def _matching(pattern: str, module_dir: Path) -> Iterator[tuple[str, int]]:
    if "://" in pattern:
        filesystem, path = fsspec.core.url_to_fs(pattern)
        for name, info in filesystem.glob(path, detail=True).items():
            if info["type"] == "file":
                yield filesystem.unstrip_protocol(name), int(info["size"])
        return
    for name in glob.iglob(os.path.join(module_dir, pattern), recursive=True, include_hidden=True):
        if os.path.isfile(name):
            yield name, os.path.getsize(name)


def _ranges(path: str, size: int, most: int | None) -> Iterator[InputSplit]:
    """Ranges of nearly the same length, none above ``most``; an empty file gives none."""
    if size == 0:
        return
    count = -(-size // most) if most else 1
    bounds = [size * number // count for number in range(count + 1)]
    for start, end in pairwise(bounds):
        yield InputSplit(path, start, end - start)
