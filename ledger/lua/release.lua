#!lua flags=allow-oom
-- release: hand back a grant, so that the next Begin need not wait for the lease.
--
-- KEYS  1 journal, 2 ledger entry
-- ARGV  1 group, 2 epoch, 3 nonce, 4 journal retention in ms, 5 replica, 6 reason
-- Reply 1 handed back, 0 the token does not stand
local t = redis.call('TIME')
local minid = string.format('%.0f', math.max(0, t[1] * 1000 - tonumber(ARGV[4])))
local entry = redis.call('GET', KEYS[2])
if not entry then return 0 end
local e, n, rest = string.match(entry, '^held (%d+) %d+ %S+ (%S+)( .*)$')
if e ~= ARGV[2] or n ~= ARGV[3] then return 0 end
-- The owner becomes '-', which no proof of death names: a clean stop is not a death.
redis.call('SET', KEYS[2], 'held ' .. e .. ' 0 - - ' .. string.sub(rest, 2))
redis.call('XADD', KEYS[1], 'MINID', '~', minid, '*', 'id', string.match(KEYS[2], '}:ledger:[^:]+:(.*)$'),
  'group', ARGV[1], 'event', 'release', 'epoch', e, 'owner', ARGV[5], 'reason', ARGV[6])
return 1
