-- Applies batches of one scope, in order, each whole or not at all.
--
-- Registered twice by compile.py: under "#!lua" for calls that store new things (refused by a full server) and under
-- "#!lua flags=allow-oom" for calls that only move, extend, finish …, so that a full server drains.
--
-- KEYS   1 records  2 claims  3 requests  4 counters  5 wake, then every other key that the batches name. An operation
--        names a key by its index; 0 is none. All of them share the hash tag of the scope.
-- ARGV   read with a cursor: number of batches, then each batch:
--          number of guards, guards, number of operations, operations
--        guard  A key field | F key field value | M key member | U lock token now fence | L lock token now
--        op     P list n values              Z set n (score member)*    z set n members
--               H hash n (field value)*      h hash n fields            + hash field amount
--               T lock token now until       D lock token
--               S flags target score n ids records [scores]                       Put; score: "" | number | "*" (scores follow)
--               V flags source target count-hash count-field pick expect score stamp once n ids records     Move, see `parse.V`
-- reply  per batch {0, answer per op} applied | {1, indexes of failed guards} refused | {2, message} a key or value of the
--        wrong kind. Answers: S 1 (all stored) or a letter per record (n stored, s same, d different) | T fence |
--        V {ids or 1 (all of `These`), records, missing, fence, left, next or false} | others false (never nil: it ends a table).
--
-- A Lua error does not undo what was written before it. So a batch is parsed and checked completely, types of keys and
-- numbers included, before its first write.

local KEYS, ARGV, call, unpack, format = KEYS, ARGV, redis.call, unpack, string.format
local RECORDS, CLAIMS, REQUESTS, COUNTERS, WAKE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local CHUNK = 1000 -- arguments per command; `unpack` fails near 8000
local LIMIT = 9007199254740992 -- 2^53
local at = 1
local problem, kinds -- of the batch being parsed

local function take()
  local value = ARGV[at]
  at = at + 1
  return value
end

local function number()
  return tonumber(take())
end

-- Skips n arguments; answers the index before the first of them.
local function skip(n)
  local base = at - 1
  at = at + n
  return base
end

-- The key of that index; notes a problem unless it holds this kind, or nothing.
local function key(index, kind)
  local name = KEYS[index]
  local seen = kinds[name]
  if not seen then
    seen = call('TYPE', name).ok
    if seen == 'none' then
      seen = kind
    end
    kinds[name] = seen
  end
  if seen ~= kind then
    problem = problem or ('key ' .. name .. ' holds a ' .. seen .. ' where a ' .. kind .. ' belongs')
  end
  return name
end

-- Commands over many values, chunked; no values, no command.
local function send(command, name, values, first, last)
  for i = first, last, CHUNK do
    call(command, name, unpack(values, i, math.min(i + CHUNK - 1, last)))
  end
end

local function ask(command, name, values, first, last)
  if last < first then
    return {}
  end
  if last - first < CHUNK then
    return call(command, name, unpack(values, first, last))
  end
  local all, n = {}, 0
  for i = first, last, CHUNK do
    local part = call(command, name, unpack(values, i, math.min(i + CHUNK - 1, last)))
    for j = 1, #part do
      all[n + j] = part[j]
    end
    n = n + #part
  end
  return all
end

local function integer(text)
  local digits = text == '0' and text or text:match('^%-?([1-9]%d*)$')
  return digits and #digits <= 16 and tonumber(text) or nil
end

local function ring()
  if call('EXISTS', WAKE) == 0 then
    call('RPUSH', WAKE, '1')
  end
end

-- Whether the head of the sorted set is among the first n ids.
local function leads(name, ids, n)
  if n == 0 then
    return false
  end
  local head = call('ZRANGE', name, 0, 0)[1]
  for i = 1, n do
    if ids[i] == head then
      return true
    end
  end
  return false
end

---------------------------------------------------------------------------------------------------------- requests
-- The value of a request is netstrings: number, fence, id …

