#!/usr/bin/env python3
"""Random-interleaving model check of the order protocol (design, not code).

Modelled.  Shards are MVCC stores with their own revisions, compaction, leases
and times without a quorum (snapshot reads still work then, nothing else does).
The order log is one list of entries, all appended without any condition:
  cover(vector) open(batch) fenced(batch) decided(batch) closed(batch, ends)
  compact(G)
All else (cut V, global revision G, map from shard revisions to global ones,
queues, pins, outcomes) is a function of the log: an entry that comes too late
has no effect.  Every proxy replays its OWN copy, which lags at random; where
the rules say "read the log" it takes a linearizable position and waits to
replay that far.  Client operations go through any proxy and are coroutines:
every `yield` is one network trip at which anything else may run.  At any yield
an operation may die, or sleep and wake up late (also after all has been
cleaned up); any entry and any request of a batch may lose its answer or land
late.  Operations: put (with and without a lease), delete, linearizable,
serializable and historical reads, Compact, single-shard transactions with
= < > on mod (a made-up revision, above the log, is folded and guarded by
"unchanged since the cut"), a Put that fails on an absent key, batches of one to
three transactions over several shards (docs/decisions/2026-11-25-cross-shard.md),
answered once they are decided, and the end of leases: on one shard each under
a pin, over several as an item.  Anybody helps at once; batches are rolled back
when a shard is away, closed shard by shard, and forgotten after some entries.
A roll-back may find no space to record its id; so fences land that nobody
needs.  Now and then somebody writes past all proxies.

Checked after every run, by replaying the global order on ONE plain store:
  * revisions are dense: each has events, those of exactly one operation, and
    each operation has at most one, also when it died (a fence that nobody
    needed may cost numbers, and a write past all proxies that falls between a
    fence and a step shares the number of the step and voids the compares);
  * on every shard the numbers ascend;
  * an acknowledged write has its effect at its revision, nobody else's;
  * linearizable and serializable reads equal the state at their header, so
    they are some consistent past state; historical ones that at their revision;
    what a transaction reads, its own writes included, that at its revision;
  * compares hold (or fail) just before the write, or at the header if nothing
    was written; for transactions also when nobody was left to hear it;
  * a lease on several shards ends at one revision, with all its keys; none of
    its keys is there at or after the revision told to whoever ended it;
  * real time: an operation that started after another had returned never has
    a smaller revision, a write a larger one (serializable reads may be old);
  * an error that depends on state was true at some moment of the call; a
    completed Compact is obeyed; "future revision" is never said of a known one;
  * no compaction at or above a revision that is pending on some shard;
  * a shard that is away keeps no pin or fence on others, and no batch that is
    undecided; when all are back, a surviving proxy leaves no fence, pin or
    batch behind; all operations end.
Not modelled: watches, range compares, map sweeps and checkpoints, restored
backups, two routing tables, limits inside the shards, the queue inside a proxy.

Usage: order_model.py [runs] [seed]
       order_model.py --mutants [runs]    each breakage below must be found
(runs are 20000, with --mutants 10000 unless told)
"""
import operator, random, sys

MUTANTS = {
    "read-head": "linearizable reads at the shard's head, not at the cut",
    "read-no-position": "linearizable reads at what this proxy has replayed",
    "ack-early": "write acknowledged before it is covered",
    "write-ignores-fence": "ordinary writes do not look for a fence",
    "cover-ignores-pins": "cover moves V of pinned shards too",
    "written-decided": "the cover of a write that found no fence counts when the batch is decided or a pin, too",
    "two-revisions": "each shard of a transaction gets its own revision",
    "header-not-lowered": "wrote nothing: header = G although the shard moved on",
    "header-no-position": "wrote nothing: header from what was replayed before",
    "header-no-pending": "wrote nothing: the pending item is not counted",
    "lt-floor": "mod < G translated to r < floor(G)",
    "stale-map": "compares translated with a map that has not reached G",
    "translate-pending": "compares translated while an item, pending on that shard, has a revision <= G",
    "future-never": "a revision above the log is translated by the map that ends below it",
    "made-up-unguarded": "compare with a made-up revision folded without the guard compare",
    "error-early": "error that depends on state returned before it is covered",
    "read-pending": "reader does not finish a batch on a pending shard it needs",
    "hist-no-position": "historical read without a position of the log",
    "compact-unlogged": "Compact goes to the shards, not to the log",
    "compact-pending": "Compact does not finish items pending at or below it first",
    "serial-torn": "serializable read takes each shard's newest V, not one cut",
    "serial-pending": "serializable read at G, not just below what is pending",
    "no-nonce": "answer to open lost: take a batch on my shards for mine",
    "open-twice": "an open whose nonce is known has an effect",
    "until-ignored": "an open has an effect when its nonce may be forgotten",
    "forgotten-is-never": "a batch that is forgotten is taken for one that never came",
    "active-at-once": "a batch is active although others are before it",
    "queued-fence": "a batch is fenced while it is queued",
    "rollback-unqueued": "a batch rolled back when active leaves its queues at once, like a queued one",
    "rollback-skips-unfenced": "roll-back records its id only where there is a fence",
    "fence-reenters": "a fence is put without looking at the last closed id",
    "stale-fence-stays": "nobody removes a fence whose batch has ended",
    "stale-unlogged": "a fence that is met is removed without reading the log",
    "no-fenced": "compares evaluated while what is before the fence has no revision yet",
    "fence-numbered": "the fence gets a revision",
    "decide-again": "decided has an effect on a batch that is decided or rolled back",
    "ack-undecided": "the client is answered by what was evaluated, not by what was decided",
    "own-outcome": "apply what was evaluated here, not what was decided",
    "answer-head": "the client is answered from what the shards hold now, not from the fence",
    "answer-no-overlay": "the answer does not have the item's own writes",
    "header-item": "wrote nothing in a batch: header = G after the items of the batch",
    "items-conflict": "items of one batch touch what others write",
    "items-reversed": "the steps are not in the order of the revisions",
    "apply-unguarded": "a step is done without comparing the fence",
    "step-uncounted": "a step compares the id of the fence only",
    "steps-lost": "who finds steps that others did takes the newest revision for all",
    "stray-alone": "a write between fence and step gets a number of its own",
    "close-unapplied": "close releases shards that did not answer",
    "close-whole": "close waits until all shards answered",
    "queue-waits": "a queued batch behind a shard that is away is never rolled back",
    "lease-unpinned": "a lease on one shard ends without a pin",
    "lease-late": "who takes over closes without having the leases ended",
    "lease-apart": "a lease on several shards ends on each by itself",
    "no-help": "nobody finishes another proxy's batch",
}
BROKEN = None               # the mutant now applied


