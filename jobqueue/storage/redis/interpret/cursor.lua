-- The arguments, one after the other.
local at = 1

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
