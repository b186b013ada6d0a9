-- Those of some keys that exist. Returns {{key, value, remaining milliseconds}, …}.
expire()
local found = {}
for _, key in ipairs(ARGV) do
  local till = call('ZSCORE', UNTIL, key)
  if till and tonumber(till) > now then
    found[#found + 1] = {key, call('HGET', VALUES, key), int(tonumber(till) - now)}
  end
end
return found
