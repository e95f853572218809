-- Loaded before what `read.lua` asks with. Noted is the last command that was begun: not every server says which one it was
-- that the user may not run.
local running
local begin, begin_many = call, ask

local function call(command, ...)
  running = command
  return begin(command, ...)
end

local function ask(command, ...)
  running = command
  return begin_many(command, ...)
end
