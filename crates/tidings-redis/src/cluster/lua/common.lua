-- What all scripts of the cluster share. Keys, all in one slot:
--   LEASE   the number of the acquisition that holds the lease in question, for as long as it does
--   FENCE   the number of the last acquisition
--   VALUES  hash: key -> value
--   UNTIL   sorted set of keys by the millisecond until which they hold
--   NAMES   sorted set of keys, all of one score
--   CHANGES and MESSAGES are channels.
local LEASE, FENCE, VALUES, UNTIL, NAMES, CHANGES, MESSAGES = unpack(KEYS)
local call = redis.call

-- How many expired keys one call removes; the next call continues.
local WORK_MAX = 1000

local function int(number)
  return string.format('%.0f', number)
end

local time = call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function remove(key)
  call('HDEL', VALUES, key)
  call('ZREM', UNTIL, key)
  call('ZREM', NAMES, key)
  call('PUBLISH', CHANGES, key)
end

-- Whether a key exists and has not expired.
local function holds(key)
  local till = call('ZSCORE', UNTIL, key)
  return till and tonumber(till) > now
end

local function expire()
  for _, key in ipairs(call('ZRANGEBYSCORE', UNTIL, '-inf', int(now), 'LIMIT', 0, WORK_MAX)) do
    remove(key)
  end
end
