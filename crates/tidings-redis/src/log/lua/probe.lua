-- Checks that the history that the caller knows is still there, and starts a new epoch if it is
-- not; then sends a canary.
-- Arguments: the newest epoch that the caller knows, the epochs that it knew before, the position,
-- the topics and the text (meta without its number, and data) of the newest event that it has read
-- or that was acknowledged to it in that epoch (or ''), the deletions that it knows of, and the
-- canary ('' for none).
-- Returns {epochs, newest position, its number, deletions, whether a new epoch was started, events,
-- bytes, position of the oldest event or '', position of the newest event or ''}.
--
-- The first caller starts the epoch, and the others find it: their epoch is then not the current
-- one any more.
local EPOCHS_MAX = 1000
local epoch, earlier = ARGV[FIRST_ARGUMENT], ARGV[FIRST_ARGUMENT + 1]
local id, topics, text = ARGV[FIRST_ARGUMENT + 2], ARGV[FIRST_ARGUMENT + 3], ARGV[FIRST_ARGUMENT + 4]
local deletions = tonumber(ARGV[FIRST_ARGUMENT + 5])
local canary = ARGV[FIRST_ARGUMENT + 6]

local function is_lost()
  if is_before(state.newest, id) then
    return true
  end
  local entry = call('XRANGE', LOG, id, id)[1]
  if entry then
    -- A master whose clock is behind may have given the position of a lost event to another one.
    local its_topics, meta, data = fields_of(entry)
    return its_topics ~= topics or string.match(meta, '^%d*(.*)$') .. data ~= text
  end
  -- It may have been dropped or deleted, which would be accounted for.
  local floor = call('HGET', FLOORS_AT, topics)
  local is_accounted_for = floor and not is_before(floor, id)
  return not is_accounted_for and is_before(state.forgotten, id)
end

local function end_of_log(range, from, to)
  local entry = call(range, LOG, from, to, 'COUNT', 1)[1]
  return entry and entry[1] or ''
end

local current = current_epoch()
local started = 0
local has_shrunk = false
if epoch == current then
  has_shrunk = state.deletions < deletions or (id ~= '' and is_lost())
elseif epoch ~= '' then
  -- A list of epochs that ends with one of the past has lost its end.
  has_shrunk = string.find(' ' .. earlier .. ' ', ' ' .. current .. ' ', 1, true) ~= nil
end
if has_shrunk then
  started = 1
  state.epochs = state.epochs .. epoch_line(fresh_epoch, state.newest, state.number)
  local _, count = string.gsub(state.epochs, '\n', '')
  if count > EPOCHS_MAX then
    state.epochs = string.gsub(state.epochs, '^[^\n]*\n', '', 1)
  end
  save('epochs', state.epochs)
  call('XADD', NOTIFIER, 'MAXLEN', '~', 16, '*', 'epoch', fresh_epoch)
end
if state.deletions < deletions and has_shrunk then
  -- Serials grow, whatever was lost.
  save('deletions', deletions)
end
if canary ~= '' then
  call('XADD', NOTIFIER, 'MAXLEN', '~', 16, '*', 'canary', canary)
end
return {state.epochs, state.newest, int(state.number), int(state.deletions), started, call('XLEN', LOG), int(state.bytes),
  end_of_log('XRANGE', '-', '+'), end_of_log('XREVRANGE', '+', '-')}
