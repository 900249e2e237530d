"""Settings: every source, and one clear line for every fault."""

from pathlib import Path
from typing import Any

import pytest

from holdfast import ConfigurationError, Settings, load_settings
from holdfast.config import known_variables, origins, unknown_variables


@pytest.fixture(autouse=True)
def a_clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in known_variables():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_arguments_beat_the_environment_which_beats_the_file_which_beats_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".env").write_text("HOLDFAST_WORKER__GRACE=1\nHOLDFAST_WORKER__CONCURRENCY=2\nHOLDFAST_WORKER__MAX_BODY=3\n")
    monkeypatch.setenv("HOLDFAST_WORKER__CONCURRENCY", "20")
    monkeypatch.setenv("HOLDFAST_WORKER__MAX_BODY", "30")

    worker = load_settings(worker={"max_body": 300}).worker

    assert (worker.grace, worker.concurrency, worker.max_body, worker.block_limit) == (1, 20, 300, 1)


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("HOLDFAST_BROKER__URL", "http://host/", "the scheme 'http' is not one of amqp, amqps, memory"),
        ("HOLDFAST_BROKER__URL", "amqp:///", "names no host"),
        ("HOLDFAST_BROKER__URL", "amqp://h:99999/", "is not a URL"),
        ("HOLDFAST_BROKER__URL", "amqp://h:5672,h:99999/", "is not a URL"),
        ("HOLDFAST_BROKER__URL", "amqp://h:5672,,g/", "names no host"),
        ("HOLDFAST_BROKER__URL", "amqp://h,g:0/", "names port 0"),
        ("HOLDFAST_BROKER__URL", "", "the scheme '' is not"),
        ("HOLDFAST_BROKER__URL", "amqp://h/?heartbeat=5", "?heartbeat=, which has no meaning there; write HOLDFAST_"),
        ("HOLDFAST_BROKER__URL", "amqps://h/?cafile=/ca.pem", "write HOLDFAST_BROKER__CA_FILE"),
        ("HOLDFAST_BROKER__URL", "amqp://h/?auth=guesswork", "has a ? in it"),
        ("HOLDFAST_BROKER__URL", "amqp://h/shop#1", "has a # in it"),
        ("HOLDFAST_BROKER__MANAGEMENT_URL", "amqp://h:15672", "write http://host:15672"),
        ("HOLDFAST_BROKER__MANAGEMENT_URL", "http://h:15672/?vhost=a", "has a ? in it"),
        ("HOLDFAST_BROKER__EXCHANGE", "amq.events", "begins with amq."),
        ("HOLDFAST_BROKER__EXCHANGE", "holdfast.unrouted", "is the name of an exchange of the delay ladder"),
        ("HOLDFAST_IDEMPOTENCY__URL", "redis://h/mydb", "names a database that is not a number"),
        ("HOLDFAST_IDEMPOTENCY__URL", "redis://h/name/0", "names a database that is not a number"),
        ("HOLDFAST_IDEMPOTENCY__URL", "redis://h/-1", "names a database that is not a number"),
        ("HOLDFAST_IDEMPOTENCY__URL", "redis://h?db=3", "?db=, which has no meaning there; write the number"),
        ("HOLDFAST_IDEMPOTENCY__URL", "rediss://h/0?ssl_ca_certs=ca.pem", "write HOLDFAST_IDEMPOTENCY__CA_FILE"),
        ("HOLDFAST_IDEMPOTENCY__URL", "redis://h/0#1", "has a # in it"),
        ("HOLDFAST_IDEMPOTENCY__URL", "redis+sentinel://h/", "names no service"),
        ("HOLDFAST_IDEMPOTENCY__URL", "redis+sentinel://h/orders/mine", "a database that is not a number"),
        ("HOLDFAST_IDEMPOTENCY__URL", "redis+cluster://h/1", "a cluster has number 0 alone"),
        ("HOLDFAST_BROKER__QUEUE_TYPE", "stream", "should be 'quorum' or 'classic'"),
        ("HOLDFAST_BROKER__TOPOLOGY", "maybe", "should be 'declare', 'verify' or 'skip'"),
        ("HOLDFAST_BROKER__HEARTBEAT", "soon", "should be a valid integer"),
        ("HOLDFAST_BROKER__HEARTBEAT", "0", "greater than or equal to 1"),
        ("HOLDFAST_BROKER__EXCHANGE", "a b", "should match pattern"),
        ("HOLDFAST_BROKER__MAX_DELAY", "1e12", "less than or equal to 26000000"),
        ("HOLDFAST_BROKER__PUBLISH_TIMEOUT", "nan", "should be"),
        ("HOLDFAST_WORKER__CONCURRENCY", "0", "greater than or equal to 1"),
        ("HOLDFAST_WORKER__GRACE", "-1", "greater than or equal to 0"),
        ("HOLDFAST_LOG__LEVEL", "LOUD", "should be 'DEBUG'"),
        ("HOLDFAST_BROKER__HEARTBAET", "9", "is not a setting; did you mean HOLDFAST_BROKER__HEARTBEAT?"),
        ("HOLDFAST_BROKER", "not json", "HOLDFAST_"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, fault: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    assert len(caught.value.faults) == 1
    [line] = caught.value.faults
    assert fault in line and "\n" not in line
    assert line.startswith(name if "__" in name else "HOLDFAST_")


def test_every_fault_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_WORKER__CONCURRENCY", "x")
    monkeypatch.setenv("HOLDFAST_LOG__FORMAT", "y")

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    assert len(caught.value.faults) == 2


@pytest.mark.parametrize(
    "url",
    [
        *("amqp://user:canary@host/", "amqp://user:canary@host:port/", "ftp://user:canary@host/"),
        *("amqp://user:1?canary@host/", "amqp://user:1#canary@host/"),
    ],
)
def test_no_repr_and_no_error_shows_the_password(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HOLDFAST_BROKER__URL", url)

    try:
        told: Any = repr(load_settings()) + str(load_settings().model_dump())
    except ConfigurationError as error:
        told = str(error)

    assert "canary" not in told


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().broker = None  # type: ignore[assignment, misc]


def test_a_variable_that_nothing_reads_is_named_with_what_was_probably_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOLDFAST_BROKER_URL", "HOLDFAST_LOG__LEVEL", "HOLDFAST_TEST_X"):
        monkeypatch.setenv(name, "")

    assert unknown_variables() == ["HOLDFAST_BROKER_URL is not a setting; did you mean HOLDFAST_BROKER__URL?"]


def test_a_line_of_the_file_that_nothing_reads_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_BROKER_URL", "")
    Path(".env").write_text("HOLDFAST_BROKER_URL=x\nHOLDFAST_IDEMPOTNCY__URL=x\nHOLDFAST_LOG__LEVEL=INFO\nSHOP=x\n")

    assert unknown_variables() == [
        "HOLDFAST_BROKER_URL is not a setting; did you mean HOLDFAST_BROKER__URL?",
        "HOLDFAST_IDEMPOTNCY__URL is not a setting; did you mean HOLDFAST_IDEMPOTENCY__URL?",
    ]


def test_a_list_or_table_that_is_no_json_is_one_line_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_WORKER__ID_HEADERS", "X-Id")
    monkeypatch.setenv("HOLDFAST_WORKER__TYPE_HEADERS", '["X-Type"]')
    monkeypatch.setenv("HOLDFAST_BROKER", "canary")
    Path(".env").write_text("HOLDFAST_PUBLISHER__VERSIONS=order.created\nHOLDFAST_WORKER__ID_HEADERS=X-Id\n")

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    assert caught.value.faults == (
        'HOLDFAST_BROKER: should be a table in JSON, such as {"name": 1}',
        'HOLDFAST_PUBLISHER__VERSIONS: should be a table in JSON, such as {"name": 1}',
        'HOLDFAST_WORKER__ID_HEADERS: should be a list in JSON, such as ["name"]',
    )


@pytest.mark.parametrize(
    ("broker", "fault"),
    [
        ({"url_file": "missing"}, "HOLDFAST_BROKER__URL_FILE: Path does not point to a file"),
        ({"url_file": "empty"}, "HOLDFAST_BROKER__URL_FILE: empty is empty"),
        ({"password_file": "binary"}, "HOLDFAST_BROKER__PASSWORD_FILE: binary holds no text"),
        ({"url_file": "wrong"}, "HOLDFAST_BROKER__URL: the scheme 'http'"),
        ({"url": "amqp://host/", "password": "canary"}, "HOLDFAST_BROKER__URL: names no user for the PASSWORD"),
        (
            {"url": "amqps://host/", "password": "canary"},
            "HOLDFAST_BROKER__URL: names no user for the PASSWORD; write amqps://user@host/",
        ),
        ({"auth": "external"}, "HOLDFAST_BROKER__URL: AUTH=external needs amqps:// and a CERT_FILE"),
        ({"auth": "external", "url": "amqps://host/"}, "HOLDFAST_BROKER__URL: AUTH=external needs amqps://"),
        (
            {"ca_file": "wrong"},
            "HOLDFAST_BROKER__URL: begins with amqp://, so CA_FILE would have no effect; write amqps://",
        ),
    ],
)
def test_a_file_that_does_not_serve_is_one_line_that_names_the_variable(broker: dict[str, str], fault: str) -> None:
    Path("empty").touch()
    Path("binary").write_bytes(b"\xff\xfe")
    Path("wrong").write_text("http://user:canary@host/")

    with pytest.raises(ConfigurationError) as caught:
        load_settings(broker=broker)

    [line] = caught.value.faults
    assert line.startswith(fault) and "canary" not in line


@pytest.mark.parametrize(
    ("url", "urls"),
    [
        ("amqp://h/", ("amqp://h/",)),
        (
            "amqps://u:p%2C@a:1,[::1]:2,c/v?auth=plain",
            tuple(f"amqps://u:p%2C@{h}/v?auth=plain" for h in ("a:1", "[::1]:2", "c")),
        ),
        ("memory://", ("memory://",)),
    ],
)
def test_each_host_of_the_broker_has_a_url(url: str, urls: tuple[str, ...]) -> None:
    assert load_settings(broker={"url": url}).broker.urls == urls


def test_the_password_of_a_file_is_that_of_every_host() -> None:
    Path("password").write_text("p@ss\n")

    urls = load_settings(broker={"url": "amqp://me@a,b:1/", "password_file": "password"}).broker.urls

    assert urls == ("amqp://me:p%40ss@a/", "amqp://me:p%40ss@b:1/")


def test_a_login_by_certificate_is_part_of_the_url() -> None:
    Path("c.pem").touch()

    for url in ("amqps://h/v", "amqps://h/v?auth=external"):
        broker = load_settings(broker={"url": url, "auth": "external", "cert_file": "c.pem"}).broker

        assert broker.urls == ("amqps://h/v?auth=external",)


def test_secrets_of_files_end_in_the_url(tmp_path: Path) -> None:
    Path("url").write_text("amqps://me:old@host:5671/orders\n")
    Path("password").write_text("p@ss/word\n")

    url = load_settings(broker={"url_file": "url", "password_file": "password"}).broker.url.get_secret_value()

    assert url == "amqps://me:p%40ss%2Fword@host:5671/orders"


def test_each_value_is_told_with_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("HOLDFAST_WORKER__GRACE=1\nHOLDFAST_WORKER__CONCURRENCY=2\n")
    Path("url").write_text("amqp://a:b@host/")
    monkeypatch.setenv("HOLDFAST_WORKER__CONCURRENCY", "20")
    monkeypatch.setenv("HOLDFAST_BROKER__URL_FILE", "url")

    told = origins(load_settings(worker={"max_body": 300}))

    assert told["HOLDFAST_BROKER__URL"] == "file url"
    assert told["HOLDFAST_WORKER__GRACE"] == ".env"
    assert told["HOLDFAST_WORKER__CONCURRENCY"] == "environment"
    assert told["HOLDFAST_WORKER__MAX_BODY"] == "argument"
    assert told["HOLDFAST_LOG__LEVEL"] == "default"


def test_a_file_of_settings_that_is_no_text_is_told_in_one_line() -> None:
    Path(".env").write_bytes(b"HOLDFAST_LOG__LEVEL=\xff")

    with pytest.raises(ConfigurationError, match=r"^\.env holds no text in UTF-8$"):
        load_settings()


@pytest.mark.parametrize("group", ["HTTP", "DASHBOARD"])
def test_a_host_that_is_no_name_is_told_with_its_variable(monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    monkeypatch.setenv(f"HOLDFAST_{group}__HOST", "a..b")

    with pytest.raises(ConfigurationError, match=f"^HOLDFAST_{group}__HOST: is no host name or address$"):
        load_settings()
