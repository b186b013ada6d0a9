-- Keys with a prefix that follow a key, a bounded number of them: prefix, key or ''. Returns {{{key,
-- value, remaining milliseconds}, …}, last key that was looked at or ''}.
local AT_ONCE = 1000
expire()
local prefix, after = ARGV[1], ARGV[2]
local from = after == '' and '[' .. prefix or '(' .. after
-- No text holds this byte, so nothing with the prefix sorts after it.
local keys = call('ZRANGEBYLEX', NAMES, from, '[' .. prefix .. '\255', 'LIMIT', 0, AT_ONCE)
local found = {}
for _, key in ipairs(keys) do
  local till = tonumber(call('ZSCORE', UNTIL, key) or 0)
  if till > now then
    found[#found + 1] = {key, call('HGET', VALUES, key), int(till - now)}
  end
end
return {found, #keys == AT_ONCE and keys[#keys] or ''}