def bad(name):
    return BROKEN == name


FENCE, CLOSED = "\0fence", "\0closed"
MAX = 2 ** 63 - 1
OPS = {"=": operator.eq, "<": operator.lt, ">": operator.gt}


def lease_of(v):
    """the lease that a value is attached to"""
    return int(v.partition("@")[2] or 0) if v else 0


class Shard:
    def __init__(s):
        s.rev, s.compacted, s.down_until = 1, 0, 0
        s.log = {}          # rev -> {key: value or None}
        s.hist = {}         # key -> [(rev, value or None)]
        s.ended = {}        # lease -> the revision at which its keys went, or None

    def read(s, key, rev=MAX):
        """(value, mod), or None for a compacted revision"""
        if rev < s.compacted:
            return None
        for r, v in reversed(s.hist.get(key, ())):
            if r <= rev:
                return (v, r) if v is not None else (None, 0)
        return (None, 0)

    def apply(s, writes):
        """one shard transaction; returns the revision after it"""
        writes = {k: v for k, v in writes.items() if v is not None or s.read(k)[0] is not None}
        if writes:
            s.rev += 1
            s.log[s.rev] = writes
            for k, v in writes.items():
                s.hist.setdefault(k, []).append((s.rev, v))
        return s.rev

    def leased(s, lease, rev=MAX):
        return [k for k in s.hist if k[0] != "\0" and lease_of(s.read(k, rev)[0]) == lease]

    def revoke(s, lease):
        keys = s.leased(lease)
        s.ended.setdefault(lease, s.apply({k: None for k in keys}) if keys else None)

    def fence(s):
        """(id, put at, revisions of the steps done, changed at), or None"""
        v, mod = s.read(FENCE)
        if v is None:
            return None
        put = next(r for r, x in reversed(s.hist[FENCE]) if x[1] == 0)
        return v[0], put, v[2] + ((mod,) if v[1] else ()), mod

    def closed(s):
        """last closed id, and how it ended: (fence, steps, revision)"""
        v, mod = s.read(CLOSED)
        if v is None:
            return 0, None
        bid, fence, kind, steps = v
        return bid, (fence, steps + {"step": (mod,), "ends": (mod - 1,), "apart": ()}[kind], mod)


class Item:
    """a client's transaction, or the end of leases {lease: its shards}"""
    def __init__(t, cmps={}, writes={}, reads=(), ends={}):
        t.cmps, t.writes, t.reads, t.ends = cmps, writes, reads, ends


class Batch:
    """what the log says about one batch; without items it is a pin"""
    def __init__(b, bid, nonce, until, shards, items, leases):
        b.id, b.nonce, b.until, b.shards, b.items, b.leases = bid, nonce, until, shards, items, leases
        b.left = list(shards)
        b.phase = "queued"          # then active; decided or rolled back
        b.fences, b.base, b.outcomes, b.ends = {}, None, [], {}

    def pin(b):
        return not b.items

    def revision(b, k):
        """of an item; if it wrote nothing, that of the state it was evaluated on"""
        n = sum(bool(shards) for _, shards in (b.outcomes if bad("header-item") else b.outcomes[:k + 1]))
        return b.base + n if b.outcomes[k][1] or bad("header-item") else b.base

    def writers(b, i):
        ks = [k for k, (_, shards) in enumerate(b.outcomes) if i in shards]
        return ks[::-1] if bad("items-reversed") else ks


class State:
    """a pure function of a prefix of the log"""
    def __init__(s, n):
        s.pos, s.G, s.V, s.compacted = 0, 1, [1] * n, 0
        s.map = {(i, 1): 1 for i in range(n)}       # (shard, rev) -> G
        s.queue, s.nonces, s.pins = {}, {}, {}      # id, nonce, shard -> Batch
        s.batches = []                              # all, for the checks

    def replay(s, entry):
        s.pos += 1
        for nonce in [x for x, b in s.nonces.items() if not b.left and b.until < s.pos]:
            del s.nonces[nonce]
        getattr(s, entry[0])(*entry[1:])

    def advance(s, i, to, own=False):
        """move V; everything gets a number, but the last one if it is a proxy's own"""
        for r in range(s.V[i] + 1, to + (not own or bad("fence-numbered"))):
            s.G += 1
            s.map[i, r] = s.G
        s.V[i] = max(s.V[i], to)

    def cover(s, V, written=False):
        """written: up to a write that found no fence nothing is a batch's own, while none is decided"""
        for i, r in sorted(V.items()):
            b = s.pins.get(i)
            if b is None or written and (b.phase == "active" and not b.pin() or bad("written-decided")) or bad("cover-ignores-pins"):
                s.advance(i, r)

    def open(s, nonce, until, *batch):
        if s.pos > until and not bad("until-ignored") or nonce in s.nonces and not bad("open-twice"):
            return
        b = Batch(s.pos, nonce, until, *batch)      # its id is the entry's position
        s.queue[b.id] = s.nonces[nonce] = b
        s.batches.append(b)
        s.activate()

    def activate(s):
        s.queue = {x: b for x, b in s.queue.items() if b.left}
        s.pins, taken = {}, set()
        for b in s.queue.values():
            if b.phase == "queued" and (not taken & set(b.left) or bad("active-at-once")):
                b.phase = "active"
            taken |= set(b.left)
            if b.phase != "queued":
                s.pins.update({i: b for i in b.left})

    def fenced(s, bid, fences):
        b = s.queue.get(bid)
        if b and b.phase == "active":
            for i, f in sorted(fences.items()):
                s.advance(i, f, own=True)

    def decided(s, bid, fences, outcomes):
        b = s.queue.get(bid)
        if not b or b.phase in ("decided", "rolled back") and not bad("decide-again"):
            return
        if outcomes is None:
            if b.phase == "queued" or bad("rollback-unqueued"):
                b.left = []                         # it never had a fence
            b.phase = "rolled back"
            s.activate()
        elif b.phase != "queued":
            for i, f in sorted(fences.items()):
                s.advance(i, f, own=True)
            b.phase, b.fences, b.base, b.outcomes = "decided", fences, s.G, outcomes
            s.G += sum(bool(shards) for _, shards in outcomes)

    def closed(s, bid, ends):
        b = s.queue.get(bid)
        if not b or b.phase == "queued" or b.phase == "active" and not b.pin():
            return
        if set(b.left) - set(ends) and bad("close-whole"):
            return
        for i, end in sorted(ends.items()):
            if i in b.left:
                s.end(b, i, *end)
                b.ends[i] = end
                b.left.remove(i)
        s.activate()

    def end(s, b, i, fence, steps, rev):
        if b.pin():
            for own in (fence, *steps):
                s.advance(i, own, own=True)
            s.advance(i, rev)
            return
        if b.phase == "decided":
            writers = b.writers(i)
            assert len(steps) == len(writers), ("steps", steps, writers)
            for k, step in zip(writers, steps):
                g = b.revision(k)
                if bad("two-revisions") and i != min(b.shards):
                    s.G += 1
                    g = s.G
                for r in range(s.V[i] + 1, step + 1):   # a stray goes with the step
                    if bad("stray-alone") and r < step:
                        s.G += 1
                    s.map[i, r] = s.G if bad("stray-alone") and r < step else g
                s.V[i] = max(s.V[i], step)
        elif fence:
            s.advance(i, fence, own=True)
        s.advance(i, rev, own=True)

    def compact(s, G):
        s.compacted = max(s.compacted, G)

    def floor(s, i, G):
        """shard i's greatest revision at or below global revision G"""
        return next((r for r in range(s.V[i], 0, -1) if s.map.get((i, r), MAX) <= G), 0)

    def vector(s, G):
        return [s.floor(i, G) for i in range(len(s.V))]

    def pending(s, i):
        """the first global revision that is given out and not there yet on shard i; else MAX"""
        b = s.pins.get(i)
        if b is None or b.phase != "decided":
            return MAX
        return min([b.revision(k) for k in b.writers(i)] + [MAX])


