-- Sends a message to all processes.
call('PUBLISH', MESSAGES, ARGV[1])
return 1
