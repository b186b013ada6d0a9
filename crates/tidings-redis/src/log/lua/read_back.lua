-- A stretch of the log from a place on backwards, which is not part of it; newest first: the place, how many bytes, and topics as for read.lua.
-- Returns as that does.
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
