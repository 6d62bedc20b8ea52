#!lua flags=allow-oom
-- record: write down what came out of steps, each if and only if its token stands.
--
-- KEYS  1 alerts stream, 2 journal, 3.. one ledger entry per record, no key twice
-- ARGV  1 group, 2 replica, 3 ms to keep a settled entry, 4 journal retention in ms,
--       then per record 9: epoch, nonce, seq under the token, from 1, '1' if it is the last:
--       settle and ack, event (record|retry), step, outcome, reason, body
-- Reply per record
--       ok       written, or written before by this very request
--       stale    the token does not stand; journaled as late: evidence, never a second record
--       absent   there is no entry; it is never created here
--       or what is wrong with the entry
--
-- All checks first, then all writes, the journal before anything that it tells of.
local group, replica = ARGV[1], ARGV[2]
local t = redis.call('TIME')
local minid = string.format('%.0f', math.max(0, t[1] * 1000 - tonumber(ARGV[4])))

local replies, notes, writes, acks = {}, {}, {}, {}

local function check(key, a)
  local epoch, nonce, seq, last, event = ARGV[a], ARGV[a + 1], tonumber(ARGV[a + 2]), ARGV[a + 3] == '1', ARGV[a + 4]
  local entry = redis.pcall('GET', key)
  if not entry then return 'absent' end
  if type(entry) == 'table' then return entry.err end
  local state, e, until_us, owner, n, s, dups, deaths, digest, sid, gate =
    string.match(entry, '^(%S+) (%d+) (%d+) (%S+) (%S+) (%d+) (%d+) (%d+) (%S+) (%S+) (%S+)\n')
  if e ~= epoch or n ~= nonce then
    table.insert(notes, {key, a, 'late'})
    return 'stale'
  end
  if tonumber(s) >= seq then return 'ok' end
  if state ~= 'held' or tonumber(s) ~= seq - 1 then
    table.insert(notes, {key, a, 'late'})
    return 'stale'
  end
  local header = table.concat({last and 'done' or 'held', e, last and '0' or until_us, owner, n, ARGV[a + 2], dups, deaths, digest, sid, gate}, ' ')
  table.insert(notes, {key, a, event})
  table.insert(writes, {key, header .. '\n' .. ARGV[a + 8], last})
  if last and sid ~= '-' then table.insert(acks, sid) end
  return 'ok'
end

for i = 3, #KEYS do replies[i - 2] = check(KEYS[i], 5 + (i - 3) * 9) end

for _, note in ipairs(notes) do
  local a = note[2]
  redis.call('XADD', KEYS[2], 'MINID', '~', minid, '*', 'id', string.match(note[1], '}:ledger:[^:]+:(.*)$'), 'group', group,
    'event', note[3], 'epoch', ARGV[a], 'owner', replica, 'from', '', 'step', ARGV[a + 5], 'outcome', ARGV[a + 6],
    'reason', ARGV[a + 7]) -- the fields of begin's lines
end
for _, write in ipairs(writes) do
  if write[3] then
    redis.call('SET', write[1], write[2], 'PX', ARGV[3])
  else
    redis.call('SET', write[1], write[2])
  end
end
if #acks > 0 then redis.call('XACK', KEYS[1], group, unpack(acks)) end
return replies
