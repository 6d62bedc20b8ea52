#!lua flags=allow-oom
-- park: set an alert aside for a person or a breaker, and ack its delivery, so that one
-- slow person never blocks trimming. The raw alert goes into the entry's body.
--
-- KEYS  1 alerts stream, 2 journal, 3 ledger entry, 4 waiting
-- ARGV  1 group, 2 epoch, 3 nonce, 4 due time in Unix ms, or '+inf', 5 journal retention in ms,
--       6 reason, 7 replica, 8 body, 9 '-' where nothing that is left to do has begun at any gate, else ''
-- Reply as of record
local group, epoch, nonce = ARGV[1], ARGV[2], ARGV[3]
local t = redis.call('TIME')
local minid = string.format('%.0f', math.max(0, t[1] * 1000 - tonumber(ARGV[5])))
local entry = redis.call('GET', KEYS[3])
local id = string.match(KEYS[3], '}:ledger:[^:]+:(.*)$')
if not entry then return 'absent' end
local state, e, until_us, owner, n, seq, dups, deaths, digest, sid, gate =
  string.match(entry, '^(%S+) (%d+) (%d+) (%S+) (%S+) (%d+) (%d+) (%d+) (%S+) (%S+) (%S+)\n')
local function note(event)
  redis.call('XADD', KEYS[2], 'MINID', '~', minid, '*', 'id', id, 'group', group, 'event', event,
    'epoch', epoch, 'owner', ARGV[7], 'reason', ARGV[6])
end
if state == 'waiting' and e == epoch and n == nonce then return 'ok' end
if state ~= 'held' or e ~= epoch or n ~= nonce then
  note('late')
  return 'stale'
end
redis.call('SET', KEYS[3], table.concat({'waiting', e, '0', owner, n, seq, dups, deaths, digest, sid, ARGV[9] ~= '' and ARGV[9] or gate}, ' ') .. '\n' .. ARGV[8])
redis.call('ZADD', KEYS[4], ARGV[4], id)
note('park')
if sid ~= '-' then redis.call('XACK', KEYS[1], group, sid) end
return 'ok'
