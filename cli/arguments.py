"""Arguments and options that several commands share."""

from typing import Annotated

import typer

Target = Annotated[str, typer.Argument(metavar="MODULE:WORKER", help="where the worker is, for instance app:worker")]
Json = Annotated[bool, typer.Option("--json", help="for programs")]