class World:
    def __init__(w, n, rng):
        w.rng, w.clock, w.ids = rng, 0, 0
        w.flaky = rng.choice([0, .1, .3])           # requests that get nowhere
        w.full = rng.choice([0, 0, .2])             # roll-backs that find no space
        w.untils = rng.choice([[40], [2, 8, 20]])
        w.shards = [Shard() for _ in range(n)]
        w.log, w.now = [], State(n)                 # `now`: for recovery and the checks
        w.proxies = [State(n) for _ in range(rng.randint(2, 3))]
        w.deleted = w.missed = None                 # a key whose delete may be uncovered; one that was not there
        w.history, w.inflight = [], []              # in flight: (shard or None, request)
        w.leases = {}                               # lease -> [shards it is attached to, it ends]
        w.holes, w.strays = set(), set()            # (shard, rev)
        w.skipped = set()                           # (shard, batch) where a roll-back found no space

    def append(w, *entry):
        """the entry's position"""
        w.log.append(entry)
        w.now.replay(entry)
        return len(w.log)

    def post(w, *entry):
        """append; 0 without an answer: then it is there, or lands late, or never"""
        x = w.rng.random()
        if x < .04:
            w.inflight.append((None, lambda: w.append(*entry)))
            return 0
        pos = w.append(*entry)
        return pos if x > .08 else 0

    def send(w, i, request):
        """a request to shard i; None without an answer"""
        if not w.up(i):
            return None
        x = w.rng.random()
        if x < .03:
            w.inflight.append((i, request))
            return None
        answer = request(w.shards[i])
        return answer if x > .06 else None

    def land(w, late):
        """deliver what was held up"""
        i, request = late
        request(w.shards[i]) if i is not None else request()

    def catch_up(w, p, pos):
        """proxy p replays to pos at least"""
        if p.pos < pos:
            for e in w.log[p.pos:w.rng.randint(pos, len(w.log))]:
                p.replay(e)

    def up(w, i):
        """does a request to the shard's quorum get through?"""
        return w.clock >= w.shards[i].down_until and w.rng.random() >= w.flaky

    def of(w, k):
        return int(k[1:]) % len(w.shards)


def read_log(w, p):
    """linearizable read of the log's position, then wait until replayed"""
    yield
    pos = len(w.log)
    yield
    w.catch_up(p, pos)


def cover(w, p, need, written=False):
    """append until V covers `need` {shard: rev}; counts as reading the log"""
    while True:
        yield
        pos = w.post("cover", dict(need), written)
        yield
        w.catch_up(p, pos)
        if all(p.V[i] >= r for i, r in need.items()):
            return
        yield from assist(w, p, need)


def assist(w, p, shards):
    """finish whatever pins these shards"""
    yield from read_log(w, p)
    for b in sorted({p.pins[i] for i in shards if i in p.pins}, key=lambda b: b.id):
        if not bad("no-help"):
            yield from drive(w, p, b)


def guard(w, p, i):
    """wait for the shard to answer and to hold no fence; what the caller does
    next, up to its next yield, is the same shard transaction"""
    gone = None
    while True:
        yield
        if w.up(i):
            fence = w.shards[i].fence()
            if fence is None or bad("write-ignores-fence"):
                return w.shards[i]
            if fence[0] == gone and not bad("stale-fence-stays"):
                b = yield from open_batch(w, p, [i], [], [])
                if b and not bad("no-help"):
                    yield from drive(w, p, b)       # a pin takes it away
                continue
            yield from assist(w, p, [i])
            b = p.queue.get(fence[0])
            if not b or i not in b.left:
                gone = fence[0]                     # the log says so


def acked(w, p, rec, i, r, writes):
    rec["wrote"] = writes
    if bad("ack-early"):
        rec["G"] = (i, r)                           # whatever it will be
        return
    yield from cover(w, p, {i: r}, written=True)
    rec["G"] = p.map[i, r]


def header(w, p, i, r):
    """the revision of an operation that read shard i's head at r and wrote
    nothing: G of the log, lowered to just before the shard's next event"""
    if not bad("header-no-position"):
        yield from read_log(w, p)
    if p.V[i] < r:
        yield from cover(w, p, {i: r})
    later = [p.map[i, x] for x in range(r + 1, p.V[i] + 1) if (i, x) in p.map and not bad("header-not-lowered")]
    later += [p.pending(i)] if not bad("header-no-pending") else []
    return min([p.G] + [g - 1 for g in later])


