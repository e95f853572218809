-- Moves between places.
local function moves()
  -- The value of a request is netstrings: number, fence, id …

  local function netstrings(number, fence, ids, m)
    local parts, n, size, before = { #number .. ':', number, ',' .. #fence .. ':', fence }, 4, nil, nil
    for i = 1, m do -- pieces, because joining each by itself would make a string more per id
      local id = ids[i]
      if #id ~= size then
        size = #id
        before = ',' .. size .. ':'
      end
      parts[n + 1], parts[n + 2] = before, id
      n = n + 2
    end
    parts[n + 1] = ','
    return table.concat(parts)
  end

  -- The first of the strings in it, at most so many, up to the first place that cannot be read.
  local function unnetstrings(text, most)
    local values, n, from = {}, 0, 1
    while n < most do
      local _, colon, size = text:find('^(%d%d?%d?%d?%d?%d?%d?%d?):', from)
      local stop = colon and colon + tonumber(size) + 1
      if not stop or text:sub(stop, stop) ~= ',' then
        return values
      end
      n = n + 1
      values[n] = text:sub(colon + 1, stop - 1)
      from = stop + 1
    end
    return values
  end


  -- Whether the numbered request may go on; remembers what it answered if it was seen before.
  function holds.once(op)
    local text = call('HGET', REQUESTS, op.requester)
    if not text then
      return true
    end
    local last, mine = integer(unnetstrings(text, 1)[1] or ''), tonumber(op.number)
    if not last or mine < last then
      return false
    end
    if mine == last then
      op.seen = unnetstrings(text, 2 + most(op))
    end
    return true
  end

  -- What moves may run. Every move asks for all of it: nobody may claim what he could not finish, retry and hand back.
  local MOVE = {
    'LLEN', 'LPOS', 'LRANGE', 'LPUSH', 'LREM', 'LTRIM', 'RPUSH', 'ZADD', 'ZCARD', 'ZMSCORE', 'ZRANGE', 'ZRANGEBYSCORE', 'ZREM',
    'HDEL', 'HEXISTS', 'HGET', 'HINCRBY', 'HMGET', 'HSET', 'HSTRLEN',
  }

  -- flags   l source is a list, t target is a list, w wake, f front, g give, a all of them or none
  -- pick    H limit max-bytes | D before limit | T n ids
  -- expect  - | n no claim | 1 claim (the same of all) | c claims | b claims scores | s scores: in the order of the ids of T;
  --         for H and D: C n ids claims | B n ids claims scores | S n ids scores
  -- score   - | = score | * scores (in the order of the ids of T)
  -- stamp   - | x clear | s incarnation beat now
  -- once    - | o incarnation number
  function parse.V()
    local flags = take()
    local from_list, to_list, wake = flags:find('l', 1, true), flags:find('t', 1, true), flags:find('w', 1, true)
    local source, target, count = key(number(), from_list and 'list' or 'zset'), number(), number()
    target = target > 0 and key(target, to_list and 'list' or 'zset')
    count = count > 0 and key(count, 'hash')
    local field, pick, n, ids, limit, bound = take(), take(), nil, nil, nil, nil
    if pick == 'T' then
      n = number()
      ids = skip(n)
    else
      bound, limit = take(), take()
    end
    local code = take()
    local expect, expected, claim, where, claims, was = code ~= '-' and code:lower(), n, nil, nil, nil, nil
    if code == '1' then
      claim = take()
    elseif code ~= '-' and code ~= 'n' then
      if expect ~= code then
        expected = number()
        where = {}
        local base = skip(expected)
        for i = 1, expected do
          where[ARGV[base + i]] = i
        end
      end
      claims = expect ~= 's' and skip(expected)
      was = expect ~= 'c' and skip(expected)
    end
    local score, scores = take(), nil
    if score == '=' then
      score = take()
    elseif score == '*' then
      scores = skip(n)
    else
      score = false
    end
    local stamp, incarnation, beat, now = take(), nil, nil, nil
    if stamp == 's' then
      incarnation, beat, now = take(), take(), number()
      key(4, 'hash')
    end
    local requester, request = nil, nil
    if take() == 'o' then
      requester, request = take(), take()
      key(3, 'hash')
    end
    local news = number()
    local new_ids, new_records = skip(news), skip(news)
    key(1, 'hash')
    key(2, 'hash')
    need(MOVE)
    if wake then
      key(5, 'list')
    end
    -- All at once, because a table that grows by one field after the other is moved five times.
    return {
      from_list = from_list, to_list = to_list, wake = wake, front = flags:find('f', 1, true),
      give = flags:find('g', 1, true), whole = flags:find('a', 1, true), source = source, target = target, count = count, field = field, pick = pick, n = n,
      ids = ids, bound = bound, limit = limit, expect = expect, claim = claim, where = where, claims = claims, was = was,
      score = score, scores = scores, stamp = stamp, incarnation = incarnation, beat = beat, now = now,
      requester = requester, number = request, news = news, new_ids = new_ids, new_records = new_records,
    }
  end

  -- The head of a list within its limits: ids, their number, their records.
  local function head(op)
    local limit = tonumber(op.bound)
    local ids = limit > 0 and call('LRANGE', op.source, 0, limit - 1) or {}
    local records, n = within(RECORDS, ids, 1, #ids, tonumber(op.limit))
    return ids, n, records
  end

  -- Which ids move: {ids, their scores to be, their number}, skipped ones of a head, and their records where they were read.
  local function choose(op)
    local list, base, n, present, records = ARGV, op.ids, op.n, nil, nil
    if op.pick == 'H' then
      list, n, records = head(op)
      base = 0
    elseif op.pick == 'D' then
      list = call('ZRANGEBYSCORE', op.source, '-inf', op.bound, 'LIMIT', 0, op.limit)
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

  -- Which ids of a move of all or none would be skipped, or have no record.
  function holds.whole(op)
    local ids, m = choose(op)
    local able, lacking = {}, {}
    for i = 1, m do
      able[ids[i]] = call('HEXISTS', RECORDS, ids[i]) == 1
    end
    for i = 1, op.n do
      local id = ARGV[op.ids + i]
      if not able[id] then
        lacking[#lacking + 1] = id
      end
    end
    return lacking
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
      call('ZADD', op.target, 'XX', 'GT', unpack(flat, i, min(i + CHUNK - 1, 2 * m)))
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
    return call('ZCARD', op.source), first[2] and math.ceil(math.max(-LIMIT, min(LIMIT, tonumber(first[2])))) or false
  end

  -- What a request that is sent again is answered: what it took the first time and still holds.
  local function again(op)
    local fence = integer(op.seen[2] or '0') or 0
    local claim, held, h, ids, m, records = claim_mark(op, fence), {}, 0, {}, 0, {}
    local n = #op.seen
    local scores = ask('ZMSCORE', op.target, op.seen, 3, n)
    local claims = ask('HMGET', CLAIMS, op.seen, 3, n)
    for i = 1, n - 2 do
      if scores[i] and claims[i] == claim then
        h = h + 1
        held[h] = op.seen[i + 2]
      end
    end
    local stored, last = within(RECORDS, held, 1, h, op.pick == 'H' and tonumber(op.limit) or math.huge)
    for i = 1, last do
      if stored[i] then
        m = m + 1
        ids[m], records[m] = held[i], stored[i]
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
      -- One that holds no number, or could come to the limit, starts anew; most counts cost one command.
      local total = redis.pcall('HINCRBY', op.count, op.field, m)
      local before = type(total) == 'number' and total - m
      if not before or math.abs(before) >= LIMIT or math.abs(before + most(op)) >= LIMIT then
        call('HSET', op.count, op.field, m)
      end
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
      if tokens > 1 then -- each would wake a runner up, for nothing
        call('LTRIM', WAKE, 0, 0)
        tokens = 1
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
end
