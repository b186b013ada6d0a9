-- Deletes events, as far as they still exist: audience and position of each. Returns {how many,
-- deletions}.
local count = 0
for argument = FIRST_ARGUMENT, #ARGV, 2 do
  local audience, id = ARGV[argument], ARGV[argument + 1]
  local entry = call('XRANGE', LOG, id, id)[1]
  -- After a lost end another event may be at the position of the one that was found.
  local topics, meta = nil, nil
  if entry then
    topics, meta = fields_of(entry)
  end
  if topics == audience then
    account(entry)
    call('XDEL', LOG, id)
    call('ZADD', HOLES, int(number_of(meta)), id)
    count = count + 1
  end
end
if count > 0 then
  call('ZREMRANGEBYRANK', HOLES, 0, -HOLES_MAX - 1)
  save('deletions', state.deletions + 1)
  save_accounts()
  call('XADD', NOTIFIER, 'MAXLEN', '~', 16, '*', 'deleted', int(state.deletions))
end
return {count, int(state.deletions)}
