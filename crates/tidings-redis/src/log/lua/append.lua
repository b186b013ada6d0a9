-- Appends a batch, all or nothing: key, keys_max, keys_age_max, key_bytes_max, the attempt, then topics, meta without its number, and data of
-- each event. Returns {'new', epoch, last position}, {'duplicate', epoch, position, attempt, own id}, {'full', why} or {'again'}.
local key = ARGV[FIRST_ARGUMENT]
local keys_max = tonumber(ARGV[FIRST_ARGUMENT + 1])
local keys_age_max = tonumber(ARGV[FIRST_ARGUMENT + 2])
local key_bytes_max = tonumber(ARGV[FIRST_ARGUMENT + 3])
-- Tells a batch that is resent by a process that does not know its outcome from one that a
-- publisher repeats.
local attempt = ARGV[FIRST_ARGUMENT + 4]
local first_event = FIRST_ARGUMENT + 5

local function forget_oldest_key()
  local oldest = call('LPOP', IDEM_ORDER)
  local record = oldest and call('HGET', IDEM, oldest)
  if record then
    call('HDEL', IDEM, oldest)
    state.key_bytes = state.key_bytes - #oldest - #record - INDEX_BYTES
  end
end

if key ~= '' then
  for work = 0, WORK_MAX do
    local oldest = call('LINDEX', IDEM_ORDER, 0)
    local record = oldest and call('HGET', IDEM, oldest)
    if not record or tonumber(string.match(record, '^%d+')) >= now - keys_age_max then
      break
    end
    if work == WORK_MAX then
      save('key_bytes', state.key_bytes)
      return {'again'}
    end
    forget_oldest_key()
  end
  local record = call('HGET', IDEM, key)
  if record then
    save('key_bytes', state.key_bytes)
    local epoch, id, by, own = string.match(record, '^%d+\n(%x+)\n([%d-]+)\n(%x+)\n(.*)$')
    return {'duplicate', epoch, id, by, own}
  end
end

local count = (#ARGV - first_event + 1) / 3
local bytes = 0
for index = 0, count - 1 do
  local at = first_event + 3 * index
  bytes = bytes + weight(ARGV[at], '0' .. ARGV[at + 1], ARGV[at + 2]) + 20
end
if bytes > bytes_max then
  return {'full', 'the batch takes ' .. int(bytes) .. ' bytes and the log keeps at most ' .. int(bytes_max)}
end
if count > count_max then
  return {'full', 'the batch has ' .. int(count) .. ' events and the log keeps at most ' .. int(count_max)}
end
if not trim(bytes, count) then
  return {'again'}
end

local ms, sequence = parse(state.newest)
local first
for index = 0, count - 1 do
  local at = first_event + 3 * index
  if now > ms then
    ms, sequence = now, 0
  elseif sequence + 1 < SEQUENCE_MAX then
    sequence = sequence + 1
  else
    ms, sequence = ms + 1, 0
  end
  local id = int(ms) .. '-' .. int(sequence)
  first = first or id
  state.number = state.number + 1
  local topics, meta, data = ARGV[at], int(state.number) .. ARGV[at + 1], ARGV[at + 2]
  call('XADD', LOG, id, 't', topics, 'm', meta, 'd', data)
  state.bytes = state.bytes + weight(topics, meta, data)
  for topic in topics_of(topics) do
    call('ZADD', TOPICS, 0, index_of(topic, id))
  end
  local own = own_id(meta)
  if own ~= '' then
    call('ZADD', IDS, 0, index_of(own, id))
  end
  state.newest = id
end

local epoch = current_epoch()
if key ~= '' then
  local own = own_id('0' .. ARGV[first_event + 1])
  local record = int(now) .. '\n' .. epoch .. '\n' .. first .. '\n' .. attempt .. '\n' .. own
  call('HSET', IDEM, key, record)
  state.key_bytes = state.key_bytes + #key + #record + INDEX_BYTES
  local keys = call('RPUSH', IDEM_ORDER, key)
  while keys > keys_max or state.key_bytes > key_bytes_max do
    forget_oldest_key()
    keys = keys - 1
  end
end
call('HSET', STATE, 'newest', state.newest, 'number', int(state.number), 'bytes', int(state.bytes), 'key_bytes', int(state.key_bytes))
return {'new', epoch, state.newest}
