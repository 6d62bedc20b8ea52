#!lua
-- wake: send a parked alert round again, once its time has come, or what it waits for.
--
-- KEYS  1 alerts stream, 2 journal, 3 ledger entry, 4 waiting
-- ARGV  1 group, 2 journal retention in ms, 3 who asks, 4 the entry's first line as read,
--       5 new body, 6 raw alert, 7 '1' also before it is due, 8 event
-- Reply ID of the new stream entry, or '' where it is not due, or not what was read
--
-- The entry becomes held by nobody: no lease, and no nonce that anybody has. Its epoch is a new
-- one, as its body is: whoever has read the body before it may not park that any more. The new
-- delivery carries the alert's ID, so it is the same alert, whatever its raw form says.
-- No allow-oom: a full Redis starts nothing new.
local id = string.match(KEYS[3], '}:ledger:[^:]+:(.*)$')
local due = redis.call('ZSCORE', KEYS[4], id)
local t = redis.call('TIME')
local now, now_ms = t[1] * 1000000 + t[2], t[1] * 1000 + math.floor(t[2] / 1000)
if not due or ARGV[7] ~= '1' and tonumber(due) > now_ms then return '' end
local entry = redis.call('GET', KEYS[3])
if string.sub(entry or '', 1, 8) ~= 'waiting ' then
  redis.call('ZREM', KEYS[4], id) -- or it would be in the way of all that are due later
  return ''
end
if string.match(entry, '^[^\n]*') ~= ARGV[4] then return '' end
local e, seq, dups, deaths, digest, sid, gate =
  string.match(entry, '^waiting (%d+) %d+ %S+ %S+ (%d+) (%d+) (%d+) (%S+) (%S+) (%S+)\n')
if not e then return '' end
e = string.format('%.0f', math.max(e + 1, now))

local new = redis.call('XADD', KEYS[1], '*', 'id', id, 'alert', ARGV[6])
redis.call('SET', KEYS[3], table.concat({'held', e, '0', '-', '-', seq, dups, deaths, digest, new, gate}, ' ') .. '\n' .. ARGV[5])
redis.call('ZREM', KEYS[4], id)
redis.call('XADD', KEYS[2], 'MINID', '~', string.format('%.0f', math.max(0, now_ms - tonumber(ARGV[2]))), '*',
  'id', id, 'group', ARGV[1], 'event', ARGV[8], 'epoch', e, 'owner', ARGV[3], 'entry', new)
return new
