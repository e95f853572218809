-- The usual call first: one job that is ready, whose id is new. It answers before the functions below are made, which would
-- take as long as all the rest. Whatever is unusual changes nothing here and is left to them: the keys are as `put.lua` says.
-- What may be run on `ready` is asked before the first write; a record that is refused changes nothing.
if ARGV[5] == '1' and ARGV[2] == 'lw' then
  local records, wake, ready, pcall = KEYS[1], KEYS[2], KEYS[tonumber(ARGV[3])], redis.pcall
  local seen, tokens, may = pcall('TYPE', ready).ok, pcall('LLEN', wake), redis.acl_check_cmd
  if (seen == 'list' or seen == 'none') and type(tokens) == 'number' and may('RPUSH', ready) and may('RPUSH', wake)
    and pcall('HSETNX', records, ARGV[6], ARGV[7]) == 1 then
    redis.call('RPUSH', ready, ARGV[6])
    if tokens == 0 then
      redis.call('RPUSH', wake, '1')
    end
    return 1
  end
end
