"""Boards in Redis, each a hash: names and values are those of `idempotency.board.Entry`."""

from collections.abc import Iterable, Mapping, Sequence
from json.encoder import encode_basestring_ascii

from ..board import LISTENERS_LIVE, MOST, Entry, read_entry
from ..keys import board_key, listeners_key
from . import lua
from .batches import Batches

# a: the field of the cause, or nothing; fields and values (JSON); life (ms); most entries.
_OPEN = lua.Script(
    """
  local cause, there = a[1], redis.pcall('EXISTS', key)
  if failed(there) then return there end
  if there == 0 and cause ~= '' then return 0 end
  local list, many = cjson.decode(a[2]), redis.pcall('HLEN', key)
  if failed(many) then return many end
  if many + #list / 2 > tonumber(a[4]) then list = {'', 'lost'} end
  for n = 1, #list, 2 do
    local set = redis.pcall('HSETNX', key, list[n], list[n + 1])
    if failed(set) then return set end
  end
  local old = cause ~= '' and (redis.pcall('HGET', key, cause) or 'open')
  if failed(old) then return old end
  if old and old:match('^[^%z]*') ~= 'handled' then
    local set = redis.pcall('HSET', key, cause, 'published' .. (old:match('%z.*') or ''))
    if failed(set) then return set end
  end
  return prolong(key, tonumber(a[3]))
""",
    functions=lua.PROLONG,
)

_READ = lua.Script("  return redis.pcall('HGETALL', key)")

# a: the beginning of the fields that are taken off.
_FORGET = lua.Script(
    """
  local all = redis.pcall('HKEYS', key)
  if failed(all) then return all end
  for _, field in ipairs(all) do
    if field:sub(1, #a[1]) == a[1] then redis.pcall('HDEL', key, field) end
  end
  return 1
"""
)

# a: queue, what it is bound for, life (ms).
_ANNOUNCE = lua.Script(
    """
  local set = redis.pcall('HSET', key, a[1], a[2])
  if failed(set) then return set end
  return prolong(key, tonumber(a[3]))
""",
    functions=lua.PROLONG,
)


class RedisBoard:
    """See `idempotency.Board`. Its scripts travel with those of the claims."""

    def __init__(self, batches: Batches, prefix: str, *, is_beside_claims: bool) -> None:
        self.is_beside_claims = is_beside_claims
        self._batches = batches
        self._prefix, self._listeners = prefix, listeners_key(prefix)

    async def open(self, request: str, entries: Sequence[Entry], *, cause: str | None, life: float) -> None:
        texts = [text for entry in entries for text in (entry.field, entry.state + entry.rest)]
        arguments = (_bytes(cause or ""), _json(texts), round(life * 1000), MOST)
        await self._batches.ask(_OPEN, board_key(self._prefix, request), arguments)

    async def mark(self, request: str, entry: Entry, *, life: float) -> None:
        await self._batches.ask(lua.MARK, board_key(self._prefix, request), marking(entry, life))

    async def read(self, request: str) -> list[Entry]:
        return [read_entry(*item) for item in (await self._read(board_key(self._prefix, request))).items()]

    async def forget(self, request: str | None, queue: str) -> None:
        key = self._listeners if request is None else board_key(self._prefix, request)
        await self._batches.ask(_FORGET, key, (_bytes(f"{queue}\0"),))

    async def announce(self, queue: str, bindings: str) -> None:
        arguments = (_bytes(f"{queue}\0"), bindings.encode(), round(LISTENERS_LIVE * 1000))
        await self._batches.ask(_ANNOUNCE, self._listeners, arguments)

    async def listeners(self) -> Mapping[str, str]:
        return {name.rstrip("\0"): text for name, text in (await self._read(self._listeners)).items()}

    async def _read(self, key: str) -> dict[str, str]:
        flat = [item.decode("utf-8", "surrogatepass") for item in await self._batches.ask(_READ, key, ())]
        return dict(zip(flat[::2], flat[1::2], strict=True))


def marking(entry: Entry, life: float) -> tuple[bytes, bytes, bytes, int]:
    """Return the arguments of a mark."""
    return _bytes(entry.field), entry.state.encode(), _bytes(entry.rest), round(life * 1000)


def _json(texts: Iterable[str]) -> bytes:
    """Return a list of texts as JSON. `json.dumps` makes an encoder for each."""
    return f"[{','.join(map(encode_basestring_ascii, texts))}]".encode()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
