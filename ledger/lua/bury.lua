#!lua flags=allow-oom
-- bury: move an alert to the dead letters, settling it in the same script.
--
-- KEYS  1 alerts stream, 2 journal, 3 ledger entry, 4 dead letters
-- ARGV  1 group, 2 epoch, 3 nonce, 4 ms to keep the entry, 5 journal retention in ms,
--       6 reason, 7 replica, 8 raw bytes (at most the first 64 KiB), 9 their full length,
--       10 SHA-256 of the full bytes, 11 body
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
    'epoch', epoch, 'owner', ARGV[7], 'outcome', 'dead', 'reason', ARGV[6])
end
if e ~= epoch or n ~= nonce then
  note('late')
  return 'stale'
end
if state == 'dead' then return 'ok' end
if state ~= 'held' then
  note('late')
  return 'stale'
end
redis.call('SET', KEYS[3], table.concat({'dead', e, '0', owner, n, seq, dups, deaths, digest, sid, gate}, ' ') .. '\n' .. ARGV[11], 'PX', ARGV[4])
redis.call('XADD', KEYS[4], 'MINID', '~', minid, '*', 'id', id, 'entry', sid, 'reason', ARGV[6], 'epoch', e, 'replica', ARGV[7],
  'length', ARGV[9], 'sha256', ARGV[10], 'raw', ARGV[8])
note('bury')
if sid ~= '-' then redis.call('XACK', KEYS[1], group, sid) end
return 'ok'
