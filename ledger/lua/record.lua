#!lua flags=allow-oom
-- record: write down what came out of a step, if and only if the token stands.
--
-- KEYS  1 alerts stream, 2 journal, 3 ledger entry
-- ARGV  1 group, 2 epoch, 3 nonce, 4 seq of this record under the token, from 1,
--       5 '1' if it is the last: settle and ack, 6 ms to keep a settled entry,
--       7 journal retention in ms, 8 event (record|retry), 9 step, 10 outcome, 11 reason,
--       12 replica, 13 body
-- Reply ok       written, or written before by this very request
--       stale    the token does not stand; journaled as late: evidence, never a second record
--       absent   there is no entry; it is never created here
local group, epoch, nonce, seq = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local t = redis.call('TIME')
local minid = string.format('%.0f', math.max(0, t[1] * 1000 - tonumber(ARGV[7])))
local entry = redis.call('GET', KEYS[3])
local id = string.match(KEYS[3], '}:ledger:[^:]+:(.*)$')

local function note(event)
  redis.call('XADD', KEYS[2], 'MINID', '~', minid, '*', 'id', id, 'group', group, 'event', event,
    'epoch', epoch, 'owner', ARGV[12], 'step', ARGV[9], 'outcome', ARGV[10], 'reason', ARGV[11])
end

if not entry then return 'absent' end
local state, e, until_us, owner, n, s, dups, deaths, digest, sid, gate =
  string.match(entry, '^(%S+) (%d+) (%d+) (%S+) (%S+) (%d+) (%d+) (%d+) (%S+) (%S+) (%S+)\n')
if e ~= epoch or n ~= nonce then
  note('late')
  return 'stale'
end
if tonumber(s) >= seq then return 'ok' end
if state ~= 'held' or tonumber(s) ~= seq - 1 then
  note('late')
  return 'stale'
end

local last = ARGV[5] == '1'
local header = table.concat({last and 'done' or 'held', e, last and '0' or until_us, owner, n, ARGV[4], dups, deaths, digest, sid, gate}, ' ')
if last then
  redis.call('SET', KEYS[3], header .. '\n' .. ARGV[13], 'PX', ARGV[6])
else
  redis.call('SET', KEYS[3], header .. '\n' .. ARGV[13])
end
note(ARGV[8])
if last and sid ~= '-' then redis.call('XACK', KEYS[1], group, sid) end
return 'ok'
