"""What aio-pika, aiormq, asyncio and the operating system raise, in words that say what to fix."""

import re
import socket
import ssl

from aiormq.exceptions import (
    AMQPConnectionError,
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionNotAllowed,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from pamqp.exceptions import PAMQPException

from ...config import explain_tls
from ...events import Message, NotPermitted, PublishError, TooLarge, Unroutable
from ..codec import address

CONNECTION_ERRORS = (AMQPError, OSError, TimeoutError, RuntimeError, PAMQPException, EOFError)
"""Raised when a connection or channel is unusable (`ChannelInvalidStateError` is a RuntimeError)."""

_REFUSED = "connection refused: is RabbitMQ running there?"
_ACCESS = re.compile(r"^ACCESS_REFUSED - (?:(?:configure|write|read) )?access to ")
_MESSAGE_SIZE = re.compile(r"message size (\d+)")
_TOPIC = re.compile(r"access to topic '(.*)' in exchange", re.DOTALL)


class Cancelled(ConnectionError):
    """The broker cancelled the consumer: its queue was deleted, its node failed, or a time-out struck."""


def explain(error: BaseException, *, right: str = "") -> str:
    """Return one line for the error that ended a connection or channel, or kept it from being opened.

    `right` is the permission to name where access was refused: RabbitMQ up to 3.10 does not say which was missing."""
    line = _explained(error)
    return _ACCESS.sub(f"{right} access to ", line) if right else line


def _explained(error: BaseException) -> str:
    if type(error) is AMQPConnectionError and isinstance(error.__cause__, OSError):
        error = error.__cause__  # aiormq keeps no more than its numbers and text
    match error:
        case TimeoutError() if not str(error):
            return "no answer in time"
        case ssl.SSLError():
            return explain_tls(error, "BROKER") or _text(error)
        case socket.gaierror():
            return f"the host's name leads nowhere: {error.strerror}"
        case OSError() if isinstance(error, ConnectionRefusedError) or "Errno 111" in str(
            error
        ):  # of several addresses
            return _REFUSED
        case ProbableAuthenticationError():
            return (
                "login refused: wrong user or password in HOLDFAST_BROKER__URL, "
                "or a user that may not log in from here, as guest from another machine"
            )
        case AuthenticationError():
            return f"the broker offers no such login: see HOLDFAST_BROKER__AUTH ({_text(error)})"
        case InvalidFrameError() if is_refusal(error):
            return "the virtual host does not exist or is full, or this user may not enter it"
        case ConnectionNotAllowed():
            return f"not allowed: {_text(error)}"
        case _:
            return _text(error)


def is_refusal(error: BaseException) -> bool:
    """Return whether trying again would not help. aiormq hides the close that answers `connection.open` in a frame
    error."""
    if isinstance(error, InvalidFrameError):
        return "Connection.OpenOk" in str(error) and "Connection.Close" in str(error)
    return isinstance(error, AuthenticationError | ProbableAuthenticationError | ConnectionNotAllowed)


def publish_error(message: Message, error: BaseException) -> PublishError | None:
    """Return the error of a publish that closed its channel; None if the channel was closed for another reason."""
    match error:
        case ChannelNotFoundEntity() if f"'{message.exchange}'" in str(error):
            return Unroutable(f"exchange {message.exchange!r} does not exist")
        case ChannelAccessRefused():
            topic = _TOPIC.search(str(error))  # of several types on one exchange the user may lack one
            if topic is None or topic[1] == message.routing_key:
                reason = explain(error, right="write")
                return NotPermitted(f"no right to publish {address(message)}: {reason}")
        case ChannelPreconditionFailed():
            size = _MESSAGE_SIZE.search(str(error))
            if size is not None and int(size[1]) == len(message.body):
                return TooLarge(f"the broker takes no body of {size[1]} bytes: {explain(error)}")
        case _:
            pass
    return None


def _text(error: BaseException) -> str:
    words = " ".join(str(argument) for argument in error.args if argument is not None) or type(error).__name__
    return " ".join(words.split())[:500]
