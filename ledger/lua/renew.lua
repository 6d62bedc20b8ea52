#!lua flags=allow-oom
-- renew: extend the leases of grants that are still worked on.
--
-- KEYS  1.. ledger entries
-- ARGV  1 lease in microseconds, then per entry 2: epoch, nonce
-- Reply per entry 1 extended, 0 the token does not stand (any more)
local t = redis.call('TIME')
local until_us = string.format('%.0f', t[1] * 1000000 + t[2] + tonumber(ARGV[1]))
local replies, writes = {}, {}
for i = 1, #KEYS do
  local entry = redis.call('GET', KEYS[i])
  local epoch, rest_nonce, rest
  if entry then epoch, rest_nonce, rest = string.match(entry, '^held (%d+) %d+ (%S+ %S+)( .*)$') end
  if epoch == ARGV[i * 2] and string.match(rest_nonce, '%S+$') == ARGV[i * 2 + 1] then
    table.insert(writes, KEYS[i])
    table.insert(writes, 'held ' .. epoch .. ' ' .. until_us .. ' ' .. rest_nonce .. rest)
    replies[i] = 1
  else
    replies[i] = 0
  end
end
if #writes > 0 then redis.call('MSET', unpack(writes)) end
return replies
