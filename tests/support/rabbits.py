"""RabbitMQ with TLS that asks for a client certificate, and with the management API: certificates are made here."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from console import ConsoleRabbitMQ
from redises import LOOPBACK, certificates

from holdfast.testing.servers import PrivateRabbitMQ, ServersUnavailable, find_rabbitmq, free_port


@dataclass(frozen=True, slots=True)
class Rabbit:
    """A node, its TLS port, its management port, and the certificates in `folder` (see `certificates`)."""

    node: PrivateRabbitMQ
    tls_port: int
    management_port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"amqps://guest:guest@{LOOPBACK}:{self.tls_port}/"

    @property
    def management_url(self) -> str:
        return f"http://guest:guest@{LOOPBACK}:{self.management_port}"

    @property
    def files(self) -> dict[str, str]:
        return {
            "ca_file": f"{self.folder}/ca.pem",
            "cert_file": f"{self.folder}/c.pem",
            "key_file": f"{self.folder}/c.key",
        }


@contextmanager
def a_rabbit() -> Iterator[Rabbit]:
    """A running node, gone at the end."""
    programs = find_rabbitmq()
    if programs is None:
        raise ServersUnavailable("rabbitmq-server is not installed on this machine")
    with tempfile.TemporaryDirectory(prefix="holdfast-rabbit-", ignore_cleanup_errors=True) as name:
        data = Path(name)
        (data / "home").mkdir()
        certificates(data)
        rabbit = Rabbit(ConsoleRabbitMQ(programs, data), free_port(), free_port(), data)
        (data / "enabled_plugins").write_text("[rabbitmq_management,rabbitmq_auth_mechanism_ssl].\n")
        (data / "rabbitmq.conf").write_text(
            f"listeners.ssl.default = {LOOPBACK}:{rabbit.tls_port}\n"
            f"ssl_options.cacertfile = {data}/ca.pem\n"
            f"ssl_options.certfile = {data}/s.pem\n"
            f"ssl_options.keyfile = {data}/s.key\n"
            "ssl_options.verify = verify_peer\n"
            "ssl_options.fail_if_no_peer_cert = true\n"
            "ssl_cert_login_from = common_name\n"
            "auth_mechanisms.1 = PLAIN\n"
            "auth_mechanisms.2 = EXTERNAL\n"
            "collect_statistics_interval = 500\n"
            f"management.tcp.port = {rabbit.management_port}\n"
            f"management.tcp.ip = {LOOPBACK}\n"
        )
        try:
            rabbit.node.start()
            yield rabbit
        finally:
            rabbit.node.close()
