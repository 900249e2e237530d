"""Settings: keyword arguments, then HOLDFAST_ variables (nested with `__`), then a `.env` file, then defaults."""

import json
import math
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from os import environ
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict, SettingsError

from ..events import ConfigurationError, Names
from .secrets import ExistingFile, SecretFile, read_secret, secret_of, with_external_login, with_password
from .urls import BrokerUrl, ClaimsUrl, ExchangeName, Host, ListenUrl, ManagementUrl, SqlUrl, each_host

PREFIX = "HOLDFAST_"

_IN_JSON: dict[type, str] = {tuple: 'a list in JSON, such as ["name"]', dict: 'a table in JSON, such as {"name": 1}'}

_WORD = r"([A-Za-z0-9_-]+|\*|#)"
StreamName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.:-]+$")]
EventPattern = Annotated[str, Field(max_length=150, pattern=rf"^{_WORD}(\.{_WORD})*$")]
Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86400, allow_inf_nan=False)]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class _ServerSettings(_Group):
    """Settings for reaching a server besides its URL: secrets in files, and TLS. `current` reads the files again."""

    group: ClassVar[str]

    url_file: SecretFile | None = Field(
        default=None, description="a file holding the URL, such as a mounted secret; overrides `URL`"
    )
    password: SecretStr | None = Field(default=None, description="overrides the password in the URL")
    password_file: SecretFile | None = Field(
        default=None, description="a file holding the password, such as a mounted secret; overrides `PASSWORD`"
    )
    ca_file: ExistingFile | None = Field(
        default=None, description="certificate authority that signed the server's (PEM)"
    )
    cert_file: ExistingFile | None = Field(default=None, description="client certificate (PEM)")
    key_file: ExistingFile | None = Field(default=None, description="key of the client certificate (PEM)")
    verify: bool = Field(
        default=True,
        description="`false` accepts any certificate, so that anybody between can read everything; the log warns of it",
    )

    @field_validator("url", mode="before", check_fields=False)
    @classmethod
    def _from_file(cls, url: Any, info: ValidationInfo) -> Any:
        file = info.data.get("url_file")
        return url if file is None else read_secret(file)

    @field_validator("url", mode="after", check_fields=False)
    @classmethod
    def _tls_fits_scheme(cls, url: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        scheme = url.get_secret_value().partition(":")[0] if url is not None else "redis"
        given = [name for name in ("ca_file", "cert_file", "key_file") if info.data.get(name) is not None]
        if given and scheme in ("amqp", "redis", "redis+sentinel", "redis+cluster"):
            secure = {"amqp": "amqps"}.get(scheme, scheme.replace("redis", "rediss"))
            raise ValueError(f"begins with {scheme}://, so {given[0].upper()} would have no effect; write {secure}://")
        return url

    def current(self) -> Self:
        """Return these settings with the secrets that their files hold now, which may have been replaced.

        Raises `ConfigurationError` naming the variable."""
        if self.url_file is None and self.password_file is None:
            return self
        try:
            return self.model_validate(self.model_dump())
        except ValidationError as error:
            raise ConfigurationError(*_faults(error, self.group)) from None


class BrokerSettings(_ServerSettings):
    """Settings of the broker: how to reach it and what to declare on it."""

    group = "broker"

    auth: Literal["plain", "external"] = Field(
        default="plain",
        description="`external`: the client certificate names the user (the plugin `rabbitmq_auth_mechanism_ssl`)",
    )
    url: BrokerUrl = Field(
        default=SecretStr("amqp://guest:guest@localhost:5672/"),
        description="`amqp://`, `amqps://` (certificates are verified) or `memory://` (the in-process broker); "
        "of several hosts, `amqp://user@host:5672,host:5672/`, one is tried after the other",
    )

    @field_validator("url", mode="after")
    @classmethod
    def _with_login(cls, url: SecretStr, info: ValidationInfo) -> SecretStr:
        if info.data.get("auth") == "external":
            if not url.get_secret_value().startswith("amqps:") or info.data.get("cert_file") is None:
                raise ValueError("AUTH=external needs amqps:// and a CERT_FILE")
            return with_external_login(url)
        password = secret_of(info.data.get("password"), info.data.get("password_file"))
        return url if password is None else with_password(url, password)

    @property
    def urls(self) -> tuple[str, ...]:
        """A URL for each host of the broker."""
        return each_host(self.url.get_secret_value())

    management_url: ManagementUrl | None = Field(
        default=None,
        description="the management HTTP API, which `doctor` and `topology diff` ask; where it is not given: the "
        "broker's hosts, one after the other, port 15672 (with `amqps://`: https, 15671), as the broker's user",
    )
    exchange: ExchangeName = Field(
        default="events",
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9_.:-]+$",
        description="exchange that events are published to",
    )
    queue_type: Literal["quorum", "classic"] = Field(default="quorum", description="type of the handlers' queues")
    topology: Literal["declare", "verify", "skip"] = Field(
        default="declare", description="declare what is missing, only check that it exists, or trust that it does"
    )
    stream: StreamName | None = Field(
        default=None,
        description="a stream queue that keeps all events of the exchange, for new listeners and `holdfast journal "
        "record`; an event without a listener is on it, and is no longer unroutable",
    )
    stream_age: Annotated[int, Field(ge=60, le=10 * 365 * 86400)] = Field(
        default=2_592_000, description="seconds that the stream keeps events; a policy can change it later"
    )
    stream_bytes: Annotated[int, Field(ge=1_000_000)] = Field(
        default=20_000_000_000, description="bytes that the stream keeps at most; a policy can change it later"
    )
    heartbeat: int = Field(default=15, ge=1, le=3600, description="AMQP heartbeat, seconds")
    connect_timeout: Seconds = Field(default=10.0, description="seconds for one attempt to connect")
    publish_timeout: Seconds = Field(default=10.0, description="seconds a publish may take, confirm included")
    max_delay: Annotated[float, Field(ge=0.1, le=26_000_000)] = Field(
        default=86400.0, description="longest delay of a retry or a delayed publish, seconds"
    )


