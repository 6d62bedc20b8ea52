#!lua
-- reopen: have more steps of a settled alert carried out. Only a person asks for this.
--
-- KEYS  1 alerts stream, 2 journal, 3 ledger entry
-- ARGV  1 group, 2 journal retention in ms, 3 who asks, 4 the entry as read, all of it: what was noted beside an outcome
--       leaves no other mark, 5 new body, 6 why
-- Reply ID of the new stream entry, or '' where the entry is not what was read
--
-- The entry becomes held by nobody: no lease, no nonce that anybody has, and a new epoch, as its
-- body is new. The new delivery has no alert: it says by whose digest the entry is known, and what
-- is to be done stands in the entry.
local entry = redis.call('GET', KEYS[3])
if entry ~= ARGV[4] then return '' end
local e, seq, dups, digest, sid, gate = string.match(entry, '^done (%d+) %d+ %S+ %S+ (%d+) (%d+) %d+ (%S+) (%S+) (%S+)\n')
if not e then return '' end
local id = string.match(KEYS[3], '}:ledger:[^:]+:(.*)$')
local t = redis.call('TIME')
e = string.format('%.0f', math.max(e + 1, t[1] * 1000000 + t[2]))

local new = redis.call('XADD', KEYS[1], '*', 'id', id, 'reopened', digest)
redis.call('SET', KEYS[3], table.concat({'held', e, '0', '-', '-', seq, dups, '0', digest, new, gate}, ' ') .. '\n' .. ARGV[5])
redis.call('XADD', KEYS[2], 'MINID', '~', string.format('%.0f', math.max(0, t[1] * 1000 - tonumber(ARGV[2]))), '*',
  'id', id, 'group', ARGV[1], 'event', 'undo', 'epoch', e, 'owner', ARGV[3], 'entry', new, 'reason', ARGV[6])
return new
