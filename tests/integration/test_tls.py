"""TLS to a real broker, with certificates made here, and secrets that come from files."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from apps import copy_app
from commands import environment, holdfast
from rabbits import Rabbit
from redises import LOOPBACK, certificates, openssl, with_tls
from running import a_broker, a_worker, publish_all, running
from waiting import Facts

from holdfast import BrokerUnavailable, ConfigurationError, Event, Settings, load_settings
from holdfast.broker import Topology
from holdfast.config import IdempotencySettings
from holdfast.idempotency import StoreUnavailable
from holdfast.idempotency.redis import RedisClaims, RedisHeart
from holdfast.telemetry import Disconnected, FactLog, TlsUnverified


class Paid(Event, type="paid"):
    order: str


def settings_of(rabbit: Rabbit, exchange: str, **broker: Any) -> Settings:
    broker = {"url": rabbit.url, "exchange": exchange, "max_delay": 60, **broker}
    return load_settings(_env_file=None, broker=broker, idempotency={"url": "memory://"}, http={"port": 0})


async def test_a_worker_with_a_client_certificate_publishes_handles_and_browses(rabbit: Rabbit, unique: str) -> None:
    settings, facts = settings_of(rabbit, unique, **rabbit.files), Facts()
    worker = a_worker(settings, facts)

    @worker.handler(Paid)
    async def handle(event: Paid) -> None: ...

    async with running(worker):
        await publish_all(settings, [Paid(order=str(n)) for n in range(50)])
        await facts.settled("handled", count=50)
        async with a_broker(settings) as broker:
            browser = await broker.browse(f"{worker.name}.handle.dead", lambda held: None)
            await browser.close()


async def test_a_client_certificate_can_name_the_user(rabbit: Rabbit, unique: str) -> None:
    rabbit.node.ctl("add_user", "c", unique)
    rabbit.node.ctl("set_permissions", "c", ".*", ".*", ".*")
    url = f"amqps://{LOOPBACK}:{rabbit.tls_port}/"
    settings, facts = settings_of(rabbit, unique, **rabbit.files, auth="external", url=url), Facts()
    worker = a_worker(settings, facts)

    @worker.handler(Paid)
    async def handle(event: Paid) -> None: ...

    async with running(worker):
        await publish_all(settings, [Paid(order="1")])
        await facts.settled("handled")
        users = await asyncio.to_thread(rabbit.node.ctl, "list_connections", "user", "auth_mechanism")

    assert users.split("\n").count("c\tEXTERNAL") >= 2


async def test_a_login_that_the_broker_does_not_offer_is_said(rabbitmq_url: str, unique: str) -> None:
    url = f"{rabbitmq_url}?auth=external"
    settings = load_settings(_env_file=None, broker={"url": url, "exchange": unique}, idempotency={"url": "memory://"})

    with pytest.raises(BrokerUnavailable, match="the broker offers no such login: see HOLDFAST_BROKER__AUTH"):
        async with a_broker(settings) as broker:
            await broker.declare(Topology())


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (("cert_file", "key_file"), "the certificate is not valid: self-signed certificate in certificate chain"),
        (("ca_file",), "the server refused our certificate, or its lack"),
    ],
)
async def test_a_certificate_that_is_not_accepted_is_told_with_the_side_that_refuses(
    rabbit: Rabbit, unique: str, files: tuple[str, ...], told: str
) -> None:
    some = {name: rabbit.files[name] for name in files}

    lost = await what_is_lost(settings_of(rabbit, unique, **some), told)

    assert told in lost.error and "\n" not in lost.error


async def test_a_server_whose_certificate_has_another_name_is_accepted_only_unverified(
    rabbit: Rabbit, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, facts = {name: rabbit.files[name] for name in ("cert_file", "key_file")}, Facts()

    async with a_broker(settings_of(rabbit, unique, verify=False, **certificate), facts) as broker:
        depth = await broker.count("nothing")
    for fact in facts.of(TlsUnverified):
        FactLog()(fact)

    assert depth is None
    assert "HOLDFAST_BROKER__VERIFY" in caplog.text


FLAWS = {
    "expired": ("certificate has expired", "the server needs a new one"),
    "too-early": ("certificate is not yet valid", "a clock is wrong"),
    "another-name": (
        "Hostname mismatch, certificate is not valid for 'localhost'",
        "__URL has to name the server as its certificate does",
    ),
    "self-signed": ("self-signed certificate", "__CA_FILE names who may sign it"),
    "another-authority": ("unable to get local issuer certificate", "__CA_FILE names who may sign it"),
}


@pytest.mark.parametrize("flaw", FLAWS)
async def test_a_flaw_of_the_brokers_certificate_is_told_with_its_remedy_and_waited_for(
    tmp_path: Path, unique: str, flaw: str
) -> None:
    async with a_server_with(flaw, tmp_path) as port:
        broker = {"url": f"amqps://guest:canary@localhost:{port}/", "exchange": unique, "ca_file": f"{tmp_path}/ca.pem"}
        lost = await what_is_lost(load_settings(_env_file=None, broker=broker, idempotency={"url": "memory://"}))

    fault, remedy = FLAWS[flaw]
    assert lost.error.startswith(f"the certificate is not valid: {fault}; ")
    assert remedy in lost.error and "\n" not in lost.error
    assert f"localhost:{port}" in lost.url and "canary" not in lost.url


@pytest.mark.parametrize("flaw", FLAWS)
async def test_a_flaw_of_the_certificate_of_redis_is_told_with_its_place_and_remedy(tmp_path: Path, flaw: str) -> None:
    async with a_server_with(flaw, tmp_path) as port:
        url = f"rediss://:canary@localhost:{port}/0"
        settings = IdempotencySettings(url=url, ca_file=f"{tmp_path}/ca.pem")  # type: ignore[arg-type]
        store, heart = RedisClaims(url, settings), RedisHeart(url, settings)
        with pytest.raises(StoreUnavailable) as refused:
            await store.findings()
        with pytest.raises(StoreUnavailable) as missed:
            await asyncio.to_thread(heart.beat, b"worker-A", 30)
        await store.close()

    fault, remedy = FLAWS[flaw]
    for line in (str(refused.value), str(missed.value)):
        assert line.startswith(f"no connection to Redis at localhost:{port}: the certificate is not valid: {fault}; ")
        assert remedy in line and "\n" not in line and "canary" not in line


@asynccontextmanager
async def a_server_with(flaw: str, folder: Path) -> AsyncIterator[int]:
    """A server that takes TLS connections with such a certificate; `ca.pem` is what its clients trust. Its port."""
    certificates(folder)
    sign = ("x509", "-req", "-in", "s.csr", "-out", "s.pem", "-days", "2", "-extfile", "names")
    match flaw:
        case "expired":
            sign_for(folder, "20200101000000Z", "20200102000000Z")
        case "too-early":
            sign_for(folder, "20900101000000Z", "20900102000000Z")
        case "another-name":
            (folder / "names").write_text("subjectAltName=DNS:elsewhere.example\n")
            openssl(folder, *sign, "-CA", "ca.pem", "-CAkey", "ca.key")
        case "self-signed":
            openssl(folder, *sign, "-signkey", "s.key")
        case "another-authority":
            new = ("-newkey", "rsa:2048", "-nodes", "-keyout", "other.key", "-out", "ca.pem", "-subj", "/CN=another")
            openssl(folder, "req", "-x509", *new)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "s.pem", folder / "s.key")
    async with await asyncio.start_server(lambda reader, writer: None, LOOPBACK, 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def what_is_lost(settings: Settings, told: str = "") -> Disconnected:
    """An attempt to connect that fails with these words; the worker goes on trying, not ready, until it is stopped.
    (With TLS 1.3 a reset may overtake the alert that says why.)"""
    facts = Facts()
    worker = a_worker(settings, facts)

    @worker.handler(Paid)
    async def handle(event: Paid) -> None: ...

    run = asyncio.create_task(worker.run())
    [lost, *_] = await facts.until(Disconnected, lambda fact: told in fact.error, count=2)
    assert not worker.health().ready and not run.done()
    worker.stop()
    await run
    return lost


def sign_for(folder: Path, begin: str, end: str) -> None:
    """Sign the server's certificate again, for another time."""
    (folder / "index").touch()
    (folder / "serial").write_text("01\n")
    (folder / "ca.conf").write_text(
        "[ca]\ndefault_ca = own\n[own]\ndatabase = index\nserial = serial\nnew_certs_dir = .\ndefault_md = sha256\n"
        "policy = any\n[any]\ncommonName = supplied\n"
    )
    period = ("-startdate", begin, "-enddate", end, "-extfile", "names")
    signed = ("-cert", "ca.pem", "-keyfile", "ca.key", "-in", "s.csr", "-out", "s.pem")
    openssl(folder, "ca", "-batch", "-notext", "-config", "ca.conf", *signed, *period)


