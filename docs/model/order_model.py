#!/usr/bin/env python3
"""Random-interleaving model check of the order protocol (design, not code).

Modelled.  Shards are MVCC stores with their own revisions, compaction and
times without a quorum (snapshot reads still work then, nothing else does).
The order log is one list of entries:
  cover(vector) open(T) fenced(T) decided(T) closed(T, shards) compacted(G)
`cover` is appended without any condition; the entries about T are Txns on T's
record, the pins and the nonces, as in etcd.  All else (cut V, global revision
G, map from shard revisions to global ones, outcomes) is a function of the log.
Every proxy replays its OWN copy, which lags at random; where the rules say
"read the log" it takes a linearizable position and waits to replay that far.
Client operations go through any proxy and are coroutines: every `yield` is one
network trip at which anything else may run.  At any yield an operation may
die, or sleep and wake up late (also after all has been cleaned up); an Open
may lose its answer or land late.  Operations: put, delete, linearizable,
serializable and historical reads, Compact, single-shard transactions with
= < > on mod (a made-up revision, above the log, is folded and guarded by
"unchanged since the cut"), a Put that fails on an absent key, cross-shard
transactions (anybody helps at once; rolled back when a shard is away; closed
per shard).

Checked after every run, by replaying the global order on ONE plain store:
  * revisions are dense: each has events, those of exactly one operation, and
    each operation has at most one, also when it died;
  * an acknowledged write has its effect at its revision, nobody else's;
  * linearizable and serializable reads equal the state at their header, so
    they are some consistent past state; historical ones that at their revision;
  * compares hold (or fail) just before the write, or at the header if nothing
    was written; for transactions also when nobody was left to hear it;
  * real time: an operation that started after another had returned never has
    a smaller revision, a write a larger one (serializable reads may be old);
  * an error that depends on state was true at some moment of the call; a
    completed Compact is obeyed; "future revision" is never said of a known one;
  * no compaction at or above a revision that is pending on some shard;
  * a shard that is away keeps no pin or fence on others; when all are back, a
    surviving proxy leaves no fence, pin or pending transaction behind; all
    operations end.
Not modelled: watches, leases, range compares, map sweeps and checkpoints,
restored backups, two routing tables, limits inside the shards.

Usage: order_model.py [runs] [seed]
       order_model.py --mutants [runs]    each breakage below must be found
(some need 4000 seeds; runs are 20000, with --mutants 10000 unless told)
"""
import operator, random, sys

MUTANTS = {
    "read-head": "linearizable reads at the shard's head, not at the cut",
    "read-no-position": "linearizable reads at what this proxy has replayed",
    "ack-early": "write acknowledged before it is covered",
    "write-ignores-fence": "ordinary writes do not look for a fence",
    "cover-ignores-pins": "cover moves V of pinned shards too",
    "two-revisions": "each shard of a transaction gets its own revision",
    "header-not-lowered": "wrote nothing: header = G although the shard moved on",
    "header-no-position": "wrote nothing: header from what was replayed before",
    "header-no-pending": "wrote nothing: the pending transaction is not counted",
    "lt-floor": "mod < G translated to r < floor(G)",
    "stale-map": "compares translated with a map that has not reached G",
    "translate-pending": "compares translated while T, pending on that shard, has a revision <= G",
    "future-never": "a revision above the log is translated by the map that ends below it",
    "made-up-unguarded": "compare with a made-up revision folded without the guard compare",
    "error-early": "error that depends on state returned before it is covered",
    "abort-skips-unfenced": "abort records its id only where there is a fence",
    "fence-reenters": "a fence is put without looking at the last closed id",
    "no-nonce": "answer to Open lost: take the transaction on my shards for mine",
    "nonce-unguarded": "Open does not compare its nonce, so it may land twice",
    "decide-unguarded": "decide without comparing that T is undecided",
    "apply-unguarded": "apply without comparing that the fence is mine",
    "close-unapplied": "close releases shards that did not answer",
    "close-whole": "close waits until all shards answered",
    "release-without-G": "a shard is released before T's revision is fixed",
    "read-pending": "reader does not finish T on a pending shard it needs",
    "hist-no-position": "historical read without a position of the log",
    "compact-unlogged": "Compact goes to the shards, not to the log",
    "compact-pending": "Compact does not finish transactions pending at or below it first",
    "serial-torn": "serializable read takes each shard's newest V, not one cut",
    "no-help": "nobody finishes another proxy's transaction",
}
BROKEN = None               # the mutant now applied


