"""Checks of the servers' URLs, made when the settings are read."""

import re
from typing import Annotated
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, SecretStr


def each_host(url: str) -> tuple[str, ...]:
    """Return a URL for each of the hosts that a URL names, separated by commas, in their order."""
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    if "," not in hosts:
        return (url,)
    return tuple(urlunsplit(parts._replace(netloc=f"{login}{at}{host}")) for host in hosts.split(","))


def _broker_url(secret: SecretStr) -> SecretStr:
    url = secret.get_secret_value()
    try:
        scheme = urlsplit(url).scheme
        hosts = [urlsplit(one) for one in each_host(url)]
        ports = [host.port for host in hosts]
    except ValueError:
        raise ValueError(_NO_URL) from None
    if scheme not in BROKER_SCHEMES:
        raise ValueError(f"{_unknown(url)} {', '.join(BROKER_SCHEMES)}; write amqp://user:password@host:5672/")
    if scheme != "memory" and not all(host.hostname for host in hosts):
        raise ValueError("names no host; write amqp://user:password@host:5672/")
    if 0 in ports:
        raise ValueError("names port 0")
    return secret


def _claims_url(secret: SecretStr) -> SecretStr:
    url = secret.get_secret_value()
    scheme = url.partition("://")[0]
    if scheme not in CLAIM_SCHEMES:
        raise ValueError(f"{_unknown(url)} {', '.join(CLAIM_SCHEMES)}; {_CLAIMS_EXAMPLE}")
    if scheme == "memory":
        return secret
    try:
        parts = urlsplit(url)
        hosts = parts.netloc.rpartition("@")[2].split(",")
        ports = [urlsplit(f"//{host}").port for host in hosts]
    except ValueError:
        raise ValueError(_NO_URL) from None
    if not all(urlsplit(f"//{host}").hostname for host in hosts):
        raise ValueError(f"names no host; {_CLAIMS_EXAMPLE}")
    if 0 in ports:
        raise ValueError("names port 0")
    if len(hosts) > 1 and "+" not in scheme:
        raise ValueError("names several hosts; write redis+sentinel:// or redis+cluster://")
    if "+sentinel" in scheme and not parts.path.strip("/"):
        raise ValueError("names no service; write redis+sentinel://host:26379,host:26379/mymaster")
    if "+cluster" in scheme and parts.path.strip("/") not in ("", "0"):
        raise ValueError("names a database; a cluster has number 0 alone")
    return secret


def _sql_url(secret: SecretStr) -> SecretStr:
    url = secret.get_secret_value()
    scheme = url.partition("://")[0]
    if scheme.partition("+")[0] not in SQL_SCHEMES:
        raise ValueError(f"{_unknown(url)} {', '.join(SQL_SCHEMES)}; {_SQL_EXAMPLE}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(_NO_URL) from None
    if not scheme.startswith("sqlite") and (not parts.hostname or port == 0):
        raise ValueError(f"names no host and port; {_SQL_EXAMPLE}")
    return secret


def _host(name: str) -> str:
    try:
        name.encode("idna")
    except UnicodeError:
        raise ValueError("is no host name or address") from None
    return name


def _unknown(url: str) -> str:
    """A scheme is quoted where it is one beyond doubt: where it was forgotten, a password may stand there."""
    named = _SCHEME.match(url)
    return f"the scheme {named[1] if named else ''!r} is not one of"


# urlsplit's own words would quote what may be a password.
_NO_URL = "is not a URL; in a user name or a password, all but letters, digits and -._~ is written as %2F is for /"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,39})://")
BROKER_SCHEMES = ("amqp", "amqps", "memory")
CLAIM_SCHEMES = (
    "redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster", "memory",
)  # fmt: skip
_CLAIMS_EXAMPLE = "write redis://user:password@host:6379/0"
SQL_SCHEMES = ("postgresql", "sqlite")
_SQL_EXAMPLE = "write postgresql://user:password@host:5432/database or sqlite:///path"
SqlUrl = Annotated[SecretStr, AfterValidator(_sql_url)]
ClaimsUrl = Annotated[SecretStr, AfterValidator(_claims_url)]
BrokerUrl = Annotated[SecretStr, AfterValidator(_broker_url)]
Host = Annotated[str, AfterValidator(_host)]
