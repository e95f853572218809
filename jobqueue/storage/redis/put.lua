-- Stores the jobs of one Put that is a batch of its own. What `interpret` would do with it, in a third of the time: this is
-- what a producer waits for, and most of what a small call costs is to make the functions of the script.
--
-- KEYS   1 records  2 wake  3 counters  4 target
-- ARGV   S flags target score n ids records [scores] [most], see interpret/words.lua
-- reply  what `store` answers | {1, {0}} there is no room | {2, message} a key of the wrong kind, {3, rights} the user lacks these, as
--        `COMMAND key`: nothing was changed

local RECORDS, WAKE, COUNTERS, TARGET = KEYS[1], KEYS[2], KEYS[3], KEYS[tonumber(ARGV[3])]
local to_list, wake, n = ARGV[2]:find('l', 1, true), ARGV[2]:find('w', 1, true), tonumber(ARGV[5])
local problem
local denied = lacking(STORE.records, RECORDS) or lacking(STORE.counters, COUNTERS)
  or lacking(to_list and STORE.list or STORE.set, TARGET) or wake and lacking(STORE.list, WAKE)
local bounded = ARGV[2]:find('m', 1, true)
if bounded then
  denied = denied or lacking(BOUND.list, TARGET) or lacking(BOUND.records, RECORDS)
end

local function kind_of(name, kind)
  local seen = redis.pcall('TYPE', name).ok
  if not seen then
    denied = { 'TYPE ' .. name }
    return
  end
  if seen ~= kind and seen ~= 'none' then
    problem = problem or misplaced(name, seen, kind)
  end
  return seen
end

kind_of(TARGET, to_list and 'list' or 'zset')
kind_of(RECORDS, 'hash')
kind_of(COUNTERS, 'hash')
local silent = wake and kind_of(WAKE, 'list') == 'none'
if denied then
  return { 3, denied }
elseif problem then
  return { 2, problem }
end
if bounded and full(RECORDS, TARGET, tonumber(ARGV[#ARGV]), n, 5) then
  return { 1, { 0 } }
end
local states, rings = store(RECORDS, COUNTERS, TARGET, to_list, n, 5, 5 + n, ARGV[4], ARGV[4] == '*' and 5 + 2 * n)
if silent and rings then
  call('RPUSH', WAKE, '1')
end
return states
