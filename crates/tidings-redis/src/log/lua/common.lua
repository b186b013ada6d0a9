-- What all scripts of the log share. A script runs atomically, so whatever it does is one step of
-- one order.
--
-- Keys, all in one slot:
--   LOG         stream of events; t: '+' or '-' (public or private) and the topics, m: number, id, type, retry, except, d: data
--   STATE       hash: epochs, newest, number, bytes, deletions, trimmed, dropped, forgotten, floor_bytes, key_bytes
--   FLOORS      sorted set of audiences (as in t) by the count of drops when the newest of their events was dropped
--   FLOORS_AT   hash: audience -> the newest of its events that is gone
--   IDEM        hash: idempotency key -> time, epoch, position of the first event, attempt, own id of that event
--   IDEM_ORDER  list of these keys, oldest first
--   IDS         sorted set, all of one score: publisher's id, NUL, position
--   HOLES       sorted set of deleted positions by their numbers
--   TOPICS      sorted set, all of one score: topic, NUL, position, for each topic of each event
--   NOTIFIER    short stream that wakes the waiting task: deletions, new epochs, canaries
--
-- Events have numbers without holes, and positions (ids of the stream), which grow by the clock of
-- Redis and never go back: in a millisecond that the clock has passed already, positions count on
-- from the newest one.
local LOG, STATE, FLOORS, FLOORS_AT, IDEM, IDEM_ORDER, IDS, HOLES, NOTIFIER, TOPICS = unpack(KEYS)
local call = redis.call

-- Arguments that every script takes first.
local fresh_epoch = ARGV[2]
local bytes_max = tonumber(ARGV[3])
local count_max = tonumber(ARGV[4]) or math.huge
local age_max = tonumber(ARGV[5])
local floors_max = tonumber(ARGV[6])
local floor_bytes_max = tonumber(ARGV[7])
local FIRST_ARGUMENT = 8

-- How many events one call drops, and how many keys it forgets; the caller calls again for the
-- rest.
local WORK_MAX = 1000
-- How many deleted positions are remembered.
local HOLES_MAX = 100000
-- How many events are read from the stream at once.
local STRETCH = 64
-- The memory of an event on top of its texts, and of a floor or a key.
local EVENT_BYTES = 100
local INDEX_BYTES = 200
-- The memory of a topic of an event in the index, on top of its name.
local TOPIC_BYTES = 100
-- The most digits of the number of an event.
local NUMBER_BYTES = 20
-- Events of one millisecond.
local SEQUENCE_MAX = 1048576

local function int(number)
  return string.format('%.0f', number)
end

local now = tonumber(ARGV[1])
if not now then
  local time = call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function parse(id)
  local ms, sequence = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(sequence)
end

local function is_before(id, other)
  local ms, sequence = parse(id)
  local other_ms, other_sequence = parse(other)
  return ms < other_ms or (ms == other_ms and sequence < other_sequence)
end

local function epoch_line(epoch, after, number)
  return epoch .. ' ' .. after .. ' ' .. int(number) .. '\n'
end

-- The state, of a new log if there is none.
local state = {}
local function load_state()
  local names = {'epochs', 'newest', 'number', 'bytes', 'deletions', 'trimmed', 'dropped', 'forgotten', 'floor_bytes', 'key_bytes'}
  local values = call('HMGET', STATE, unpack(names))
  for index, name in ipairs(names) do
    state[name] = values[index]
  end
  if not state.epochs then
    call('DEL', LOG, FLOORS, FLOORS_AT, IDEM, IDEM_ORDER, IDS, HOLES, TOPICS)
    state = {
      epochs = epoch_line(fresh_epoch, '0-0', 0), newest = '0-0', number = 0, bytes = 0, trimmed = '0-0', dropped = 0,
      forgotten = '0-0', floor_bytes = 0, key_bytes = 0,
      -- Larger than any count of an earlier log of this name.
      deletions = now,
    }
    for name, value in pairs(state) do
      call('HSET', STATE, name, type(value) == 'number' and int(value) or value)
    end
    call('XADD', NOTIFIER, 'MAXLEN', '~', 16, '*', 'epoch', fresh_epoch)
  end
  for _, name in ipairs({'number', 'bytes', 'deletions', 'dropped', 'floor_bytes', 'key_bytes'}) do
    state[name] = tonumber(state[name])
  end
end
load_state()

local function save(name, value)
  state[name] = value
  call('HSET', STATE, name, type(value) == 'number' and int(value) or value)
end

local function current_epoch()
  return string.match(state.epochs, '(%x+) %S+ %S+\n$')
end

-- The fields of an event are always written in this order.
local function fields_of(entry)
  local fields = entry[2]
  return fields[2], fields[4], fields[6]
end

local function own_id(meta)
  return string.match(meta, '^%d+\n([^\n]*)\n')
end

local function number_of(meta)
  return tonumber(string.match(meta, '^%d+'))
end

local function topics_of(audience)
  return string.gmatch(string.sub(audience, 2), '[^\n]+')
end

local function weight(audience, meta, data)
  local own = own_id(meta)
  local bytes = #audience + #meta + #data + EVENT_BYTES + (own ~= '' and #own + INDEX_BYTES or 0)
  for topic in topics_of(audience) do
    bytes = bytes + #topic + TOPIC_BYTES
  end
  return bytes