class WorkerSettings(_Group):
    """Settings of how a worker runs handlers."""

    concurrency: int = Field(default=64, ge=1, le=10_000, description="handlers running at once in one process")
    grace: Annotated[float, Field(ge=0, le=86400)] = Field(
        default=30.0, description="seconds running handlers have to finish after SIGTERM"
    )
    max_body: int = Field(default=1_048_576, ge=1, le=134_217_728, description="largest body taken or published, bytes")
    id_headers: tuple[str, ...] = Field(
        default=(),
        description="headers with the event's id in messages of other producers; the first one that is there counts: "
        '`["NServiceBus.MessageId"]`',
    )
    type_headers: tuple[str, ...] = Field(
        default=(),
        description="headers with the event's type in messages of other producers; the first one that is there "
        'counts: `["__TypeId__"]`',
    )
    block_limit: Seconds = Field(
        default=1.0, description="seconds the event loop may stand still before the log names the code that blocks it"
    )
    live_limit: Seconds = Field(
        default=10.0, description="seconds the event loop may stand still before `/livez` fails"
    )

    def with_concurrency(self, concurrency: int | None) -> Self:
        """Return these settings with another concurrency, if one is given. Raises `ConfigurationError` where it is not
        one that the setting takes."""
        if concurrency is None:
            return self
        try:
            return self.model_validate({**dict(self), "concurrency": concurrency})
        except ValidationError as error:
            raise ConfigurationError(f"concurrency={concurrency!r}: {_plain(error.errors()[0]['msg'])}") from None

    @property
    def names(self) -> Names:
        """The headers in which producers of other kinds put id and type."""
        return Names(self.id_headers, self.type_headers)


class IdempotencySettings(_ServerSettings):
    """Settings of claims: where they are kept, for how long, and what happens while that store is unavailable."""

    group = "idempotency"

    url: ClaimsUrl | None = Field(
        default=None,
        description="`redis://`, `rediss://` (certificates are verified), "
        "`redis+sentinel://host:port,host:port/service/0`, `redis+cluster://host:port,host:port`, their `rediss+` "
        "forms, or `memory://`; where it is not given: "
        "`memory://` for a memory broker, else `redis://localhost:6379/0`",
    )
    sentinel_username: str | None = Field(
        default=None, description="user name for the Sentinels, which have users of their own"
    )
    sentinel_password: SecretStr | None = Field(default=None, description="password for the Sentinels")
    sentinel_password_file: SecretFile | None = Field(
        default=None, description="a file holding that password; overrides `SENTINEL_PASSWORD`"
    )
    prefix: str = Field(default="holdfast", pattern=r"^[A-Za-z0-9_.:-]{1,40}$", description="beginning of every key")
    ttl: Seconds = Field(
        default=86400.0,
        description="the window: seconds an event is remembered after it completed; a claim that runs lives as long",
    )
    lease: Annotated[float, Field(ge=0.5, le=3600)] = Field(
        default=15.0, description="seconds after which the claims of a worker that died are free"
    )
    timeout: Annotated[float, Field(ge=0.05, le=60)] = Field(
        default=1.0,
        description="seconds of one try for an answer; it is tried again after a lost connection, and at each host of "
        "several, before the store counts as unavailable",
    )
    on_outage: Literal["pause", "process"] = Field(
        default="pause",
        description="while the store is unavailable: `pause` until it is back, or `process` without protection",
    )