local function netstrings(number, fence, ids, m)
  local parts, n = { #number, ':', number, ',', #fence, ':', fence, ',' }, 8
  for i = 1, m do -- pieces, because joining each by itself would make a string more per id
    parts[n + 1], parts[n + 2], parts[n + 3], parts[n + 4] = #ids[i], ':', ids[i], ','
    n = n + 4
  end
  return table.concat(parts)
end

-- The strings in it, up to the first place that cannot be read.
local function unnetstrings(text)
  local values, n, from = {}, 0, 1
  while true do
    local _, colon, size = text:find('^(%d+):', from)
    local stop = colon and colon + tonumber(size) + 1
    if not stop or text:sub(stop, stop) ~= ',' then
      return values
    end
    n = n + 1
    values[n] = text:sub(colon + 1, stop - 1)
    from = stop + 1
  end
end

------------------------------------------------------------------------------------------------------------ guards

local function lock_of(name)
  local held = call('HMGET', name, 'token', 'until', 'fence')
  return held[1], tonumber(held[2] or 0), tonumber(held[3] or 0)
end

local holds = {
  A = function(guard)
    return call('HEXISTS', guard.key, guard[1]) == 0
  end,
  F = function(guard)
    return call('HGET', guard.key, guard[1]) == guard[2]
  end,
  M = function(guard)
    return call('ZSCORE', guard.key, guard[1]) ~= false
  end,
  U = function(guard)
    local token, till, fence = lock_of(guard.key)
    if not token then
      return true
    end
    if token == guard[1] then
      return till > 0
    end
    return till <= tonumber(guard[2]) and fence <= tonumber(guard[3])
  end,
  L = function(guard)
    local token, till = lock_of(guard.key)
    return token == guard[1] and till > tonumber(guard[2])
  end,
}
local GUARD_ARGUMENTS = { A = 1, F = 2, M = 1, U = 3, L = 2 }

local function parse_guard()
  local code = take()
  local guard = { code = code, key = key(number(), code == 'M' and 'zset' or 'hash') }
  for i = 1, GUARD_ARGUMENTS[code] do
    guard[i] = take()
  end
  return guard
end

----------------------------------------------------------------------------------------------------------- parsing

local function many(kind, width)
  return function(op)
    op.key = key(number(), kind)
    op.n = number() * width
    op.base = skip(op.n)
  end
end

local function lock(op)
  op.key = key(number(), 'hash')
  op.token = take()
end

local parse = {
  P = many('list', 1),
  Z = many('zset', 2),
  z = many('zset', 1),
  H = many('hash', 2),
  h = many('hash', 1),
  ['+'] = function(op)
    op.key, op.field, op.amount = key(number(), 'hash'), take(), take()
  end,
  T = function(op)
    lock(op)
    op.now, op.till = number(), number()
  end,
  D = lock,
}

-- flags: l target is a list, w wake
function parse.S(op)
  local flags = take()
  op.list, op.wake = flags:find('l', 1, true), flags:find('w', 1, true)
  op.target = key(number(), op.list and 'list' or 'zset')
  op.score, op.n = take(), number()
  op.ids = skip(op.n)
  op.records = skip(op.n)
  op.scores = op.score == '*' and skip(op.n)
  key(1, 'hash')
  if op.wake then
    key(5, 'list')
  end
end

-- flags   l source is a list, t target is a list, w wake, f front, g give
-- pick    H limit max-bytes | D before limit | T n ids
-- expect  - | n no claim | 1 claim (the same of all) | c claims | b claims scores | s scores: in the order of the ids of T;
--         for H and D: C n ids claims | B n ids claims scores | S n ids scores
-- score   - | = score | * scores (in the order of the ids of T)
-- stamp   - | x clear | s incarnation beat now
-- once    - | o incarnation number
function parse.V(op)
  local flags = take()
  op.from_list, op.to_list = flags:find('l', 1, true), flags:find('t', 1, true)
  op.wake, op.front, op.give = flags:find('w', 1, true), flags:find('f', 1, true), flags:find('g', 1, true)
  op.source = key(number(), op.from_list and 'list' or 'zset')
  local target, count = number(), number()
  op.target = target > 0 and key(target, op.to_list and 'list' or 'zset')
  op.count = count > 0 and key(count, 'hash')
  op.field = take()
  op.pick = take()
  if op.pick == 'T' then
    op.n = number()
    op.ids = skip(op.n)
  else
    op.a, op.b = take(), take()
  end
  local expect, n = take(), op.n
  op.expect = expect ~= '-' and expect:lower()
  if expect == '1' then
    op.claim = take()
  elseif expect ~= '-' and expect ~= 'n' then
    if op.expect ~= expect then
      n = number()
      op.where = {}
      local base = skip(n)
      for i = 1, n do
        op.where[ARGV[base + i]] = i
      end
    end
    op.claims = op.expect ~= 's' and skip(n)
    op.was = op.expect ~= 'c' and skip(n)
  end
  op.score = take()
  if op.score == '=' then
    op.score = take()
  elseif op.score == '*' then
    op.scores = skip(op.n)
  else
    op.score = false
  end
  op.stamp = take()
  if op.stamp == 's' then
    op.incarnation, op.beat, op.now = take(), take(), number()
    key(4, 'hash')
  end
  if take() == 'o' then
    op.requester, op.number = take(), take()
    key(3, 'hash')
  end
  op.news = number()
  op.new_ids = skip(op.news)
  op.new_records = skip(op.news)
  key(1, 'hash')
  key(2, 'hash')
  if op.wake then
    key(5, 'list')
  end
end

---------------------------------------------------------------------------------------------------------- checking

-- Whether every number that the operations add to is one, with what the same batch writes before it.
local function check_numbers(ops)
  local written = {}
  local function add(name, field, amount)
    local place = #name .. ':' .. name .. field
    local text = written[place]
    if text == nil then
      text = call('HGET', name, field)
    end
    local now = integer(text or '0')
    local sum = now and now + amount
    if not sum or sum >= LIMIT or sum <= -LIMIT then
      problem = problem or ('field ' .. field .. ' of key ' .. name .. ' holds no number that can be added to')
      return
    end
    written[place] = format('%.0f', sum)
  end
  for i = 1, #ops do
    local op = ops[i]
    if op.code == '+' then
      add(op.key, op.field, tonumber(op.amount))
    elseif op.code == 'H' then
      for j = op.base + 1, op.base + op.n, 2 do
        written[#op.key .. ':' .. op.key .. ARGV[j]] = ARGV[j + 1]
      end
    elseif op.code == 'h' then
      for j = op.base + 1, op.base + op.n do
        written[#op.key .. ':' .. op.key .. ARGV[j]] = false
      end
    elseif op.code == 'V' then
      if op.count then
        add(op.count, op.field, 0)
      end
      if op.stamp == 's' then
        add(COUNTERS, 'fence', 0)
      end
      if op.requester then -- its value is no number
        written[#REQUESTS .. ':' .. REQUESTS .. op.requester] = ''
      end
    end
  end
end

-- Whether the numbered request may go on; remembers what it answered if it was seen before.
local function check_once(op)
  local text = call('HGET', REQUESTS, op.requester)
  if not text then
    return true
  end
  local seen = unnetstrings(text)
  local last, mine = integer(seen[1] or ''), tonumber(op.number)
  if not last or mine < last then
    return false
  end
  if mine == last then
    op.seen = seen
  end
  return true
end

local function failures(guards, ops)
  local failed, n = {}, 0
  for i = 1, #guards do
    if not holds[guards[i].code](guards[i]) then
      n = n + 1
      failed[n] = i - 1
    end
  end
  for i = 1, #ops do
    if ops[i].requester and not check_once(ops[i]) then
      n = n + 1
      failed[n] = #guards + i - 1
    end
  end
  return failed, n
end

----------------------------------------------------------------------------------------------------------- running

local function plain(command)
  return function(op)
    send(command, op.key, ARGV, op.base + 1, op.base + op.n)
    return false
  end
end

local run = {
  P = plain('RPUSH'),
  Z = plain('ZADD'),
  z = plain('ZREM'),
  H = plain('HSET'),
  h = plain('HDEL'),
  ['+'] = function(op)
    call('HINCRBY', op.key, op.field, op.amount)
    return false
  end,
  T = function(op)
    local token, till, fence = lock_of(op.key)
    if token == op.token then
      till = math.max(till, op.till)
    else
      till, fence = op.till, math.max(fence + 1, op.now)
    end
    call('HSET', op.key, 'token', op.token, 'until', till, 'fence', fence)
    -- Garbage collection a day after its end; it decides nothing, because a lock that ended is free anyway.
    call('PEXPIRE', op.key, math.max(till - op.now, 0) + 86400000)
    return fence
  end,
  D = function(op)
    if lock_of(op.key) == op.token then
      call('HSET', op.key, 'until', 0)
    end
    return false
  end,
}

function run.S(op)
  local n, m, states, ids, flat, scored = op.n, 0, {}, {}, {}, {}
  local known = ask('HMGET', RECORDS, ARGV, op.ids + 1, op.ids + n)
  for i = 1, n do
    local id, record, old = ARGV[op.ids + i], ARGV[op.records + i], known[i]
    if not old then
      m = m + 1
      ids[m] = id
      flat[2 * m - 1], flat[2 * m] = id, record
      scored[2 * m - 1], scored[2 * m] = op.scores and ARGV[op.scores + i] or op.score, id
      states[i] = 'n'
    else
      states[i] = old:sub(1, 8) == record:sub(1, 8) and 's' or 'd'
    end
  end
  send('HSET', RECORDS, flat, 1, 2 * m)
  if op.list then
    send('RPUSH', op.target, ids, 1, m)
  else
    send('ZADD', op.target, scored, 1, 2 * m)
  end
  if op.wake and m > 0 and (op.list or leads(op.target, ids, m)) then
    ring()
  end
  return m == n and 1 or table.concat(states)
end

-- The head of a list within its limits: ids, their number, their records. Records are fetched in steps that fit what is
-- left of the bytes: a hundred records of a megabyte must not all be copied for the four that fit.
local function head(op)
  local limit, max = tonumber(op.a), tonumber(op.b)
  local ids = limit > 0 and call('LRANGE', op.source, 0, limit - 1) or {}
  local records, n, bytes, some, step, first = {}, 0, 0, false, 16, 1
  while first <= #ids do
    local last = math.min(first + step - 1, #ids)
    local part = call('HMGET', RECORDS, unpack(ids, first, last))
    for i = 1, #part do
      if part[i] then
        bytes = bytes + #part[i]
        if some and bytes > max then
          return ids, n, records
        end
        some = true
      end
      n = n + 1
      records[n] = part[i]
    end
    first = last + 1
    step = math.max(1, math.min(CHUNK, bytes > 0 and math.floor((max - bytes) * n / bytes) or step))
  end
  return ids, n, records
end

-- Which ids move: {ids, their scores to be, their number}, skipped ones of a head, and their records where they were read.
local function choose(op)
  local list, base, n, present, records = ARGV, op.ids, op.n, nil, nil
  if op.pick == 'H' then
    list, n, records = head(op)
    base = 0
  elseif op.pick == 'D' then
    list = call('ZRANGEBYSCORE', op.source, '-inf', op.a, 'LIMIT', 0, op.b)
    base, n = 0, #list
  elseif op.from_list then
    present = {}
    for i = 1, n do
      present[i] = call('LPOS', op.source, list[base + i]) and '0'
    end
  end
  local expect = op.expect
  if not expect and op.pick ~= 'T' then -- everything picked moves
    for i = n + 1, #list do
      list[i] = nil
    end
    return list, n, n, nil, records, nil
  end
  if not op.from_list and (op.pick == 'T' or op.was) then
    present = ask('ZMSCORE', op.source, list, base + 1, base + n)
  end
  local claims = expect and expect ~= 's' and ask('HMGET', CLAIMS, list, base + 1, base + n)
  local ids, m, scores, kept, skipped = {}, 0, op.scores and {}, records and {}, nil
  for i = 1, n do
    local id = list[base + i]
    local ok = not present or present[i]
    if ok and expect then
      if expect == 'n' then
        ok = not claims[i]
      elseif expect == '1' then
        ok = claims[i] == op.claim
      else
        local j = i
        if op.where then
          j = op.where[id]
        end
        ok = j
          and (not op.claims or claims[i] == ARGV[op.claims + j])
          and (not op.was or tonumber(present and present[i] or 0) == tonumber(ARGV[op.was + j]))
      end
    end
    if ok then
      m = m + 1
      ids[m] = id
      if scores then
        scores[m] = ARGV[op.scores + i]
      end
      if kept then
        kept[m] = records[i]
      end
    elseif op.pick == 'H' then
      skipped = skipped or {}
      skipped[#skipped + 1] = id
    end
  end
  return ids, m, n, scores, kept, skipped
end

local function remove(op, ids, m, n, skipped)
  if not op.from_list then
    send('ZREM', op.source, ids, 1, m)
  elseif op.pick == 'T' then
    for i = 1, m do
      call('LREM', op.source, 1, ids[i])
    end
  elseif m > 0 then
    call('LTRIM', op.source, n, -1)
    if skipped then -- back to the head, in their order
      local reversed = {}
      for i = #skipped, 1, -1 do
        reversed[#reversed + 1] = skipped[i]
      end
      send('LPUSH', op.source, reversed, 1, #reversed)
    end
  end
end

-- Leaves out those without a record; they are removed all the same, and answered.
local function sift(op, ids, m, scores, records)
  if not records then
    records = {}
    if op.give then
      records = ask('HMGET', RECORDS, ids, 1, m)
    else
      for i = 1, m do -- one by one, because HMGET would copy every payload
        records[i] = call('HEXISTS', RECORDS, ids[i]) == 1
      end
    end
  end
  local missing, kept = {}, 0
  while kept < m and records[kept + 1] do
    kept = kept + 1
  end
  for i = kept + 1, m do
    if records[i] then
      kept = kept + 1
      ids[kept], records[kept] = ids[i], records[i]
      if scores then
        scores[kept] = scores[i]
      end
    else
      missing[#missing + 1] = ids[i]
    end
  end
  send('HDEL', CLAIMS, missing, 1, #missing)
  return kept, records, missing
end

-- Thirty digits make it longer than 64 bytes: hashes of up to 512 shorter values are lists that are searched for every id.
local function claim_mark(op, fence)
  return op.incarnation .. ':' .. format('%030.0f', fence) .. ':' .. op.beat
end

local function mark(op, ids, m)
  if op.stamp == 'x' then
    send('HDEL', CLAIMS, ids, 1, m)
  elseif op.stamp == 's' and m > 0 then
    local fence = math.max(tonumber(call('HGET', COUNTERS, 'fence') or 0) + 1, op.now)
    local claim = claim_mark(op, fence)
    local flat = {}
    for i = 1, m do
      flat[2 * i - 1], flat[2 * i] = ids[i], claim
    end
    call('HSET', COUNTERS, 'fence', fence)
    send('HSET', CLAIMS, flat, 1, 2 * m)
    return fence
  end
  return 0
end

local function put(op, ids, m, scores)
  if op.to_list then
    if op.front then
      local reversed = {}
      for i = 1, m do
        reversed[i] = ids[m + 1 - i]
      end
      ids = reversed
    end
    send(op.front and 'LPUSH' or 'RPUSH', op.target, ids, 1, m)
    return
  end
  if not op.score then
    return -- it stays in its sorted set, with its score
  end
  local flat = {}
  for i = 1, m do
    flat[2 * i - 1], flat[2 * i] = scores and scores[i] or op.score, ids[i]
  end
  if op.target ~= op.source then
    send('ZADD', op.target, flat, 1, 2 * m)
    return
  end
  for i = 1, 2 * m, CHUNK do -- an extension that arrives late must not shorten a lease
    call('ZADD', op.target, 'XX', 'GT', unpack(flat, i, math.min(i + CHUNK - 1, 2 * m)))
  end
end

local function replace(op, ids, m, records)
  if op.news == 0 then
    return
  end
  local new, flat, n = {}, {}, 0
  for i = 1, op.news do
    new[ARGV[op.new_ids + i]] = ARGV[op.new_records + i]
  end
  for i = 1, m do
    local record = new[ids[i]]
    if record then
      flat[n + 1], flat[n + 2], n = ids[i], record, n + 2
      records[i] = record
    end
  end
  if op.target then
    send('HSET', RECORDS, flat, 1, n)
  end
end

local function rest(op)
  if op.from_list then
    return call('LLEN', op.source), false
  end
  local first = call('ZRANGE', op.source, 0, 0, 'WITHSCORES')
  return call('ZCARD', op.source), first[2] and tonumber(first[2]) or false
end

-- What a request that is sent again is answered: what it took the first time and still holds.
local function again(op)
  local fence = integer(op.seen[2] or '0') or 0
  local claim, ids, m, records = claim_mark(op, fence), {}, 0, {}
  local n = #op.seen
  local scores = ask('ZMSCORE', op.target, op.seen, 3, n)
  local claims = ask('HMGET', CLAIMS, op.seen, 3, n)
  local stored = ask('HMGET', RECORDS, op.seen, 3, n)
  for i = 1, n - 2 do
    if scores[i] and claims[i] == claim and stored[i] then
      m = m + 1
      ids[m] = op.seen[i + 2]
      records[m] = stored[i]
    end
  end
  local left, next = rest(op)
  return { ids, op.give and records or {}, {}, fence, left, next }
end

function run.V(op)
  if op.seen then
    return again(op)
  end
  local ids, m, n, scores, records, skipped = choose(op)
  local missing = {}
  if op.source ~= op.target or op.from_list then
    remove(op, ids, m, n, skipped)
  end
  if op.target and op.source ~= op.target then
    m, records, missing = sift(op, ids, m, scores, records)
  else
    records = records or (op.give and ask('HMGET', RECORDS, ids, 1, m)) or {}
  end
  replace(op, ids, m, records)
  local fence = 0
  if op.target then
    fence = mark(op, ids, m)
    put(op, ids, m, scores)
  else
    send('HDEL', RECORDS, ids, 1, m)
    send('HDEL', CLAIMS, ids, 1, m)
  end
  if op.count and m > 0 then
    call('HINCRBY', op.count, op.field, m)
  end
  local left, next = rest(op)
  if op.wake then
    local rings
    if op.from_list then
      rings = left > 0
    else
      rings = op.target and (op.to_list and m > 0 or op.target ~= op.source and leads(op.target, ids, m))
    end
    if rings then
      ring()
    end
  end
  for i = m + 1, #ids do -- what `sift` left out
    ids[i] = nil
  end
  if op.requester then
    call('HSET', REQUESTS, op.requester, netstrings(op.number, format('%.0f', fence), ids, m))
  end
  if op.give then
    for i = 1, m do
      if not records[i] then
        records[i] = ''
      end
    end
    for i = m + 1, #records do
      records[i] = nil
    end
  end
  return { op.pick == 'T' and m == n and 1 or ids, op.give and records or {}, missing, fence, left, next }
end

------------------------------------------------------------------------------------------------------------ batches

local function batch()
  problem, kinds = nil, {}
  local guards, ops = {}, {}
  for i = 1, number() do
    guards[i] = parse_guard()
  end
  for i = 1, number() do
    local op = { code = take() }
    parse[op.code](op)
    ops[i] = op
  end
  if not problem then
    check_numbers(ops)
  end
  if problem then
    return { 2, problem }
  end
  local failed, n = failures(guards, ops)
  if n > 0 then
    return { 1, failed }
  end
  local answers = {}
  for i = 1, #ops do
    answers[i] = run[ops[i].code](ops[i])
  end
  return { 0, answers }
end

local reply = {}
for i = 1, number() do
  reply[i] = batch()
end
return reply
