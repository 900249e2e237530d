"""`holdfast run --processes`: several worker processes that look like one."""

from .parent import run_processes

__all__ = ["run_processes"]
