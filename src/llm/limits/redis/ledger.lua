-- One account's log and what is known beside it. The server runs each message to the end before the next, so a message
-- decides for all processes at once. Its clock alone counts.
--
-- KEYS  log (stream), alive (process: ms until which it lives), line (process: rank), state (hash)
-- ARGV  'read' or 'write', the process, how far it has read, then
--       read:  what it has room for, the event to write where all fits (empty: only read), the ask's number
--       write: the number up to which its asks are void, then three for each event: kind, event, what its kind needs
--
-- What is answered to read is one text of numbers and a place, what was known before the entries, and then of each entry
-- its place and its event, empty where it has none: few parts, for each costs time to read.
--
-- An event is a JSON array that begins with its kind and its process; llm/limits/redis/events.py has their forms.
-- state  born (the first entry, which holds nothing), grace (ms until which nobody may take), standing, upto (how far its teller had
--        read), told (ms), length (of the log then), trimmed (all before it may be gone), wanted (ms when a standing
--        was asked for), kept (ms until when all this is sure to be kept), ticket (the last place in line), swept (ms when
--        the dead were looked for), living (how many processes then), wait:<process> (its event), void:<process>,
--        seen:<process> (ms when it was known to live)

local ALIVE_FOR, KEPT_FOR, KEPT_ANEW, GRACE = 15000, 176400000, 3600000, 1000 -- ms
local FRESH = 1000 -- ms in which neither who lives is noted again, nor who is dead looked for
local PAGE = 1000 -- entries that one answer brings at most
local HISTORY, MANY, SELDOM, OFTEN = 120000, 500, 60000, 5000 -- ms, entries, ms, ms
local PLACES = 2 ^ 36 -- in line, for each priority
local HIGHEST = 2 ^ 15 -- priority

if not redis.REDIS_VERSION_NUM then
  redis.replicate_commands() -- before version 7, what is written after the time was asked wants it
end

local log, alive, line, state = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local verb, me, after = ARGV[1], ARGV[2], ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function id(ms)
  return string.format('%.0f-0', ms)
end

local function before(one, other)
  local ms, seq = string.match(one, '^(%d+)-(%d+)$')
  local other_ms, other_seq = string.match(other, '^(%d+)-(%d+)$')
  ms, other_ms = tonumber(ms), tonumber(other_ms)
  return ms < other_ms or (ms == other_ms and tonumber(seq) < tonumber(other_seq))
end

local function number(value)
  if type(value) == 'number' and value > 0 and value < math.huge then
    return value
  end
  return 0
end

local keep_anew = false

local function add(event)
  return redis.call('XADD', log, '*', '1', event)
end

local function decode(entry)
  local fields = entry[2]
  if fields and fields[1] == '1' then
    local fine, event = pcall(cjson.decode, fields[2])
    if fine and type(event) == 'table' and type(event[2]) == 'string' then
      return event
    end
  end
  return {}
end

local function first_in_line()
  return redis.call('ZRANGE', line, 0, 0)[1]
end

local function wake()
  local first = first_in_line()
  if first then
    redis.call('PUBLISH', 'llm:wake:' .. first, log)
  end
end

local function stand(event, priority)
  local bounded = math.max(-HIGHEST, math.min(HIGHEST, tonumber(priority)))
  local rank = redis.call('ZSCORE', line, me)
  local place = rank and rank - math.floor(rank / PLACES) * PLACES or redis.call('HINCRBY', state, 'ticket', 1)
  redis.call('ZADD', line, string.format('%.0f', -bounded * PLACES + place), me)
  keep_anew = keep_anew or not rank
  redis.call('HSET', state, 'wait:' .. me, event)
end

local function leave(process)
  if redis.call('ZREM', line, process) == 1 then
    redis.call('HDEL', state, 'wait:' .. process)
    return true
  end
  return false
end

