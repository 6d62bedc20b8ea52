#!lua flags=allow-oom
-- trim: drop the oldest entries that every group has acked.
--
-- KEYS  1 alerts stream
-- ARGV  1 ms to keep an entry, 2 entries above which the age does not matter
-- Reply entries dropped
--
-- Why nothing is lost. XTRIM MINID drops entries whose ID is below the bound, and no other.
-- The bound is at most, for each group, its last-delivered ID and the lowest ID pending in it.
-- What a group has not read is above its last-delivered ID; what it has read and not acked is
-- pending, so not below the lowest. So neither is below the bound. The script is one step:
-- nothing is read, acked or created between the look and the cut. It holds for every group
-- there is now; one that is created later, at 0, gets what is left, and one that is set back
-- by hand (XGROUP SETID) likewise. An age or a length can only lower the bound.
--
-- IDs are compared as text: they have 64 bits in each half, and a Lua number has 53.
local function below(a, b)
  return #a < #b or #a == #b and a < b
end
local function before(a, b)
  local am, as = string.match(a, '^(%d+)-(%d+)$')
  local bm, bs = string.match(b, '^(%d+)-(%d+)$')
  return below(am, bm) or am == bm and below(as, bs)
end

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
if #groups == 0 then return 0 end
local bound
for _, group in ipairs(groups) do
  local info = {}
  for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
  local oldest = info['last-delivered-id']
  local pending = redis.call('XPENDING', KEYS[1], info['name'])
  if pending[1] > 0 and before(pending[2], oldest) then oldest = pending[2] end
  if not bound or before(oldest, bound) then bound = oldest end
end
if redis.call('XLEN', KEYS[1]) <= tonumber(ARGV[2]) then
  local t = redis.call('TIME')
  local aged = string.format('%.0f-0', math.max(0, t[1] * 1000 - tonumber(ARGV[1])))
  if before(aged, bound) then bound = aged end
end
return redis.call('XTRIM', KEYS[1], 'MINID', '~', bound)
