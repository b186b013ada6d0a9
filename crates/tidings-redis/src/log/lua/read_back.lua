-- A stretch of the log backwards from a position, which is not part of it; newest first: the
-- position, how many bytes, and topics as for read.lua. Returns the same as read.lua.
local before = ARGV[FIRST_ARGUMENT]
local budget = tonumber(ARGV[FIRST_ARGUMENT + 1])
if not trim(0, 0) then
  return {'again'}
end
local events, at_start = gather(budget, before, function(last)
  local from = next_of_topics(FIRST_ARGUMENT + 2, last, true)
  return from and call('XREVRANGE', LOG, from, '-', 'COUNT', STRETCH) or {}
end)
return {current_epoch(), state.newest, at_start, events}
