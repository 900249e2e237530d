"""Claims in Redis. The only folder that knows redis-py."""

from .heart import RedisHeart as RedisHeart
from .looking import states as states
from .store import RedisClaims as RedisClaims