def bad(name):
    return BROKEN == name


FENCE, CLOSED = "\0fence", "\0closed"
MAX = 2 ** 63 - 1
OPS = {"=": operator.eq, "<": operator.lt, ">": operator.gt}


class Shard:
    def __init__(s):
        s.rev, s.compacted, s.down_until = 1, 0, 0
        s.log = {}          # rev -> {key: value or None}
        s.hist = {}         # key -> [(rev, value or None)]

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

    def closed(s):
        """(last closed id, it wrote here, its fence's revision), own revision"""
        v, r = s.read(CLOSED)
        return v or (0, False, 0), r


class Txn:
    """what the log says about one cross-shard transaction"""
    def __init__(t, shards, cmps, writes):
        t.shards, t.cmps, t.writes = shards, cmps, writes
        t.left = list(shards)       # still pinned
        t.state = "open"            # then commit, abort (compares failed) or rollback (never happened)
        t.G = t.at = None           # its revision if it wrote; G when decided
        t.sure = any(v is not None for v in writes.values())     # it will write

    def known(t):
        """the client can be told"""
        return t.state in ("abort", "rollback") or t.G is not None or not t.left


class State:
    """a pure function of a prefix of the log"""
    def __init__(s, n):
        s.pos, s.G, s.V, s.compacted = 0, 1, [1] * n, 0
        s.map = {(i, 1): 1 for i in range(n)}       # (shard, rev) -> G
        s.txns, s.nonces = {}, {}

    def replay(s, entry):
        s.pos += 1
        getattr(s, entry[0])(*entry[1:])

    def advance(s, V, unnamed=()):
        for i in sorted(V):
            for r in range(s.V[i] + 1, V[i] + 1):
                if (i, r) not in unnamed:
                    s.G += 1
                    s.map[i, r] = s.G
            s.V[i] = max(s.V[i], V[i])

    def cover(s, V):
        pins = s.pins()
        s.advance({i: r for i, r in V.items() if i not in pins or bad("cover-ignores-pins")})

    def open(s, nonce, shards, cmps, writes):
        s.txns[s.pos] = Txn(shards, cmps, writes)   # the id is the entry's position
        s.nonces[nonce] = s.pos

    def fenced(s, tid, fences):
        s.advance(fences, set(fences.items()))

    def decided(s, tid, state):
        t = s.txns[tid]
        t.state, t.at = state, s.G

    def closed(s, tid, ends):
        """ends: shard -> (apply revision, wrote, fence revision)"""
        t = s.txns[tid]
        ends = {i: e for i, e in ends.items() if i in t.left}
        rest = [i for i in t.left if i not in ends]
        wrote = [(i, r) for i, (r, x, _) in ends.items() if x]
        if not ends or (rest and bad("close-whole")):
            return
        if rest and t.state == "commit" and t.G is None and not wrote and not t.sure and not bad("release-without-G"):
            return                                  # T may yet write: what it compared must not move before
        own = {(i, x) for i, (r, _, f) in ends.items() for x in (r, f)}
        s.advance({i: e[0] for i, e in ends.items()}, own - set(wrote) if bad("two-revisions") else own)
        if t.G is None and (wrote or (rest and t.sure and t.state == "commit" and not bad("release-without-G"))):
            s.G += 1                                # fixed now, also for the shards that are left
            t.G = s.G
        for ir in wrote:
            s.map.setdefault(ir, t.G)
        t.left = rest

    def compact(s, G):
        s.compacted = max(s.compacted, G)

    def pins(s):
        return {i: tid for tid, t in s.txns.items() for i in t.left}

    def floor(s, i, G):
        """shard i's greatest revision at or below global revision G"""
        return next((r for r in range(s.V[i], 0, -1) if s.map.get((i, r), MAX) <= G), 0)

    def vector(s, G):
        return [s.floor(i, G) for i in range(len(s.V))]

    def pending(s, shards, G=MAX):
        """transactions with a revision <= G that is not yet applied on these shards"""
        return [tid for tid, t in s.txns.items() if t.G is not None and t.G <= G and set(t.left) & set(shards)]


