"""What several integration tests share."""

from collections.abc import Iterator

import pytest
from rabbits import Rabbit, a_rabbit


@pytest.fixture(scope="session")
def rabbit() -> Iterator[Rabbit]:
    """A RabbitMQ with TLS and the management API, which tests do not break."""
    with a_rabbit() as rabbit:
        yield rabbit