class PublisherSettings(_Group):
    """Settings of how events are written."""

    versions: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default={},
        description='event types that are published in an older version, by `@downcast`: `{"order.created": 1}`',
    )
    may_be_unrouted: tuple[EventPattern, ...] = Field(
        default=(),
        description="event types that may be published though no queue is bound for them, as in a binding: "
        '`["audit.#"]`',
    )
    format: Literal["plain", "cloudevents-binary", "cloudevents-structured"] = Field(
        default="plain", description="how events are written: `plain`, `cloudevents-binary` or `cloudevents-structured`"
    )


def _forever(value: Any) -> Any:
    return math.inf if value == "forever" else value


class _DatabaseSettings(_Group):
    """Settings for reaching a database. Files are read at the start."""

    url_file: SecretFile | None = Field(
        default=None, description="a file holding the URL, such as a mounted secret; overrides `URL`"
    )
    password: SecretStr | None = Field(default=None, description="overrides the password in the URL")
    password_file: SecretFile | None = Field(
        default=None, description="a file holding the password, such as a mounted secret; overrides `PASSWORD`"
    )
    url: SqlUrl | None = Field(
        default=None,
        description="the database that `holdfast relay`, `sql` and `outbox` use: `postgresql://user@host/database`, "
        "`mariadb://user@host/database` or `sqlite:///path`. A worker uses those of its handlers",
    )
    listen_url: ListenUrl | None = Field(
        default=None,
        description="a direct connection to PostgreSQL, on which relays hear of commits, where `URL` goes through a "
        "pooler",
    )

    @field_validator("url", mode="before")
    @classmethod
    def _from_file(cls, url: Any, info: ValidationInfo) -> Any:
        file = info.data.get("url_file")
        return url if file is None else read_secret(file)

    @field_validator("url", "listen_url", mode="after")
    @classmethod
    def _with_password(cls, url: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        password = secret_of(info.data.get("password"), info.data.get("password_file"))
        return url if url is None or password is None else with_password(url, password)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the field `schema` hides a method of pydantic 1, as it is to

    class SqlSettings(_DatabaseSettings):
        """Settings of Holdfast's tables in your own database."""

        schema: str = Field(  # type: ignore[assignment]
            default="holdfast",
            pattern=r"^[a-z_][a-z0-9_]{0,39}$",
            description="the schema of Holdfast's tables; in SQLite and MariaDB, how their names begin",
        )
        keep: Annotated[float, BeforeValidator(_forever), Field(ge=0)] = Field(
            default=0.0, description="seconds that sent events are kept; `forever` makes them a journal; 0 deletes them"
        )
        inbox_ttl: Seconds = Field(
            default=604800.0, description="the window of the inbox: seconds an event is remembered after its commit"
        )
        saga_keep: Seconds = Field(
            default=2592000.0, description="seconds a saga is remembered after its end, for events that come late"
        )
        lease: Annotated[float, Field(ge=1, le=3600)] = Field(
            default=15.0, description="seconds after which the events of a relay that died are sent by another"
        )
        poll: Annotated[float, Field(ge=0.01, le=60)] = Field(
            default=0.5, description="longest pause of a relay between two queries for events, seconds"
        )

        @property
        def keeps(self) -> bool:
            """Whether events stay in the database once they are sent."""
            return self.keep > 0


class LogSettings(_Group):
    """Settings of the log."""

    format: Literal["auto", "json", "console", "none"] = Field(
        default="auto",
        description="`auto`: colours on a terminal, JSON elsewhere; `none`: logging stays as your module sets it up",
    )
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        default="INFO", description="least severe level that is logged"
    )
    successes: int = Field(
        default=100, ge=0, description="most log lines a second for events that were handled; 0: none"
    )


class HttpSettings(_Group):
    """Settings of the server of `/metrics`, `/livez` and `/readyz`."""

    host: Host = Field(
        default="127.0.0.1", min_length=1, max_length=255, description="address of the metrics and the probes"
    )
    port: int = Field(
        default=9464,
        ge=0,
        le=65_535,
        description="port of the metrics and the probes; 0: any free one, which the log names",
    )


class DeadLetterSettings(_Group):
    """Settings of the dead-letter tools."""

    folder: str = Field(
        default="~/.local/state/holdfast",
        min_length=1,
        description="folder of the dead-letter tools: indexes, the journal of operations, archives",
    )


class DashboardSettings(_Group):
    """Settings of the web page for dead letters."""

    host: Host = Field(default="127.0.0.1", min_length=1, max_length=255, description="address of the dead-letter page")
    port: int = Field(
        default=9465, ge=0, le=65_535, description="port of the dead-letter page; 0: any free one, which is printed"
    )
    token: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="token that allows looking; beyond loopback one of the two tokens is needed",
    )
    operator_token: SecretStr | None = Field(
        default=None, min_length=16, description="token that also allows replaying, editing and discarding"
    )
    public_url: str = Field(
        default="",
        pattern=r"^(https?://[^/?#\s]+(/[^?#\s]*)?)?$",
        description="address by which browsers reach the page through a proxy, such as `https://tools.example/dead`",
    )
    trusted_proxies: str = Field(
        default="127.0.0.1,::1",
        description="with `PUBLIC_URL`: proxies that are believed when they name a visitor's address",
    )