class World:
    def __init__(w, n, rng):
        w.rng, w.clock, w.ids = rng, 0, 0
        w.flaky = rng.choice([0, .1, .3])           # requests that get nowhere
        w.shards = [Shard() for _ in range(n)]
        w.log, w.now = [], State(n)                 # `now`: the order cluster's own records and pins
        w.proxies = [State(n) for _ in range(rng.randint(2, 3))]
        w.history, w.inflight = [], []

    def append(w, *entry, when=lambda st: True):
        """one Txn of the order cluster; the entry's position, or 0"""
        if not when(w.now):
            return 0
        w.log.append(entry)
        w.now.replay(entry)
        return len(w.log)

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


def cover(w, p, need):
    """append until V covers `need` {shard: rev}; counts as reading the log"""
    while True:
        yield
        pos = w.append("cover", dict(need))
        yield
        w.catch_up(p, pos)
        if all(p.V[i] >= r for i, r in need.items()):
            return
        yield from assist(w, p, need)


def assist(w, p, shards):
    """finish whatever pins these shards"""
    yield from read_log(w, p)
    for tid in sorted({p.pins()[i] for i in shards if i in p.pins()}):
        if not bad("no-help"):
            yield from drive(w, p, tid)


def guard(w, p, i):
    """wait for the shard to answer and to hold no fence; what the caller does
    next, up to its next yield, is the same shard transaction"""
    while True:
        yield
        if w.up(i):
            if w.shards[i].read(FENCE)[0] is None or bad("write-ignores-fence"):
                return w.shards[i]
            yield from assist(w, p, [i])


def acked(w, p, rec, i, r, writes):
    rec["wrote"] = writes
    if bad("ack-early"):
        rec["G"] = (i, r)                           # whatever it will be
        return
    yield from cover(w, p, {i: r})
    rec["G"] = p.map[i, r]


def header(w, p, i, r):
    """the revision of an operation that read shard i's head at r and wrote
    nothing: G of the log, lowered to just before the shard's next event"""
    if not bad("header-no-position"):
        yield from read_log(w, p)
    if p.V[i] < r:
        yield from cover(w, p, {i: r})
    later = [p.map[i, x] for x in range(r + 1, p.V[i] + 1) if (i, x) in p.map and not bad("header-not-lowered")]
    later += [p.txns[t].G for t in p.pending([i]) if not bad("header-no-pending")]
    return min([p.G] + [g - 1 for g in later])


def put(w, p, rec, k, v, present=False):
    """Put or (v None) DeleteRange of one key; `present`: an error if it is absent"""
    i = w.of(k)
    s = yield from guard(w, p, i)
    if s.read(k)[0] is not None or (v is not None and not present):
        yield from acked(w, p, rec, i, s.apply({k: v}), {k: v})
    elif v is None:
        rec["reads"] = {k: None}
        rec["G"] = yield from header(w, p, i, s.rev)
    else:
        rec["absent"] = k
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
        if not bad("read-pending"):
            yield from settle(w, p, [w.of(k) for k in keys])
        G, V = p.G, list(p.V)
        out = yield from snapshot(w, p, keys, [MAX] * len(V) if bad("read-head") else V)
    rec["G"], rec["at"], rec["out"] = G, G, out


