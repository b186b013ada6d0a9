-- Appends batches, each all or nothing: keys_max, keys_age_max, key_bytes_max, then of each batch its number of events, with the
-- attempt and the key behind it if it has one, and topics, meta without its number, and data of each event.
-- Returns for each batch {'new', epoch, last position}, {'duplicate', epoch, position, attempt, own id} or {'full', why}; for the
-- first ones only, if the log cannot keep all of them together: the caller calls again with the others. Or returns {'again'}.
--
-- The attempt tells a batch that is resent by a process that does not know its outcome from one
-- that a publisher repeats.
local keys_max = tonumber(ARGV[FIRST_ARGUMENT])
local keys_age_max = tonumber(ARGV[FIRST_ARGUMENT + 1])
local key_bytes_max = tonumber(ARGV[FIRST_ARGUMENT + 2])
local epoch = current_epoch()
-- Members that one command adds to an index.
local MEMBERS_MAX = 100

local function forget_oldest_key()
  local oldest = call('LPOP', IDEM_ORDER)
  local record = oldest and call('HGET', IDEM, oldest)
  if record then
    call('HDEL', IDEM, oldest)
    state.key_bytes = state.key_bytes - #oldest - #record - INDEX_BYTES
  end
end

-- Forgets the keys that are too old. False if that is more than one call may do.
local function expire_keys()
  for _ = 1, WORK_MAX do
    local oldest = call('LINDEX', IDEM_ORDER, 0)
    local record = oldest and call('HGET', IDEM, oldest)
    if not record or tonumber(string.match(record, '^%d+')) >= now - keys_age_max then
      return true
    end
    forget_oldest_key()
  end
  return false
end

local function duplicate(record)
  local known_epoch, id, by, own = string.match(record, '^%d+\n(%x+)\n([%d-]+)\n(%x+)\n(.*)$')
  return {'duplicate', known_epoch, id, by, own}
end

local function own_id_in(meta_without_number)
  return string.match(meta_without_number, '^\n([^\n]*)\n')
end

-- The same as of all scripts, without the number.
local function weight_of(topics, meta, data)
  local count = string.find(topics, '\n', 2, true) and select(2, string.gsub(topics, '\n', '')) + 1 or 1
  local own = own_id_in(meta)
  return 2 * #topics - count + #meta + #data + EVENT_BYTES + count * TOPIC_BYTES + (own ~= '' and #own + INDEX_BYTES or 0)
end

-- Decides what becomes of each batch: an answer, or a part of what is appended.
local answers, batches, batch_of_key = {}, {}, {}
local bytes, count = 0, 0
local at = FIRST_ARGUMENT + 3
while at <= #ARGV do
  local batch = {first_event = at + 1, bytes = 0, count = tonumber(ARGV[at])}
  if not batch.count then
    batch.count, batch.attempt, batch.key = string.match(ARGV[at], '^(%d+) (%x+) (.+)$')
    batch.count = tonumber(batch.count)
    if not next(batch_of_key) and not expire_keys() then
      break
    end
  end
  at = at + 1 + 3 * batch.count
  local record = batch.key and not batch_of_key[batch.key] and call('HGET', IDEM, batch.key)
  if record then
    answers[#answers + 1] = duplicate(record)
  elseif batch.key and batch_of_key[batch.key] then
    answers[#answers + 1] = batch_of_key[batch.key]
  else
    for event = batch.first_event, at - 1, 3 do
      batch.bytes = batch.bytes + weight_of(ARGV[event], ARGV[event + 1], ARGV[event + 2]) + NUMBER_BYTES
    end
    if batch.bytes > bytes_max then
      answers[#answers + 1] =
        {'full', 'the batch takes ' .. int(batch.bytes) .. ' bytes and the log keeps at most ' .. int(bytes_max)}
    elseif batch.count > count_max then
      answers[#answers + 1] =
        {'full', 'the batch has ' .. int(batch.count) .. ' events and the log keeps at most ' .. int(count_max)}
    elseif bytes + batch.bytes > bytes_max or count + batch.count > count_max then
      break
    else
      bytes, count = bytes + batch.bytes, count + batch.count
      batches[#batches + 1] = batch
      answers[#answers + 1] = batch
      if batch.key then
        batch_of_key[batch.key] = batch
      end
    end
  end
end
if #answers == 0 or not trim(bytes, count) then
  save('key_bytes', state.key_bytes)
  return {'again'}
end

local indexed = {[TOPICS] = {}, [IDS] = {}}
local function flush(index)
  if #indexed[index] > 0 then
    call('ZADD', index, unpack(indexed[index]))
    indexed[index] = {}
  end
end

local function add(index, name, place)
  local members = indexed[index]
  members[#members + 1] = 0
  members[#members + 1] = name .. '\0' .. place
  if #members >= 2 * MEMBERS_MAX then
    flush(index)
  end
end

local ms, sequence = parse(state.newest)
for _, batch in ipairs(batches) do
  for event = batch.first_event, batch.first_event + 3 * batch.count - 1, 3 do
    if now > ms then
      ms, sequence = now, 0
    elseif sequence + 1 < SEQUENCE_MAX then
      sequence = sequence + 1
    else
      ms, sequence = ms + 1, 0
    end
    local id, place = string.format('%.0f-%.0f', ms, sequence), place_of(ms, sequence)
    batch.first = batch.first or id
    state.number = state.number + 1
    local number = int(state.number)
    local topics, meta, data = ARGV[event], ARGV[event + 1], ARGV[event + 2]
    call('XADD', LOG, id, 't', topics, 'm', number .. meta, 'd', data)
    state.bytes = state.bytes + weight_of(topics, meta, data) + #number
    for topic in topics_of(topics) do
      add(TOPICS, topic, place)
    end
    local own = own_id_in(meta)
    if own ~= '' then
      add(IDS, own, place)
    end
    state.newest = id
  end
  batch.last = state.newest
end
flush(TOPICS)
flush(IDS)

for _, batch in ipairs(batches) do
  if batch.key then
    local own = own_id_in(ARGV[batch.first_event + 1])
    batch.record = int(now) .. '\n' .. epoch .. '\n' .. batch.first .. '\n' .. batch.attempt .. '\n' .. own
    call('HSET', IDEM, batch.key, batch.record)
    state.key_bytes = state.key_bytes + #batch.key + #batch.record + INDEX_BYTES
    local keys = call('RPUSH', IDEM_ORDER, batch.key)
    while keys > keys_max or state.key_bytes > key_bytes_max do
      forget_oldest_key()
      keys = keys - 1
    end
  end
end
call('HSET', STATE, 'newest', state.newest, 'number', int(state.number), 'bytes', int(state.bytes), 'key_bytes', int(state.key_bytes))

local has_answered = {}
for index, answer in ipairs(answers) do
  if answer.first_event and has_answered[answer] then
    answers[index] = duplicate(answer.record)
  elseif answer.first_event then
    answers[index] = {'new', epoch, answer.last}
    has_answered[answer] = true
  end
end
return answers
