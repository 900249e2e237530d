"""Redis in every shape it is run in: with TLS, behind a password, watched by a Sentinel, as a cluster."""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pages import ROOT
from waiting import blocking, eventually

from holdfast.testing.servers import free_port

LOOPBACK = "127.0.0.1"
ADMIN = ("--user", "admin", "--pass", "admin", "--no-auth-warning")
PAGE = ROOT / "docs" / "permissions.md"


@contextmanager
def a_redis(folder: Path, *options: str, port: int | None = None, cli: tuple[str, ...] = ()) -> Iterator[int]:
    """A server with these options; the port it listens on. One that was free may be taken before the server has it, and
    a cluster's server takes another besides: then the next one is tried."""
    data = Path(tempfile.mkdtemp(dir=folder))
    usual = ("--bind", LOOPBACK, "--dir", str(data), "--save", "", "--appendonly", "yes")
    program = ("redis-server", *((options[0],) if options[:1] and options[0].startswith("/") else ()))
    rest = options[1:] if len(program) == 2 else options
    log = data / "log"
    for _ in range(1 if port else 5):
        at = port or free_port()
        listens = () if "--tls-port" in options else ("--port", str(at))
        with log.open("wb") as output:
            server = subprocess.Popen([*program, *listens, *usual, *rest], stdout=output, stderr=output)
        try:
            blocking(
                eventually(lambda at=at, server=server: "PONG" in ask(at, "ping", cli=cli) or server.poll() is not None)
            )
            if server.poll() is not None and "Address already in use" in log.read_text():
                continue
            assert server.poll() is None, log.read_text()
            yield at
            return
        finally:
            server.kill()
            server.wait()
    raise AssertionError(log.read_text())


def ask(port: int, *words: str, cli: tuple[str, ...] = ()) -> str:
    done = subprocess.run(["redis-cli", "-p", str(port), *cli, *words], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@contextmanager
def with_tls(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """URL and settings of a server that asks for a client certificate."""
    certificates(folder)
    port = free_port()
    files = {"ca_file": str(folder / "ca.pem"), "cert_file": str(folder / "c.pem"), "key_file": str(folder / "c.key")}
    cli = ("--tls", "--cacert", files["ca_file"], "--cert", files["cert_file"], "--key", files["key_file"])
    options = ("--tls-port", str(port), "--port", "0", "--tls-ca-cert-file", files["ca_file"])
    own = ("--tls-cert-file", str(folder / "s.pem"), "--tls-key-file", str(folder / "s.key"))
    with a_redis(folder, *options, *own, port=port, cli=cli):
        yield f"rediss://{LOOPBACK}:{port}/0", files


@contextmanager
def with_users(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """URL and settings of a server whose user may do what docs/permissions.md says, with a password from a file; ADMIN
    may do everything."""
    acl, settings = _users(folder, "user default off")
    with a_redis(folder, "--aclfile", str(acl), cli=ADMIN) as port:
        yield f"redis://shop@{LOOPBACK}:{port}/0", settings


def _users(folder: Path, *more: str, besides: str = "") -> tuple[Path, dict[str, str]]:
    """A file of users with the page's among them, and the settings with its password."""
    [line] = re.findall(r"^user shop .+$", PAGE.read_text(), re.MULTILINE)
    users = (f"{line} {besides}".replace("PASSWORD", "s3cret"), "user admin on >admin ~* &* +@all", *more)
    acl, password = folder / "users.acl", folder / "password"
    acl.write_text("".join(f"{user}\n" for user in users))
    password.write_text("s3cret\n")
    return acl, {"password_file": str(password)}


@contextmanager
def with_sentinel(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """URL of a service of two servers, one the other's replica; their Sentinel asks for a login."""
    with a_redis(folder) as master, a_redis(folder, "--replicaof", f"{LOOPBACK} {master}"):
        config = folder / "sentinel.conf"
        config.write_text(
            f"sentinel monitor orders {LOOPBACK} {master} 1\nsentinel down-after-milliseconds orders 500\n"
            "user default off\nuser watcher on >s3cret ~* &* +@all\n"
        )
        login = ("--user", "watcher", "--pass", "s3cret", "--no-auth-warning")
        with a_redis(folder, str(config), "--sentinel", cli=login) as sentinel:
            settings = {"sentinel_username": "watcher", "sentinel_password": "s3cret"}
            yield f"redis+sentinel://{LOOPBACK}:{sentinel}/orders/0", settings


@contextmanager
def with_cluster(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """URL of a cluster of three nodes, whose user may do what docs/permissions.md says."""
    [besides] = re.findall(r"A cluster's user needs `(.+)` besides", PAGE.read_text())
    acl, settings = _users(folder, besides=besides)
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--aclfile", str(acl))
    with ExitStack() as stack:
        ports = [stack.enter_context(a_redis(folder, *options)) for _ in range(3)]
        places = [f"{LOOPBACK}:{port}" for port in ports]
        ask(ports[0], "--cluster", "create", *places, "--cluster-yes")
        blocking(eventually(lambda: all("cluster_state:ok" in ask(port, "cluster", "info") for port in ports)))
        yield f"redis+cluster://shop@{','.join(places)}", settings


def certificates(folder: Path) -> None:
    """An authority (`ca`), and certificates it signed for this host: a server's (`s`) and a client's (`c`)."""
    key = ("-newkey", "rsa:2048", "-nodes")
    own = ("-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority", "-days", "2")
    openssl(folder, "req", "-x509", *key, *own)
    (folder / "names").write_text(f"subjectAltName=IP:{LOOPBACK},DNS:localhost\n")
    for name in ("s", "c"):
        openssl(folder, "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