def put(w, p, rec, k, v, present=False):
    """Put or (v None) DeleteRange of one key; `present`: an error if it is absent"""
    i = w.of(k)
    if lease_of(v):
        yield                                       # attach at home, unless the lease ends
        shards, ends = w.leases[lease_of(v)]
        if ends:
            return
        shards.add(i)
    s = yield from guard(w, p, i)
    if lease_of(v) in s.ended:
        return                                      # lease not found
    if s.read(k)[0] is not None or (v is not None and not present):
        w.deleted = k if v is None else w.deleted
        yield from acked(w, p, rec, i, s.apply({k: v}), {k: v})
        w.deleted = None if w.deleted == k else w.deleted
    elif v is None:
        rec["reads"] = {k: None}
        rec["G"] = yield from header(w, p, i, s.rev)
    else:
        rec["absent"] = w.missed = k
        if not bad("error-early"):                  # an error carries no revision, so it must wait for its cover
            yield from cover(w, p, {i: s.rev})


def snapshot(w, p, keys, vector):
    """read keys at one vector; None if a compaction overtook it"""
    out = {}
    for k in keys:
        yield
        i = w.of(k)
        x = w.shards[i].read(k, vector[i])
        if x is None:
            return None
        out[k] = (x[0], p.map.get((i, x[1]), -1) if x[1] else 0)
    return out


def get(w, p, rec, keys):
    """linearizable Range"""
    out = None
    while out is None:
        if not bad("read-no-position"):
            yield from read_log(w, p)
        G = p.G
        if not bad("read-pending"):
            yield from settle(w, p, [w.of(k) for k in keys], G)
        out = yield from snapshot(w, p, keys, [MAX] * len(p.V) if bad("read-head") else p.vector(G))
    rec["G"], rec["at"], rec["out"] = G, G, out


def settle(w, p, shards, G):
    """finish what has a revision <= G and is not everywhere yet"""
    for i in shards:
        while p.pending(i) <= G:
            yield from drive(w, p, p.pins[i])
            yield from read_log(w, p)


def get_serial(w, p, rec, keys):
    """serializable Range: what this proxy has replayed; before what is pending, never waiting for it"""
    out = None
    while out is None:
        H = p.G if bad("serial-pending") else min([p.G] + [p.pending(w.of(k)) - 1 for k in keys])
        out = yield from snapshot(w, p, keys, p.V if bad("serial-torn") else p.vector(H))
        if out is None:
            yield from read_log(w, p)
    rec["G"], rec["at"], rec["out"], rec["serial"] = H, H, out, True


def get_hist(w, p, rec, keys, G):
    """Range(revision=G); the header is the current revision"""
    rec["asked"] = G
    if not bad("hist-no-position"):
        yield from read_log(w, p)
    if G > p.G:
        rec["error"] = "future"
        return
    if not bad("read-pending"):
        yield from settle(w, p, [w.of(k) for k in keys], G)
    H, gone = p.G, G < p.compacted
    out = None if gone else (yield from snapshot(w, p, keys, p.vector(G)))
    if out is None:
        rec["error"] = "compacted"
        return
    rec["G"], rec["at"], rec["out"] = H, G, out


def compact(w, p, rec, G):
    """the log first, then the shards, which may be away (a later one catches up)"""
    rec["asked"] = G
    yield from read_log(w, p)
    if G > p.G:
        rec["error"] = "future"
        return
    if not bad("compact-pending"):                  # else nothing is left for a serializable read while they wait
        yield from settle(w, p, range(len(p.V)), G)
    if not bad("compact-unlogged"):
        yield
        pos = w.append("compact", G)
        yield
        w.catch_up(p, pos)
    H = p.G
    for i, s in enumerate(w.shards):
        yield
        if w.up(i):
            s.compacted = max(s.compacted, p.floor(i, G))
    rec["G"], rec["compact"] = H, G


def cas(w, p, rec, k, op, G, v):
    """single-shard transaction: If mod(k) op G Then put Else get"""
    i = w.of(k)
    top = G - 1 if op == "<" else G                 # the map must be known up to here
    while True:
        if top > p.G and G != MAX and not bad("stale-map"):
            yield from read_log(w, p)
        known = w.now.G if bad("stale-map") else p.G
        made_up = top > known and G != MAX and not bad("future-never")
        # a pending revision is not in the map yet. A made-up one needs no map
        if not bad("translate-pending") and G != MAX and not made_up:
            yield from settle(w, p, [i], top)
        test, cut = translate(p, i, op, G, made_up), p.V[i]
        s = yield from guard(w, p, i)
        cur, mod = s.read(k)
        if not made_up or mod <= cut or bad("made-up-unguarded"):
            break
        yield from cover(w, p, {i: s.rev})          # the guard compare failed, nothing happened: translate anew
    rec["cmps"], rec["held"] = {k: (op, G)}, test(mod)
    if rec["held"]:
        yield from acked(w, p, rec, i, s.apply({k: v}), {k: v})
    else:
        rec["reads"] = {k: cur}
        rec["G"] = yield from header(w, p, i, s.rev)


def translate(p, i, op, G, made_up):
    """mod op G as a test of shard i's own revisions. A made-up G is above the
    log: the test is what it is for every key of now, as long as it is of now"""
    if made_up:
        return lambda mod: op == "<"
    if G in (0, MAX):
        return lambda mod: OPS[op](mod, G)
    if op == "=":                                   # several share it if one is a stray
        return lambda mod: p.floor(i, G - 1) < mod <= p.floor(i, G)
    lim = p.floor(i, G) if op == ">" or bad("lt-floor") else p.floor(i, G - 1) + 1
    return lambda mod: OPS[op](mod, lim)


def txn(w, p, recs):
    """a batch of transactions over several shards, {rec: item}; they are told once it is decided"""
    while recs:
        items = list(recs.values())
        shards = sorted({w.of(k) for t in items for k in [*t.cmps, *t.writes, *t.reads]})
        b = yield from open_batch(w, p, shards, items, [])
        if b is None:                               # forgotten: done, or not
            for n in recs:
                w.history[n]["unknown"] = True
            return
        own = None
        while b.phase in ("queued", "active"):
            own = yield from drive(w, p, b)
            yield from read_log(w, p)
            if own and bad("ack-undecided"):
                break
        told = own if own and bad("ack-undecided") else b.outcomes
        if b.phase == "rolled back" and told is not own:
            continue                                # it never happened: once more
        for k, n in enumerate(list(recs)):
            rec, t = w.history[n], items[k]
            how, wrote = told[k]
            if how == "again":
                continue
            G = b.revision(k) if b.outcomes else p.G
            now = [MAX] * len(w.shards)
            out = yield from snapshot(w, p, t.reads, now if bad("answer-head") else {**dict(enumerate(now)), **b.fences})
            if out is None:
                rec["unknown"] = True               # done, but compacted since
            elif how == "commit" and not bad("answer-no-overlay"):
                out.update({x: (t.writes[x], G) if t.writes[x] is not None else (None, 0) for x in t.reads if x in t.writes})
            rec["G"], rec["cmps"], rec["held"] = G, t.cmps, how == "commit"
            rec["batch"] = b.id
            rec["reply"] = out
            if wrote:
                rec["wrote"] = t.writes
            del recs[n]