def nothing_in(folder: Path) -> dict[str, str]:
    (folder / "no.pem").write_text("nonsense")
    return {"ca_file": f"{folder}/no.pem"}


def key_of_another(folder: Path) -> dict[str, str]:
    certificates(folder)
    return {"cert_file": f"{folder}/c.pem", "key_file": f"{folder}/s.key"}


@pytest.mark.parametrize(
    ("files", "fault"),
    [(nothing_in, "HOLDFAST_BROKER__CA_FILE"), (key_of_another, "not the key of this certificate")],
)
async def test_files_that_are_no_certificates_stop_the_start_in_one_line(
    tmp_path: Path, files: Callable[[Path], dict[str, str]], fault: str
) -> None:
    settings = load_settings(_env_file=None, broker={"url": "amqps://u:p@localhost/", **files(tmp_path)})

    with pytest.raises(ConfigurationError, match=fault) as caught:
        async with a_broker(settings):
            pass

    assert len(caught.value.faults) == 1


async def test_redis_is_reached_unverified_where_that_is_asked_for(tmp_path: Path) -> None:
    with with_tls(tmp_path) as (url, files):
        own = {name: files[name] for name in ("cert_file", "key_file")}
        store = RedisClaims(url, IdempotencySettings(url=url, verify=False, **own))  # type: ignore[arg-type]

        findings = await store.findings()
        await store.close()

    assert findings == []


