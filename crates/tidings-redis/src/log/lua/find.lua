-- Finds the events of a topic in a stretch of bounded size: topic, position before it, position up
-- to which to go ('' for the end).
-- Returns {deletions, where the next stretch begins or '', position up to which to go, {audience,
-- position, …}}.
local BYTES_AT_ONCE = 4194304
local EVENTS_AT_ONCE = 2000
local topic = ARGV[FIRST_ARGUMENT]
local after, through = ARGV[FIRST_ARGUMENT + 1], ARGV[FIRST_ARGUMENT + 2]
if through == '' then
  through = state.newest
end

local looked, bytes = 0, 0
local found = {}
local next = ''
while next == '' do
  local chunk = call('XRANGE', LOG, '(' .. after, through, 'COUNT', STRETCH)
  for _, entry in ipairs(chunk) do
    local topics, _, data = fields_of(entry)
    if string.find('\n' .. string.sub(topics, 2) .. '\n', '\n' .. topic .. '\n', 1, true) then
      found[#found + 1] = topics
      found[#found + 1] = entry[1]
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
return {int(state.deletions), next, through, found}