def open_batch(w, p, shards, items, leases):
    """1. queue; None if it is so long ago that nobody knows what became of it"""
    w.ids += 1
    nonce, until, first, sent = w.ids, p.pos + w.rng.choice(w.untils), len(w.log), False
    while True:
        yield
        pos = w.post("open", nonce, until, shards, items, leases)
        if pos:
            yield
            w.catch_up(p, pos)
        else:                                       # no answer: it is there, or lands late, or never
            yield from read_log(w, p)
        if bad("no-nonce"):
            mine = [b for b in p.batches if b.id > first and b.shards == shards and len(b.items) == len(items)]
            if mine:
                return mine[-1]
        elif nonce in p.nonces:
            return p.nonces[nonce]
        elif p.pos >= until:
            if not bad("forgotten-is-never"):
                return None
            w.ids += 1
            nonce, until = w.ids, p.pos + w.rng.choice(w.untils)


def drive(w, p, b):
    """carry one batch as far as it goes; safe for several proxies at once, and
    late. What was evaluated here is returned, for what must not be done with it"""
    own = None
    if b.phase == "queued" and not bad("queued-fence"):
        yield from wait(w, p, b)
    elif b.phase in ("queued", "active") and not b.pin():
        own = yield from decide(w, p, b)
    if b.left and (b.phase in ("decided", "rolled back") or b.phase == "active" and b.pin()):
        yield from finish(w, p, b, own)
    return own


def wait(w, p, b):
    """anybody may roll back what is queued: it never had a fence"""
    yield from assist(w, p, b.left)
    if b.phase == "queued" and not bad("queue-waits") and w.rng.random() < .2:
        yield
        w.post("decided", b.id, {}, None)
        yield from read_log(w, p)


def decide(w, p, b):
    """2. to 4.: fence, evaluate, decide, or roll back"""
    fences, give_up = {}, w.rng.random() < .05
    for i in w.rng.sample(b.shards, len(b.shards)):
        f = None if give_up else (yield from put_fence(w, p, b, i))
        if f == 0:                                  # it has ended here; the log knows how
            yield from read_log(w, p)
            return None
        give_up = f is None
        if give_up:
            break
        fences[i] = f
    outcomes = None
    if not give_up:
        reads = any(t.cmps for t in b.items)
        if reads and any(p.V[i] < f - 1 for i, f in fences.items()) and not bad("no-fenced"):
            yield
            pos = w.post("fenced", b.id, fences)
            yield
            w.catch_up(p, pos)
            if not pos or any(p.V[i] < f for i, f in fences.items()):
                yield from read_log(w, p)
                return None
        outcomes = []
        for t in b.items:
            yield
            outcomes.append(evaluate(w, p, t, fences))
        if None in outcomes:                        # compacted: others are further
            outcomes = None
    yield
    w.post("decided", b.id, fences, outcomes)
    yield from read_log(w, p)
    return outcomes


def evaluate(w, p, t, fences):
    """(what becomes of an item, the shards it writes), by what is there at the fences"""
    if w.rng.random() < .04 and not t.ends:
        return "again", ()                          # not as it was prepared, says this proxy
    at = lambda k: w.shards[w.of(k)].read(k, fences[w.of(k)])
    if t.ends:
        return "commit", tuple(i for i in fences if any(i in on and w.shards[i].leased(x, fences[i]) for x, on in t.ends.items()))
    if None in map(at, [*t.cmps, *t.writes]):
        return None
    for k, (op, G) in t.cmps.items():
        mod = at(k)[1]
        if not OPS[op](p.map.get((w.of(k), mod), MAX) if mod else 0, G):
            return "abort", ()
    return "commit", tuple({w.of(k) for k, v in t.writes.items() if v is not None or at(k)[0] is not None})


def put_fence(w, p, b, i):
    """its revision; 0 if the batch has ended here, None if the shard does not answer"""
    def request(s):
        if s.fence() is None and (s.closed()[0] < b.id or bad("fence-reenters")):
            s.apply({FENCE: (b.id, 0, ())})
            if (i, b.id) in w.skipped:
                w.holes.add((i, s.rev))
        return s.fence(), s.closed()[0]
    while True:
        yield
        r = w.send(i, request)
        if r is None:
            return None
        fence, closed = r
        if fence and fence[0] == b.id:
            return fence[1]
        if closed >= b.id or not fence:
            return 0
        gone = yield from remove_stale(w, p, b, i, fence)
        if gone is None:
            return 0
        if not gone and w.rng.random() < .2:
            return None


def remove_stale(w, p, b, i, fence):
    """while b pins the shard a fence of another batch is nobody's: when it went, 0 if
    that is not known; None if b has no pin"""
    if not bad("stale-unlogged"):
        yield from read_log(w, p)
        if p.pins.get(i) is not b:
            return None
    if bad("stale-fence-stays"):
        return 0
    yield

    def request(s):
        if s.read(FENCE)[1] != fence[3]:
            return 0
        s.apply({FENCE: None})
        w.holes |= {(i, fence[1]), (i, s.rev)}      # put and removed when they may be covered
        return s.rev
    return w.send(i, request) or 0


def finish(w, p, b, own):
    """5. and 6.: apply on the shards it has not left, and let those go that are done"""
    ends = {}
    for i in w.rng.sample(b.left, len(b.left)):
        end = yield from (pinned if b.pin() else roll_back if b.phase == "rolled back" else end_leases if b.items[0].ends else steps)(w, p, b, i, own)
        if end is None and bad("close-unapplied"):
            end = (0, (p.V[i],) * len(b.writers(i)), p.V[i])
        if end is not None:
            ends[i] = end
        if ends and w.rng.random() < .2:
            yield
            w.post("closed", b.id, dict(ends))
    if ends:
        yield
        w.post("closed", b.id, ends)
    yield from read_log(w, p)


def further(s, b):
    """how far others are on this shard: (fence, None) or (None, end)"""
    bid, end = s.closed()
    return (None, end) if bid == b.id else (s.fence(), None)


