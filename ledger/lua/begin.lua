#!lua
-- begin: ask for the right to act on a batch of alerts. One answer per alert.
--
-- KEYS  1 alerts stream, 2 journal, 3 control, 4 waiting, 5.. one ledger entry per alert, no key twice
-- ARGV  1 group, 2 owner, 3 gate ID, 4 lease in microseconds, 5 deaths that poison,
--       6 journal retention in ms, 7 names of owners proven dead, each between spaces,
--       8 all switches that may pause these alerts: fields of control, each between spaces,
--       then per alert 13: stream ID, nonce, floor (highest epoch the gate has seen, or 0),
--       digest, deliveries that never reached a Begin, body ('' to resume only), SHA-1 of the delivered alert or '',
--       switches of it, each between spaces, breakers of it (name, most, within in microseconds,
--       each followed by a space), why its caller would not have it begun or '', body to park it with or '',
--       epoch of the entry that body was made from, 0 for none, score to park it with
-- Reply per alert {verdict, epoch, n, text, body}:
--       run      granted; nothing was stored of it, body = '': it is the one that was sent
--       resume   granted, text = gate of the holders before ('*' if they had several), n = 1 if the last is
--                proven dead, body = its body; also the answer to a request that is sent again
--       poison   granted, but only to be buried; n = deaths, body as with run or resume
--       settled  done, dead or waiting; this delivery has been acked
--       busy     held by text, or that delivery is not what it is begun by; n = microseconds left of its lease
--       paused   it was under way when its holder died, and a switch is off; nothing was done
--       wait     it must not begin, text says why; nothing was done but that breakers may have counted it,
--                body as with resume, n = its epoch: ask again with a body to park it with
--       parked   it must not begin, text says why; it waits now, and this delivery has been acked
--       conflict another alert owns this ID; nothing was done
--
-- A breaker counts alerts in control: "window:NAME" has the time of each, in microseconds, and its
-- ID; "tripped:NAME" stands until a person removes it. A switch is "pause:...", as ARGV 8 names them.
--
-- All checks first, then all writes: Lua in Redis has no rollback.
-- No allow-oom: a full Redis starts nothing new.
local group, owner, gate = ARGV[1], ARGV[2], ARGV[3]
local lease, poison, retention, dead = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local header = '^(%S+) (%d+) (%d+) (%S+) (%S+) (%d+) (%d+) (%d+) (%S+) (%S+) (%S+)\n(.*)$'

-- A delivery may be of another history: a master that was deposed has made it, and this one,
-- whose clock is slower, gives its ID to another alert, or will. Such an ID is never acked.
local function here(sid, sha1)
  if sha1 == '' then return sid end
  local found = redis.call('XRANGE', KEYS[1], sid, sid)[1]
  if found then
    local alert = ''
    for i = 1, #found[2], 2 do -- of a field given twice, the last is what was delivered
      if found[2][i] == 'alert' then alert = found[2][i + 1] end
    end
    return redis.sha1hex(alert) == sha1 and sid or '-'
  end
  if redis.call('EXISTS', KEYS[1]) == 0 then return '-' end
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  local function parts(id)
    local ms, seq = string.match(id, '^(%d+)-(%d+)$')
    return tonumber(ms), tonumber(seq)
  end
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      local lms, lseq = parts(info[i + 1])
      local ms, seq = parts(sid)
      return (ms < lms or ms == lms and seq <= lseq) and sid or '-'
    end
  end
  return '-'
end

local off = {} -- switches that are off
if ARGV[8] ~= '' then
  local names = {}
  for name in string.gmatch(ARGV[8], '%S+') do table.insert(names, name) end
  for i, value in ipairs(redis.call('HMGET', KEYS[3], unpack(names))) do off[names[i]] = value end
end

local breakers, tripped = {}, {} -- as they were read, or will be written
local function breaker(name)
  if not breakers[name] then
    local found = redis.call('HMGET', KEYS[3], 'tripped:' .. name, 'window:' .. name)
    breakers[name] = {tripped = found[1], window = found[2] or ''}
  end
  return breakers[name]
end

