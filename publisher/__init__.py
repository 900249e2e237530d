"""Confirmed publishing (floor 3)."""

from .dispatch import message_for
from .publisher import Publisher
from .sending import send

__all__ = ["Publisher", "message_for", "send"]
