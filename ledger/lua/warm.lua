#!lua
-- warm: ask whether a playbook is still warming up, and count an alert that it matches.
--
-- KEYS  1 control
-- ARGV  1 GROUP/PLAYBOOK, 2 its hash, 3 matches that it only observes, 4 how long it only observes in
--       microseconds, then the ID of each alert
-- Reply per alert 1 it only observes this one, 0 it is through
--
-- The field "warm:GROUP/PLAYBOOK" has the hash, when it was first seen in microseconds, and the alerts that
-- were counted: those stay observed, whoever asks again.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local field, most = 'warm:' .. ARGV[1], tonumber(ARGV[3])
local stored = redis.call('HGET', KEYS[1], field) or ''
local hash, since, ids = string.match(stored, '^(%S+) (%d+) (.*)$')
if hash ~= ARGV[2] then hash, since, ids = ARGV[2], string.format('%.0f', now), '' end
local known, n = {}, 0
for id in string.gmatch(ids, '%S+') do
  known[id] = true
  n = n + 1
end
local young = now < tonumber(since) + tonumber(ARGV[4])
local replies = {}
for i = 5, #ARGV do
  local id = ARGV[i]
  local warm = known[id] or young or n < most
  if not known[id] and n < most then
    known[id], n = true, n + 1
    ids = ids .. id .. ' '
  end
  replies[i - 4] = warm and 1 or 0
end
-- Only what changes, or each alert of a playbook that is through would write all of it.
local new = hash .. ' ' .. since .. ' ' .. ids
if new ~= stored then redis.call('HSET', KEYS[1], field, new) end
return replies
