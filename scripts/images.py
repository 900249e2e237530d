"""The public images that the tests of containers need, made from Debian's packages under the same names.

Each stands in for its public namesake where no registry is reachable: the same user, ports and command, on Debian's
release of the program.
"""

import subprocess
import sys
from ast import literal_eval
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from brokers import made

from holdfast.testing.servers.docker import RABBITMQ_IMAGE, REDIS_IMAGE


@dataclass(frozen=True)
class Base:
    """A Debian system: what is in it besides the least, and the program it is there for."""

    folder: str
    packages: str
    program: str


@dataclass(frozen=True)
class Image:
    names: tuple[str, ...]
    base: Base
    changes: tuple[str, ...]


SERVERS = Base("trixie-servers", "rabbitmq-server,redis-server,prometheus", "usr/bin/prometheus")
PYTHON = Base("trixie-python", "python3,python3-pip,python-is-python3,ca-certificates", "usr/bin/python")

IMAGES = (
    Image(
        (RABBITMQ_IMAGE, "rabbitmq:4-management"),
        SERVERS,
        (
            "USER rabbitmq",
            "ENV HOME=/var/lib/rabbitmq",
            # As in the public image: guest may come from anywhere.
            "ENV RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-rabbit loopback_users []",
            "EXPOSE 5672",
            'CMD ["/usr/lib/rabbitmq/bin/rabbitmq-server"]',
        ),
    ),
    Image(
        (REDIS_IMAGE,),
        SERVERS,
        (
            "USER redis",
            "WORKDIR /data",
            "VOLUME /data",
            "EXPOSE 6379",
            'CMD ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/var/lib/redis"]',
        ),
    ),
    Image(
        ("prom/prometheus:v3.5.0",),
        SERVERS,
        (
            "USER 65534",
            "EXPOSE 9090",
            'ENTRYPOINT ["/usr/bin/prometheus"]',
            'CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]',
        ),
    ),
    Image(("python:3.13-slim",), PYTHON, ('CMD ["python"]',)),
)


def stand_in(podman: list[str], environment: Mapping[str, str], cache: Path) -> None:
    """Make every image. The Debian systems are kept in `cache`."""
    for image in IMAGES:
        base = made(cache / image.base.folder, "trixie", image.base.packages, image.base.program)
        first, *others = (f"docker.io/{name if '/' in name else f'library/{name}'}" for name in image.names)
        print(f"Making {first} from {base}", flush=True)
        options = [word for change in image.changes for word in ("--change", change)]
        with subprocess.Popen(["tar", "-C", base, "--one-file-system", "-c", "."], stdout=subprocess.PIPE) as tar:
            subprocess.run(
                [*podman, "import", "--quiet", *options, "-", first],
                env=environment, stdin=tar.stdout, stdout=subprocess.DEVNULL, check=True,
            )  # fmt: skip
        for other in others:
            subprocess.run([*podman, "tag", first, other], env=environment, check=True)


def lend_pip(folder: Path) -> list[str]:
    """Options of `podman build` that lend it this machine's pip: where packages come from, and whom to trust. Nothing
    of it is in the image."""
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings = {
        name.rpartition(".")[2]: str(literal_eval(value))
        for name, _, value in (line.partition("=") for line in told.stdout.splitlines())
    }
    lent = {name: settings[name] for name in ("index-url", "proxy", "trusted-host", "cert") if name in settings}
    file = folder / "pip.conf"
    file.write_text("\n".join(["[global]", *(f"{name} = {value}" for name, value in lent.items())]) + "\n")
    volumes = [f"{file}:/etc/pip.conf:ro"] + [f"{path}:{path}:ro" for name, path in lent.items() if name == "cert"]
    return [f"--volume={volume}" for volume in volumes]
