-- Answers queries about one scope, all from one snapshot. Registered under "#!lua flags=no-writes".
--
-- KEYS   1 records  2 claims  3 waiting  4 working  5 dead, then every other key that the queries name, by index.
-- ARGV   read with a cursor: number of queries, then each:
--          P list start stop                                   Peek
--          G set limit before|"" after-score|"" after-member   Page
--          R n max-bytes|"" ids                                Records
--          S n (key kind)*                                     Sizes
--          F hash n max-bytes|"" fields (n = -1: all)          Fields
--          H lock                                              Holder
--          I hash limit cursor                                 Ids
--          W ready|0 n ids                                     Where
--          N l|s place limit max-bytes after-score|"" after-member n needles     Match; a list goes on at after-score
-- reply  per query: P values | G {member, score …} | R {records (a number is the size of one that was not read), claims, scores in waiting, in working, in dead} |
--        S sizes | F {value …} of the fields, or {field, value …} of all | H {token, until, fence}. Missing is false.
--        N {{id, score …} that match, looked at, last or false, its score} | I {next cursor, fields} | W a number per id: 1 record + 2 waiting + 4 working + 8 dead + 16 claim + 32 * times in ready

-- The key of that index; ends the script unless it holds this kind, or nothing.
local function key(index, kind)
  local name = KEYS[index]
  local seen = call('TYPE', name).ok
  if seen ~= kind and seen ~= 'none' then
    error({ err = 'WRONGTYPE ' .. misplaced(name, seen, kind) })
  end
  return name
end

