"""A script that is interrupted while its publisher waits for a broker that is unavailable."""

import logging
import signal
import threading

from holdfast import BlockingPublisher, Event, Settings
from holdfast.telemetry import Disconnected, Fact


class Paid(Event, type="paid"):
    order: str = "o-1"


def interrupt(fact: Fact) -> None:
    """Interrupt the main thread once it waits for the connection."""
    if isinstance(fact, Disconnected):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # it has a line of its own for a refused connection
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
try:
    BlockingPublisher(Settings(broker={"url": "amqp://localhost:1/"}), emit=interrupt).publish(Paid())
except KeyboardInterrupt:
    print("interrupted")