def steps(w, p, b, i, own):
    """item by item; the last one takes the fence away"""
    outcomes = own if own and bad("own-outcome") else b.outcomes
    writers, k, done = b.writers(i), 0, ()
    while True:
        writes = {}
        if k < len(writers) and outcomes[writers[k]][0] == "commit":
            writes = {x: v for x, v in b.items[writers[k]].writes.items() if w.of(x) == i}
        last = k + 1 >= len(writers)

        def request(s, k=k, done=done, writes=writes, last=last):
            v = s.read(FENCE)[0]
            mine = v == (b.id, k, done[:-1]) or bad("step-uncounted") and v and v[0] == b.id
            if not mine and not bad("apply-unguarded"):
                return further(s, b)
            if last:
                s.apply({**writes, FENCE: None, CLOSED: (b.id, b.fences[i], "step" if writers else "apart", done)})
            else:
                s.apply({**writes, FENCE: (b.id, k + 1, done)})
            return further(s, b)
        yield
        r = w.send(i, request)
        if r is None:
            return None
        fence, end = r
        if end:
            return (end[0], (end[2],) * len(writers), end[2]) if bad("steps-lost") else end
        if not fence or fence[0] != b.id:
            return None                             # others are further: the log knows how
        k, done = len(fence[2]), fence[2]
        if bad("steps-lost"):
            done = (fence[3],) * k


def roll_back(w, p, b, i, own):
    """its id is recorded everywhere, or a fence that is on its way would land and stay.
    Without space for that the fence goes alone"""
    full = w.rng.random() < w.full

    def request(s):
        bid, end = s.closed()
        if bid >= b.id:
            return end if bid == b.id else ()
        fence = s.fence()
        put = fence[1] if fence and fence[0] == b.id else 0
        gone = {FENCE: None} if put else {}
        if not put and bad("rollback-skips-unfenced"):
            return 0, (), 0
        if full:
            r = s.apply(gone) if put else 0
            w.holes |= {(i, put), (i, r)}           # who comes next does not know of them
            w.skipped.add((i, b.id))
            return put, (), r
        s.apply({**gone, CLOSED: (b.id, put, "apart", ())})
        if (i, b.id) in w.skipped:                  # it has left the shard, perhaps
            w.holes |= {(i, put), (i, s.rev)}
        return s.closed()[1]
    yield
    return w.send(i, request) or None


def revoke(w, b, i, own):
    """have the leases of a batch end on a shard; False without an answer"""
    for lease, shards in [x for t in b.items for x in t.ends.items()] + list(b.leases):
        if i in shards and not (bad("lease-late") and own is None):
            yield
            if not w.send(i, lambda s, x=lease: s.revoke(x) or True):
                return False
    return True


def end_leases(w, p, b, i, own):
    """an item that ends leases: all between the fence and the closed id is its own"""
    ended = yield from revoke(w, b, i, own)
    if not ended:
        return None

    def request(s):
        if s.read(FENCE)[0] == (b.id, 0, ()):
            s.apply({FENCE: None, CLOSED: (b.id, b.fences[i], "ends" if b.writers(i) else "apart", ())})
        return further(s, b)
    yield
    r = w.send(i, request)
    return r and r[1]


def pinned(w, p, b, i, own):
    """a pin: a fence that nobody needs goes, leases end; all up to here is covered"""
    yield
    fence = w.send(i, lambda s: s.fence() or 0)
    if fence is None:
        return None
    put, gone = 0, ()
    if fence:
        r = yield from remove_stale(w, p, b, i, fence)
        if r is None:
            return None
        if r:
            put, gone = fence[1], (r,)
    ended = yield from revoke(w, b, i, own)
    if not ended:
        return None
    yield
    head = w.send(i, lambda s: s.rev)
    return head and (put, gone, head)


def end(w, p, rec, leases):
    """the end of leases; each may be attached to several shards"""
    yield
    for x in leases:
        w.leases[x][1] = True                       # nothing is attached from here on
    on = {x: sorted(w.leases[x][0]) for x in leases}
    one = {x: s for x, s in on.items() if len(s) == 1 or bad("lease-apart")}
    several = {x: s for x, s in on.items() if s and x not in one}
    for some, item in ((one, False), (several, True)):
        shards = sorted({i for s in some.values() for i in s})
        while shards:
            if bad("lease-unpinned") and not item:
                yield
                done = [w.send(i, lambda s, x=x: s.revoke(x) or s.rev) for x, on in some.items() for i in on]
                if None not in done:
                    yield from cover(w, p, {i: max(done) if len(shards) == 1 else w.shards[i].rev for i in shards})
                    break
                continue
            b = yield from open_batch(w, p, shards, [Item(ends=some)] if item else [], () if item else list(some.items()))
            if b is None:
                continue                            # nothing says that it is done: once more, it does no harm
            while b.left:
                yield from drive(w, p, b)
                yield from read_log(w, p)
            if b.phase != "rolled back":
                break
    yield from read_log(w, p)
    rec["G"], rec["gone"] = p.G, leases


