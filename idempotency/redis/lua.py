"""The steps of a claim as scripts, for one key or many, and the value they keep.

A value is packed: state (`r` running, `c` resting after a crash, `d` done), token, fingerprint; unless it is done,
also the owner and the number of crashes. 26 or 17 bytes.
"""

from hashlib import sha1

_FLAGS = "#!lua flags=allow-oom\n"  # Redis 7: what ends a claim is served when memory has run out

# Each script is the body of a function of one key and its arguments `a`. It is run for every key, so that a batch is
# one command; in a cluster, whose keys live apart, for one key at a time. What goes wrong with one key is its answer.
_FOR_EACH = """
local width, answers = tonumber(ARGV[1]), {}
local function get(key) return redis.pcall('GET', key) end
local function put(key, value, window) return redis.pcall('SET', key, value, 'PX', window) end
local function failed(answer) return type(answer) == 'table' and answer.err end
%s
local function step(key, a)
%s
end
for at, key in ipairs(KEYS) do
  local a = {}
  for n = 1, width do a[n] = ARGV[1 + (at - 1) * width + n] end
  answers[at] = step(key, a)
end
return answers
"""


class Script:
    """What is done for one key, with `functions` of its own. With `allow_oom` it is served when memory has run out. Two
    are never equal."""

    __slots__ = ("_body", "_functions", "sha", "source")

    def __init__(self, body: str, *, functions: str = "", allow_oom: bool = False) -> None:
        self._body, self._functions = body, functions
        self.source = (_FLAGS if allow_oom else "") + _FOR_EACH % (functions.strip(), body.strip())
        self.sha = sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    @property
    def without_flags(self) -> "Script":
        """The same for a server older than Redis 7, whose scripts have no flags. It is not served without memory."""
        return Script(self._body, functions=self._functions)


# a: token, fingerprint, owner, window (ms), alone (1 or 0), max_crashes.
# Answers: the crashes, acquired · -1 done · -2 mismatch · -100 - crashes, a suspect · the value, where it is running.
CLAIM = Script("""
  local value = get(key)
  if failed(value) then return value end
  if not value then
    local set = put(key, 'r' .. a[1] .. a[2] .. a[3] .. '\\0', a[4])
    return failed(set) and set or 0
  end
  local state = value:sub(1, 1)
  if state == 'r' and value:sub(2, 9) == a[1] then return value:byte(26) end
  if value:sub(10, 17) ~= a[2] then return -2 end
  if state == 'd' then return -1 end
  if state == 'r' then return value end
  local crashes = value:byte(26)
  if a[5] == '0' and crashes < tonumber(a[6]) then return -100 - crashes end
  local set = put(key, 'r' .. a[1] .. a[2] .. a[3] .. value:sub(26, 26), a[4])
  return failed(set) and set or crashes
""")

# The key is an owner's heartbeat. Answers: its life in ms, below 0 where there is none.
LIFE = Script("  return redis.pcall('PTTL', key)")

# a: the token it was seen with, window (ms). Its owner is dead: it rests, one crash more.
ORPHAN = Script("""
  local value = get(key)
  if failed(value) then return value end
  if not value or value:sub(1, 9) ~= 'r' .. a[1] then return 0 end
  local crashes = math.min(value:byte(26) + 1, 255)
  local set = put(key, 'c' .. value:sub(2, 25) .. string.char(crashes), a[2])
  return failed(set) and set or 0
""")

# Answers: 1 recorded · 0 fenced · 2 absent, recorded now.
_COMPLETE = """
local function complete(key, token, fingerprint, window)
  local value = get(key)
  if failed(value) then return value end
  if value and value:sub(2, 9) ~= token then return 0 end
  local set = put(key, 'd' .. token .. fingerprint, window)
  return failed(set) and set or (value and 1 or 2)
end
"""

# The key of a board; life (ms). A fiftieth more than asked, so that not each step of a request sets it.
PROLONG = """
local function prolong(key, life)
  local left = redis.pcall('PTTL', key)
  if not failed(left) and left < life then redis.pcall('PEXPIRE', key, math.ceil(life * 1.02)) end
  return 1
end
"""

# The key of a board; field, step, what the value has behind its state, life (ms).
_MARK = (
    PROLONG
    + """
local function mark(key, field, state, rest, life)
  local value = redis.pcall('HGET', key, field)
  if failed(value) then return value end
  local there = value or redis.pcall('EXISTS', key)
  if failed(there) or there == 0 then return there end
  local old = value and value:match('^[^%z]*')
  if old == 'handled' then return 0 end
  if state == 'completed' then state = old == 'published' and 'handled' or 'lost' end
  local set = redis.pcall('HSET', key, field, state .. rest)
  if failed(set) then return set end
  if state == 'failed' then
    local all, cause = redis.pcall('HGETALL', key), '\\0' .. field
    for n = 1, #all, 2 do
      local text = all[n + 1]
      if text:sub(1, 5) == 'open\\0' and text:sub(-#cause) == cause then redis.pcall('HDEL', key, all[n]) end
    end
  end
  return prolong(key, tonumber(life))
end
"""
)

# a: token, fingerprint, window (ms).
COMPLETE = Script("  return complete(key, a[1], a[2], a[3])", functions=_COMPLETE, allow_oom=True)

# a: field, step, what the value has behind its state, life (ms).
MARK = Script("  return mark(key, a[1], a[2], a[3], a[4])", functions=_MARK)

# a: those of COMPLETE, the key of a board, those of MARK. Nothing is marked where the completion is fenced. A
# completion stands where the mark fails, as without the right to write hashes: then the entry stays open.
COMPLETE_AND_MARK = Script(
    """
  local completed = complete(key, a[1], a[2], a[3])
  if completed ~= 1 and completed ~= 2 then return completed end
  mark(a[4], a[5], a[6], a[7], a[8])
  return completed
""",
    functions=_COMPLETE + _MARK,
    allow_oom=True,
)

# a: token, window (ms), forget (1 or 0).
RELEASE = Script(
    """
  local value = get(key)
  if failed(value) then return value end
  if not value or value:sub(1, 9) ~= 'r' .. a[1] then return 0 end
  if value:byte(26) > 0 and a[3] == '0' then
    local set = put(key, 'c' .. value:sub(2), a[2])
    return failed(set) and set or 1
  end
  redis.pcall('DEL', key)
  return 1
""",
    allow_oom=True,
)

# The key is an owner's heartbeat; ARGV: its life (ms). SET itself is not served when memory has run out; but whoever
# holds claims then is alive, and may complete them.
BEAT = _FLAGS + "return redis.call('SET', KEYS[1], '1', 'PX', ARGV[1], 'GET')"

# Asks whether the server knows flags: an older one does not compile it.
FLAGGED = _FLAGS + "return 1"
