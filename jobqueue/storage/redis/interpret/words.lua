-- Applies batches of one scope, in order, each whole or not at all.
--
-- One script in nine files, joined by scripts.py in this order: bulk, within, store, cursor, words, plain, move, mend, batch.
-- Registered twice: under "#!lua" for calls that store new things (refused by a full server) and under
-- "#!lua flags=allow-oom" for calls that only move, extend, finish …, so that a full server drains.
--
-- KEYS   1 records  2 claims  3 requests  4 counters  5 wake, then every other key that the batches name. An operation
--        names a key by its index; 0 is none. All of them share the hash tag of the scope.
-- ARGV   read with a cursor: number of batches, then each batch:
--          number of guards, guards, number of operations, operations
--        guard  A key field | F key field value | M key member | E set | U lock token now fence | L lock token now
--        op     P list n values              Z set n (score member)*    z set n members
--               H hash n (field value)*      h hash n fields            + hash field amount
--               T lock token now until       D lock token               R (rings)
--               S flags target score n ids records [scores] [most]                Put; score: "" | number | "*" (scores follow)
--               E target ready waiting working dead id had seen record score                       Mend, see `parse.E`
--               V flags source target count-hash count-field pick expect score stamp once n ids records     Move, see `parse.V`
-- reply  per batch {0, answer per op} applied | {1, indexes of failed guards, ids that a whole move would skip} refused | {2, message} a key or value of the
--        wrong kind | {3, rights} the user lacks these, as `COMMAND key`. Answers: S what `store` answers | T fence | E 1 or 0 |
--        V {ids or 1 (all of `These`), records (a number is the size of one that was not read), missing, fence, left,
--        next or false} | others false (never nil: it ends a table).
--
-- A Lua error does not undo what was written before it. So a batch is parsed and checked completely, types of keys, numbers
-- and the rights of the user included, before its first write.

local format = string.format
local RECORDS, CLAIMS, REQUESTS, COUNTERS, WAKE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local LIMIT = 9007199254740992 -- 2^53
local problem, denied, kinds -- of the batch being parsed
local rights = {} -- list of commands → key → those of them that the user may not run, or false; over all batches
local seen_before = {} -- kinds of keys that were looked at, over all batches
local silent -- whether the scope is known not to be rung
local tokens = 0 -- how many entries the wake-up key had when it was looked at: more than one were put there by something else

-- Code → what reads the arguments of an operation, what runs it, whether a guard holds. Filled when a code is met first, by
-- the functions that the next files are: to make all these functions for every call would take longer than a small call.
local parse, run, holds = {}, {}, {}

-- Notes that the batch may run these commands, and that it must not begin where the user may not. Without a name one key is
-- asked about for all keys of the scope: the server looked at the keys themselves before it began with the script.
local function need(commands, name)
  name = name or RECORDS
  local asked = rights[commands] or {}
  rights[commands] = asked
  if asked[name] == nil then
    asked[name] = lacking(commands, name)
  end
  denied = denied or asked[name]
end

-- The key of that index; notes a problem unless it holds this kind, or nothing.
local function key(index, kind)
  local name = KEYS[index]
  local seen = kinds[name]
  if not seen then
    seen = seen_before[name]
    -- What an earlier batch took for another kind may have been emptied by it.
    if seen ~= kind then
      local length = name == WAKE and redis.pcall('LLEN', name)
      if type(length) == 'number' then
        tokens, seen = length, length > 0 and 'list' or 'none'
      else
        seen = redis.pcall('TYPE', name).ok
      end
      if not seen then
        denied = { 'TYPE ' .. name }
        return name
      end
      if name == WAKE then
        silent = seen == 'none'
      end
      if seen == 'none' then
        seen = kind
      end
    end
    kinds[name], seen_before[name] = seen, seen
  end
  if seen ~= kind then
    problem = problem or misplaced(name, seen, kind)
  end
  return name
end

local function integer(text)
  local digits = text == '0' and text or text:match('^%-?([1-9]%d*)$')
  return digits and #digits <= 16 and tonumber(text) or nil
end

-- How many a Move can take at most.
local function most(op)
  return op.pick == 'T' and op.n or tonumber(op.pick == 'H' and op.bound or op.limit)
end

-- The wake-up key was looked at by whoever calls this, as `key(5, 'list')`.
local function ring()
  if silent then
    call('RPUSH', WAKE, '1')
    silent = false
  end
end