-- Byte by byte: `<` on strings asks the server's locale.
local function after(a, b)
  for i = 1, min(#a, #b) do
    local x, y = a:byte(i), b:byte(i)
    if x ~= y then
      return x > y
    end
  end
  return #a > #b
end

-- The rank of the first entry behind (score, member). A search, because there may be many of one score, and because
-- the entry itself may be gone.
local function rank_behind(name, score, member)
  local low, high = call('ZCOUNT', name, '-inf', '(' .. score), call('ZCOUNT', name, '-inf', score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if after(call('ZRANGE', name, middle, middle)[1], member) then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

local LONGEST = 1024 -- bytes of a claim or of a lock's field; jobqueue writes none that are longer

local SIZE = { list = 'LLEN', zset = 'ZCARD', hash = 'HLEN' }

local answer = {
  P = function()
    return call('LRANGE', key(number(), 'list'), take(), take())
  end,
  G = function()
    local name, limit, before, score, member = key(number(), 'zset'), number(), take(), take(), take()
    local first = score ~= '' and rank_behind(name, score, member) or 0
    local stop = before ~= '' and call('ZCOUNT', name, '-inf', before) or call('ZCARD', name)
    local n = min(limit, stop - first)
    return n > 0 and call('ZRANGE', name, first, first + n - 1, 'WITHSCORES') or {}
  end,
  R = function()
    local n, max = number(), tonumber(take())
    local first = skip(n) + 1
    local records, last = within(key(1, 'hash'), ARGV, first, first + n - 1, max or math.huge)
    local claims = ask('HMGET', key(2, 'hash'), ARGV, first, last)
    for i = 1, #claims do
      claims[i] = claims[i] and #claims[i] <= LONGEST and claims[i]
    end
    return {
      records,
      claims,
      ask('ZMSCORE', key(3, 'zset'), ARGV, first, last),
      ask('ZMSCORE', key(4, 'zset'), ARGV, first, last),
      ask('ZMSCORE', key(5, 'zset'), ARGV, first, last),
    }
  end,
  S = function()
    local sizes = {}
    for i = 1, number() do
      local index, kind = number(), take()
      sizes[i] = call(SIZE[kind], key(index, kind))
    end
    return sizes
  end,
  F = function()
    local name, n, max = key(number(), 'hash'), number(), tonumber(take()) or math.huge
    if n < 0 then
      local all, short = call('HGETALL', name), {}
      for i = 2, #all, 2 do
        if #all[i] <= max then
          short[#short + 1], short[#short + 2] = all[i - 1], all[i]
        end
      end
      return short
    end
    local base = skip(n)
    local values = ask('HMGET', name, ARGV, base + 1, base + n)
    for i = 1, n do
      values[i] = values[i] and #values[i] <= max and values[i]
    end
    return values
  end,
  H = function()
    local held = call('HMGET', key(number(), 'hash'), 'token', 'until', 'fence')
    for i = 1, 3 do
      held[i] = held[i] and held[i]:sub(1, LONGEST)
    end
    return held
  end,
  -- Servers before Redis 7.4 and Valkey 8 hand the values over as well, which may be large: so steps are short there, and
  -- a megabyte of values ends the page. A small hash comes as a whole, whatever the step.
  I = function()
    local name, limit, cursor = key(number(), 'hash'), number(), take()
    local ids, n, bytes, bare, step, steps = {}, 0, 0, true, min(limit, 1000), 0
    repeat
      local part = bare and redis.pcall('HSCAN', name, cursor, 'COUNT', step, 'NOVALUES')
      if not part or part.err then
        step = bare and 1 or step
        bare = false
        part = call('HSCAN', name, cursor, 'COUNT', step)
      end
      local fields = part[2]
      cursor, steps = part[1], steps + 1
      for i = 1, #fields, bare and 1 or 2 do
        n = n + 1
        ids[n] = fields[i]
        bytes = bytes + (bare and 0 or #fields[i + 1])
      end
      if not bare and n > 0 then
        step = math.max(1, min(limit, 1000, math.floor(65536 * n / (bytes + 1))))
      end
    until cursor == '0' or n >= limit or bytes >= 1048576 or steps >= 100
    return { cursor ~= '0' and cursor, ids }
  end,
  N = function()
    local listed = take() == 'l'
    local name, limit, max, score, member = key(number(), listed and 'list' or 'zset'), number(), number(), take(), take()
    local n = number()
    local base = skip(n)
    local records, ids, where = key(1, 'hash'), nil, {}
    local first = listed and (tonumber(score) or 0) or score ~= '' and rank_behind(name, score, member) or 0
    if listed then
      ids = call('LRANGE', name, first, first + limit - 1)
      for i = 1, #ids do
        where[i] = string.format('%.0f', first + i - 1)
      end
    else
      ids = {}
      local entries = call('ZRANGE', name, first, first + limit - 1, 'WITHSCORES')
      for i = 1, #entries, 2 do
        ids[#ids + 1], where[#where + 1] = entries[i], entries[i + 1]
      end
    end
    local found, looked = within(records, ids, 1, #ids, max)
    local matched = {}
    for i = 1, looked do
      local holds = type(found[i]) == 'string'
      for j = 1, holds and n or 0 do
        holds = holds and found[i]:find(ARGV[base + j], 1, true)
      end
      if holds then
        matched[#matched + 1], matched[#matched + 2] = ids[i], where[i]
      end
    end
    if looked == #ids and looked < limit then
      return { matched, looked, false, false }
    elseif listed then
      return { matched, looked, '', string.format('%.0f', first + looked) }
    end
    return { matched, looked, ids[looked], where[looked] }
  end,
  W = function()
    local ready, n = number(), number()
    local base = skip(n)
    local records, claims = key(1, 'hash'), ask('HMGET', key(2, 'hash'), ARGV, base + 1, base + n)
    local bits, sets = {}, {}
    for j = 3, 5 do
      sets[j] = ask('ZMSCORE', key(j, 'zset'), ARGV, base + 1, base + n)
    end
    ready = ready > 0 and key(ready, 'list')
    for i = 1, n do
      local id = ARGV[base + i]
      bits[i] = call('HEXISTS', records, id) + (sets[3][i] and 2 or 0) + (sets[4][i] and 4 or 0) + (sets[5][i] and 8 or 0)
        + (claims[i] and 16 or 0) + (ready and 32 * #call('LPOS', ready, id, 'COUNT', 2) or 0)
    end
    return bits
  end,
}

local function all()
  local reply = {}
  for i = 1, number() do
    reply[i] = answer[take()]()
  end
  return reply
end

local done, reply = pcall(all)
if not done then
  local denied = running and lacking({ running }, KEYS[1])
  error({ err = denied and 'NOPERM ' .. table.concat(denied, ', ') or reply }) -- the server's `pcall` answers the text
end
return reply
