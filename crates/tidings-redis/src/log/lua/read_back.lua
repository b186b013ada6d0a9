-- A stretch of the log from a place on backwards, which is not part of it; newest first. Returns as read.lua does.
local before = ARGV[FIRST_ARGUMENT]
local budget = tonumber(ARGV[FIRST_ARGUMENT + 1])
if not trim(0, 0) then
  return {'again'}
end
local events, at_start = gather(budget, before, function(last)
  return call('XREVRANGE', LOG, '(' .. last, '-', 'COUNT', STRETCH)
end)
return {current_epoch(), state.newest, at_start, events}
