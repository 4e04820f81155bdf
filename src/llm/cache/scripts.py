"""What Redis does for a cache, each in one step of its own: an entry and its rows in the index change together.

All keys begin with `KEYS[1]`, which ends in one hash tag, so a cluster keeps them in one slot. Times are microseconds.
The index says what is there: an entry that it does not know counts as gone, so what was removed by a tag or an age
cannot come back, whatever Redis itself evicts. What is removed is told to all even where nothing is left of it here:
other processes may have copies.
"""

from __future__ import annotations

import hashlib
from typing import Final


class Script:
    """A script, and the name that Redis knows it by once it has run."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        """Name it."""
        self.text: str = text
        self.sha: str = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


# used: keys by last use. ends: keys by the moment they are over. about: size, ttl and tags of each, as JSON.
# tags: tag, NUL, key; each entry carries the empty tag too, so these four are all there or none. bytes: of all values.
_INDEX: Final = """
local at = KEYS[1]
local used, ends, about, tags, total = at .. ':used', at .. ':ends', at .. ':about', at .. ':tags', at .. ':bytes'
local time = redis.call('TIME')
local turn = time[1] * 1000000 + time[2]
local now = tonumber(ARGV[1]) or turn

local function known(key)
  local row = redis.call('HGET', about, key)
  local read, told = pcall(cjson.decode, row or '')
  local kinds = read and type(told) == 'table' and type(told[1]) .. type(told[2]) .. type(told[3])
  return kinds == 'numbernumbertable' and told
end

local function drop(key)
  local row = known(key)
  redis.call('ZREM', used, key)
  redis.call('ZREM', ends, key)
  if row then
    redis.call('ZREM', tags, '\\0' .. key)
    for _, name in ipairs(row[3]) do redis.call('ZREM', tags, name .. '\\0' .. key) end
    redis.call('DECRBY', total, math.floor(row[1]))
  end
  redis.call('HDEL', about, key)
  return redis.call('UNLINK', at .. ':v:' .. key) == 1 and row, row
end

local function left(key)
  local over = redis.call('ZSCORE', ends, key)
  return over and over - now or 0
end

local function read(key)
  local value = redis.pcall('GET', at .. ':v:' .. key)
  return type(value) == 'string' and value
end

local function mend()
  local there = redis.call('EXISTS', used, ends, about, tags)
  if there == 4 then there = there + redis.call('EXISTS', total) end
  if there ~= 5 then redis.call('UNLINK', used, ends, about, tags, total) end
end

local function trim(most)
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, most)) do drop(key) end
end

