#!lua
-- resolve: journal what came to light about a step after it was settled, and note it beside the
-- outcome, which stays as it is: what a person found out where that is unknown, or that what was
-- done for a time has come to its end.
--
-- KEYS  1 journal, 2 ledger entry
-- ARGV  1 group, 2 journal retention in ms, 3 who, 4 step, 5 note,
--       6 the entry as read, settled, all of it: its body has no other mark of its version
--       7 the entry with the note in it; as read, where an earlier note stands
--       8 event
-- Reply 1, or 0 where the entry is not what was read
local entry = redis.call('GET', KEYS[2])
local epoch = string.match(ARGV[6], '^done (%d+) ') or string.match(ARGV[6], '^dead (%d+) ')
if not epoch or entry ~= ARGV[6] then return 0 end
local t = redis.call('TIME')
local minid = string.format('%.0f', math.max(0, t[1] * 1000 - tonumber(ARGV[2])))

redis.call('SET', KEYS[2], ARGV[7], 'KEEPTTL')
redis.call('XADD', KEYS[1], 'MINID', '~', minid, '*', 'id', string.match(KEYS[2], '}:ledger:[^:]+:(.*)$'),
  'group', ARGV[1], 'event', ARGV[8], 'epoch', epoch, 'owner', ARGV[3], 'step', ARGV[4], 'reason', ARGV[5])
return 1
