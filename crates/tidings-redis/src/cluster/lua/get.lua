-- The value of a key, or nothing.
return holds(ARGV[1]) and call('HGET', VALUES, ARGV[1])
