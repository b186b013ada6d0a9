-- Deletes the events of a topic in a stretch of bounded size: topic, place before it, place up to which to go.
-- Returns {how many, serial, where the next stretch begins or ''}.
local BYTES_AT_ONCE = 4194304
local EVENTS_AT_ONCE = 2000
local topic = ARGV[FIRST_ARGUMENT]
local after, through = ARGV[FIRST_ARGUMENT + 1], ARGV[FIRST_ARGUMENT + 2]
if through == '' then
  through = state.newest
end

local looked, bytes, count = 0, 0, 0
local next = ''
while next == '' do
  local chunk = call('XRANGE', LOG, '(' .. after, through, 'COUNT', STRETCH)
  for _, entry in ipairs(chunk) do
    local topics, meta, data = fields_of(entry)
    if string.find('\n' .. string.sub(topics, 2) .. '\n', '\n' .. topic .. '\n', 1, true) then
      account(entry)
      call('XDEL', LOG, entry[1])
      call('ZADD', HOLES, int(number_of(meta)), entry[1])
      count = count + 1
    end
    looked = looked + 1
    bytes = bytes + #data
    after = entry[1]
  end
  if #chunk < STRETCH then
    break
  end
  if looked >= EVENTS_AT_ONCE or bytes >= BYTES_AT_ONCE then
    next = after
  end
end
if count > 0 then
  call('ZREMRANGEBYRANK', HOLES, 0, -HOLES_MAX - 1)
  save('deletions', state.deletions + 1)
  save_accounts()
  call('XADD', BELL, 'MAXLEN', '~', 16, '*', 'deleted', int(state.deletions))
end
return {count, int(state.deletions), next, through}