local function end_of(process)
  redis.call('ZREM', alive, process)
  redis.call('HDEL', state, 'void:' .. process, 'seen:' .. process, 'swept')
  return leave(process)
end

local known = {}
do
  local names = {
    'born', 'grace', 'upto', 'trimmed', 'told', 'length', 'wanted', 'kept', 'swept', 'living', 'wait:' .. me, 'void:' .. me,
    'seen:' .. me
  }
  for place, value in ipairs(redis.call('HMGET', state, unpack(names))) do
    known[names[place]] = value
  end
end
local born, grace, upto, trimmed = known.born, tonumber(known.grace or 0), known.upto, known.trimmed
local void, living = tonumber(known['void:' .. me] or 0), known.living
keep_anew = now > tonumber(known.kept or 0)
if not born then
  redis.call('DEL', log, alive, line, state)
  born = redis.call('XADD', log, '*', '0', '')
  redis.call('HSET', state, 'born', born)
  if after ~= '0-0' then -- it was lost, and others who know what was taken may come yet
    grace = now + GRACE
    redis.call('HSET', state, 'grace', grace)
  end
end
local revived, new = false, false
if now - (known['seen:' .. me] or 0) >= FRESH then
  new = redis.call('ZADD', alive, now + ALIVE_FOR, me) == 1
  revived = new and after ~= '0-0'
  redis.call('HSET', state, 'seen:' .. me, now)
end
if new or now - (known.swept or 0) >= FRESH then
  for _, process in ipairs(redis.call('ZRANGEBYSCORE', alive, '-inf', '(' .. now)) do
    if end_of(process) then
      wake()
    end
    add(cjson.encode({'G', process, 1}))
  end
  living = redis.call('ZCARD', alive)
  redis.call('HSET', state, 'swept', now, 'living', living)
end

local function keep()
  if keep_anew then
    redis.call('HSET', state, 'kept', now + KEPT_ANEW)
    for _, key in ipairs(KEYS) do
      redis.call('PEXPIRE', key, KEPT_FOR)
    end
  end
end

-- What was written since, how far that is, whether there is more, whether the log that was read is lost, and whether what
-- is known from before must be told with it.
local function since()
  local known_from = after == '0-0' or (trimmed and before(after, trimmed))
  local lost = not known_from and before(after, born)
  local entries
  if not known_from and not lost then
    entries = redis.call('XRANGE', log, after, '+', 'COUNT', PAGE + 2)
    lost = not entries[1] or entries[1][1] ~= after
    table.remove(entries, 1)
  end
  local from = after
  if known_from or lost then
    from, known_from = upto or born, upto
    entries = redis.call('XRANGE', log, '(' .. from, '+', 'COUNT', PAGE + 1)
  end
  local more = #entries > PAGE
  if more then
    table.remove(entries)
  end
  local reached = #entries > 0 and entries[#entries][1] or from
  return entries, reached, more, lost, known_from
end

