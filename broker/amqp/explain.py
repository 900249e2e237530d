"""What aiormq, asyncio and the operating system raise, in words that say what to mend."""

import re
import socket
import ssl

from aiormq.exceptions import (
    AMQPConnectionError,
    AuthenticationError,
    ConnectionNotAllowed,
    InvalidFrameError,
    ProbableAuthenticationError,
)

from ...config import explain_tls

_REFUSED = "connection refused: is RabbitMQ running there?"
_ACCESS = re.compile(r"^ACCESS_REFUSED - (?:(?:configure|write|read) )?access to ")


def explain(error: BaseException, *, right: str = "") -> str:
    """One line for what ended a connection or channel, or kept it from being opened. `right` is the one that was needed
    where that was refused: up to 3.10 RabbitMQ does not name it."""
    told = _explained(error)
    return _ACCESS.sub(f"{right} access to ", told) if right else told


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
        case ConnectionRefusedError():
            return _REFUSED
        case OSError() if "Errno 111" in str(error):  # of several addresses, told in words alone
            return _REFUSED
        case ProbableAuthenticationError():
            return (
                "login refused: wrong user or password in HOLDFAST_BROKER__URL, "
                "or a user that may not log in from here, as guest from another machine"
            )
        case InvalidFrameError() if is_refusal(error):
            return "the virtual host does not exist or is full, or this user may not enter it"
        case ConnectionNotAllowed():
            return f"not allowed: {_text(error)}"
        case _:
            return _text(error)


def is_refusal(error: BaseException) -> bool:
    """Trying again would not help. aiormq hides the close that answers `connection.open` in a frame error."""
    if isinstance(error, InvalidFrameError):
        return "Connection.OpenOk" in str(error) and "Connection.Close" in str(error)
    return isinstance(error, AuthenticationError | ProbableAuthenticationError | ConnectionNotAllowed)


def _text(error: BaseException) -> str:
    words = " ".join(str(argument) for argument in error.args if argument is not None) or type(error).__name__
    return " ".join(words.split())[:500]