def settle(w, p, shards, G=MAX):
    """finish transactions that have a revision <= G but are not everywhere yet"""
    while p.pending(shards, G):
        for tid in p.pending(shards, G):
            yield from drive(w, p, tid)
            yield from read_log(w, p)


def get_serial(w, p, rec, keys):
    """serializable Range: what this proxy has replayed; before a pending T, never waiting for it"""
    out = None
    while out is None:
        H = min([p.G] + [p.txns[t].G - 1 for t in p.pending([w.of(k) for k in keys])])
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
    if not bad("compact-pending"):                  # else nothing is left for a serializable read while T waits
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
        # T's revision on this shard is not in the map yet. A made-up one needs no map
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
    if op == "=":
        want = next((r for r in range(p.V[i], 0, -1) if p.map.get((i, r)) == G), -1)
        return lambda mod: mod == want
    lim = p.floor(i, G) if op == ">" or bad("lt-floor") else p.floor(i, G - 1) + 1
    return lambda mod: OPS[op](mod, lim)


def txn(w, p, rec, cmps, writes):
    """cross-shard transaction: If all compares on mod hold Then writes"""
    shards = sorted({w.of(k) for k in [*cmps, *writes]})
    while True:
        tid = yield from open_txn(w, p, shards, cmps, writes)
        while not p.txns[tid].known():
            yield from drive(w, p, tid)
            yield from read_log(w, p)
        t = p.txns[tid]
        if t.state != "rollback":                   # else it never happened: once more
            break
    rec["G"], rec["cmps"], rec["held"] = t.G or t.at, cmps, t.state == "commit"
    if t.G:
        rec["wrote"] = writes


def open_txn(w, p, shards, cmps, writes):
    """1. pin; T's id is the position of this entry, so on any shard ids only grow"""
    w.ids += 1
    nonce, first = w.ids, len(w.log)

    def request():
        return w.append("open", nonce, shards, cmps, writes, when=lambda st: not set(st.pins()) & set(shards)
                        and (nonce not in st.nonces or bad("nonce-unguarded")))
    sent = False
    while True:
        yield from read_log(w, p)
        if bad("no-nonce"):
            mine = [t for t in p.txns if sent and t > first and p.txns[t].shards == shards]
        else:
            mine = [p.nonces[nonce]] if nonce in p.nonces else []
        if mine:
            return mine[-1]
        if set(p.pins()) & set(shards):
            yield from assist(w, p, shards)
            continue
        yield
        sent = True
        x = w.rng.random()
        if x < .1:                                  # no answer: it may still land later
            w.inflight.append(request)
            continue
        tid = request()
        if tid and x < .9:                          # else refused, or the answer is lost
            yield
            w.catch_up(p, tid)
            return tid


