-- Mending of one id that something other than a batch broke.
local function mends()
  local MEND = { 'HDEL', 'HGET', 'HSET', 'LPOS', 'LREM', 'ZADD', 'ZREM', 'ZSCORE' } -- what it may run

  -- target ready waiting working dead id had-record record-seen new-record score
  function parse.E()
    local op = { target = key(number(), 'zset'), ready = key(number(), 'list'), sets = {} }
    for i = 1, 3 do
      op.sets[i] = key(number(), 'zset')
    end
    key(1, 'hash')
    key(2, 'hash')
    need(MEND)
    op.id, op.had, op.seen, op.record, op.score = take(), take() == '1', take(), take(), take()
    return op
  end

  function run.E(op)
    local id = op.id
    if call('HGET', RECORDS, id) ~= (op.had and op.seen) then
      return 0
    end
    local times, within, n = #call('LPOS', op.ready, id, 'COUNT', 2), {}, 0
    for i = 1, 3 do
      within[i] = call('ZSCORE', op.sets[i], id)
      n = n + (within[i] and 1 or 0)
    end
    local whole = n + times == (op.had and 1 or 0)
    if whole then
      return within[2] and 0 or call('HDEL', CLAIMS, id)
    end
    call('HDEL', CLAIMS, id)
    if times > 0 then
      call('LREM', op.ready, 0, id)
    end
    for i = 1, 3 do
      if within[i] then
        call('ZREM', op.sets[i], id)
      end
    end
    if op.had then
      call('HSET', RECORDS, id, op.record)
      call('ZADD', op.target, op.score, id)
    end
    return 1
  end
end
