"""`holdfast run --processes`: several worker processes that look like one."""

from .parent import run_processes as run_processes