def drive(w, p, tid):
    """carry one transaction as far as it goes; safe for several proxies at once, and late"""
    t = p.txns[tid]
    undecided = lambda st: st.txns[tid].state == "open" or bad("decide-unguarded")
    if t.state == "open":
        fences, vals, give_up = {}, {}, w.rng.random() < .05
        for i in t.shards:                          # 2. fence, then read at the fence's revision
            yield
            if give_up or not w.up(i):
                give_up = True
                break
            s = w.shards[i]
            if s.read(FENCE)[0] is None and (s.closed()[0][0] < tid or bad("fence-reenters")):
                s.apply({FENCE: tid})
            if s.read(FENCE)[0] != tid:             # it has ended here; the log knows how
                yield from read_log(w, p)
                break
            fences[i] = s.read(FENCE)[1]
            vals.update({k: s.read(k) for k in t.cmps if w.of(k) == i})
        if give_up:
            yield
            w.append("decided", tid, "rollback", when=undecided)
        elif len(fences) == len(t.shards):          # 3. cover up to the fences, compare, decide
            yield
            pos = w.append("fenced", tid, fences, when=lambda st: st.txns[tid].state == "open")
            yield
            w.catch_up(p, pos)
            if pos:
                ok = all(OPS[op](p.map[w.of(k), vals[k][1]] if vals[k][1] else 0, G) for k, (op, G) in t.cmps.items())
                yield
                w.append("decided", tid, "commit" if ok else "abort", when=undecided)
        yield from read_log(w, p)
        if t.state == "open":
            return
    ends = {}
    for i in list(t.left):                          # 4. apply and unfence, or just record the end
        yield
        if not w.up(i):
            if bad("close-unapplied"):
                ends[i] = (p.V[i], False, 0)
            continue
        s = w.shards[i]
        v, f = s.read(FENCE)
        mine = v == tid
        if mine or (t.state == "rollback" and s.closed()[0][0] < tid) or bad("apply-unguarded"):
            if not mine and bad("abort-skips-unfenced"):
                ends[i] = (0, False, 0)
                continue
            wr = {k: x for k, x in t.writes.items() if w.of(k) == i and t.state == "commit" and (x is not None or s.read(k)[0] is not None)}
            s.apply({**wr, FENCE: None, CLOSED: (tid, bool(wr), f if mine else 0)})
        (last, wrote, f), r = s.closed()
        if last == tid:
            ends[i] = (r, wrote, f)
    yield                                           # 5. close, of the shards that answered
    w.append("closed", tid, ends, when=lambda st: set(st.txns[tid].left) & set(ends))
    yield from read_log(w, p)


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
    if x < .22:
        return "put", put(w, p, rec, k, v if rng.random() < .65 else None)
    if x < .30:
        return "put present", put(w, p, rec, k, v, True)
    if x < .44:
        return "get", get(w, p, rec, some())
    if x < .51:
        return "serial", get_serial(w, p, rec, some())
    if x < .60:
        return "hist", get_hist(w, p, rec, some(), rng.choice(heads + [rng.randint(1, heads[-1] + 2)]))
    if x < .63:
        return "compact", compact(w, p, rec, rng.choice(heads))
    if x < .81:
        return "cas", cas(w, p, rec, k, *compare(), v)
    ks = rng.sample(keys, rng.randint(2, 3))
    return "txn", txn(w, p, rec, {k: compare()} if rng.random() < .6 else {}, {q: v if rng.random() < .75 else None for q in ks})


def client(w, n, keys, crash, pause):
    """yields None, or how long it sleeps"""
    for _ in range(n):
        rec = dict(start=w.clock, end=None)
        w.history.append(rec)
        rec["op"], g = operation(w, rec, keys)
        for _ in g:
            w.clock += 1
            if w.rng.random() < crash:
                if w.rng.random() < .6:
                    return                          # dies here
                yield MAX                           # or wakes up when all is over
            else:
                yield w.rng.randint(5, 100) if w.rng.random() < pause else None
        w.clock += 1
        rec["end"] = w.clock


def schedule(w, cs, trouble):
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
            if w.inflight:
                w.inflight.pop(rng.randrange(len(w.inflight)))()
        elif x < .13 + trouble:
            rng.choice(w.shards).down_until = w.clock + rng.randint(10, 200)
        assert w.clock < limit, ("no progress: fences, pins", [s.read(FENCE)[0] for s in w.shards], w.now.pins())


def clean_up(w, rounds):
    """a surviving proxy finishes what it finds"""
    p = w.proxies[0]
    for _ in range(rounds):
        for tid in sorted(set(w.now.pins().values())):
            w.catch_up(p, len(w.log))
            for _ in drive(w, p, tid):
                pass


