"""What every test may use: settings for a real broker, names of its own, and hypothesis without a stopwatch."""

import signal
import uuid
from collections.abc import Iterator

import hypothesis
import more_servers
import pytest
from running import settings_for

from holdfast import Settings
from holdfast.testing.servers import Server

hypothesis.settings.register_profile(
    "holdfast", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], max_examples=100
)
hypothesis.settings.load_profile("holdfast")

pytest_plugins = ["releases", "parallel", "leftovers"]

if hasattr(signal, "SIGHUP"):  # `nohup` has it ignored, in all commands that tests start too
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Server]:
    """The MariaDB of `make test-databases`."""
    with more_servers.mariadb_server() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_url(mariadb_server: Server) -> str:
    return mariadb_server.url


@pytest.fixture(scope="session")
def pgbouncer_url(postgres_url: str) -> Iterator[str]:
    """The PostgreSQL of `postgres_url` behind a PgBouncer that shares connections between transactions."""
    with more_servers.pgbouncer_server(postgres_url) as server:
        yield server.url


@pytest.fixture
def unique() -> str:
    """A name that no other test uses: for queues, exchanges and event types on a shared broker."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def settings(rabbitmq_url: str, unique: str) -> Settings:
    """Settings for the real broker, with an exchange of this test's own."""
    return settings_for(rabbitmq_url, unique)
