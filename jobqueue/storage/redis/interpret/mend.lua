-- Mending of one id that something other than a batch broke.
local function mends()
  local MEND = { 'HDEL', 'HEXISTS', 'HGET', 'HSET', 'HSTRLEN', 'LPOS', 'LREM', 'ZADD', 'ZREM', 'ZSCORE' } -- what it may run

  -- target ready waiting working dead id had-record record-seen new-record score
  -- had-record: 0 none | 1 this one | 2 one of this size, which stays
  function parse.E()
    local op = { target = key(number(), 'zset'), ready = key(number(), 'list'), sets = {} }
    for i = 1, 3 do
      op.sets[i] = key(number(), 'zset')
    end
    key(1, 'hash')
    key(2, 'hash')
    need(MEND)
    op.id, op.had, op.seen, op.record, op.score = take(), take(), take(), take(), take()
    return op
  end

  function run.E(op)
    local id = op.id
    if op.had == '2' then
      if call('HEXISTS', RECORDS, id) == 0 or call('HSTRLEN', RECORDS, id) ~= tonumber(op.seen) then
        return 0
      end
    elseif call('HGET', RECORDS, id) ~= (op.had == '1' and op.seen) then
      return 0
    end
    local times, within, n = #call('LPOS', op.ready, id, 'COUNT', 2), {}, 0
    for i = 1, 3 do
      within[i] = call('ZSCORE', op.sets[i], id)
      n = n + (within[i] and 1 or 0)
    end
    local whole = n + times == (op.had == '0' and 0 or 1)
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
    if op.had ~= '0' then
      if op.had == '1' then
        call('HSET', RECORDS, id, op.record)
      end
      call('ZADD', op.target, op.score, id)
    end
    return 1
  end
end
