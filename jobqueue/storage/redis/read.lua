-- Answers queries about one scope, all from one snapshot. Registered under "#!lua flags=no-writes".
--
-- KEYS   1 records  2 claims  3 waiting  4 working  5 dead, then every other key that the queries name, by index.
-- ARGV   read with a cursor: number of queries, then each:
--          P list start stop                                   Peek
--          G set limit before|"" after-score|"" after-member   Page
--          R n ids                                             Records
--          S n (key kind)*                                     Sizes
--          F hash n fields (n = -1: all)                       Fields
--          H lock                                              Holder
-- reply  per query: P values | G {member, score …} | R {records, claims, scores in waiting, in working, in dead} |
--        S sizes | F {value …} of the fields, or {field, value …} of all | H {token, until, fence}. Missing is false.

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
    local n = number()
    local first = skip(n) + 1
    local last = first + n - 1
    return {
      ask('HMGET', key(1, 'hash'), ARGV, first, last),
      ask('HMGET', key(2, 'hash'), ARGV, first, last),
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
    local name, n = key(number(), 'hash'), number()
    if n < 0 then
      return call('HGETALL', name)
    end
    local base = skip(n)
    return ask('HMGET', name, ARGV, base + 1, base + n)
  end,
  H = function()
    return call('HMGET', key(number(), 'hash'), 'token', 'until', 'fence')
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
  -- Not every server says which command it was that the user may not run.
  local denied = lacking(
    { 'TYPE', 'LRANGE', 'LLEN', 'ZRANGE', 'ZCARD', 'ZCOUNT', 'ZMSCORE', 'HGETALL', 'HMGET', 'HLEN' }, KEYS[1]
  )
  error({ err = denied and 'NOPERM ' .. table.concat(denied, ', ') or reply }) -- the server's `pcall` answers the text
end
return reply
