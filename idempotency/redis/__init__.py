"""Claims in Redis. The only folder that knows redis-py."""

from .heart import RedisHeart
from .store import RedisClaims

__all__ = ["RedisClaims", "RedisHeart"]
