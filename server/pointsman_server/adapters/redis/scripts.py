"""The cache protocol, in Lua: each script is atomic, and everyone who touches Redis goes through one of them.

One hash per key: ``r`` the revision as of which the value is true, ``v`` the value (empty: no such route), ``l`` the
owner that holds the lease, ``p:<owner>`` one mark for each write under way. Revisions are zero-padded and compared as
strings: Lua's numbers lose precision past 2^53. The lease is that of "Scaling Memcache at Facebook" (NSDI '13, §3.2.1).

One hash more is the clock as Redis knows it: ``epoch`` the epoch that is current, and for each epoch, under its name,
the highest revision known to be committed. It comes as an argument, because it is none of the keys that are asked for.
"""

# Says whether a text is a revision as we write it; the highest is that of PostgreSQL's bigint. Anything else would
# fence out every write for good, or be told as the state of the store.
_REVISION = """
local function is_revision(r)
  return type(r) == 'string' and #r == 20 and string.find(r, '^%d+$') and r <= '09223372036854775807'
end
"""

# Splits a hash into its parts; every script begins with it. What is not of our making counts as absent, and a key of
# another type goes: an error here would fail the whole batch, and open the breaker for every key.
_PARTS = (
    _REVISION
    + """
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
  if not (v and is_revision(r)) then r, v = nil, nil end
  return r, v, l, marked
end
"""
)

# Says whether the clock names another epoch than ours. One that Redis lost names none.
_FOREIGN = """
local function foreign(clock, epoch)
  local current = redis.pcall('HGET', clock, 'epoch')
  return type(current) == 'string' and current ~= epoch
end
"""

# Marks a key for a write, which ends its lease; and says the highest revision under the epoch, if known.
_MARK = (
    _REVISION
    + """
local function mark(key, owner, ms)
  if type(redis.pcall('HDEL', key, 'l')) == 'table' then redis.call('DEL', key) end
  redis.call('HSET', key, 'p:' .. owner, '')
  redis.call('PEXPIRE', key, ms)
end
local function highest(clock, epoch)
  local revision = redis.pcall('HGET', clock, epoch)
  return is_revision(revision) and revision or ''
end
"""
)

# Makes our epoch the current one, and its revision at least ours; gives its highest.
_PUBLISH_CLOCK = """
local function tick(clock, epoch, revision)
  if type(redis.pcall('HSET', clock, 'epoch', epoch)) == 'table' then
    redis.call('DEL', clock)
    redis.call('HSET', clock, 'epoch', epoch)
  end
  local highest = redis.call('HGET', clock, epoch)
  if is_revision(highest) and highest >= revision then return highest end
  redis.call('HSET', clock, epoch, revision)
  return revision
end
"""

# ARGV: clock, epoch, revision. Gives the highest revision under the epoch.
PUBLISH_CLOCK = _REVISION + _PUBLISH_CLOCK + "return tick(ARGV[1], ARGV[2], ARGV[3])"

# ARGV: owner, lease in ms, clock, epoch. Answers two fields a key: its revision and value, or 'L' (leased) or 'B'
# (busy) and ''.
GET = (
    _PARTS
    + _FOREIGN
    + """
local out, other = {}, foreign(ARGV[3], ARGV[4])
for i, key in ipairs(KEYS) do
  local r, v, l, marked = parts(key)
  local first, second = 'B', ''
  if not marked and not other then
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

# ARGV: owner, then revision, value and ms a key. Only into a value that is older, or under the lease.
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

# ARGV: owner, mark in ms, clock, epoch. Before the commit: from here on the key is neither answered nor filled. Gives
# the highest revision under the epoch, if known: the commit must get a higher one.
MARK = (
    _MARK
    + """
for _, key in ipairs(KEYS) do mark(key, ARGV[1], ARGV[2]) end
return highest(ARGV[3], ARGV[4])
"""
)

# ARGV: owner, then revision, value and ms a key, then clock, epoch and highest revision. After the commit. A mark of
# ours that is gone means that Redis lost data since: then what is there may have been filled from before the commit,
# and goes.
SETTLE = (
    _PARTS
    + _PUBLISH_CLOCK
    + """
tick(ARGV[#ARGV - 2], ARGV[#ARGV - 1], ARGV[#ARGV])
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

# ARGV: owner, mark in ms, clock, epoch, then all keys, a line each: hundreds of arguments take the client ten times as
# long as one. Only what is there is marked: what is not is loaded under a lease, which DROP ends. Gives what MARK does.
MARK_HELD = (
    _MARK
    + """
for key in string.gmatch(ARGV[5], '[^\\n]+') do
  if redis.call('EXISTS', key) == 1 then mark(key, ARGV[1], ARGV[2]) end
end
return highest(ARGV[3], ARGV[4])
"""
)

# ARGV: owner, clock, epoch, highest revision, then all keys, a line each, and their revisions, one after the other.
# After the commit. The marks of others go with what is older: one of them that committed before us, and settles after
# us, would bring back its value.
DROP = (
    _REVISION
    + _PUBLISH_CLOCK
    + """
tick(ARGV[2], ARGV[3], ARGV[4])
local mark, at = 'p:' .. ARGV[1], 1
for key in string.gmatch(ARGV[5], '[^\\n]+') do
  if redis.call('EXISTS', key) == 1 then
    local r = redis.pcall('HGET', key, 'r')
    if is_revision(r) and r >= string.sub(ARGV[6], at, at + 19) then
      redis.call('HDEL', key, mark)
    else
      redis.call('DEL', key)
    end
  end
  at = at + 20
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
