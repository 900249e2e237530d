"""When a tool gives up on a broker that it has not reached."""

import pytest

from holdfast import BrokerUnavailable
from holdfast.dead_letters import Outage
from holdfast.telemetry import Connected, Disconnected


def test_a_broker_of_several_hosts_is_down_once_each_has_failed() -> None:
    outage = Outage(hosts=2)

    outage(Disconnected("consume", "amqp://one/", "connection refused", 0.1))
    first = outage.begun.is_set()
    outage(Disconnected("consume", "amqp://two/", "no such host", 0.1))

    assert (first, outage.begun.is_set()) == (False, True)
    with pytest.raises(BrokerUnavailable, match="the broker at amqp://two/ is unavailable: no such host"):
        outage.check()


def test_a_connection_that_is_back_is_no_outage() -> None:
    outage = Outage()

    outage(Disconnected("consume", "amqp://one/", "connection refused", 0.1))
    outage(Connected("consume", "amqp://one/", "RabbitMQ"))

    outage.check()
