local KEYS, ARGV, call, unpack, min = KEYS, ARGV, redis.call, unpack, math.min
local CHUNK = 1000 -- arguments per command; `unpack` fails near 8000

-- Commands over many values, chunked; no values, no command.
local function send(command, name, values, first, last)
  for i = first, last, CHUNK do
    call(command, name, unpack(values, i, min(i + CHUNK - 1, last)))
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
    local part = call(command, name, unpack(values, i, min(i + CHUNK - 1, last)))
    for j = 1, #part do
      all[n + j] = part[j]
    end
    n = n + #part
  end
  return all
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

-- Whether this user may run the command on the key; not either where the server does not know the command. It costs a third of
-- a command. What a user may do can change between two calls, so only the script itself can know it before its first write.
local function permitted(command, name)
  local known, may = pcall(redis.acl_check_cmd, command, name)
  return known and may
end

local function misplaced(name, seen, kind)
  return 'key ' .. name .. ' holds a ' .. seen .. ' where a ' .. kind .. ' belongs'
end
