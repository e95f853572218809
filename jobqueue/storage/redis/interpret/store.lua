-- What `store` may run, and to notify, by the key that it is run on: half of it must not be done for want of a right to the rest.
local STORE = { records = { 'HMGET', 'HSET' }, counters = { 'HEXISTS' }, list = { 'RPUSH' }, set = { 'ZADD', 'ZRANGE' } }
local BOUND = { list = { 'LLEN' }, records = { 'HEXISTS' } } -- what `full` may run

-- Whether the list would hold more than `most` with those of n jobs whose ids have no record yet.
local function full(known_records, list, most, n, ids)
  local length, new = call('LLEN', list), n
  if length + n <= most then
    return false
  end
  for i = 1, n do -- one by one, because HMGET would copy every record
    new = new - call('HEXISTS', known_records, ARGV[ids + i])
  end
  return new > 0 and length + new > most
end

-- Stores those of n jobs whose ids have no record yet, and places them. ids, records and scores (or nil) are the indexes in
-- ARGV before the first of them; `score` is that of all.
-- Answers a number if all were stored: 1 if the scope is marked as registered, else 0. Or a letter for each (n stored, s same,
-- d different), and one more (r registered, u not). And whether the scope is to be rung.
local function store(known_records, counters, target, to_list, n, ids, records, score, scores)
  local known = ask('HMGET', known_records, ARGV, ids + 1, ids + n)
  local m, new, flat, scored = 0, {}, {}, not to_list and {}
  for i = 1, n do
    if not known[i] then
      local id = ARGV[ids + i]
      m = m + 1
      new[m] = id
      flat[2 * m - 1], flat[2 * m] = id, ARGV[records + i]
      if scored then
        scored[2 * m - 1], scored[2 * m] = scores and ARGV[scores + i] or score, id
      end
    end
  end
  send('HSET', known_records, flat, 1, 2 * m)
  if to_list then
    send('RPUSH', target, new, 1, m)
  else
    send('ZADD', target, scored, 1, 2 * m)
  end
  local rings = m > 0 and (to_list or leads(target, new, m))
  local registered = call('HEXISTS', counters, 'registered')
  if m == n then
    return registered, rings
  end
  local states = {}
  for i = 1, n do
    local old = known[i]
    states[i] = not old and 'n' or old:sub(1, 8) == ARGV[records + i]:sub(1, 8) and 's' or 'd'
  end
  states[n + 1] = registered == 1 and 'r' or 'u'
  return table.concat(states), rings
end
