"""Checks of the servers' URLs, made when the settings are read: a part that would have no meaning is refused."""

import re
from typing import Annotated
from urllib.parse import SplitResult, urlsplit, urlunsplit

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
        raise ValueError(f"{_unknown(url)} {', '.join(BROKER_SCHEMES)}; {_BROKER_EXAMPLE}")
    if scheme == "memory":
        return secret
    if not all(host.hostname for host in hosts):
        raise ValueError(f"names no host; {_BROKER_EXAMPLE}")
    if 0 in ports:
        raise ValueError("names port 0")
    if hosts[0].query.lower() not in ("auth=plain", "auth=external"):
        _refuse_rest(hosts[0], _BROKER_OPTIONS)
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
    _refuse_rest(parts, _CLAIMS_OPTIONS)
    path, fault = _CLAIMS_PATHS[scheme.partition("+")[2]]
    if not re.fullmatch(path, parts.path, re.ASCII):
        raise ValueError(fault)
    return secret


def _management_url(secret: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(secret.get_secret_value())
        is_url = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError(_NO_URL) from None
    if not is_url:
        raise ValueError("write http://host:15672 or https://host:15671")
    _refuse_rest(parts, {})
    return secret


def _refuse_rest(parts: SplitResult, options: dict[str, str]) -> None:
    """Refuse what follows the path. Of that no more is quoted than the name of an option: the rest may be a part of a
    password."""
    if parts.fragment:
        raise ValueError("has a # in it, which has no meaning there; in a user name or a password it is written %23")
    name = parts.query.partition("=")[0].lower()
    if name in options:
        raise ValueError(f"has ?{name}=, which has no meaning there; write {options[name]}")
    if parts.query:
        raise ValueError("has a ? in it, which has no meaning there; in a user name or a password it is written %3F")


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


def _listen_url(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().startswith("postgresql"):
        raise ValueError(
            "is no URL of PostgreSQL, which alone has notifications; write postgresql://user@host/database"
        )
    return _sql_url(secret)


def _host(name: str) -> str:
    try:
        name.encode("idna")
    except UnicodeError:
        raise ValueError("is no host name or address") from None
    return name


def _exchange(name: str) -> str:
    if name.startswith("amq.") and name != "amq.topic":
        raise ValueError("begins with amq., which RabbitMQ keeps for exchanges of its own, and is not amq.topic")
    if name.startswith(("holdfast.delay", "holdfast.unrouted")):
        raise ValueError("is the name of an exchange of the delay ladder")
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
_BROKER_EXAMPLE = "write amqp://user:password@host:5672/"
_CLAIMS_EXAMPLE = "write redis://user:password@host:6379/0"
_SENTINEL_EXAMPLE = "write redis+sentinel://host:26379,host:26379/mymaster/0"
_BROKER_OPTIONS = {
    "heartbeat": "HOLDFAST_BROKER__HEARTBEAT",
    "timeout": "HOLDFAST_BROKER__CONNECT_TIMEOUT",
    "connection_timeout": "HOLDFAST_BROKER__CONNECT_TIMEOUT",
    "cafile": "HOLDFAST_BROKER__CA_FILE",
    "certfile": "HOLDFAST_BROKER__CERT_FILE",
    "keyfile": "HOLDFAST_BROKER__KEY_FILE",
    "no_verify_ssl": "HOLDFAST_BROKER__VERIFY",
}
_CLAIMS_OPTIONS = {
    "db": "the number of the database behind the host, as in redis://host:6379/3",
    "password": "HOLDFAST_IDEMPOTENCY__PASSWORD",
    "socket_timeout": "HOLDFAST_IDEMPOTENCY__TIMEOUT",
    "ssl_ca_certs": "HOLDFAST_IDEMPOTENCY__CA_FILE",
    "ssl_certfile": "HOLDFAST_IDEMPOTENCY__CERT_FILE",
    "ssl_keyfile": "HOLDFAST_IDEMPOTENCY__KEY_FILE",
    "ssl_cert_reqs": "HOLDFAST_IDEMPOTENCY__VERIFY",
}
_CLAIMS_PATHS = {
    "": (r"/?\d{0,9}", f"names a database that is not a number; {_CLAIMS_EXAMPLE}"),
    "sentinel": (r"/[^/]+(/\d{0,9})?", f"names no service, or a database that is not a number; {_SENTINEL_EXAMPLE}"),
    "cluster": (r"/?0?", "names a database; a cluster has number 0 alone"),
}
"""What may follow the host, by the kind of Redis, and the fault otherwise."""

SQL_SCHEMES = ("postgresql", "mysql", "mariadb", "sqlite")
_SQL_EXAMPLE = "write postgresql://user:password@host:5432/database or sqlite:///path"
SqlUrl = Annotated[SecretStr, AfterValidator(_sql_url)]
ListenUrl = Annotated[SecretStr, AfterValidator(_listen_url)]
ClaimsUrl = Annotated[SecretStr, AfterValidator(_claims_url)]
BrokerUrl = Annotated[SecretStr, AfterValidator(_broker_url)]
ManagementUrl = Annotated[SecretStr, AfterValidator(_management_url)]
ExchangeName = Annotated[str, AfterValidator(_exchange)]
Host = Annotated[str, AfterValidator(_host)]
