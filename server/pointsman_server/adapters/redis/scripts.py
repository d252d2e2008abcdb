"""The cache protocol in Lua. Every access to Redis is one of these scripts, so each is atomic.

One hash per key: ``r`` the revision as of which the value is true, ``v`` the value (empty: no such route), ``l`` the
owner of the lease, ``p:<owner>`` one mark per write in progress. Revisions are zero-padded and compared as strings:
Lua's numbers lose precision past 2^53. The lease is that of "Scaling Memcache at Facebook" (NSDI '13, §3.2.1).

One more hash is the clock: ``epoch`` is the current epoch, and for each epoch the field of its name is the highest
revision known to be committed. Its name is an argument, because it is none of the keys that are looked up.

**Redis that refuses writes** (a read-only replica, ``min-replicas-to-write``, a disk error): a write of ours cannot
replace what is there, so nothing that is there is answered. GET therefore writes too, and fails like the others.

**Redis that is full and evicts nothing** refuses only commands that may allocate, and of a script only until its first
write. Marks begin with HDEL, so they are always set. A value that does not fit is dropped, and the older one with it.
"""

# Whether a text is a revision as we write it; the highest is that of PostgreSQL's bigint. Anything else could fence out
# every write, or be taken for the state of the store.
_REVISION = """
local function is_revision(r)
  return type(r) == 'string' and #r == 20 and string.find(r, '^%d+$') and r <= '09223372036854775807'
end
"""

# Reads a hash. Fields that are not ours count as absent, and a key of another type is deleted: an error would fail the
# whole batch, and open the breaker for every key.
#
# A key that has expired counts as absent: a script on a replica sees it for as long as the replica gets no DEL from its
# primary. So does one that never expires, which none of ours is.
_PARTS = (
    _REVISION
    + """
local function parts(key)
  local h, r, v, l, marked = redis.pcall('HGETALL', key), nil, nil, nil, false
  if h.err or (#h > 0 and redis.call('PTTL', key) <= 0) then
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

# Stores a value. Where Redis is full the key is deleted instead; where it refuses writes that fails as well.
_STORE = """
local function store(key, revision, value)
  local stored = type(redis.pcall('HSET', key, 'r', revision, 'v', value)) ~= 'table'
  if not stored then redis.call('DEL', key) end
  return stored
end
"""

# Whether the clock names another epoch than ours. A clock that was lost names none.
_FOREIGN = """
local function foreign(clock, epoch)
  local current = redis.pcall('HGET', clock, 'epoch')
  return type(current) == 'string' and current ~= epoch
end
"""

# Marks a key for a write, which ends its lease; and reads the highest revision of the epoch, empty if not known. A key
# that cannot be marked, for the rights of our user, is deleted.
_MARK = (
    _REVISION
    + """
local function mark(key, owner, ms)
  if type(redis.pcall('HDEL', key, 'l')) == 'table' then redis.call('DEL', key) end
  if type(redis.pcall('HSET', key, 'p:' .. owner, '')) == 'table' then redis.call('DEL', key) end
  redis.call('PEXPIRE', key, ms)
end
local function highest(clock, epoch)
  local revision = redis.pcall('HGET', clock, epoch)
  return is_revision(revision) and revision or ''
end
"""
)

# Makes our epoch the current one, and its revision at least ours. Returns its highest revision, and whether Redis is
# full.
_PUBLISH_CLOCK = """
local function publish_clock(clock, epoch, revision)
  local result = redis.pcall('HSET', clock, 'epoch', epoch)
  local full = false
  if type(result) == 'table' then
    full = string.find(result.err, 'OOM', 1, true) ~= nil
    -- A clock of another type is deleted. A full Redis lets a script allocate once it has written something.
    redis.call('DEL', full and clock .. ':none' or clock)
    redis.call('HSET', clock, 'epoch', epoch)
  end
  local highest = redis.call('HGET', clock, epoch)
  if is_revision(highest) and highest >= revision then return highest, full end
  redis.call('HSET', clock, epoch, revision)
  return revision, full
end
"""

# ARGV: clock, epoch, revision. Returns the highest revision of the epoch.
PUBLISH_CLOCK = _REVISION + _PUBLISH_CLOCK + "return (publish_clock(ARGV[1], ARGV[2], ARGV[3]))"

# ARGV: owner, lease in ms, clock, epoch. Returns two fields per key: its revision and value, or 'L' (leased) or 'B'
# (busy) and ''. Fails where Redis refuses writes, which deleting what is not there shows.
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
    elseif not l and type(redis.pcall('HSET', key, 'l', ARGV[1])) ~= 'table' then
      redis.call('PEXPIRE', key, ARGV[2])
      first = 'L'
    end
  end
  out[2 * i - 1], out[2 * i] = first, second
end
redis.call('DEL', ARGV[3] .. ':none')
return out
"""
)

# ARGV: owner, then revision, value and ms per key. Replaces an older value, or fills under the lease.
FILL = (
    _PARTS
    + _STORE
    + """
for i, key in ipairs(KEYS) do
  local revision, value, ttl = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  local r, _, l, marked = parts(key)
  if not marked and ((r and r < revision) or (not r and l == ARGV[1])) and store(key, revision, value) then
    redis.call('HDEL', key, 'l')
    redis.call('PEXPIRE', key, ttl)
  end
end
"""
)

