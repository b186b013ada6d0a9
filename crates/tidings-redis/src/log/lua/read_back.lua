-- A stretch of the log from a place on backwards, which is not part of it; newest first. Returns as read.lua does.
local before = ARGV[FIRST_ARGUMENT]
local budget = tonumber(ARGV[FIRST_ARGUMENT + 1])
if not trim(0, 0) then
  return {'again'}
end
local events = {}
local at_start = 0
while budget >= 0 and at_start == 0 do
  local chunk = call('XREVRANGE', LOG, before == '+' and before or '(' .. before, '-', 'COUNT', 32)
  for index, entry in ipairs(chunk) do
    if budget < 0 then
      break
    end
    local topics, meta, data = fields_of(entry)
    budget = budget - #topics - #meta - #data - EVENT_BYTES
    events[#events + 1] = entry
    before = entry[1]
    if index == #chunk and #chunk < 32 then
      at_start = 1
    end
  end
  if #chunk == 0 then
    at_start = 1
  end
end
return {current_epoch(), state.newest, at_start, events}
