package lease

// known is what a Manager remembers of leases: hints, right when they were
// learnt. Whoever acts on one must be told by a shard when it is out of date: a
// shard id that is gone is refused with "lease not found" for ever.
type known struct {
	leases  *lru[int64, knownLease] // by client id
	aliases *lru[int64, int64]      // shard id to client id; facts, never out of date
}

type knownLease struct {
	record
	attached map[int]bool // shard numbers; replaced, never changed
}

func newKnown(max int) *known {
	return &known{leases: newLRU[int64, knownLease](max), aliases: newLRU[int64, int64](max)}
}

// lease gives the record last seen for a client id.
func (k *known) lease(id int64) (record, bool) {
	l, ok := k.leases.get(id)
	return l.record, ok
}

// learn remembers a lease that was seen live. An older lease of the same name does
// not displace a younger one.
func (k *known) learn(r record) {
	k.leases.update(r.id, func(old knownLease, ok bool) (knownLease, bool) {
		if ok && old.born >= r.born {
			return old, false
		}
		return knownLease{record: r}, true
	})
	k.learnAlias(r)
}

func (k *known) learnAlias(r record) {
	if r.shardID < 0 {
		k.aliases.put(r.shardID, r.id)
	}
}

// attached tells whether the lease was seen granted on the shard.
func (k *known) attached(r record, shard int) bool {
	l, ok := k.leases.get(r.id)
	return ok && l.born == r.born && l.attached[shard]
}

// attach remembers that it is. It doesn't revive what was dropped meanwhile.
func (k *known) attach(r record, shard int) {
	k.leases.update(r.id, func(old knownLease, ok bool) (knownLease, bool) {
		if !ok || old.born != r.born {
			return old, false
		}
		set := map[int]bool{shard: true}
		for n := range old.attached {
			set[n] = true
		}
		return knownLease{record: r, attached: set}, true
	})
}

// forget drops a lease that proved out of date. Its alias stays true.
func (k *known) forget(id int64) { k.leases.drop(id) }
