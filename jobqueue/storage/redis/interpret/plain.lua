-- Guards, and all operations but Move.
local function plains()
  local function lock_of(name)
    local held = call('HMGET', name, 'token', 'until', 'fence')
    return held[1], integer(held[2] or '0') or 0, integer(held[3] or '0') or 0 -- a broken end is over: every lock ends
  end

  function holds.A(guard)
    return call('HEXISTS', guard.key, guard[1]) == 0
  end

  function holds.F(guard)
    return call('HGET', guard.key, guard[1]) == guard[2]
  end

  function holds.M(guard)
    return call('ZSCORE', guard.key, guard[1]) ~= false
  end

  function holds.E(guard)
    return call('ZCARD', guard.key) == 0
  end

  function holds.U(guard)
    local token, till, fence = lock_of(guard.key)
    if not token then
      return true
    end
    if token == guard[1] then
      return till > 0
    end
    return till <= tonumber(guard[2]) and fence <= tonumber(guard[3])
  end

  function holds.L(guard)
    local token, till = lock_of(guard.key)
    return token == guard[1] and till > tonumber(guard[2])
  end

  local GUARD_ARGUMENTS = { A = 1, F = 2, M = 1, E = 0, U = 3, L = 2 }
  local LOOK = { A = { 'HEXISTS' }, F = { 'HGET' }, M = { 'ZSCORE' }, E = { 'ZCARD' }, U = { 'HMGET' }, L = { 'HMGET' } }

  function parse.guard()
    local code = take()
    local guard = { code = code, key = key(number(), (code == 'M' or code == 'E') and 'zset' or 'hash') }
    for i = 1, GUARD_ARGUMENTS[code] do
      guard[i] = take()
    end
    need(LOOK[code]) -- what it runs
    return guard
  end

  -- Operations over many values that are one command of the server.
  local function many(code, kind, width, command)
    local commands = { command }
    parse[code] = function()
      local name, n = key(number(), kind), number() * width
      need(commands)
      return { key = name, n = n, base = skip(n) }
    end
    run[code] = function(op)
      send(command, op.key, ARGV, op.base + 1, op.base + op.n)
      return false
    end
  end

  many('P', 'list', 1, 'RPUSH')
  many('Z', 'zset', 2, 'ZADD')
  many('z', 'zset', 1, 'ZREM')
  many('H', 'hash', 2, 'HSET')
  many('h', 'hash', 1, 'HDEL')

  function parse.R()
    key(5, 'list')
    need(STORE.list, WAKE)
    return {}
  end

  function run.R()
    ring()
    return false
  end

  local ADD = { 'HGET', 'HINCRBY' }

  parse['+'] = function()
    need(ADD)
    return { key = key(number(), 'hash'), field = take(), amount = take() }
  end

  run['+'] = function(op)
    call('HINCRBY', op.key, op.field, op.amount)
    return false
  end

  local LOCK = { 'HMGET', 'HSET', 'PEXPIRE' }

  function parse.D()
    need(LOCK)
    return { key = key(number(), 'hash'), token = take() }
  end

  function run.D(op)
    if lock_of(op.key) == op.token then
      call('HSET', op.key, 'until', 0)
    end
    return false
  end

  function parse.T()
    need(LOCK)
    return { key = key(number(), 'hash'), token = take(), now = number(), till = number() }
  end

  function run.T(op)
    local token, till, fence = lock_of(op.key)
    if token == op.token then
      till = math.max(till, op.till)
    else
      till, fence = op.till, math.max(fence + 1, op.now)
    end
    call('HSET', op.key, 'token', op.token, 'until', till, 'fence', fence)
    -- Garbage collection an hour after its end. A lock that ended is free anyway; but the token that it remembers keeps a late
    -- sending from taking it for nobody, and none is under way for longer.
    call('PEXPIRE', op.key, math.max(till - op.now, 0) + 3600000)
    return fence
  end

  -- flags: l target is a list, w wake, m at most so many in the list
  function parse.S()
    local flags = take()
    local to_list, wake = flags:find('l', 1, true), flags:find('w', 1, true)
    local target, score, n = key(number(), to_list and 'list' or 'zset'), take(), number()
    key(1, 'hash')
    key(4, 'hash')
    need(STORE.records)
    need(STORE.counters, COUNTERS)
    need(to_list and STORE.list or STORE.set, target)
    if wake then
      key(5, 'list')
      need(STORE.list, WAKE)
    end
    local op = {
      target = target, to_list = to_list, wake = wake, score = score, n = n,
      ids = skip(n), records = skip(n), scores = score == '*' and skip(n),
    }
    if flags:find('m', 1, true) then
      need(BOUND.list, target)
      need(BOUND.records)
      op.most = number()
    end
    return op
  end

  function run.S(op)
    local states, rings = store(RECORDS, COUNTERS, op.target, op.to_list, op.n, op.ids, op.records, op.score, op.scores)
    if op.wake and rings then
      ring()
    end
    return states
  end
end
