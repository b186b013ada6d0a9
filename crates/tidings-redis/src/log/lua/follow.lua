-- What a tail brings next: the epoch that the caller knows, the deletions that it has reported, the
-- position and the number that it has reached, bytes, and the position and number up to which to go
-- ('' for the end).
-- Returns {'epoch', epoch}, {'deleted', serial}, {'skipped', position, number}, {'events', events},
-- {'end'} or {'again'}.
local epoch, deletions = ARGV[FIRST_ARGUMENT], tonumber(ARGV[FIRST_ARGUMENT + 1])
local after, number = ARGV[FIRST_ARGUMENT + 2], tonumber(ARGV[FIRST_ARGUMENT + 3])
local budget = tonumber(ARGV[FIRST_ARGUMENT + 4])
local through = ARGV[FIRST_ARGUMENT + 5]
local through_number = tonumber(ARGV[FIRST_ARGUMENT + 6])
if not trim(0, 0) then
  return {'again'}
end
if current_epoch() ~= epoch then
  return {'epoch', current_epoch()}
end
if state.deletions > deletions then
  return {'deleted', int(state.deletions)}
end
if through == '' then
  through, through_number = state.newest, state.number
end
if not is_before(after, through) then
  return {'end'}
end

local events = {}
while budget >= 0 do
  local chunk = call('XRANGE', LOG, '(' .. after, through, 'COUNT', STRETCH)
  for _, entry in ipairs(chunk) do
    if budget < 0 then
      break
    end
    local topics, meta, data = fields_of(entry)
    local expected = number + 1
    number = number_of(meta)
    if number ~= expected then
      if #events > 0 then
        return {'events', events}
      end
      -- Something between the two is gone. Its last position is that of a deletion, or of what
      -- retention dropped.
      local hole = call('ZREVRANGEBYSCORE', HOLES, '(' .. int(number), '-inf', 'LIMIT', 0, 1)[1]
      local last = state.trimmed
      if hole and is_before(last, hole) then
        last = hole
      end
      if not is_before(after, last) then
        -- Numbers were reused after a lost end: it is only known that these two do not follow one
        -- another.
        return {'follows', entry[1], int(number - 1)}
      end
      return {'skipped', last, int(number - 1)}
    end
    budget = budget - #topics - #meta - #data - EVENT_BYTES
    events[#events + 1] = entry
    after = entry[1]
  end
  if #chunk == 0 then
    break
  end
end
if #events > 0 then
  return {'events', events}
end
-- Everything up to the end is gone.
return {'skipped', through, int(through_number)}
