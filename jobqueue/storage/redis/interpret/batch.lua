-- Whether every number that the operations add to is one, with what the same batch writes before it.
local function check_numbers(ops)
  local written = {}
  local function known(name, field)
    local place = #name .. ':' .. name .. field
    if written[place] == nil then
      written[place] = call('HGET', name, field)
    end
    return place, written[place]
  end
  local function add(name, field, amount, least)
    local place, text = known(name, field)
    local now = integer(text or '0')
    local sum = now and math.max(now + amount, least or -LIMIT)
    if not sum or math.abs(now) >= LIMIT or math.abs(sum) >= LIMIT then
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
        local place, text = known(op.count, op.field)
        local now = integer(text or '0')
        if now and math.abs(now) < LIMIT and math.abs(now + most(op)) < LIMIT then -- else it stays, or starts anew
          written[place] = format('%.0f', now + most(op))
        end
      end
      if op.stamp == 's' then
        add(COUNTERS, 'fence', 1, op.now)
      end
      if op.requester then -- its value is no number
        written[#REQUESTS .. ':' .. REQUESTS .. op.requester] = ''
      end
    end
  end
end

local function failures(guards, ops)
  local failed, n, skipped = {}, 0, {}
  for i = 1, #guards do
    if not holds[guards[i].code](guards[i]) then
      n = n + 1
      failed[n] = i - 1
    end
  end
  for i = 1, #ops do
    local op = ops[i]
    local left_out = op.whole and holds.whole(op) or {}
    for j = 1, #left_out do
      skipped[#skipped + 1] = left_out[j]
    end
    if #left_out > 0 or op.requester and not holds.once(op) or op.most and full(RECORDS, op.target, op.most, op.n, op.ids) then
      n = n + 1
      failed[n] = #guards + i - 1
    end
  end
  return failed, n, skipped
end

-- What reads the arguments of this code.
local function parser(code)
  if not parse[code] then
    if code == 'V' then
      moves()
    elseif code == 'E' then
      mends()
    else
      plains()
    end
  end
  return parse[code]
end

local function batch()
  problem, denied, kinds = nil, false, {}
  local guards, ops = {}, {}
  for i = 1, number() do
    guards[i] = parser('guard')()
  end
  for i = 1, number() do
    local code = take()
    ops[i] = parser(code)()
    ops[i].code = code
  end
  if denied then
    return { 3, denied }
  end
  if not problem then
    check_numbers(ops)
  end
  if problem then
    return { 2, problem }
  end
  local failed, n, skipped = failures(guards, ops)
  if n > 0 then
    return { 1, failed, skipped }
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
