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

-- Those of the commands that this user may not run on the key, or that the server does not know, as `COMMAND key`; false if
-- there are none. To ask costs half of a command. What a user may do can change between two calls, so nobody but the script
-- itself knows it before its first write.
local function lacking(commands, name)
  local check = redis.acl_check_cmd
  local known, all = pcall(function()
    for i = 1, #commands do
      if not check(commands[i], name) then
        return false
      end
    end
    return true
  end)
  if known and all then
    return false
  end
  local denied = {}
  for i = 1, #commands do
    local is_known, may = pcall(check, commands[i], name)
    if not (is_known and may) then
      denied[#denied + 1] = commands[i] .. ' ' .. name
    end
  end
  return denied
end

local function misplaced(name, seen, kind)
  return 'key ' .. name .. ' holds a ' .. seen .. ' where a ' .. kind .. ' belongs'
end
