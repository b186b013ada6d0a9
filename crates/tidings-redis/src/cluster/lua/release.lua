-- Releases the lease of this number.
if call('GET', LEASE) == ARGV[1] then
  call('DEL', LEASE)
end
return 1
