package stages

// Span is a range of keys, [Key, End); an empty End is the end of the keyspace.
type Span struct{ Key, End []byte }

// Elsewhere says which keys have no business on a shard: those of foreign are another
// shard's; those of hashed are spread over several, this one among them, so that only
// Lookup can tell.
func (t *Table) Elsewhere(s *Shard) (foreign, hashed []Span) {
	for i, seg := range t.segments {
		span := Span{Key: seg.start}
		if i+1 < len(t.segments) {
			span.End = t.segments[i+1].start
		}
		switch {
		case !seg.line.has(s):
			foreign = append(foreign, span)
		case len(seg.line.shards) > 1:
			hashed = append(hashed, span)
		}
	}
	return foreign, hashed
}

func (l *line) has(s *Shard) bool {
	for _, o := range l.shards {
		if o == s {
			return true
		}
	}
	return false
}
