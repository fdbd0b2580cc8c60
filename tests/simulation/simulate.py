"""Runs seeds on all cores, tells how a broken promise came about, and keeps its seed: ``make simulate SEEDS=100000``.

A failing seed is shrunk before it is told: faults are left out as long as the same promise is broken without them. What is
left goes into ``kept.jsonl``, one found failure a line, which the test suite replays. A line holds the setting and the faults
themselves, so that it goes on meaning what it says however faults and settings are drawn from seeds in the future; only how
long each step takes is drawn anew.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec

from .cluster import BrokenPromise, Cluster
from .faults import Fault, plan
from .setting import Setting

KEPT = Path(__file__).with_name("kept.jsonl")
CHUNK = 200
ENOUGH = 5
"""Failing seeds after which the search ends."""


class Kept(msgspec.Struct, frozen=True):
    """A failure that was found once: the promise that was broken, what was said of it, and what it took."""

    promise: str
    said: str
    seed: int
    setting: Setting
    faults: tuple[Fault, ...]


def try_seed(seed: int, faults: Sequence[Fault] | None = None, setting: Setting | None = None) -> BrokenPromise | None:
    """Run a seed, with its own faults and setting or with others; the promise that it breaks, if it does."""
    try:
        Cluster(seed, plan(seed) if faults is None else faults, setting).run()
    except BrokenPromise as broken:
        return broken
    return None


def shrink(seed: int, broken: BrokenPromise) -> tuple[list[Fault], BrokenPromise]:
    """Leave out faults while the same promise is broken; those that are left, and what they lead to."""
    needed = list(plan(seed))
    for fault in list(needed):
        fewer = [other for other in needed if other is not fault]
        found = try_seed(seed, fewer)
        if found is not None and found.name == broken.name:
            needed, broken = fewer, found
    return needed, broken


def kept() -> list[Kept]:
    """What has failed once."""
    return [msgspec.json.decode(line, type=Kept) for line in KEPT.read_bytes().splitlines()]


def keep(seed: int, needed: Sequence[Fault], broken: BrokenPromise) -> None:
    """Have the test suite replay the failure from now on."""
    said = str(broken).splitlines()[0][:100]
    found = Kept(broken.name, said, seed, Cluster(seed, []).setting, tuple(needed))
    if found not in kept():
        with KEPT.open("ab") as file:
            file.write(msgspec.json.encode(found) + b"\n")


def _failing(chunk: range) -> list[int]:
    return [seed for seed in chunk if try_seed(seed) is not None]


def search(seeds: range) -> list[int]:
    """Run the seeds on all cores and return those that fail, the first few of them."""
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    failing: list[int] = []
    began, told, done = time.monotonic(), 0.0, 0
    with ProcessPoolExecutor() as pool:
        for chunk, found in zip(chunks, pool.map(_failing, chunks), strict=True):
            failing += found
            done += len(chunk)
            seconds = time.monotonic() - began
            if seconds - told > 10 or done == len(seeds):
                told = seconds
                rate = done / max(seconds, 1e-3)
                found_so_far = f"failing: {failing}" if failing else "none fails"
                print(f"{done} of {len(seeds)} seeds, {rate:.0f} seeds/s, {found_so_far}", file=sys.stderr)
            if len(failing) >= ENOUGH:
                pool.shutdown(cancel_futures=True)
                break
    return failing[:ENOUGH]


def report(seed: int) -> bool:
    """Run a seed; if it fails, shrink it, tell its history and keep it. Returns whether it failed."""
    broken = try_seed(seed)
    if broken is None:
        return False
    needed, broken = shrink(seed, broken)
    print("\n".join(broken.history))
    print(f"BROKEN in seed {seed} with {len(needed)} of {len(plan(seed))} faults: {broken.name}: {broken}\n")
    keep(seed, needed, broken)
    return True


def _seeds(text: str) -> range:
    first, _, last = text.rpartition("-")
    return range(int(first or 0), int(last))


def main() -> int:
    """The command line; the exit code is 1 if any seed fails."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("seeds", type=_seeds, help="how many, from 0 on; or FIRST-LAST, the last one not included")
    failing = search(parser.parse_args().seeds)
    for seed in failing:
        report(seed)
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