def operation(w, rec, keys):
    """one random client operation through a random proxy"""
    rng, p = w.rng, w.rng.choice(w.proxies)
    w.ids += 1
    k, v, x = rng.choice(keys), "v%d" % w.ids, rng.random()
    past = [r for r in w.history if r["end"]]
    mods = ([0] + [r["out"][k][1] for r in past if k in r.get("out", ())])[-3:]
    heads = ([1] + [r["G"] for r in past if isinstance(r.get("G"), int)])[-4:]

    def compare():
        y = rng.random()
        if y < .5:
            return "=", rng.choice(mods)
        if y < .6:
            return rng.choice("=<>"), rng.choice(heads) + rng.randint(1, 3)
        if y < .8:
            return "<", rng.choice([h + 1 for h in heads] + mods + [MAX])
        return ">", rng.choice(heads + mods)

    def some():
        return rng.sample(keys, rng.randint(1, len(keys)))
    live = [x for x, (_, ends) in w.leases.items() if not ends][-3:]
    if w.missed and rng.random() < .8:
        k, w.missed = w.missed, None
        return "get", get(w, p, rec, [k])
    if w.deleted and rng.random() < .5:
        x = .25
    if x < .22:
        if rng.random() < .3:
            if not live or rng.random() < .3:
                live = [w.ids]
                w.leases[w.ids] = [set(), False]
            v += "@%d" % rng.choice(live)
        return "put", put(w, p, rec, k, v if "@" in v or rng.random() < .65 else None)
    if x < .30:
        return "put present", put(w, p, rec, w.deleted or k, v, True)
    if x < .41:
        return "get", get(w, p, rec, some())
    if x < .47:
        return "serial", get_serial(w, p, rec, some())
    if x < .55:
        return "hist", get_hist(w, p, rec, some(), rng.choice(heads + [rng.randint(1, heads[-1] + 2)]))
    if x < .58:
        return "compact", compact(w, p, rec, rng.choice(heads))
    if x < .74:
        return "cas", cas(w, p, rec, k, *compare(), v)
    if x < .80 and w.leases:
        return "end", end(w, p, rec, rng.sample(list(w.leases), min(len(w.leases), rng.choice([1, 1, 2]))))
    recs, left, n = {}, list(keys), len(w.history) - 1
    for item in range(rng.choice([1, 1, 2, 3])):
        if len(left) < (2 if item == 0 else 1):
            break
        if item:
            w.ids += 1
            v = "v%d" % w.ids
            w.history.append(dict(start=w.clock, end=None, op="txn"))
        mine = rng.sample(left, min(len(left), rng.randint(2, 3)))
        left = [q for q in left if q not in mine or bad("items-conflict")]
        k = rng.choice(mine)
        recs[n + item] = Item({k: compare()} if rng.random() < .6 else {},
                              {q: v if rng.random() < .75 else None for q in mine if q != k or len(mine) < 2 or rng.random() < .8},
                              [q for q in mine if rng.random() < .5])
    return "txn", txn(w, p, recs)


def client(w, n, keys, crash, pause):
    """yields None, or how long it sleeps"""
    for _ in range(n):
        rec = dict(start=w.clock, end=None)
        w.history.append(rec)
        n = len(w.history) - 1
        rec["op"], g = operation(w, rec, keys)
        recs = w.history[n:]
        for _ in g:
            w.clock += 1
            if w.rng.random() < crash:
                if w.rng.random() < .6:
                    return                          # dies here
                yield MAX                           # or wakes up when all is over
            else:
                yield w.rng.randint(5, 100) if w.rng.random() < pause else None
        w.clock += 1
        for rec in recs:
            rec["end"] = None if "unknown" in rec else w.clock


def schedule(w, cs, trouble, direct=0, keys=()):
    """run the coroutines {name: [generator, wakes at]} until only those asleep for ever are left"""
    rng, limit = w.rng, w.clock + 60000
    while True:
        awake = [n for n, c in cs.items() if c[1] <= w.clock]
        if not awake:
            if all(c[1] == MAX for c in cs.values()):
                return
            w.clock += 10
            continue
        name = rng.choice(awake)
        try:
            z = next(cs[name][0])
            if z:
                cs[name][1] = min(MAX, w.clock + z)
        except StopIteration:
            del cs[name]
        w.clock += 1
        x = rng.random()
        if x < .1:                                  # somebody's watch of the log delivers
            p = rng.choice(w.proxies)
            w.catch_up(p, min(len(w.log), p.pos + rng.randint(1, 5)))
        elif x < .13:
            ready = [x for x in w.inflight if x[0] is None or w.clock >= w.shards[x[0]].down_until]
            if ready:
                x = rng.choice(ready)
                w.inflight.remove(x)
                w.land(x)
        elif x < .13 + trouble:
            rng.choice(w.shards).down_until = w.clock + rng.randint(10, 200)
        elif x > 1 - direct:                        # past all proxies
            w.ids += 1
            k = rng.choice(keys)
            s = w.shards[w.of(k)]
            if w.clock >= s.down_until:
                w.strays.add((w.of(k), s.apply({k: "d%d" % w.ids})))
        assert w.clock < limit, ("no progress: fences, pins", [s.read(FENCE)[0] for s in w.shards], list(w.now.pins))