-- What is known from before the first entry: who told it when, and who stands in line.
local function ground()
  local told = redis.call('HMGET', state, 'upto', 'told', 'standing')
  for _, process in ipairs(redis.call('ZRANGE', line, 0, -1)) do
    told[#told + 1] = redis.call('HGET', state, 'wait:' .. process) or ''
  end
  return told
end

local function fits(entries, room, mine)
  local taken, running, open, waiting = {0, 0, 0, 0, 0}, 0, {}, {}
  local function count(charge, first)
    for unit = 1, 5 do
      taken[unit] = taken[unit] + number(charge[first + unit])
    end
    running = running + 1
  end
  for _, entry in ipairs(entries) do
    local event = decode(entry)
    local kind, process, call = event[1], event[2], event[3]
    if kind == 'T' and type(call) == 'string' then
      if call == mine[3] then
        return true, true -- asked twice, where an answer was lost
      end
      count(event, 3)
      open[call], waiting[process] = true, nil
    elseif kind == 'S' and type(call) == 'string' and open[call] then
      open[call] = nil
      running = running - 1
    elseif kind == 'W' and process ~= me then
      waiting[process] = event
    elseif kind == 'G' then
      waiting[process] = nil
    elseif (kind == 'R' or kind == 'N') and process ~= me then
      return false
    end
  end
  if not known['wait:' .. me] then
    for _, event in pairs(waiting) do
      count(event, 3)
    end
  end
  taken[6] = running
  for unit = 1, 6 do
    local most, more = room[unit], unit == 6 and 1 or number(mine[3 + unit])
    if type(most) == 'number' and taken[unit] + more > most + 1e-9 * (1 + math.abs(most)) then
      return false
    end
  end
  return true
end

local function wants_standing()
  local old = now - (known.told or string.match(born, '^%d+'))
  if old <= OFTEN or now - (known.wanted or 0) <= OFTEN then
    return 0
  end
  local more = redis.call('XLEN', log) - (known.length or 0)
  if more > MANY or (more > 0 and old > SELDOM) then
    redis.call('HSET', state, 'wanted', now)
    return 1
  end
  return 0
end

local function read()
  local entries, reached, more, lost, known_from = since()
  local blind = more or lost or known_from -- it must know of that before it takes anything
  local taken, wanted, event = 0, 0, ARGV[5]
  local wait = math.max(0, grace - now)
  if event ~= '' and not blind and wait == 0 and tonumber(ARGV[6]) > void then
    local fine, already = fits(entries, cjson.decode(ARGV[4]), cjson.decode(event))
    if fine then
      taken = 1
      if not already then
        reached = add(event)
        entries[#entries + 1] = {reached, {'1', event}}
        if known['wait:' .. me] and leave(me) then
          wake()
        end
      end
    end
  end
  if not blind and wait == 0 then
    wanted = wants_standing()
  end
  keep()
  local answer = known_from and ground() or {}
  local numbers = {
    taken, lost and 1 or 0, wait, wanted, revived and 1 or 0, living, more and 1 or 0, #answer, id(now), reached
  }
  table.insert(answer, 1, table.concat(numbers, ' '))
  for _, entry in ipairs(entries) do
    local kept = entry[2]
    answer[#answer + 1] = entry[1]
    answer[#answer + 1] = kept and kept[1] == '1' and kept[2] or ''
  end
  return answer
end

local function last()
  local tail = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  return tail and tail[1] or born
end

local function put(standing, position)
  if before(position, born) or (upto and before(position, upto)) or before(last(), position) then
    return -- of a log that is no more, or older than what is known
  end
  upto = position
  redis.call('HSET', state, 'standing', standing, 'upto', upto, 'told', now)
  local oldest = id(now - HISTORY)
  if before(upto, oldest) then
    oldest = upto
  end
  if before(trimmed or born, oldest) then
    redis.call('XTRIM', log, 'MINID', '=', oldest)
    redis.call('HSET', state, 'trimmed', oldest)
  end
  redis.call('HSET', state, 'length', redis.call('XLEN', log))
end

local function write()
  local given_back, next_up, gone, last_before = false, false, false, last()
  if tonumber(ARGV[4]) > void then
    redis.call('HSET', state, 'void:' .. me, ARGV[4])
  end
  for at = 5, #ARGV, 3 do
    local kind, event, more = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    if kind == 'P' then
      put(event, more)
    else
      add(event)
    end
    if kind == 'S' then
      given_back = true
    elseif kind == 'W' then
      stand(event, more)
    elseif kind == 'G' and more == '1' then
      next_up, gone = end_of(me) or next_up, true
      given_back = true
    elseif kind == 'G' then
      next_up = leave(me) or next_up
    end
  end
  if given_back or next_up then
    wake()
  end
  keep()
  local missed = not gone and before(after, last_before) and first_in_line() == me
  return {missed and 1 or 0, revived and 1 or 0, tonumber(living)}
end

return verb == 'read' and read() or write()
