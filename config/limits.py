"""The limits of what is published, which the settings hold."""

from ..events import PublishError, TooLarge
from .settings import Settings


def check_limits(event_type: str, size: int, delay: float | None, settings: Settings) -> None:
    """Check a body of `size` bytes, to be published after `delay` seconds. Raises `TooLarge`, and `PublishError`."""
    if size > settings.worker.max_body:
        raise TooLarge(
            f"{event_type}: the body has {size} bytes; HOLDFAST_WORKER__MAX_BODY allows {settings.worker.max_body}"
        )
    if delay and not 0 < delay <= settings.broker.max_delay:
        raise PublishError(
            f"{event_type}: delay={delay!r} s is not within 0 and "
            f"HOLDFAST_BROKER__MAX_DELAY={settings.broker.max_delay:g}"
        )