def check(w):
    st = State(len(w.shards))
    for e in w.log:
        st.replay(e)
        assert e[0] != "compact" or all(st.pending(i) > e[1] for i in range(len(st.V))), ("compacted above what is pending", e)
    for r in w.history:
        if isinstance(r.get("G"), tuple):
            r["G"] = st.map[r["G"]]
    decided = [b for b in st.batches if b.phase == "decided"]
    owners = {b.revision(k): (b, k) for b in decided for k, (_, shards) in enumerate(b.outcomes) if shards}
    void = set()                                    # revisions of batches that a stray got into
    for b in decided:
        for i, (_, steps, _) in b.ends.items():
            for at, step in zip((b.fences[i],) + steps, steps):
                for r in range(at + 1, step + 1):
                    if (i, r) in w.strays:
                        void |= {b.revision(k) for k in range(len(b.items))}
                        assert st.map[i, r] == st.map[i, step], ("a stray has a number of its own", i, r, step)
    # replay the global order on one plain store
    order = {g: {} for g in range(2, st.G + 1)}
    lost = set()                                    # numbers that a fence has cost
    for i, s in enumerate(w.shards):
        last = 1
        for r, ks in s.log.items():
            ks = {k: v for k, v in ks.items() if k[0] != "\0"}
            g = st.map.get((i, r))
            if (i, r) in w.holes and not ks and g:
                lost.add(g)
                continue
            assert bool(ks) == (g is not None) or g in void, ("revision without event or event without revision", i, r, g, ks)
            if g:
                assert last < g or last == g and g in owners, ("numbers do not ascend", i, r, last, g)
                last = g
                assert not order[g] or g in owners, ("two operations share a revision", g)
                order[g].update(ks)
    states, cur = {1: {}}, {}
    for g, ev in order.items():
        assert ev or g in lost or g in void, ("hole in the global order", g)
        for k, v in ev.items():
            if v is None:
                cur.pop(k, None)
            else:
                cur[k] = (v, g)
        states[g] = dict(cur)
    values = {}
    for g, ev in order.items():
        for v in ev.values():
            assert v is None or values.setdefault(v, g) == g, ("one operation, two revisions", v, values[v], g)

    def effect(t, at):
        if t.ends:
            return {k: None for k, (v, _) in at.items() if w.of(k) in t.ends.get(lease_of(v), ())}
        return {k: v for k, v in t.writes.items() if v is not None or k in at}

    def holds(cmps, at):
        return all(OPS[op](at.get(k, (None, 0))[1], G) for k, (op, G) in cmps.items())
    for b in decided:
        for k, (how, shards) in enumerate(b.outcomes):
            t, g = b.items[k], b.revision(k)
            if how == "again" or g in void:
                assert how != "again" or not shards
                continue
            assert holds(t.cmps, states[g - 1] if shards else states[g]) == (how == "commit"), ("compare of a transaction", vars(b), k)
            assert shards or how == "abort" or not effect(t, states[g]), ("lost effect", vars(b), k)
            assert not shards or how == "commit" and order[g] == effect(t, states[g - 1]), ("effect of a transaction", vars(b), k, order[g])
    for lease in w.leases:
        gs = {st.map[i, s.ended[lease]] for i, s in enumerate(w.shards) if s.ended.get(lease)}
        assert len(gs) < 2, ("a lease ends at several revisions", lease, gs)
    done = [r for r in w.history if r["end"]]
    used = set()
    for r in done:
        G = r.get("G")
        for k, x in r.get("out", {}).items():
            assert states[r["at"]].get(k, (None, 0)) == x, ("read differs from the state", r, states[r["at"]])
        for k, v in r.get("reads", {}).items():
            assert states[G].get(k, (None, 0))[0] == v, ("read differs from the state at header", r, states[G])
        for lease in r.get("gone", ()):
            assert not any(lease_of(v) == lease for g in range(G, st.G + 1) for v, _ in states[g].values()), ("a lease has ended, its keys have not", r)
        if G in void:
            continue
        for k, x in r.get("reply", {}).items():
            assert states[G].get(k, (None, 0)) == x, ("answer of a transaction", r, states[G])
        if "wrote" in r:
            assert order[G] == effect(Item(writes=r["wrote"]), states[G - 1]), ("effect", r, order[G])
            assert G not in used, ("revision acknowledged twice", r)
            used.add(G)
        if "cmps" in r:
            at = states[G - 1] if "wrote" in r else states[G]
            assert holds(r["cmps"], at) == r["held"], ("compare", r, at)
    for b in done:                                  # real time
        before = [a for a in done if a["end"] < b["start"]]
        lo = max([a["G"] for a in before if "G" in a] + [1])
        if "G" in b and "serial" not in b:
            assert lo + ("wrote" in b) <= b["G"], ("real time", lo, b)
        elif "serial" in b:
            assert all(b["G"] < a["G"] for a in done if a["start"] > b["end"] and "wrote" in a), ("read of the future", b)
        if "absent" in b:
            hi = min([a["G"] - ("wrote" in a) for a in done if a["start"] > b["end"] and "G" in a and "serial" not in a] + [st.G])
            assert any(b["absent"] not in states[g] for g in range(lo, hi + 1)), ("key not found, but it was there all the time", b, lo, hi)
        cs = [a["compact"] for a in before if "compact" in a]
        assert b["op"] != "hist" or "G" not in b or all(c <= b["asked"] for c in cs), ("compacted, but answered", b)
        if b.get("error") == "compacted":
            assert any(a["op"] == "compact" and a["start"] < b["end"] and a["asked"] > b["asked"] for a in w.history), ("not compacted", b)
        if b.get("error") == "future":
            assert lo < b["asked"], ("not in the future", b, lo)


def recover(w, away):
    """a surviving proxy, with one shard away or none, and nobody else"""
    p = w.proxies[0]
    for _ in range(60):
        w.catch_up(p, len(w.log))
        kept = [b for b in w.now.queue.values() if b.left != [away] or b.phase in ("queued", "active") and not b.pin()]
        if not kept:
            return
        for b in list(p.queue.values()):
            for _ in drive(w, p, b):
                pass
    raise AssertionError("a batch keeps shards, or is undecided, after recovery", away, vars(kept[0]))


def run(seed):
    rng = random.Random(seed)
    w = World(rng.randint(2, 3), rng)
    keys = ["k%d" % i for i in range(rng.randint(3, 6))]
    crash, trouble = rng.choice([0, 0, .01, .03]), rng.choice([0, .005, .02])
    pause, direct = rng.choice([0, .03, .1]), rng.choice([0, 0, .03])
    cs = {i: [client(w, rng.randint(2, 5), keys, crash, pause), 0] for i in range(rng.randint(2, 5))}
    schedule(w, cs, trouble, direct, keys)
    while w.inflight:
        w.land(w.inflight.pop())
    w.flaky, away = 0, rng.randrange(len(w.shards))     # one shard is away, then all are back
    for i, s in enumerate(w.shards):
        s.down_until = MAX if i == away else 0
    recover(w, away)
    w.shards[away].down_until = 0
    for late in (False, True):
        if late:                                    # those who slept through all of it
            schedule(w, {n: [c[0], 0] for n, c in cs.items()}, 0)
        while w.inflight:
            w.land(w.inflight.pop())
        recover(w, None)
        for i in range(len(w.shards)):              # a fence that nobody needs goes with the first write
            for _ in guard(w, w.proxies[0], i):
                assert len(w.log) < 10000, ("a fence survives recovery", i)
        while w.inflight:
            w.land(w.inflight.pop())
    for _ in cover(w, w.proxies[0], {i: s.rev for i, s in enumerate(w.shards)}):
        pass
    check(w)
    return len([r for r in w.history if r["end"]]), len(w.now.batches), len([b for b in w.now.batches if b.phase == "rolled back"])


def search(base, runs):
    """(first failing seed or None, why, totals)"""
    sums = [0, 0, 0]
    for seed in range(base, base + runs):
        try:
            sums = [a + b for a, b in zip(sums, run(seed))]
        except (AssertionError, KeyError, TypeError) as e:   # a mutant may stumble over its own
            return seed, repr(e)[:400], sums
    return None, "", sums


if __name__ == "__main__":
    args = sys.argv[1:]
    if args[:1] == ["--mutants"]:
        runs, missed = int(args[1]) if len(args) > 1 else 10000, []
        for BROKEN, text in MUTANTS.items():       # a module global: the code above sees it
            seed, why, _ = search(0, runs)
            print(f"{BROKEN:22} {'NOT FOUND' if seed is None else 'seed %d' % seed:10} {text}\n{'':22} {why[:110]}", flush=True)
            missed += [BROKEN] if seed is None else []
        print(f"{len(MUTANTS) - len(missed)} of {len(MUTANTS)} breakages found", *missed)
        sys.exit(bool(missed))
    runs = int(args[0]) if args else 20000
    seed, why, (ops, xs, back) = search(int(args[1]) if len(args) > 1 else 0, runs)
    if seed is not None:
        sys.exit(f"seed {seed} violates: {why}")
    print(f"{runs} runs, {ops} operations, {xs} batches ({back} rolled back): one global order holds")
