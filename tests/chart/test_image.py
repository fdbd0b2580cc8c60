"""The image: what its build is sent, and that it holds what was tested."""

import re
import tomllib

from chart.helm import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def locked(name: str) -> dict[str, str]:
    """Version by package of a lock."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


def test_the_image_has_the_versions_that_are_tested() -> None:
    tested = locked("requirements.lock")
    for lock in ("requirements-image.lock", "requirements-build.lock"):
        assert locked(lock).items() <= tested.items(), f"{lock}: `make lock` renews it"


def test_the_image_has_all_that_the_package_needs_and_nothing_of_development() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    image = locked("requirements-image.lock")
    assert _names(project["dependencies"]) | {"s3fs", "hdfs-native"} <= set(image)
    assert not _names(project["optional-dependencies"]["dev"]) & set(image)


def test_the_builder_is_sent_what_is_copied_and_little_else() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word.removesuffix("/flinkjob").replace("[s]", "s")
        for words in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for word in words.split()
    }
    assert sent == copied


def test_the_image_runs_as_the_user_of_the_pods() -> None:
    assert "\nUSER 10001:10001\n" in DOCKERFILE
    assert DOCKERFILE.rstrip().endswith('ENTRYPOINT ["flinkjob"]')


def _names(requirements: list[str]) -> set[str]:
    return {match[0].lower() for text in requirements if (match := re.match(r"[A-Za-z0-9-]+", text))}
