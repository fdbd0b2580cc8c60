"""What the tests of the operator share."""

import pytest

from controller.playing import World, install_crd
from kube.apiserver import ApiServer


@pytest.fixture(scope="session")
def flinkjobs_served(apiserver: ApiServer) -> ApiServer:
    """The API server with the CustomResourceDefinition of FlinkJobs."""
    apiserver.start_api()
    install_crd(apiserver)
    return apiserver


@pytest.fixture
def world(flinkjobs_served: ApiServer, namespace: str) -> World:
    """A namespace of the test's own."""
    return World(flinkjobs_served, namespace)
