#!lua
-- abandoned: what a group that nobody serves has left of a certain age.
--
-- KEYS  1 alerts stream
-- ARGV  1 group, 2 own consumer name, 3 ms after which a consumer is silent and an entry old,
--       4 at most so many entries
-- Reply {ms since another consumer was last seen, -1 if there is none, {{stream ID, deliveries
--       so far, fields}, ..}}, fields empty where the entry was deleted; or {} where the group
--       is served, or not there
--
-- Whatever is pending stays where it is. Old entries that nobody has read are read under our
-- own name: in one script with the check, so that nothing young is taken, nor anything of a
-- group that has just come back to life. Where there is nothing to do for us, and nothing
-- pending under our name, it is removed from the group.
local group, me, limit, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local function named(list)
  local out = {}
  for i = 1, #list, 2 do out[list[i]] = list[i + 1] end
  return out
end

if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
local read
for _, g in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local info = named(g)
  if info['name'] == group then read = info['last-delivered-id'] end
end
if not read then return {} end
local silence, served, mine = -1, false, nil
for _, c in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group)) do
  local info = named(c)
  if info['name'] == me then
    mine = info['pending']
  elseif info['idle'] < limit then
    served = true
  elseif silence < 0 or info['idle'] < silence then
    silence = info['idle']
  end
end

local t = redis.call('TIME')
local old = t[1] * 1000 + math.floor(t[2] / 1000) - limit
local left, unread = {}, {}
if not served and old >= 0 then
  old = string.format('%.0f', old)
  for _, p in ipairs(redis.call('XPENDING', KEYS[1], group, '-', old, most)) do
    local found = redis.call('XRANGE', KEYS[1], p[1], p[1])
    table.insert(left, {p[1], p[4], found[1] and found[1][2] or {}})
  end
  if #left < most then
    unread = redis.call('XRANGE', KEYS[1], '(' .. read, old, 'COUNT', most - #left)
  end
end
if #unread > 0 then
  local got = redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', #unread, 'STREAMS', KEYS[1], '>')
  for _, e in ipairs(got[1][2]) do table.insert(left, {e[1], 1, e[2]}) end
elseif mine == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group, me)
end
if served then return {} end
return {silence, left}
