-- Gives the lease of this number back.
if call('GET', LEASE) == ARGV[1] then
  call('DEL', LEASE)
end
return 1
