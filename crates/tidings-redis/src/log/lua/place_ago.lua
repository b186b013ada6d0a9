-- The newest position that is older than the given milliseconds, '' if there is none, or {'again'}.
if not trim(0, 0) then
  return {'again'}
end
local before = now - tonumber(ARGV[FIRST_ARGUMENT])
if before <= 0 then
  return {''}
end
local entry = call('XREVRANGE', LOG, '(' .. int(before) .. '-0', '-', 'COUNT', 1)[1]
return {entry and entry[1] or ''}
