"""The origin of each setting: an argument, a file, the environment, `.env` or its default."""

from collections.abc import Mapping
from typing import Any

from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from ..events import ConfigurationError
from .settings import Settings, known_variables, load_settings, variable


def origins(settings: Settings) -> Mapping[str, str]:
    """Return for each variable the origin of its value.

    A value that matches neither environment, `.env` nor default was passed as an argument.
    """
    environment, dotenv = EnvSettingsSource(Settings)(), DotEnvSettingsSource(Settings)()
    try:
        surroundings: Settings | None = load_settings()
    except ConfigurationError:  # arguments stand in for what is wrong there
        surroundings = None
    known = {}
    for group, values in settings:
        for name, value in values:
            around = getattr(getattr(surroundings, group, None), name, value)
            if around != value:
                origin = "argument"
            elif name == "url" and values.url_file is not None:
                origin = f"file {values.url_file}"
            elif name in _of(environment, group):
                origin = "environment"
            elif name in _of(dotenv, group):
                origin = ".env"
            else:
                origin = "default"
            known[variable((group, name))] = origin
    return {name: known[name] for name in known_variables()}


def _of(source: Mapping[str, Any], group: str) -> Mapping[str, Any]:
    values = source.get(group)
    return values if isinstance(values, Mapping) else {}
