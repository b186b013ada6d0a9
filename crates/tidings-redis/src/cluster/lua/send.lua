-- Sends a message to everybody.
call('PUBLISH', MESSAGES, ARGV[1])
return 1
