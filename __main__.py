"""`python -m holdfast`."""

from .cli.app import main

main()
