"""Runs seeds on all cores, tells how a broken promise came about, and keeps its seed: ``make simulate SEEDS=100000``.

A failing seed is shrunk before it is told: faults are left out as long as the same promise is broken without them. What is
left goes into ``kept.jsonl``, one found failure a line, which the test suite replays. A line holds the setting and the faults
themselves, so that it goes on meaning what it says however faults and settings are drawn from seeds in the future; only how
long each step takes is drawn anew. With ``--operator`` the cluster is one on a simulated Kubernetes (``operatedcluster``).
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import msgspec

from .cluster import BrokenPromise, Cluster
from .faults import Fault, plan
from .operatedcluster import OperatedCluster
from .operatorfaults import plan as plan_with_operator
from .setting import Setting


class World(NamedTuple):
    """What is simulated.

    Attributes:
        cluster: runs. plan: the faults of a seed.
    """

    cluster: type[Cluster]
    plan: Callable[[int], list[Fault]]


CORE = World(Cluster, plan)
OPERATED = World(OperatedCluster, plan_with_operator)

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


def try_seed(
    seed: int, faults: Sequence[Fault] | None = None, setting: Setting | None = None, world: World = CORE
) -> BrokenPromise | None:
    """Run a seed, with its own faults and setting or with others; the promise that it breaks, if it does."""
    try:
        world.cluster(seed, world.plan(seed) if faults is None else faults, setting).run()
    except BrokenPromise as broken:
        return broken
    return None


def shrink(seed: int, broken: BrokenPromise, world: World = CORE) -> tuple[list[Fault], BrokenPromise]:
    """Leave out faults while the same promise is broken; those that are left, and what they lead to."""
    needed = list(world.plan(seed))
    for fault in list(needed):
        fewer = [other for other in needed if other is not fault]
        found = try_seed(seed, fewer, world=world)
        if found is not None and found.name == broken.name:
            needed, broken = fewer, found
    return needed, broken


def kept() -> list[Kept]:
    """What has failed once."""
    return [msgspec.json.decode(line, type=Kept) for line in KEPT.read_bytes().splitlines()]


def keep(seed: int, needed: Sequence[Fault], broken: BrokenPromise) -> None:
    """Have the test suite replay the failure from now on."""
    said = str(broken).splitlines()[0][:100]
    found = Kept(broken.name, said, seed, Setting.drawn(Random(seed)), tuple(needed))
    if found not in kept():
        with KEPT.open("ab") as file:
            file.write(msgspec.json.encode(found) + b"\n")


def _failing(world: World, chunk: range) -> list[int]:
    return [seed for seed in chunk if try_seed(seed, world=world) is not None]


def search(seeds: range, world: World = CORE) -> list[int]:
    """Run the seeds on all cores and return those that fail, the first few of them."""
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    failing: list[int] = []
    began, told, done = time.monotonic(), 0.0, 0
    with ProcessPoolExecutor() as pool:
        for chunk, found in zip(chunks, pool.map(partial(_failing, world), chunks), strict=True):
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


def report(seed: int, world: World = CORE) -> bool:
    """Run a seed; if it fails, shrink it, tell its history and keep it. Returns whether it failed."""
    broken = try_seed(seed, world=world)
    if broken is None:
        return False
    needed, broken = shrink(seed, broken, world)
    print("\n".join(broken.history))
    print(f"BROKEN in seed {seed} with {len(needed)} of {len(world.plan(seed))} faults: {broken.name}: {broken}\n")
    if world is CORE:
        keep(seed, needed, broken)
    return True


def _seeds(text: str) -> range:
    first, _, last = text.rpartition("-")
    return range(int(first or 0), int(last))


def main() -> int:
    """The command line; the exit code is 1 if any seed fails."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("seeds", type=_seeds, help="how many, from 0 on; or FIRST-LAST, the last one not included")
    parser.add_argument("--operator", action="store_true", help="on a simulated Kubernetes, kept by the operator")
    arguments = parser.parse_args()
    world = OPERATED if arguments.operator else CORE
    failing = search(arguments.seeds, world)
    for seed in failing:
        report(seed, world)
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
