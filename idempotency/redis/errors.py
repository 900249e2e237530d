"""Errors of redis-py: which there are, which are worth another try, and what a user is to read of them."""

import re
import ssl

from redis import exceptions as faults

from ...config import explain_tls
from ..availability import StoreUnavailable

FAULTS = (faults.RedisError, faults.RedisClusterException, OSError)  # no node answers: not a RedisError to redis-py
REFUSED = (faults.AuthenticationError, faults.AuthorizationError, faults.NoPermissionError)
_REFUSED_IN_A_SCRIPT = ("The user executing the script can't", "ACL failure in script")  # up to Redis 7.0, since 7.2
_ADDRESS = re.compile(r"(?:connecting to|reading from) (\S+?)\.? ")
TRANSIENT = (
    faults.NoScriptError,
    faults.ReadOnlyError,
    faults.BusyLoadingError,
    faults.TryAgainError,
    faults.ClusterDownError,
    faults.ConnectionError,
)
"""Another try helps: a restarted server knows no script; one that was demoted, loads or moves a slot soon serves."""


def unavailable(error: Exception) -> StoreUnavailable:
    """Return the error in words that name the cause and the remedy."""
    text = str(error) or type(error).__name__
    if isinstance(error, TimeoutError | faults.TimeoutError):
        text = "Redis did not answer in time"
    elif isinstance(error, faults.OutOfMemoryError):
        text = "Redis is out of memory (maxmemory)"
    elif isinstance(error, faults.NoPermissionError) or any(words in text for words in _REFUSED_IN_A_SCRIPT):
        text = (
            f"Redis refused this user: {text}; it needs +eval +evalsha +get +set +del +pttl on the keys of the prefix"
        )
    elif (fault := _of_tls(error)) is not None:
        text = fault
    elif type(error) is faults.ConnectionError and "connecting to" in text:
        text = f"no connection to Redis: {text.rstrip('.')}; HOLDFAST_IDEMPOTENCY__URL says where it is"
    return StoreUnavailable(text)


def _of_tls(error: Exception) -> str | None:
    """Return what TLS refused, and at which address: redis-py has the address in its text, and the cause behind it."""
    cause = error.__cause__ or error.__context__
    if not isinstance(cause, ssl.SSLError) or (fault := explain_tls(cause, "IDEMPOTENCY")) is None:
        return None
    address = _ADDRESS.search(str(error))
    return f"no connection to Redis{f' at {address[1]}' if address else ''}: {fault}"
