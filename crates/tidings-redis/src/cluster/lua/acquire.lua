-- Takes a lease for the given milliseconds. Returns its number, or nothing.
if call('EXISTS', LEASE) == 1 then
  return false
end
-- Also larger than any number before a loss of all data.
local fence = int(math.max(tonumber(call('GET', FENCE) or 0) + 1, now))
call('SET', FENCE, fence)
call('SET', LEASE, fence, 'PX', ARGV[1])
return fence
