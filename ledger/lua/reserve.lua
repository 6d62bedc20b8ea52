#!lua
-- reserve: have a breaker of the fleet count alerts, before their hosts begin them.
--
-- KEYS  1 the breaker: a hash whose "window" has of each alert its time in microseconds, and its name
--       2 control of the fleet: its "tripped:NAME" stands until a person removes it
-- ARGV  1 name of the breaker, 2 most, 3 within in microseconds, then the name of each alert
-- Reply per alert 1 counted, now or before; 0 it has tripped; 2 it trips now
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local most, within = tonumber(ARGV[2]), tonumber(ARGV[3])
local tripped, window, n, known = redis.call('HGET', KEYS[2], 'tripped:' .. ARGV[1]), {}, 0, {}
local was = redis.call('HGET', KEYS[1], 'window') or ''
for at, who in string.gmatch(was, '(%d+) (%S+) ') do
  known[who] = true
  if tonumber(at) > now - within then
    table.insert(window, at .. ' ' .. who .. ' ')
    n = n + 1
  end
end
local replies, trip = {}, nil
for i = 4, #ARGV do
  local who = ARGV[i]
  if known[who] then -- also where it has tripped since: it may have been begun
    replies[i - 3] = 1
  elseif tripped then
    replies[i - 3] = 0
  elseif n >= most then
    tripped = string.format('%.0f %s %s %s', now, ARGV[2], ARGV[3], who)
    trip = tripped
    replies[i - 3] = 2
  else
    table.insert(window, string.format('%.0f %s ', now, who))
    known[who], n = true, n + 1
    replies[i - 3] = 1
  end
end
local new = table.concat(window)
if new ~= was then
  redis.call('HSET', KEYS[1], 'window', new)
  redis.call('PEXPIRE', KEYS[1], math.ceil(within / 1000)) -- what it has counted is over by then
end
if trip then redis.call('HSET', KEYS[2], 'tripped:' .. ARGV[1], trip) end
return replies
