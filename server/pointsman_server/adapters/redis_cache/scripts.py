"""The cache protocol, in Lua: each script is atomic, and everyone who touches Redis goes through one of them.

One hash per key: ``r`` the revision as of which the value is true, ``v`` the value (empty: no such route), ``l`` the
token that holds the lease, ``p:<token>`` one mark for each write under way. Revisions are zero-padded and compared as
strings: Lua's numbers lose precision past 2^53. The lease is that of "Scaling Memcache at Facebook" (NSDI '13, §3.2.1).
"""

# Splits a hash into its parts; every script begins with it. What is not of our making counts as absent, and a key of
# another type goes: an error here would fail the whole batch, and open the breaker for every key.
_PARTS = """
local function parts(key)
  local h, r, v, l, marked = redis.pcall('HGETALL', key), nil, nil, nil, false
  if h.err then
    redis.call('DEL', key)
    h = {}
  end
  for i = 1, #h, 2 do
    local name = h[i]
    if name == 'r' then r = h[i + 1]
    elseif name == 'v' then v = h[i + 1]
    elseif name == 'l' then l = h[i + 1]
    elseif string.sub(name, 1, 2) == 'p:' then marked = true end
  end
  if not (r and v and #r == 20 and string.find(r, '^%d+$')) then r, v = nil, nil end
  return r, v, l, marked
end
"""

# ARGV: token, lease in ms. Answers two fields a key: its revision and value, or 'L' (leased) or 'B' (busy) and ''.
GET = (
    _PARTS
    + """
local out = {}
for i, key in ipairs(KEYS) do
  local r, v, l, marked = parts(key)
  local first, second = 'B', ''
  if not marked then
    if r then first, second = r, v
    elseif not l then
      redis.call('HSET', key, 'l', ARGV[1])
      redis.call('PEXPIRE', key, ARGV[2])
      first = 'L'
    end
  end
  out[2 * i - 1], out[2 * i] = first, second
end
return out
"""
)

# ARGV: token, then revision, value and ms a key. Only into a value that is older, or under the lease.
FILL = (
    _PARTS
    + """
for i, key in ipairs(KEYS) do
  local revision, value, ttl = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  local r, _, l, marked = parts(key)
  if not marked and ((r and r < revision) or (not r and l == ARGV[1])) then
    redis.call('HSET', key, 'r', revision, 'v', value)
    redis.call('HDEL', key, 'l')
    redis.call('PEXPIRE', key, ttl)
  end
end
"""
)

# ARGV: token, mark in ms. Before the commit: from here on the key is neither answered nor filled.
MARK = """
for _, key in ipairs(KEYS) do
  if type(redis.pcall('HDEL', key, 'l')) == 'table' then redis.call('DEL', key) end
  redis.call('HSET', key, 'p:' .. ARGV[1], '')
  redis.call('PEXPIRE', key, ARGV[2])
end
"""

# ARGV: token, then revision, value and ms a key. After the commit. A mark of ours that is gone means that Redis lost
# data since: then what is there may have been filled from before the commit, and goes.
SETTLE = (
    _PARTS
    + """
for i, key in ipairs(KEYS) do
  local revision, value, ttl = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  local own = redis.pcall('HDEL', key, 'p:' .. ARGV[1])
  local r, _, _, marked = parts(key)
  if not (r and r >= revision) then
    redis.call('HDEL', key, 'r', 'v', 'l')
    if own == 1 then
      redis.call('HSET', key, 'r', revision, 'v', value)
      if not marked then redis.call('PEXPIRE', key, ttl) end
    end
  end
end
"""
)

# ARGV: a dummy, then revision, value and ms a key. Replaces what is older, never brings back what is absent.
CONSUME = (
    _PARTS
    + """
for i, key in ipairs(KEYS) do
  local revision, value, ttl = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  local r, _, l, marked = parts(key)
  if r and r < revision then
    redis.call('HSET', key, 'r', revision, 'v', value)
    if not marked then redis.call('PEXPIRE', key, ttl) end
  elseif not r and l then
    redis.call('HDEL', key, 'l')
  end
end
"""
)
