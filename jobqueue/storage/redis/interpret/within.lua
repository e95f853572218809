-- The records of the ids from first to last, as many as fit into so many bytes, and the index of the last of these ids. The
-- sizes are asked for first: no more than the bytes are ever copied. Instead of a record that is longer by itself its size
-- is answered, which counts nothing. Missing is false.
local function within(records, ids, first, last, max)
  local bytes, sizes = 0, nil
  for i = first, last do
    local size = call('HSTRLEN', records, ids[i])
    if size > max then
      sizes = sizes or {}
      sizes[i] = size
    else
      bytes = bytes + size
      if bytes > max then
        last = i - 1
        break
      end
    end
  end
  if not sizes then
    return ask('HMGET', records, ids, first, last), last
  end
  local short, found = {}, {}
  for i = first, last do
    if not sizes[i] then
      short[#short + 1] = ids[i]
    end
  end
  local read, n = ask('HMGET', records, short, 1, #short), 0
  for i = first, last do
    if sizes[i] then
      found[i - first + 1] = sizes[i]
    else
      n = n + 1
      found[i - first + 1] = read[n]
    end
  end
  return found, last
end
