-- A stretch of the log: the position before it, how many bytes, the version of the floors that the
-- reader knows, and the topics that it requests, none for all. Events of other topics may be
-- included.
-- Returns {epoch, newest, at_end, version, forgotten, {audience, position, …}, events}, or
-- {'again'}.
local FLOORS_AT_ONCE = 1000
local after = ARGV[FIRST_ARGUMENT]
local budget = tonumber(ARGV[FIRST_ARGUMENT + 1])
local version = tonumber(ARGV[FIRST_ARGUMENT + 2])
local first_topic = FIRST_ARGUMENT + 3
if not trim(0, 0) then
  return {'again'}
end

local changed = call('ZRANGEBYSCORE', FLOORS, '(' .. int(version), '+inf', 'WITHSCORES', 'LIMIT', 0, FLOORS_AT_ONCE)
local floors = {}
for index = 1, #changed, 2 do
  floors[index] = changed[index]
  floors[index + 1] = call('HGET', FLOORS_AT, changed[index])
end
if #changed == 2 * FLOORS_AT_ONCE then
  -- There are more: return what was found so far, and no events yet.
  return {current_epoch(), state.newest, 0, changed[#changed], state.forgotten, floors, {}}
end

local events, at_end = gather(budget, after, function(last)
  local from = next_of_topics(first_topic, last, false)
  return from and call('XRANGE', LOG, from, '+', 'COUNT', STRETCH) or {}
end)
return {current_epoch(), state.newest, at_end, int(state.dropped), state.forgotten, floors, events}
