-- The usual call first: one job that is ready, whose id is new, and for which there is room. It answers before the functions
-- below are made, which would take as long as all the rest. Whatever is unusual changes nothing here and is left to them: the
-- keys are as `put.lua` says. Whether RPUSH may be run is asked before the first write, for each key that it is run on; that
-- write, when it is refused itself, changes nothing.
if ARGV[5] == '1' and (ARGV[2] == 'lw' or ARGV[2] == 'lwm') then
  local records, wake, ready, try = KEYS[1], KEYS[2], KEYS[tonumber(ARGV[3])], redis.pcall
  local seen, tokens, registered = try('TYPE', ready).ok, try('LLEN', wake), try('HEXISTS', KEYS[3], 'registered')
  local known, may = pcall(redis.acl_check_cmd, 'RPUSH', ready)
  if known and may and (seen == 'list' or seen == 'none') and type(tokens) == 'number'
    and type(registered) == 'number' and (tokens > 0 or redis.acl_check_cmd('RPUSH', wake))
    and (not ARGV[8] or (tonumber(try('LLEN', ready)) or math.huge) < tonumber(ARGV[8]))
    and try('HSETNX', records, ARGV[6], ARGV[7]) == 1 then
    redis.call('RPUSH', ready, ARGV[6])
    if tokens == 0 then
      redis.call('RPUSH', wake, '1')
    end
    return registered
  end
end
