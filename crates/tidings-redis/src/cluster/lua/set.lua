-- Sets a key for some time: key, value, milliseconds.
expire()
local key, value = ARGV[1], ARGV[2]
local before = call('HGET', VALUES, key)
call('HSET', VALUES, key, value)
call('ZADD', UNTIL, int(now + tonumber(ARGV[3])), key)
call('ZADD', NAMES, 0, key)
if before ~= value then
  call('PUBLISH', CHANGES, key)
end
return 1
