"""The image's reference as the chart takes it."""

import pytest

from kubernetes_cluster import image_values


@pytest.mark.parametrize(
    ("image", "repository", "tag", "digest"),
    [
        ("flinkjob:e2e", "flinkjob", "e2e", ""),
        ("registry:5000/team/flinkjob:1.0", "registry:5000/team/flinkjob", "1.0", ""),
        ("registry:5000/team/flinkjob", "registry:5000/team/flinkjob", "latest", ""),
        ("flinkjob", "flinkjob", "latest", ""),
        ("registry:5000/flinkjob@sha256:12ab", "registry:5000/flinkjob", "", "sha256:12ab"),
        ("registry/flinkjob:1.0@sha256:12ab", "registry/flinkjob", "1.0", "sha256:12ab"),
    ],
)
def test_an_images_reference_is_taken_apart(image: str, repository: str, tag: str, digest: str) -> None:
    values = image_values(image)
    assert values[0::2] == ["--set-string"] * 3
    assert values[1::2] == [f"image.repository={repository}", f"image.tag={tag}", f"image.digest={digest}"]
