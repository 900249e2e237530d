"""Failures of TLS, in words that name the setting or the certificate to correct."""

import ssl
from typing import Literal


def explain_tls(error: ssl.SSLError, of: Literal["BROKER", "IDEMPOTENCY"]) -> str | None:
    """Return one line about the failure; None for one that needs no other words.

    `of` is the group of settings that the server belongs to.
    """
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        fault = f"the certificate is not valid: {error.verify_message.rstrip('.')}"
        return f"{fault}; {_remedy(error.verify_code, of)}"
    if reason == "WRONG_VERSION_NUMBER":
        return f"this port does not speak TLS: HOLDFAST_{of}__URL has to name the server's TLS port"
    if "ALERT_" in reason:
        said = reason.rpartition("ALERT_")[2].replace("_", " ").lower()
        return f"the server refused our certificate, or its lack ({said}): see HOLDFAST_{of}__CERT_FILE"
    return None


def _remedy(code: int, of: str) -> str:
    match code:  # the X509_V_ERR_ numbers of OpenSSL
        case 9:  # not yet valid
            return "a clock is wrong, here or where it was made"
        case 10:  # expired
            return "the server needs a new one"
        case 62 | 64:  # another host name, another address
            return f"HOLDFAST_{of}__URL has to name the server as its certificate does"
        case _:
            return f"HOLDFAST_{of}__CA_FILE names who may sign it"
