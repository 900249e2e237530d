"""Confirmed publishing (floor 3)."""

from .blocking import BlockingPublisher as BlockingPublisher
from .dispatch import message_for as message_for
from .dispatch import one_by_one as one_by_one
from .dispatch import send as send
from .following import Following as Following
from .publisher import Publisher as Publisher
from .requests import Requests as Requests
