#!lua flags=allow-oom
-- register: say which gate a replica enforces through, for a while, or take that back.
--
-- KEYS  1 control hash of the host
-- ARGV  1 replica, 2 gate ID, 3 microseconds it holds, 0 to take it back,
--       4 fenced|unfenced, 5 group
-- Reply {} registered; or {field, value, ..} of live replicas with another gate, where not
--       all of them and this one were told to run unfenced: then nothing was written
local field = 'gate:' .. ARGV[1]
if tonumber(ARGV[3]) == 0 then
  redis.call('HDEL', KEYS[1], field)
  return {}
end
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local others, over = {}, {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local gate, until_us, fence = string.match(all[i + 1], '^(%S+) (%d+) (%S+) ')
  if string.sub(all[i], 1, 5) == 'gate:' and all[i] ~= field then
    -- One that holds for longer than any does was written by a clock that ran ahead, before a
    -- failover; whoever it is writes it anew.
    if not gate or tonumber(until_us) <= now or tonumber(until_us) > now + 10 * tonumber(ARGV[3]) then
      table.insert(over, all[i])
    elseif gate ~= ARGV[2] and (fence ~= 'unfenced' or ARGV[4] ~= 'unfenced') then
      table.insert(others, all[i])
      table.insert(others, all[i + 1])
    end
  end
end
if #others > 0 then return others end
for _, name in ipairs(over) do redis.call('HDEL', KEYS[1], name) end
redis.call('HSET', KEYS[1], field,
  table.concat({ARGV[2], string.format('%.0f', now + tonumber(ARGV[3])), ARGV[4], ARGV[5]}, ' '))
return {}
