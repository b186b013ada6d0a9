-- Events with a publisher's id, oldest first, up to the first public one: id, and the position
-- before them or ''.
-- Returns {{position, topics}, …}, or {'again'}.
local AT_ONCE = 64
local own, after = ARGV[FIRST_ARGUMENT], ARGV[FIRST_ARGUMENT + 1]
if not trim(0, 0) then
  return {'again'}
end
local from = after == '' and '[' .. own .. '\0' or '(' .. index_of(own, after)
local found = {}
for _, member in ipairs(call('ZRANGEBYLEX', IDS, from, '[' .. own .. '\0\255', 'LIMIT', 0, AT_ONCE)) do
  local id = place_in(member)
  local entry = call('XRANGE', LOG, id, id)[1]
  if entry then
    local topics = fields_of(entry)
    found[#found + 1] = {id, topics}
    if string.sub(topics, 1, 1) == '+' then
      break
    end
  end
end
return found
