"""Secrets that come from files, and the URL they end in."""

from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import AfterValidator, SecretStr


def read_secret(file: Path) -> str:
    """Return the text of a file without the end of its last line."""
    return file.read_text().rstrip("\r\n")


def secret_of(given: SecretStr | None, file: Path | None) -> str | None:
    """Return the secret of a file where one is named, else the one that was given."""
    if file is not None:
        return read_secret(file)
    return given.get_secret_value() if given is not None else None


def with_password(url: SecretStr, password: str) -> SecretStr:
    """Return the URL with another password. Raises `ValueError` where it names no user."""
    parts = urlsplit(url.get_secret_value())
    if parts.scheme == "memory":
        return url
    login, _, host = parts.netloc.rpartition("@")
    user = login.partition(":")[0]
    if not user:
        raise ValueError(f"names no user for the PASSWORD; write {parts.scheme}://user@host/...")
    return SecretStr(urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}")))


def with_external_login(url: SecretStr) -> SecretStr:
    """Return the URL with the login mechanism by which the client certificate names the user."""
    parts = urlsplit(url.get_secret_value())
    query = "&".join(part for part in (parts.query.replace("auth=external", ""), "auth=external") if part)
    return SecretStr(urlunsplit(parts._replace(query=query)))


def _readable(file: Path) -> Path:
    try:
        if not read_secret(file):
            raise ValueError(f"{file} is empty")
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} holds no text") from None
    return file


def _there(file: Path) -> Path:
    """Check that a file exists.

    pydantic's own check lets through what the system raises for a name that is too long or an unreadable folder.
    """
    try:
        is_file = file.is_file()
    except OSError as error:
        raise ValueError(f"cannot look at the file: {error.strerror}") from None
    if not is_file:
        raise ValueError("Path does not point to a file")
    return file


ExistingFile = Annotated[Path, AfterValidator(_there)]
SecretFile = Annotated[ExistingFile, AfterValidator(_readable)]
