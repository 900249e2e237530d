"""Target: what can stand in the environment of a process."""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from drawing import Drawing

from holdfast import ConfigurationError, load_settings
from holdfast.config import known_variables, origins, unknown_variables

GROUPS = ("HOLDFAST_BROKER", "HOLDFAST_WORKER", "HOLDFAST_PUBLISHER", "HOLDFAST_IDEMPOTENCY")
NAMES = (*known_variables(), *GROUPS, "HOLDFAST_", "HOLDFAST_BROKER__URL__X", "holdfast_log__level")
SECRETS = ("URL", "PASSWORD", "TOKEN")
CANARY = "Tr0ubadour"


def settings(data: bytes) -> None:
    """Any environment gives settings, or `ConfigurationError` with a line for each fault. What stands where a
    password does is in neither its text nor the settings' `repr`."""
    draw, variables = Drawing(data), dict[str, str]()
    for _ in range(1 + draw.number(3)):
        name, value = draw.one_of(NAMES), draw.text().replace("\x00", "")
        if name.endswith(SECRETS):
            value = f"{value}:{CANARY}{draw.text()}@{draw.text()}".replace("\x00", "")
        elif name.endswith("_FILE"):
            value = value.replace("/", "_") * (1 + draw.number(40))
        variables[name] = value

    with environment(variables):
        told = told_of()
        unknown_variables()

    assert CANARY not in told, told


def told_of() -> str:
    """What a user is shown of the settings: all of them, or what is wrong."""
    try:
        found = load_settings()
    except ConfigurationError as error:
        faults = error.faults
    else:
        assert all(math.isfinite(value) for _, group in found for _, value in group if isinstance(value, float))
        assert set(origins(found)) == set(known_variables())
        return repr(found)
    assert faults and all(faults)
    return "\n".join(faults)


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The process's, with these variables in place of all of ours."""
    before = {name: value for name, value in os.environ.items() if name.upper().startswith("HOLDFAST_")}
    for name in before:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)
        os.environ.update(before)
