-- Holds the lease of this number for the given milliseconds from now on. Returns whether it was
-- still held.
if call('GET', LEASE) ~= ARGV[1] then
  return 0
end
return call('PEXPIRE', LEASE, ARGV[2])
