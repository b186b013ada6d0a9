-- Returns {epochs, oldest position or '', newest position, its number, deletions}, or {'again'}.
if not trim(0, 0) then
  return {'again'}
end
local front = call('XRANGE', LOG, '-', '+', 'COUNT', 1)[1]
return {state.epochs, front and front[1] or '', state.newest, int(state.number), int(state.deletions)}
