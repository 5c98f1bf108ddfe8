-- The cloud budget of one account and region: grants one call, or says how long to wait. Redis runs a script alone, so
-- all workers see one truth, by Redis' own clock.
--
-- Three buckets: "mutate" and "read", each with a rate that follows the cloud's throttling, and "total", which both
-- draw from. A mutation that waits has its share of the total set aside; a read takes what is left over.
--
-- Waiters stand in one line per class, by score: what pods wait for first, then nodes already begun, then by arrival.
-- The waiter at place p is granted when p + 1 tokens are there, so a late waker costs those behind it nothing as long as
-- the bucket has room.
-- A place lapses when its owner does not come back in time.
--
-- KEYS: 1 state hash, 2 line of mutations, 3 line of reads, 4 when places lapse (all with one hash tag)
-- ARGV: 1 verb, 2 class, 3-11 limits, 12 ticket, 13 score or "", 14 rank (0 is first, 3 last), 15 and 16 the rates that
--       the caller last knew, of mutations and of reads
-- Returns strings: granted (0/1), wait in seconds, score, rate of the class, mutations waiting, reads waiting, Redis' time
-- in seconds, cut (0/1)

local verb, class = ARGV[1], ARGV[2]
local ceiling = { mutate = tonumber(ARGV[3]), read = tonumber(ARGV[5]), total = tonumber(ARGV[7]) }
local burst = { mutate = tonumber(ARGV[4]), read = tonumber(ARGV[6]), total = tonumber(ARGV[8]) }
local cut_factor, cut_interval, growth_share = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local line = { mutate = KEYS[2], read = KEYS[3] }

local RANK = 2 ^ 50           -- times the rank is added to the score, so that it sorts behind every lower one
local FLOOR_SHARE = 0.05      -- of the ceiling: the rate is never cut below it
local LONGEST_SLEEP = 2.0     -- seconds; a waiter comes back at least this often ...
local GRACE = 1.0             -- ... and lapses when it is later than this
local KEEP = 3600             -- seconds that the state outlives its last use

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6

local state = {}
local flat = redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do state[flat[i]] = tonumber(flat[i + 1]) end

-- Redis' clock is the wall clock. After it was set back, tokens stop for no time at all, and places are taken anew:
-- owners keep their scores.
if state.at and now < state.at then
  if state.at - now > GRACE then redis.call('DEL', KEYS[2], KEYS[3], KEYS[4]) end
  state.at = now
end

local elapsed = now - (state.at or now)
local rate, tokens = { total = ceiling.total }, {}
-- State unknown to Redis starts with empty buckets, at the rates that this worker last knew: nobody can tell what was
-- spent before.
local hint = { mutate = tonumber(ARGV[15]), read = tonumber(ARGV[16]) }
for _, name in ipairs({ 'mutate', 'read' }) do
  local known = state['rate_' .. name] or hint[name]
  rate[name] = math.max(ceiling[name] * FLOOR_SHARE, math.min(known, ceiling[name]))
end
for _, name in ipairs({ 'mutate', 'read', 'total' }) do
  tokens[name] = math.min(burst[name], (state['tokens_' .. name] or 0) + elapsed * rate[name])
end

for _, ticket in ipairs(redis.call('ZRANGE', KEYS[4], '-inf', now, 'BYSCORE', 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[2], ticket)
  redis.call('ZREM', KEYS[3], ticket)
  redis.call('ZREM', KEYS[4], ticket)
end

local function forget(ticket)
  redis.call('ZREM', line[class], ticket)
  redis.call('ZREM', KEYS[4], ticket)
end

-- Tokens of the total that waiting mutations need, beyond what will have flowed in by their turn.
local function set_aside()
  local waiting = redis.call('ZCARD', KEYS[2])
  local now_ready = math.min(waiting, math.max(0, math.floor(tokens.mutate)))
  local aside = now_ready
  for _, place in ipairs({ now_ready + 1, waiting }) do
    if place > now_ready and place <= waiting then
      local turn = math.max(0, place - tokens.mutate) / rate.mutate
      aside = math.max(aside, place - turn * ceiling.total)
    end
  end
  return aside
end

local granted, wait, score, cut = 0, 0, 0, 0

if verb == 'acquire' then
  local ticket = ARGV[12]
  score = tonumber(ARGV[13])
  if not score then
    state.sequence = (state.sequence or 0) + 1
    score = state.sequence + tonumber(ARGV[14]) * RANK
  end
  local before = redis.call('ZCOUNT', line[class], '-inf', string.format('(%.0f', score))
  local aside = 0
  if class == 'read' then aside = set_aside() end
  local lack = before + 1 - tokens[class]
  local lack_total = before + 1 + aside - tokens.total
  -- What is a rounding error of a token away counts as there.
  if lack < 1e-6 and lack_total < 1e-6 then
    granted = 1
    tokens[class] = tokens[class] - 1
    tokens.total = tokens.total - 1
    forget(ticket)
  else
    wait = math.max(lack / rate[class], lack_total / ceiling.total, 0.001)
    redis.call('ZADD', line[class], string.format('%.0f', score), ticket)
    redis.call('ZADD', KEYS[4], string.format('%.6f', now + math.min(wait, LONGEST_SLEEP) + GRACE), ticket)
  end
elseif verb == 'leave' then
  forget(ARGV[12])
elseif verb == 'throttled' then
  if now - (state['cut_' .. class] or 0) >= cut_interval then
    cut = 1
    rate[class] = math.max(ceiling[class] * FLOOR_SHARE, rate[class] * cut_factor)
    -- The cloud's bucket is empty, so what is left here is worth nothing.
    tokens[class] = math.min(tokens[class], 0)
    state['cut_' .. class] = now
  end
  state['grown_' .. class] = now
elseif verb == 'succeeded' then
  -- What lay idle does not count: growth is earned by calls that the cloud took.
  local since = math.min(2.0, now - (state['grown_' .. class] or now))
  rate[class] = math.min(ceiling[class], rate[class] + since * growth_share * ceiling[class])
  state['grown_' .. class] = now
end

state.at = now
for _, name in ipairs({ 'mutate', 'read' }) do state['rate_' .. name] = rate[name] end
for _, name in ipairs({ 'mutate', 'read', 'total' }) do state['tokens_' .. name] = tokens[name] end
local fields = {}
for name, value in pairs(state) do
  fields[#fields + 1] = name
  fields[#fields + 1] = string.format('%.6f', value)
end
redis.call('HSET', KEYS[1], unpack(fields))
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, KEEP) end

return {
  tostring(granted), string.format('%.6f', wait), string.format('%.0f', score), string.format('%.6f', rate[class]),
  tostring(redis.call('ZCARD', KEYS[2])), tostring(redis.call('ZCARD', KEYS[3])), string.format('%.6f', now),
  tostring(cut),
}
