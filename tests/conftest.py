"""What every test may use: settings for a real broker, names of its own, and hypothesis without a stopwatch."""

import uuid

import hypothesis
import pytest
from running import settings_for

from holdfast import Settings

hypothesis.settings.register_profile(
    "holdfast", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], max_examples=100
)
hypothesis.settings.load_profile("holdfast")

pytest_plugins = ["releases", "parallel"]


@pytest.fixture
def unique() -> str:
    """A name that no other test uses: for queues, exchanges and event types on a shared broker."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def settings(rabbitmq_url: str, unique: str) -> Settings:
    """Settings for the real broker, with an exchange of this test's own."""
    return settings_for(rabbitmq_url, unique)
