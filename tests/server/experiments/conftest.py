"""One experiment service for the tests of a module, and a tenant of its own for each test."""

from collections.abc import Iterator

import pytest

from tests.server.experiments.world import Lab, lab


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    with lab() as running:
        yield running


@pytest.fixture
def own(shared: Lab, request: pytest.FixtureRequest) -> Lab:
    """The shared service, seen by a tenant of the test's own."""
    name = request.node.name.replace("[", "-").replace("]", "").replace("_", "-")[:60]
    return Lab(shared.genie, shared.port, shared.store, shared.channel, tenant=name)