local function each(wanted, from, most, older, visit)
  local tag = wanted[1] or ''
  local start = from == '' and '[' .. tag .. '\\0' or '(' .. from
  local rows = redis.call('ZRANGEBYLEX', tags, start, '(' .. tag .. '\\1', 'LIMIT', 0, most)
  for _, row in ipairs(rows) do
    local key = string.sub(row, #tag + 2)
    local entry = known(key)
    if not entry then
      redis.call('ZREM', tags, row)
    else
      local carried, fits = {}, entry[2] - left(key) >= older
      for _, name in ipairs(entry[3]) do carried[name] = true end
      for _, name in ipairs(wanted) do fits = fits and carried[name] end
      if fits then visit(key) end
    end
  end
  return #rows == most and rows[most]
end
"""

READ: Final = Script(
    _INDEX
    + """
local found = {}
for n = 2, #ARGV do
  local key = ARGV[n]
  local rest = left(key)
  local value = rest > 0 and read(key)
  if value then
    redis.pcall('ZADD', used, 'XX', turn, key)  -- which may fail where memory is full: it is an answer all the same
  else
    drop(key)
  end
  found[#found + 1] = value
  found[#found + 1] = rest
end
return found
"""
)
"""now, key… → for each the bytes or nil, and how long they may be used yet."""

WRITE: Final = Script(
    _INDEX
    + """
local channel, sender, key, value = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local row, max_entries, max_bytes = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
if value ~= '' then
  redis.call('SET', at .. ':full', '', 'XX')  -- changes nothing, and is refused where memory is full: now or never
end
mend()
local _, before = drop(key)
if before then redis.call('PUBLISH', channel, 'gone ' .. sender .. ' ' .. key) end
if value == '' then return end
local size, ttl, names = unpack(cjson.decode(row))
if size > max_bytes then return end
trim(64)
while redis.call('ZCARD', used) >= max_entries or (tonumber(redis.call('GET', total)) or 0) + size > max_bytes do
  local oldest = redis.call('ZRANGE', used, 0, 0)[1]
  if not oldest then redis.call('DEL', total) break end
  drop(oldest)
end
redis.call('SET', at .. ':v:' .. key, value, 'PX', math.ceil(ttl / 1000))
redis.call('HSET', about, key, row)
redis.call('ZADD', used, turn, key)
redis.call('ZADD', ends, now + ttl, key)
redis.call('ZADD', tags, 0, '\\0' .. key)
for _, name in ipairs(names) do redis.call('ZADD', tags, 0, name .. '\\0' .. key) end
redis.call('INCRBY', total, size)
"""
)
"""now, channel, sender, key, value, row of `about`, most entries, most bytes; an empty value only removes."""

EXISTS: Final = Script(_INDEX + "return left(ARGV[2]) > 0 and redis.call('EXISTS', at .. ':v:' .. ARGV[2]) or 0\n")
"""now, key → 1 or 0."""

DELETE: Final = Script(
    _INDEX
    + """
local key, rest = ARGV[4], left(ARGV[4])
local there = drop(key) and rest > 0
redis.call('PUBLISH', ARGV[2], 'gone ' .. ARGV[3] .. ' ' .. key)
return there and 1 or 0
"""
)
"""now, channel, sender, key → 1 where something was there, else 0."""

REMOVE: Final = Script(
    _INDEX
    + """
local count = 0
mend()
local more = each(cjson.decode(ARGV[4]), ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[5]), function(key)
  local rest = left(key)
  if drop(key) and rest > 0 then count = count + 1 end
end)
redis.call('PUBLISH', ARGV[2], 'gone ' .. ARGV[3])
return {count, more}
"""
)
"""now, channel, sender, tags as JSON, least age, where to go on, most at once → how many, where to go on.

Where to go on is empty at first, and nil at the end; so for `SCAN`.
"""

SCAN: Final = Script(
    _INDEX
    + """
local found = {}
mend()
local more = each(cjson.decode(ARGV[2]), ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[3]), function(key)
  local rest = left(key)
  local value = rest > 0 and read(key)
  if value then for _, each in ipairs({key, value, rest}) do found[#found + 1] = each end end
end)
return {more, found}
"""
)
"""now, tags as JSON, least age, where to go on, most at once → where to go on; key, bytes and rest of each."""

USAGE: Final = Script(
    _INDEX
    + """
mend()
trim(tonumber(ARGV[2]))
local more = #redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 1)
return {more, redis.call('ZCARD', used), tonumber(redis.call('GET', total)) or 0}
"""
)
"""now, most at once → 1 where more is over and counted yet, else 0; entries, bytes."""

RENEW: Final = Script("""
return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0
""")
"""(a lease's key) owner, milliseconds → 1 where it was the owner's, else 0."""

RELEASE: Final = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
if redis.call('DEL', KEYS[1] .. ':awaited') == 1 then redis.call('PUBLISH', ARGV[2], 'free ' .. ARGV[3]) end
return 1
""")
"""(a lease's key) owner, channel, key → 1 where it was the owner's, else 0; tells only where somebody waits."""

AWAIT: Final = Script("""
local rest = redis.call('PTTL', KEYS[1])
if rest > 0 then redis.call('SET', KEYS[1] .. ':awaited', '1', 'PX', rest) end
return rest
""")
"""(a lease's key) → milliseconds until it ends by itself; below zero: nobody holds it."""