# ARGV: owner, mark in ms, clock, epoch. Before the commit: from here on the key is neither answered nor filled.
# Returns the highest revision of the epoch, empty if not known: the commit must get a higher one.
MARK = (
    _MARK
    + """
for _, key in ipairs(KEYS) do mark(key, ARGV[1], ARGV[2]) end
return highest(ARGV[3], ARGV[4])
"""
)

# ARGV: owner, then revision, value and ms per key, then clock, epoch and highest revision. After the commit. A lost
# mark of ours means that Redis has lost data since: what is there may have been filled from before the commit, and is
# dropped.
SETTLE = (
    _PARTS
    + _PUBLISH_CLOCK
    + """
local _, full = publish_clock(ARGV[#ARGV - 2], ARGV[#ARGV - 1], ARGV[#ARGV])
for i, key in ipairs(KEYS) do
  local revision, value, ttl = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  local own = redis.pcall('HDEL', key, 'p:' .. ARGV[1])
  local r, _, _, marked = parts(key)
  if not (r and r >= revision) then
    redis.call('HDEL', key, 'r', 'v', 'l')
    if own == 1 and not full then
      redis.call('HSET', key, 'r', revision, 'v', value)
      if not marked then redis.call('PEXPIRE', key, ttl) end
    end
  end
end
"""
)

# ARGV: owner, mark in ms, clock, epoch, then all keys, one per line: hundreds of arguments take the client ten times as
# long as one. Marks only keys that exist: one that does not is loaded under a lease, which DROP ends. Returns what MARK
# does.
MARK_HELD = (
    _MARK
    + """
for key in string.gmatch(ARGV[5], '[^\\n]+') do
  if redis.call('EXISTS', key) == 1 then mark(key, ARGV[1], ARGV[2]) end
end
return highest(ARGV[3], ARGV[4])
"""
)

# ARGV: owner, clock, epoch, highest revision, then all keys, one per line, and their revisions, one after the other.
# After the commit. Other writers' marks are dropped with what is older: one of them that committed before us, and
# settles after us, would store its older value.
DROP = (
    _REVISION
    + _PUBLISH_CLOCK
    + """
publish_clock(ARGV[2], ARGV[3], ARGV[4])
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

# ARGV: unused, then revision, value and ms per key. Replaces what is older, never adds an absent key.
CONSUME = (
    _PARTS
    + _STORE
    + """
for i, key in ipairs(KEYS) do
  local revision, value, ttl = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  local r, _, l, marked = parts(key)
  if r and r < revision then
    if store(key, revision, value) and not marked then redis.call('PEXPIRE', key, ttl) end
  elseif not r and l then
    redis.call('HDEL', key, 'l')
  end
end
"""
)

# ARGV: the revision of each key. Drops what is older, and a lease, whose load may be older; marks stay.
INVALIDATE = (
    _PARTS
    + """
for i, key in ipairs(KEYS) do
  local r, _, l = parts(key)
  if (r and r < ARGV[i]) or (not r and l) then redis.call('HDEL', key, 'r', 'v', 'l') end
end
"""
)

# ARGV: clock, epoch. Changes nothing, so a key of another type, or one that has expired, is left where it is. Returns
# whether the clock names another epoch; then, of a key that there is, revision, value and what is left of its time to
# live in ms; and whether it is leased, and marked.
PEEK = (
    _REVISION
    + _FOREIGN
    + """
local other, ms = foreign(ARGV[1], ARGV[2]) and 1 or 0, redis.call('PTTL', KEYS[1])
local h = redis.pcall('HGETALL', KEYS[1])
if h.err or ms <= 0 then return {other} end
local r, v, leased, marked = '', '', 0, 0
for i = 1, #h, 2 do
  local name = h[i]
  if name == 'r' then r = h[i + 1]
  elseif name == 'v' then v = h[i + 1]
  elseif name == 'l' then leased = 1
  elseif string.sub(name, 1, 2) == 'p:' then marked = 1 end
end
return {other, is_revision(r) and r or '', v, ms, leased, marked}
"""
)

# Drops a key that no other script can replace, because it is on its way to another node of a cluster.
FORGET = "return redis.call('DEL', KEYS[1])"

# Fails unless Redis does all that the scripts above need: commands, rights, memory. The two keys have different hash
# slots, which Redis Cluster refuses, unless their names have a hash tag.
CHECK = """
local key, other = KEYS[1], KEYS[2]
redis.call('HSET', key, 'r', '', 'v', '')
redis.call('PEXPIRE', key, 10000)
redis.call('HGETALL', key)
redis.call('HGET', key, 'r')
redis.call('PTTL', key)
redis.call('HDEL', key, 'v')
redis.call('EXISTS', other)
redis.call('DEL', other)
"""

_NAMES = {
    GET: "get",
    PEEK: "peek",
    FILL: "fill",
    MARK: "mark",
    SETTLE: "settle",
    MARK_HELD: "mark_held",
    DROP: "drop",
    CONSUME: "consume",
    INVALIDATE: "invalidate",
    PUBLISH_CLOCK: "publish_clock",
}


def name_of(script: object) -> str:
    """Return the name of one of these scripts, for traces."""
    return _NAMES.get(script, "another") if isinstance(script, str) else "another"