end

-- Positions in an index have one length, so that they sort as texts.
local PLACE_BYTES = 23

local function place_of(ms, sequence)
  return string.format('%015.0f-%07.0f', ms, sequence)
end

local function index_of(name, id)
  return name .. '\0' .. place_of(parse(id))
end

local function place_in(indexed)
  local ms, sequence = parse(string.sub(indexed, -PLACE_BYTES))
  return int(ms) .. '-' .. int(sequence)
end

-- Remembers for its audience that this event is gone.
local function raise_floor(id, audience)
  local known = call('HGET', FLOORS_AT, audience)
  if known and not is_before(known, id) then
    return
  end
  if not known then
    state.floor_bytes = state.floor_bytes + #audience + INDEX_BYTES
  end
  state.dropped = state.dropped + 1
  call('HSET', FLOORS_AT, audience, id)
  call('ZADD', FLOORS, int(state.dropped), audience)
end

-- Floors are bounded: of the audiences that were untouched the longest, only the position is kept
-- up to which something may be gone.
local function bound_floors()
  local count = call('ZCARD', FLOORS)
  while count > floors_max or state.floor_bytes > floor_bytes_max do
    local audience = call('ZPOPMIN', FLOORS)[1]
    if not audience then
      break
    end
    local id = call('HGET', FLOORS_AT, audience)
    call('HDEL', FLOORS_AT, audience)
    state.floor_bytes = state.floor_bytes - #audience - INDEX_BYTES
    if is_before(state.forgotten, id) then
      state.forgotten = id
    end
    count = count - 1
  end
end

-- Accounts for an event that is removed, by retention or by deletion.
local function account(entry)
  local topics, meta, data = fields_of(entry)
  raise_floor(entry[1], topics)
  state.bytes = state.bytes - weight(topics, meta, data)
  for topic in topics_of(topics) do
    call('ZREM', TOPICS, index_of(topic, entry[1]))
  end
  local own = own_id(meta)
  if own ~= '' then
    call('ZREM', IDS, index_of(own, entry[1]))
  end
end

local function save_accounts()
  bound_floors()
  call('HSET', STATE, 'bytes', int(state.bytes), 'dropped', int(state.dropped), 'forgotten', state.forgotten, 'floor_bytes', int(state.floor_bytes))
end

-- Drops the oldest events until this much more fits and nothing is too old. False if that is more
-- than one call may do.
local function trim(more_bytes, more_count)
  local count = call('XLEN', LOG)
  local last, last_number
  local work = 0
  local done = false
  while not done and count > 0 and work < WORK_MAX do
    local is_over = state.bytes + more_bytes > bytes_max or count + more_count > count_max
    if not is_over and not age_max then
      break
    end
    local front = call('XRANGE', LOG, last and '(' .. last or '-', '+', 'COUNT', is_over and 8 or 1)
    done = #front == 0
    for _, entry in ipairs(front) do
      is_over = state.bytes + more_bytes > bytes_max or count + more_count > count_max
      if not is_over and not (age_max and parse(entry[1]) < now - age_max) then
        done = true
        break
      end
      account(entry)
      count = count - 1
      work = work + 1
      last, last_number = entry[1], number_of(entry[2][4])
    end
  end
  if last then
    local ms, sequence = parse(last)
    call('XTRIM', LOG, 'MINID', '=', int(ms) .. '-' .. int(sequence + 1))
    save('trimmed', last)
    save_accounts()
    call('ZREMRANGEBYSCORE', HOLES, '-inf', int(last_number))
  end
  return done or count == 0 or work < WORK_MAX
end

-- The start of a range after a position (or, backwards, before it) at the next event of the topics
-- in the arguments from this one on: at the very next event if there are none. Nothing if there is
-- no such event.
local function next_of_topics(first_topic, id, is_backwards)
  if first_topic > #ARGV then
    return '(' .. id
  end
  local nearest
  for argument = first_topic, #ARGV do
    local topic = ARGV[argument]
    local here = '(' .. index_of(topic, id)
    local member
    if is_backwards then
      member = call('ZREVRANGEBYLEX', TOPICS, here, '(' .. topic .. '\0', 'LIMIT', 0, 1)[1]
    else
      member = call('ZRANGEBYLEX', TOPICS, here, '(' .. topic .. '\1', 'LIMIT', 0, 1)[1]
    end
    local found = member and place_in(member)
    if found and (not nearest or is_before(found, nearest) ~= is_backwards) then
      nearest = found
    end
  end
  return nearest
end

-- Collects events up to a weight, from stretches that are requested after the last one. The second
-- result is 1 if nothing is left after them, else 0.
local function gather(budget, last, stretch_behind)
  local events = {}
  while budget >= 0 do
    local stretch = stretch_behind(last)
    for _, entry in ipairs(stretch) do
      if budget < 0 then
        return events, 0
      end
      local topics, meta, data = fields_of(entry)
      budget = budget - #topics - #meta - #data - EVENT_BYTES
      events[#events + 1] = entry
      last = entry[1]
    end
    if #stretch < STRETCH then
      return events, 1
    end
  end
  return events, 0
end
