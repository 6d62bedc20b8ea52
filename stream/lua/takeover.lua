#!lua
-- takeover: claim what is pending under the name of a consumer proven gone.
--
-- KEYS  1 alerts stream
-- ARGV  1 group, 2 own consumer name, 3 the other's, 4 at most so many,
--       5 '1' to remove that consumer if nothing is pending under its name,
--       6 1 if it died: one more delivery of what it had,
--       7 deliveries from which an entry is a suspect, 8 at most so many suspects
-- Reply {{stream ID, deliveries so far, fields}, ..}, fields empty where the entry was
--       deleted; or {'removed'}
--
-- One script, so that two replicas which both see the death do not claim the same entry
-- twice, and so that a consumer is never removed with an entry it was served meanwhile:
-- XGROUP DELCONSUMER would drop that entry for good.
local group, from, most, died = ARGV[1], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[6])
local suspect, suspects = tonumber(ARGV[7]), tonumber(ARGV[8])
local taken, start, seen = {}, '-', false
repeat
  local page = redis.call('XPENDING', KEYS[1], group, start, '+', 1000, from)
  for _, p in ipairs(page) do
    seen, start = true, '(' .. p[1]
    local times = p[4] + died
    local wanted = #taken < most and (times < suspect or suspects > 0)
    if wanted then
      if times >= suspect then suspects = suspects - 1 end
      local found = redis.call('XRANGE', KEYS[1], p[1], p[1])
      table.insert(taken, {p[1], times, found[1] and found[1][2] or {}})
    end
  end
until #page < 1000 or #taken == most
if not seen then
  if ARGV[5] == '1' then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group, from)
    return {'removed'}
  end
  return {}
end
for _, t in ipairs(taken) do
  -- XCLAIM of a deleted entry would drop it from the pending list unseen, so those are left
  -- where they are until they are buried.
  if #t[3] > 0 then
    redis.call('XCLAIM', KEYS[1], group, ARGV[2], 0, t[1], 'RETRYCOUNT', t[2])
  end
end
return taken
