"""What is asked of runc on a machine that may give less."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster import lesser_runc
from cluster.lesser_runc import described_in, lessen


def process(**changes: Any) -> dict[str, Any]:
    capabilities = {name: ["CAP_CHOWN", "CAP_SYS_RESOURCE"] for name in ("bounding", "effective", "permitted")}
    return {"args": ["sh"], "capabilities": capabilities, **changes}


def test_the_capability_goes_from_every_set_and_the_others_stay() -> None:
    described = process()
    lessen(described)
    assert set(map(tuple, described["capabilities"].values())) == {("CAP_CHOWN",)}


def test_a_limit_is_no_higher_than_this_process_may_give() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    described = process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": hard + 5, "hard": hard + 10}])
    lessen(described)
    assert described["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": hard, "hard": hard}]


def test_a_limit_that_may_be_given_stays() -> None:
    described = process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}])
    lessen(described)
    assert described["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]


def test_nobody_is_put_before_this_process_when_memory_is_short() -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    described = process(oomScoreAdj=own - 900)
    lessen(described)
    assert described["oomScoreAdj"] == own
    described = process(oomScoreAdj=own + 1)
    lessen(described)
    assert described["oomScoreAdj"] == own + 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--root", "/r", "create", "--bundle", "/b", "id"], (Path("/b/config.json"), True)),
        (["run", "-b", "/b", "id"], (Path("/b/config.json"), True)),
        (["--log=/l", "create", "--bundle=/b", "id"], (Path("/b/config.json"), True)),
        (["exec", "--process", "/p.json", "--detach", "id"], (Path("/p.json"), False)),
        (["delete", "--force", "id"], None),
        (["exec", "id", "sh"], None),
        ([], None),
    ],
)
def test_it_knows_which_file_runc_is_about_to_read(arguments: list[str], expected: tuple[Path, bool] | None) -> None:
    assert described_in(arguments) == expected


def test_the_real_one_gets_the_same_arguments_and_the_changed_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"process": process()}))
    real = tmp_path / "runc"
    real.write_text('#!/bin/sh\necho "$@"\n')
    real.chmod(0o755)
    program = tmp_path / "lesser.py"
    program.write_text(Path(lesser_runc.__file__).read_text().replace(lesser_runc.RUNC, str(real)))
    arguments = ["create", "--bundle", str(tmp_path), "id"]
    done = subprocess.run([sys.executable, program, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.split() == arguments
    changed = json.loads((tmp_path / "config.json").read_text())["process"]["capabilities"]
    assert "CAP_SYS_RESOURCE" not in changed["effective"]
