"""Wrong declarations of aggregates, each of which is one line at import."""

from typing import Any

import pytest

from holdfast import ConfigurationError, Event
from holdfast.journal import Aggregate, applies


class Opened(Event, type="opened", key="account"):
    account: str


class Closed(Event, type="closed", key="account"):
    account: str


def test_an_aggregate_names_a_field_as_its_key() -> None:
    with pytest.raises(ConfigurationError, match="class Account: key='number' is not one of its fields"):

        class Account(Aggregate, key="number"):
            account: str = ""


def test_a_field_has_a_default_for_the_time_before_the_first_event() -> None:
    with pytest.raises(ConfigurationError, match="field 'owner' has no default for the time before the first event"):

        class Account(Aggregate, key="account"):
            account: str
            owner: str


def test_an_event_is_applied_by_one_method() -> None:
    with pytest.raises(ConfigurationError, match=r"class Account: (first|again) and (first|again) both apply Opened"):

        class Account(Aggregate, key="account"):
            account: str

            @applies(Opened)
            def first(self, event: Opened) -> None: ...

            @applies(Opened)
            def again(self, event: Opened) -> None: ...


@pytest.mark.parametrize("events", [(), ("opened",)])
def test_what_is_applied_is_an_event_class(events: Any) -> None:
    with pytest.raises(ConfigurationError, match="Event classes"):
        applies(*events)


def test_a_method_that_applies_is_no_async_function() -> None:
    with pytest.raises(ConfigurationError, match="opened is an async function; write it with def"):

        class Account(Aggregate, key="account"):
            account: str

            @applies(Opened)  # type: ignore[arg-type]
            async def opened(self, event: Opened) -> None: ...


class Account(Aggregate, key="account"):
    account: str
    is_open: bool = False

    @applies(Opened)
    def opened(self, event: Opened) -> None:
        self.is_open = True


class Special(Account):
    """A subclass has the key and the methods of its class, and events of its own."""


def test_what_is_recorded_is_applied_at_once() -> None:
    account = Account(account="a")

    account.record(Opened(account="a"))

    assert account.is_open


def test_a_subclass_applies_what_its_class_does_under_its_own_name() -> None:
    special = Special(account="a")

    special.record(Opened(account="a"))

    assert special.is_open
    assert (Special.__stream__, Special.__aggregate_key__) == ("special", "account")


def test_an_event_that_no_method_applies_is_not_recorded() -> None:
    with pytest.raises(ConfigurationError, match=r"Account: no method @applies\(Closed\), which it records"):
        Account(account="a").record(Closed(account="a"))


def test_an_event_of_another_aggregate_is_not_recorded() -> None:
    with pytest.raises(ConfigurationError, match="Account 'a': records an event of 'b'"):
        Account(account="a").record(Opened(account="b"))