@pytest.mark.parametrize(
    ("variable", "text"), [("URL_FILE", "{scheme}://guest:{password}@{place}\n"), ("PASSWORD_FILE", "{password}\n")]
)
def test_the_broker_is_reached_with_a_secret_from_a_file_and_check_says_where_from(
    rabbitmq_url: str, tmp_path: Path, unique: str, variable: str, text: str
) -> None:
    scheme, _, rest = rabbitmq_url.partition("://")
    login, _, place = rest.rpartition("@")
    user, _, password = login.partition(":")
    (tmp_path / "secret").write_text(text.format(scheme=scheme, place=place, password=quote(password)))
    copy_app("one_queue", tmp_path)
    (tmp_path / ".env").write_text("HOLDFAST_WORKER__GRACE=7\n")
    env = environment(
        HOLDFAST_BROKER__URL=f"{scheme}://{user}:canary@{place}",
        HOLDFAST_IDEMPOTENCY__URL="memory://",
        HOLDFAST_BROKER__EXCHANGE=unique,
        **{f"HOLDFAST_BROKER__{variable}": "secret"},
    )

    done = holdfast("check", "app:worker", "--all", folder=tmp_path, env=env)

    assert done.returncode == 0, done.stderr
    lines = dict(line.split(" = ") for line in done.stdout.splitlines() if line.startswith("HOLDFAST_"))
    came_from = "file secret" if variable == "URL_FILE" else "environment"
    assert lines["HOLDFAST_BROKER__URL"].endswith(f"@{place}  ({came_from})")
    assert lines["HOLDFAST_BROKER__HEARTBEAT"] == "15  (default)"
    assert lines["HOLDFAST_WORKER__GRACE"] == "7.0  (.env)"
    assert "canary" not in done.stdout
