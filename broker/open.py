"""From a URL to a broker."""

import ssl

from ..config import BrokerSettings, Settings
from ..events import ConfigurationError
from ..telemetry import Emit, TlsUnverified
from .memory import MemoryBroker
from .port import Broker


async def open_broker(settings: Settings, emit: Emit) -> Broker:
    """Return the broker that the settings name. It connects when it is first used."""
    broker = settings.broker
    url = broker.url.get_secret_value()
    if url.startswith("memory:"):
        return MemoryBroker(url, emit=emit)
    from .amqp import AmqpBroker

    if url.startswith("amqps:") and not broker.verify:
        emit(TlsUnverified("HOLDFAST_BROKER__VERIFY"))
    tls_context(broker)  # a file that is no certificate ends the start
    return AmqpBroker(broker, emit=emit)


def tls_context(settings: BrokerSettings) -> ssl.SSLContext | None:
    """Return what `amqps://` needs; None without it.

    Raises `ConfigurationError` naming the file that is not a certificate."""
    if not settings.url.get_secret_value().startswith("amqps:"):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise ConfigurationError(f"HOLDFAST_BROKER__CA_FILE: {settings.ca_file}: {_reason(error)}") from None
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.cert_file is not None:
        try:
            context.load_cert_chain(settings.cert_file, settings.key_file, password="")
        except OSError as error:
            files = " and ".join(str(file) for file in (settings.cert_file, settings.key_file) if file)
            raise ConfigurationError(f"HOLDFAST_BROKER__CERT_FILE: {files}: {_reason(error)}") from None
    elif settings.key_file is not None:
        raise ConfigurationError("HOLDFAST_BROKER__KEY_FILE: a key without a certificate; give CERT_FILE as well")
    return context


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        mismatch = "not the key of this certificate" if error.reason == "KEY_VALUES_MISMATCH" else ""
        return mismatch or f"not in PEM form, or locked by a passphrase ({error.reason or 'unreadable'})"
    return error.strerror or str(error)
