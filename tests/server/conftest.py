"""A server for the tests of a module, and a tenant of it for each test; modules with other wishes have their own."""

from collections.abc import Iterator

import pytest

from tests.server.core import Core, core


@pytest.fixture(scope="module")
def served() -> Iterator[Core]:
    with core(log_level="error") as running:
        yield running


@pytest.fixture
def world(served: Core, request: pytest.FixtureRequest) -> Core:
    """A tenant of its own for every test, with a catalogue."""
    mine = served.tenant_of(request.node.name)
    mine.chain("count", "add", "multiply")
    return mine