-- What keeps an alert from being begun, if anything. Where nothing of this host does, its breakers count it.
local function held_back(id, switches, limits, hold, may_trip)
  for name in string.gmatch(switches, '%S+') do
    if off[name] then return name end
  end
  if string.sub(hold, 1, 6) == 'pause:' then return hold end
  local counted = {}
  for name, most, within in string.gmatch(limits, '(%S+) (%d+) (%d+) ') do
    local b = breaker(name)
    local window, n, known = {}, 0, false
    for at, who in string.gmatch(b.window, '(%d+) (%S+) ') do
      if tonumber(at) > now - tonumber(within) then
        table.insert(window, at .. ' ' .. who .. ' ')
        n, known = n + 1, known or who == id
      end
    end
    if not known then -- else it has its place, also where the breaker has tripped since
      if b.tripped and may_trip then return 'breaker:' .. name end
      if n >= tonumber(most) and may_trip then
        b.tripped = string.format('%.0f %s %s %s', now, most, within, id)
        table.insert(tripped, name)
        return 'breaker:' .. name
      end
      table.insert(window, string.format('%.0f %s ', now, id))
      table.insert(counted, {b, table.concat(window)})
    end
  end
  -- Also where its caller holds it, for the fleet to count it: those that this host has no place for
  -- must not take one there.
  for _, c in ipairs(counted) do c[1].window, c[1].counted = c[2], true end
  if hold ~= '' and may_trip then return hold end
end

local replies, writes, acks, journal, claims, parks = {}, {}, {}, {}, {}, {}
for i = 5, #KEYS do
  local a = 9 + (i - 5) * 13
  local sid = here(ARGV[a], ARGV[a + 6])
  local nonce, floor, digest, deliveries, body = ARGV[a + 1], tonumber(ARGV[a + 2]), ARGV[a + 3], tonumber(ARGV[a + 4]), ARGV[a + 5]
  local entry = redis.call('GET', KEYS[i])
  local verdict, epoch, n, text, stored, deaths, dups, from = nil, 0, 0, '', '', 0, 0, ''
  local id, nobody, was = string.match(KEYS[i], '}:ledger:[^:]+:(.*)$'), true, 0
  if not entry and body == '' then
    verdict = 'settled' -- it was opened again, and its time here was over before it arrived
    table.insert(acks, {sid = sid})
  elseif not entry then
    deaths = deliveries
    verdict, epoch, stored = 'run', math.max(now, floor + 1), body
  else
    local state, e, until_us, holder, held_nonce, seq, d, k, held_digest, held_sid, held_gate, b = string.match(entry, header)
    if not state then
      return redis.error_reply('RIPOSTE entry ' .. KEYS[i] .. ' has no readable header; look at it with GET and remove it by hand')
    end
    dups, deaths, stored, text, from = tonumber(d), tonumber(k), b, held_gate, holder
    nobody, was = holder == '-', tonumber(e)
    if held_nonce == nonce and state == 'held' then
      -- Our own Begin, whose reply was lost: the same grant again. Its gate is the holders'
      -- before, or '*' if theirs was another, so nothing that the first reply said is lost.
      -- The lease runs from now on, as the caller will count it.
      verdict, epoch = 'same', tonumber(e)
      table.insert(writes, KEYS[i])
      table.insert(writes, table.concat({'held', e, string.format('%.0f', now + lease), holder, nonce, seq, d, k, held_digest, held_sid, held_gate}, ' ') .. '\n' .. b)
    elseif held_digest ~= digest then
      verdict = 'conflict'
    elseif state == 'held' and body == '' and held_sid ~= ARGV[a] then
      verdict, n, text = 'busy', lease, holder -- added for another group's entry: this one has a delivery of its own
    elseif state ~= 'held' then
      verdict = 'settled'
      table.insert(acks, {
        sid = sid, key = KEYS[i], before = table.concat({state, e, until_us, holder, held_nonce, seq}, ' '),
        dups = dups, after = table.concat({k, held_digest, held_sid, held_gate}, ' ') .. '\n' .. b,
      })
    else
      local proven = string.find(dead, ' ' .. holder .. ' ', 1, true) ~= nil
      if tonumber(until_us) > now and not proven then
        -- A lease far beyond any that is given now was given by a clock that ran ahead of this
        -- one, before a failover. It is cut short; a holder that lives renews it.
        if tonumber(until_us) > now + 10 * lease then
          until_us = string.format('%.0f', now + 10 * lease)
          table.insert(writes, KEYS[i])
          table.insert(writes, table.concat({'held', e, until_us, holder, held_nonce, seq, d, k, held_digest, held_sid, held_gate}, ' ') .. '\n' .. b)
        end
        verdict, n, text = 'busy', tonumber(until_us) - now, holder
      else
        verdict, epoch = 'resume', math.max(tonumber(e) + 1, now, floor + 1)
        if proven then deaths, n = deaths + 1, 1 end
      end
    end
  end
  if (verdict == 'run' or verdict == 'resume') and deaths < poison then
    local why = held_back(id, ARGV[a + 7], ARGV[a + 8], ARGV[a + 9], nobody)
    if why and not nobody then
      verdict, text = 'paused', why
    elseif why and (ARGV[a + 10] == '' or tonumber(ARGV[a + 11]) ~= was) then
      -- What is parked replaces what is stored: so it must have been made from that, and not from what
      -- stood there before somebody else recorded an outcome.
      verdict, text, n = 'wait', why, was
    elseif why then
      local gates = entry and text or '-' -- of those that held it, and this one has not
      verdict, text = 'parked', why
      table.insert(writes, KEYS[i])
      table.insert(writes, string.format('waiting %.0f 0 %s %s 0 %.0f %.0f %s %s %s\n', epoch, owner, nonce, dups, deaths, digest, sid, gates) .. ARGV[a + 10])
      table.insert(journal, {id, 'park', epoch, from, why})
      table.insert(parks, {id, sid, ARGV[a + 12]})
    end
  end
  if verdict == 'run' or verdict == 'resume' then
    local event = verdict
    if deaths >= poison then verdict, n = 'poison', deaths end
    local gates = gate
    if text == '-' then text = '' end -- it was parked before any step that is left to do had begun
    if event == 'resume' and text ~= '' and text ~= gate then gates = '*' end
    table.insert(writes, KEYS[i])
    table.insert(writes, string.format('held %.0f %.0f %s %s 0 %.0f %.0f %s %s %s\n', epoch, now + lease, owner, nonce, dups, deaths, digest, sid, gates) .. stored)
    table.insert(journal, {id, verdict, epoch, from, ''})
    if event == 'resume' or deliveries > 0 then table.insert(claims, sid) end
  end
  if verdict == 'same' then
    verdict = 'resume'
    if deaths >= poison then verdict, n = 'poison', deaths end
  end
  replies[i - 4] = {verdict, string.format('%.0f', epoch), string.format('%.0f', n), text, entry and stored or ''}