def check(w):
    st = State(len(w.shards))
    for e in w.log:
        st.replay(e)
        assert e[0] != "compact" or not st.pending(range(len(st.V)), e[1]), ("compacted above a pending transaction", e)
    for r in w.history:
        if isinstance(r.get("G"), tuple):
            r["G"] = st.map[r["G"]]
    # replay the global order on one plain store
    order = {g: {} for g in range(2, st.G + 1)}
    owners = {t.G: t for t in st.txns.values() if t.G}
    for i, s in enumerate(w.shards):
        for r, ks in s.log.items():
            ks = {k: v for k, v in ks.items() if k[0] != "\0"}
            g = st.map.get((i, r))
            assert bool(ks) == (g is not None), ("revision without event or event without revision", i, r, g, ks)
            if ks:
                assert not order[g] or g in owners, ("two operations share a revision", g)
                order[g].update(ks)
    states, cur = {1: {}}, {}
    for g, ev in order.items():
        assert ev, ("hole in the global order", g)
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

    def effect(writes, at):
        return {k: v for k, v in writes.items() if v is not None or k in at}

    def holds(cmps, at):
        return all(OPS[op](at.get(k, (None, 0))[1], G) for k, (op, G) in cmps.items())
    for t in st.txns.values():
        if t.state == "rollback":
            continue
        assert holds(t.cmps, states[t.G - 1] if t.G else states[t.at]) == (t.state == "commit"), ("compare of a transaction", vars(t))
        assert t.G or t.state == "abort" or not effect(t.writes, states[t.at]), ("lost effect", vars(t))
        assert not t.G or (t.state == "commit" and order[t.G] == effect(t.writes, states[t.G - 1])), ("effect of a transaction", vars(t), order[t.G])
    done = [r for r in w.history if r["end"]]
    used = set()
    for r in done:
        G = r.get("G")
        for k, x in r.get("out", {}).items():
            assert states[r["at"]].get(k, (None, 0)) == x, ("read differs from the state", r, states[r["at"]])
        for k, v in r.get("reads", {}).items():
            assert states[G].get(k, (None, 0))[0] == v, ("read differs from the state at header", r, states[G])
        if "wrote" in r:
            assert order[G] == effect(r["wrote"], states[G - 1]), ("effect", r, order[G])
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


def run(seed):
    rng = random.Random(seed)
    w = World(rng.randint(2, 3), rng)
    keys = ["k%d" % i for i in range(rng.randint(3, 5))]
    crash, trouble = rng.choice([0, 0, .01, .03]), rng.choice([0, .005, .02])
    pause = rng.choice([0, .03, .1])
    cs = {i: [client(w, rng.randint(2, 5), keys, crash, pause), 0] for i in range(rng.randint(2, 5))}
    schedule(w, cs, trouble)
    for request in w.inflight:
        request()
    w.flaky, away = 0, rng.randrange(len(w.shards))     # one shard is away, then all are back
    for i, s in enumerate(w.shards):
        s.down_until = MAX if i == away else 0
    clean_up(w, 4)
    for i, tid in w.now.pins().items():
        t = w.now.txns[tid]
        assert i == away or (t.state == "commit" and not t.sure), ("a shard that is away pins another", i, away, vars(t))
        assert t.state != "open", ("undecided after recovery", vars(t))
    w.shards[away].down_until = 0
    for late in (False, True):
        if late:                                    # those who slept through all of it
            schedule(w, {n: [c[0], 0] for n, c in cs.items()}, 0)
        clean_up(w, 4)
        assert not w.now.pins(), ("a pin survives recovery", w.now.pins())
        assert not any(s.read(FENCE)[0] for s in w.shards), "a fence survives recovery"
    for _ in cover(w, w.proxies[0], {i: s.rev for i, s in enumerate(w.shards)}):
        pass
    check(w)
    return len([r for r in w.history if r["end"]]), len(w.now.txns), len([t for t in w.now.txns.values() if t.state == "rollback"])


def search(base, runs):
    """(first failing seed or None, why, totals)"""
    sums = [0, 0, 0]
    for seed in range(base, base + runs):
        try:
            sums = [a + b for a, b in zip(sums, run(seed))]
        except (AssertionError, KeyError) as e:
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
    print(f"{runs} runs, {ops} operations, {xs} cross-shard transactions ({back} rolled back): one global order holds")
