package backend

import "slices"

// seat is a member's place in a roster: what its endpoint says of it besides the address.
type seat struct {
	*member
	priority, weight uint16
}

// roster is the members of one moment, in the order of the endpoints. It never changes:
// the Cluster has another one when members come or go, in which those that stay are the
// same.
type roster struct {
	seats   []seat
	numbers []uint64 // of the members, for trails
}

// newRoster makes one; the slice is its own from then on.
func newRoster(seats []seat) *roster {
	r := &roster{seats: seats, numbers: make([]uint64, len(seats))}
	for i, s := range seats {
		r.numbers[i] = s.number
	}
	return r
}

// find gives the member at an endpoint, nil if there is none.
func (r *roster) find(e endpoint) *member {
	for _, s := range r.seats {
		if s.at.key() == e.key() {
			return s.member
		}
	}
	return nil
}

// has reports whether a member is in it.
func (r *roster) has(m *member) bool {
	return slices.ContainsFunc(r.seats, func(s seat) bool { return s.member == m })
}

// is reports whether it is made of these endpoints.
func (r *roster) is(eps []endpoint) bool {
	return slices.EqualFunc(r.seats, eps, func(s seat, e endpoint) bool {
		return s.at.key() == e.key() && s.priority == e.priority && s.weight == e.weight && s.cluster.Load() == e.cluster
	})
}

// tried is the members that a call was sent to already.
type tried []*member

func (t tried) has(m *member) bool { return slices.Contains(t, m) }
