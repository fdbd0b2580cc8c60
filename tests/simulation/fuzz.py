"""Fuzzing guided by coverage, with atheris: the properties of ``test_fuzzing`` for as long as one likes (``make fuzz``).

::

    python -m simulation.fuzz --minutes 10 [PROPERTY...]

Each property gets its share of the time, in a process of its own. What was found to be interesting is kept in
``.fuzz/PROPERTY/`` and the next run begins with it. An input that breaks a property goes to Hypothesis' database, so that
the test fails from then on and tells the smallest one.
"""

import argparse
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent.parent.parent / ".fuzz"
LARGEST_INPUT = 4096
"""Bytes."""


def fuzzer() -> Any:
    """The module atheris; ends the process with an error where there is none."""
    try:
        return importlib.import_module("atheris")
    except ImportError as error:
        sys.exit(f"{error}: requirements-fuzz.lock has it for CPython 3.11 to 3.13 on Linux")


def properties() -> dict[str, Callable[[bytes], object]]:
    """The properties by name, as functions of the bytes that Hypothesis draws its values from."""
    module = importlib.import_module("simulation.test_fuzzing")
    tests = {name: test for name, test in vars(module).items() if hasattr(test, "hypothesis")}
    return {name: test.hypothesis.fuzz_one_input for name, test in tests.items()}


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one property in this process, which ends with it."""
    atheris = fuzzer()
    with atheris.instrument_imports(include=["flinkjob"]):
        check = properties()[name]
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-max_len={LARGEST_INPUT}", f"-artifact_prefix={corpus}/", "-timeout=60"]
    atheris.Setup([sys.argv[0], *options, "-print_final_stats=1", str(corpus)], lambda data: check(data) and None)
    atheris.Fuzz()


def main() -> None:
    """Fuzz all properties, or those that were named; exit with 1 if one does not hold."""
    parser = argparse.ArgumentParser(
        prog="fuzz", description="Fuzz the properties of tests/simulation/test_fuzzing.py."
    )
    parser.add_argument("--minutes", type=float, default=10, help="in all")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", metavar="PROPERTY")
    arguments = parser.parse_args()
    fuzzer()
    names = arguments.names or list(properties())
    seconds = max(1, round(arguments.minutes * 60 / len(names)))
    if arguments.here:
        fuzz(names[0], seconds)
    broken = []
    for name in names:
        print(f"{name}: {seconds} s", flush=True)
        command = [sys.executable, "-m", "simulation.fuzz", "--here", "--minutes", str(seconds / 60), name]
        run = subprocess.run(command, capture_output=True, text=True, errors="replace", env={**os.environ})
        lines = run.stderr.splitlines()
        print("\n".join(line for line in lines if line.startswith(("stat::number_of_executed_units", "Done"))))
        if run.returncode:
            broken.append(name)
            print("\n".join(lines[-60:]))
    if broken:
        sys.exit(f"broken: {', '.join(broken)}; `pytest tests/simulation/test_fuzzing.py` tells the smallest example")


if __name__ == "__main__":
    main()