end

if #writes > 0 then redis.call('MSET', unpack(writes)) end
for _, a in ipairs(acks) do
  if a.sid ~= '-' and redis.call('XACK', KEYS[1], group, a.sid) == 1 and a.key then
    redis.call('SET', a.key, string.format('%s %.0f %s', a.before, a.dups + 1, a.after), 'KEEPTTL')
  end
end
for _, j in ipairs(journal) do
  redis.call('XADD', KEYS[2], 'MINID', '~', string.format('%.0f', math.max(0, now / 1000 - retention)), '*',
    'id', j[1], 'group', group, 'event', j[2], 'epoch', string.format('%.0f', j[3]), 'owner', owner, 'from', j[4],
    'step', '', 'outcome', '', 'reason', j[5]) -- the fields of a record: Redis keeps the names of alike lines once
end
for _, p in ipairs(parks) do
  redis.call('ZADD', KEYS[4], p[3], p[1])
  if p[2] ~= '-' then redis.call('XACK', KEYS[1], group, p[2]) end
end
for name, b in pairs(breakers) do
  if b.counted then redis.call('HSET', KEYS[3], 'window:' .. name, b.window) end
end
for _, name in ipairs(tripped) do
  redis.call('HSET', KEYS[3], 'tripped:' .. name, breakers[name].tripped)
  local _, most, within = string.match(breakers[name].tripped, '^(%d+) (%d+) (%d+)')
  -- Somebody is to be told: an alert like any other, for whichever playbook notifies.
  redis.call('XADD', KEYS[1], '*', 'alert', string.format('{"source":"riposte","level":"HIGH","title":"Breaker %s has tripped",' ..
    '"description":"More than %s alerts within %.0f s. Those that follow wait until somebody runs: riposte breaker reset %s",' ..
    '"rule":{"id":"riposte-breaker","name":"%s"}}', name, most, tonumber(within) / 1000000, name, name))
end
-- The pending list then shows who really has it. JUSTID: a grant is not one more delivery.
-- XCLAIM of an entry deleted from the stream would drop it from the pending list, and a
-- grant whose holder dies before it has buried it would then be found by nobody.
for _, sid in ipairs(claims) do
  if sid ~= '-' and #redis.call('XRANGE', KEYS[1], sid, sid) > 0 then
    redis.pcall('XCLAIM', KEYS[1], group, owner, 0, sid, 'JUSTID')
  end
end
return replies
