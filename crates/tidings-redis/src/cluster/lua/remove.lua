-- Removes a key.
expire()
if call('HEXISTS', VALUES, ARGV[1]) == 1 then
  remove(ARGV[1])
end
return 1
