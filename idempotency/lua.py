"""The steps of a claim as scripts, one key each (any node of a cluster runs them), and the value they keep.

A value is packed: state (`r` running, `c` resting after a crash, `d` done), token, fingerprint; unless it is done,
also the owner and the number of crashes. 26 or 17 bytes.
"""

from dataclasses import dataclass
from hashlib import sha1

_FLAGS = "#!lua flags=allow-oom\n"  # Redis 7: what ends a claim is served when memory has run out


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and what Redis 7 may be told of it."""

    source: str

    @property
    def sha(self) -> str:
        return sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def for_version(self, major: int) -> "Script":
        """Before Redis 7 a script has no flags."""
        return self if major >= 7 else Script(self.source.removeprefix(_FLAGS))


# KEYS: claim. ARGV: token, fingerprint, owner, window (ms), alone (1 or 0), max_crashes.
# Answers: the crashes, acquired · -1 done · -2 mismatch · -100 - crashes, a suspect · the value, where it is running.
CLAIM = Script("""
local value = redis.call('GET', KEYS[1])
if not value then
  redis.call('SET', KEYS[1], 'r' .. ARGV[1] .. ARGV[2] .. ARGV[3] .. '\\0', 'PX', ARGV[4])
  return 0
end
local state = value:sub(1, 1)
if state == 'r' and value:sub(2, 9) == ARGV[1] then return value:byte(26) end
if value:sub(10, 17) ~= ARGV[2] then return -2 end
if state == 'd' then return -1 end
if state == 'r' then return value end
local crashes = value:byte(26)
if ARGV[5] == '0' and crashes < tonumber(ARGV[6]) then return -100 - crashes end
redis.call('SET', KEYS[1], 'r' .. ARGV[1] .. ARGV[2] .. ARGV[3] .. value:sub(26, 26), 'PX', ARGV[4])
return crashes
""")

# KEYS: an owner's heartbeat. Answers: its life in ms, below 0 where there is none.
LIFE = Script("return redis.call('PTTL', KEYS[1])")

# KEYS: claim. ARGV: the token it was seen with, window (ms). Its owner is dead: it rests, one crash more.
ORPHAN = Script("""
local value = redis.call('GET', KEYS[1])
if value and value:sub(1, 9) == 'r' .. ARGV[1] then
  local crashes = math.min(value:byte(26) + 1, 255)
  redis.call('SET', KEYS[1], 'c' .. value:sub(2, 25) .. string.char(crashes), 'PX', ARGV[2])
end
return 0
""")

# KEYS: claim. ARGV: token, fingerprint, window (ms). Answers: 1 recorded · 0 fenced · 2 absent, recorded now.
COMPLETE = Script(
    _FLAGS
    + """
local value = redis.call('GET', KEYS[1])
if value and value:sub(2, 9) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], 'd' .. ARGV[1] .. ARGV[2], 'PX', ARGV[3])
return value and 1 or 2
"""
)

# KEYS: claim. ARGV: token, window (ms), forget (1 or 0).
RELEASE = Script(
    _FLAGS
    + """
local value = redis.call('GET', KEYS[1])
if not value or value:sub(1, 9) ~= 'r' .. ARGV[1] then return 0 end
if value:byte(26) > 0 and ARGV[3] == '0' then
  redis.call('SET', KEYS[1], 'c' .. value:sub(2), 'PX', ARGV[2])
else
  redis.call('DEL', KEYS[1])
end
return 1
"""
)
