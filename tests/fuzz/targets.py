"""What is fuzzed: functions of bytes that raise only where a promise is broken. Their docstrings are the promises.

All of them promise, besides: no hanging, and no memory out of proportion to the input. `check` looks at the time;
the memory is watched by `fuzz.py`, which gives its processes 1 GiB.
"""

import time
from collections.abc import Callable, Mapping

import fuzzed_events as events
import fuzzed_headers as headers
import fuzzed_settings as settings
import fuzzed_streams as streams

CPU_LIMIT = 1.0  # seconds, for at most a frame of bytes

TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "bodies": events.bodies,
    "cloudevents": events.cloudevents,
    "receipts": events.receipts,
    "headers": headers.headers,
    "letters": headers.letters,
    "forged": headers.forged,
    "frames": streams.frames,
    "confirms": streams.confirms,
    "settings": settings.settings,
}


def check(name: str, data: bytes) -> None:
    """Run one input. Raises whatever the target does, and `AssertionError` where it takes too long."""
    began = time.process_time()
    TARGETS[name](data)
    took = time.process_time() - began
    assert took < CPU_LIMIT, f"{took:.1f} s for {len(data)} bytes"