class Settings(BaseSettings):
    """All settings, in groups. `Settings(broker={"url": "memory://"})` overrides what the environment says.

    Raises:
        pydantic.ValidationError: A value is wrong. `load_settings` raises a `ConfigurationError` instead, with a line
            for each fault.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        nested_model_default_partial_update=True,
    )

    broker: BrokerSettings = BrokerSettings()
    idempotency: IdempotencySettings = IdempotencySettings()
    worker: WorkerSettings = WorkerSettings()
    publisher: PublisherSettings = PublisherSettings()
    sql: SqlSettings = SqlSettings()
    log: LogSettings = LogSettings()
    http: HttpSettings = HttpSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    dashboard: DashboardSettings = DashboardSettings()

    @property
    def claims_url(self) -> str:
        """The URL of the claim store: as set, else in memory for a memory broker, else this machine's Redis."""
        if self.idempotency.url is not None:
            return self.idempotency.url.get_secret_value()
        in_memory = self.broker.url.get_secret_value().startswith("memory:")
        return "memory://" if in_memory else "redis://localhost:6379/0"


def load_settings(**overrides: Any) -> Settings:
    """Return the settings of this process.

    Args:
        **overrides: Groups, each a `dict`, that come before the environment: `broker={"url": "memory://"}`.

    Raises:
        ConfigurationError: A value is wrong; a line for each fault names the variable.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigurationError(*_faults(error)) from None
    except SettingsError as error:
        raise ConfigurationError(*(_no_json() or [f"{PREFIX}*: {error}"])) from None
    except RecursionError:
        raise ConfigurationError(f"{PREFIX}*: a value is JSON nested too deeply to be read") from None
    except UnicodeDecodeError:
        raise ConfigurationError(".env holds no text in UTF-8") from None


def variable(location: tuple[int | str, ...]) -> str:
    """Return the environment variable of a setting: `("broker", "url")` is `HOLDFAST_BROKER__URL`."""
    return PREFIX + "__".join(str(part).upper() for part in location if not str(part).startswith("function-"))


def known_variables() -> dict[str, Any]:
    """Return every variable that is read, with its field: the source of the tables in docs/settings.md."""
    return {
        variable((group, name)): field
        for group, outer in Settings.model_fields.items()
        for name, field in _fields_of(outer.annotation).items()
    }


def unknown_variables() -> list[str]:
    """Return one line for each HOLDFAST_ variable that nothing reads, with what was probably meant."""
    known = known_variables()
    names = sorted({name for name, _ in _written() if name.startswith(PREFIX)} - known.keys())
    return [_unknown(name) for name in names if not name.startswith(PREFIX + "TEST_")]


def environment() -> Mapping[str, str]:
    """Return the process environment. Nothing outside `config/` reads it."""
    return environ


def _written() -> list[tuple[str, str]]:
    """Return the variables of the environment and those of `.env`, with their names in capitals."""
    try:
        file = DotEnvSettingsSource(Settings).env_vars
    except (OSError, UnicodeDecodeError):  # nothing is read of it
        file = {}
    return [(name.upper(), value or "") for name, value in (*environ.items(), *file.items())]


def _no_json() -> list[str]:
    """Return one line for each list, table or whole group whose value is no JSON."""
    forms: dict[str, type] = {variable((group,)): dict for group in Settings.model_fields}
    forms |= {name: type(field.default) for name, field in known_variables().items()}
    wrong = {name for name, value in _written() if forms.get(name) in _IN_JSON and not _is_json(value)}
    return [f"{name}: should be {_IN_JSON[forms[name]]}" for name in sorted(wrong)]


def _is_json(value: str) -> bool:
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True


def _fields_of(group: Any) -> dict[str, Any]:
    return dict(group.model_fields)


def _faults(error: ValidationError, *group: str) -> list[str]:
    """Return one line for each fault; `group` is the one that was read alone."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    return [_fault(fault, group) for fault in faults]


def _fault(error: ErrorDetails, group: tuple[str, ...]) -> str:
    name = variable((*group, *error["loc"]))
    if error["type"] == "extra_forbidden":
        return _unknown(name)
    return f"{name}: {_plain(error['msg'])}"


def _unknown(name: str) -> str:
    near = get_close_matches(name.upper(), known_variables(), 1)
    return f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else "")


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should be", "should be")
