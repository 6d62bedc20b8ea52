#!lua
-- reserve: have a breaker of the fleet count alerts, before their hosts begin them.
--
-- KEYS  1 the breaker: a hash of "window" (of each alert its time in microseconds, and its name) and
--       "tripped", which stands until a person removes it
-- ARGV  1 most, 2 within in microseconds, then the name of each alert
-- Reply per alert 1 counted, now or before; 0 it has tripped; 2 it trips now
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local most, within = tonumber(ARGV[1]), tonumber(ARGV[2])
local found = redis.call('HMGET', KEYS[1], 'tripped', 'window')
local tripped, window, n, known = found[1], {}, 0, {}
for at, who in string.gmatch(found[2] or '', '(%d+) (%S+) ') do
  known[who] = true
  if tonumber(at) > now - within then
    table.insert(window, at .. ' ' .. who .. ' ')
    n = n + 1
  end
end
local replies, trip = {}, nil
for i = 3, #ARGV do
  local who = ARGV[i]
  if known[who] then -- also where it has tripped since: it may have been begun
    replies[i - 2] = 1
  elseif tripped then
    replies[i - 2] = 0
  elseif n >= most then
    tripped = string.format('%.0f %s %s %s', now, ARGV[1], ARGV[2], who)
    trip = tripped
    replies[i - 2] = 2
  else
    table.insert(window, string.format('%.0f %s ', now, who))
    known[who], n = true, n + 1
    replies[i - 2] = 1
  end
end
redis.call('HSET', KEYS[1], 'window', table.concat(window))
if trip then redis.call('HSET', KEYS[1], 'tripped', trip) end
return replies
