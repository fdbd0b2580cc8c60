"""Runs seeds on all cores, tells how a broken promise came about, and keeps its seed: ``make simulate SEEDS=100000``.

A failing seed is shrunk before it is told: faults are left out as long as the same promise is broken without them. What is
left goes into ``seeds.txt``, which the test suite replays.
"""

import argparse
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from .cluster import BrokenPromise, Cluster
from .faults import Fault, plan

KEPT = Path(__file__).with_name("seeds.txt")
CHUNK = 200
ENOUGH = 5
"""Failing seeds after which the search ends."""


def try_seed(seed: int, faults: Sequence[Fault] | None = None) -> BrokenPromise | None:
    """Run a seed, with its own faults or with some of them; the promise that it breaks, if it does."""
    try:
        Cluster(seed, plan(seed) if faults is None else faults).run()
    except BrokenPromise as broken:
        return broken
    return None


def shrink(seed: int, broken: BrokenPromise) -> tuple[list[int], BrokenPromise]:
    """Leave out faults while the same promise is broken; the numbers of those that are left, and what they lead to."""
    faults = plan(seed)
    needed = list(range(len(faults)))
    wanted = _kind(broken)
    for number in range(len(faults)):
        fewer = [other for other in needed if other != number]
        found = try_seed(seed, [faults[other] for other in fewer])
        if found is not None and _kind(found) == wanted:
            needed, broken = fewer, found
    return needed, broken


def _kind(broken: BrokenPromise) -> str:
    """Which promise it is, whichever attempt, leader or position it is broken for."""
    return re.sub(r"\d+", "", str(broken))[:60]


def kept() -> Iterator[tuple[int, list[Fault]]]:
    """The seeds that have failed once, each with the faults that it took."""
    for line in KEPT.read_text(encoding="utf-8").splitlines():
        seed, _, rest = line.partition("#")[0].strip().partition(" ")
        if seed:
            faults = plan(int(seed))
            yield int(seed), [faults[int(number)] for number in rest.split(",") if number and int(number) < len(faults)]


def keep(seed: int, needed: Sequence[int], broken: BrokenPromise) -> None:
    """Have the test suite replay the seed from now on."""
    line = f"{seed} {','.join(map(str, needed))}  # {str(broken).splitlines()[0][:100]}\n"
    known = KEPT.read_text(encoding="utf-8")
    if line not in known:
        KEPT.write_text(known + line, encoding="utf-8")


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
    print(f"BROKEN in seed {seed} with {len(needed)} of {len(plan(seed))} faults: {broken}\n")
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
