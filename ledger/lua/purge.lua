#!lua flags=allow-oom
-- purge: remove a dead letter for good. Only a person asks for this. Its ledger entry, if
-- there is one, stays dead.
--
-- KEYS  1 journal, 2 dead letters
-- ARGV  1 group, 2 journal retention in ms, 3 who asks, 4 dead letter ID, 5 its alert,
--       6 its epoch, 7 why it was buried
-- Reply 1, or 0 where there is no such letter
local t = redis.call('TIME')
local minid = string.format('%.0f', math.max(0, t[1] * 1000 - tonumber(ARGV[2])))
if redis.call('XDEL', KEYS[2], ARGV[4]) == 0 then return 0 end
redis.call('XADD', KEYS[1], 'MINID', '~', minid, '*', 'id', ARGV[5],
  'group', ARGV[1], 'event', 'purge', 'epoch', ARGV[6], 'owner', ARGV[3], 'reason', ARGV[7])
return 1
