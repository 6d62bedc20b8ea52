#!lua
-- revive: send a dead letter round again. Only a person asks for this.
--
-- KEYS  1 alerts stream, 2 journal, 3 ledger entry of the letter, 4 dead letters
-- ARGV  1 group, 2 dead letter ID, 3 journal retention in ms, 4 who asks,
--       5 the entry's first line as read, or '' where there is none or it stays dead,
--         because what is sent will arrive under another ID
--       6 new body, then the fields of the new stream entry
-- Reply ID of the new stream entry, or '' where entry or letter is not what was read
--
-- The entry becomes held by nobody: no lease, no nonce that anybody has, deaths from zero, and a
-- new epoch, as its body is new.
local t = redis.call('TIME')
local minid = string.format('%.0f', math.max(0, t[1] * 1000 - tonumber(ARGV[3])))
if #redis.call('XRANGE', KEYS[4], ARGV[2], ARGV[2]) == 0 then return '' end
local e, seq, dups, digest, sid, gate = '0'
if ARGV[5] ~= '' then
  local entry = redis.call('GET', KEYS[3])
  if not entry or string.match(entry, '^[^\n]*') ~= ARGV[5] then return '' end
  e, seq, dups, digest, sid, gate = string.match(entry, '^dead (%d+) %d+ %S+ %S+ (%d+) (%d+) %d+ (%S+) (%S+) (%S+)\n')
  if not e then return '' end
  e = string.format('%.0f', math.max(e + 1, t[1] * 1000000 + t[2]))
end

if ARGV[5] ~= '' then
  redis.call('SET', KEYS[3], table.concat({'held', e, '0', '-', '-', seq, dups, '0', digest, sid, gate}, ' ') .. '\n' .. ARGV[6])
end
local fields = {}
for i = 7, #ARGV do table.insert(fields, ARGV[i]) end
local new = redis.call('XADD', KEYS[1], '*', unpack(fields))
redis.call('XDEL', KEYS[4], ARGV[2])
redis.call('XADD', KEYS[2], 'MINID', '~', minid, '*', 'id', string.match(KEYS[3], '}:ledger:[^:]+:(.*)$'),
  'group', ARGV[1], 'event', 'revive', 'epoch', e, 'owner', ARGV[4], 'entry', new)
return new
