package order

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// stateVersion is the form of checkpoints this code writes; it reads all up to it.
// Version 2 has the batches, and runs may share a global revision with the one before.
const stateVersion = 2

// frozen is a state as it was at one moment. It shares the runs that never change with
// the state, so that a large map is written down without holding anybody up.
type frozen struct {
	head []int64 // position, number, G, compaction, then V
	text []byte  // the genesis, JSON
	done []runs  // by shard number, all runs but the last
	last []run   // by shard number
	rest kept    // what is written as JSON
}

// kept is the part of a state that is about batches.
type kept struct {
	Batches  []batch      `json:"batches,omitempty"`
	Arranged []arrangedAt `json:"arranged,omitempty"`
}

// freeze needs the state's lock for reading; what it gives doesn't.
func (s *state) freeze() *frozen {
	f := &frozen{head: append([]int64{s.pos, s.number, s.revision, s.compacted}, s.covered...)}
	f.text, _ = json.Marshal(s.genesis) // strings and numbers: can't fail
	for _, m := range s.maps {
		n := len(m) - 1
		f.done, f.last = append(f.done, m[:n:n]), append(f.last, m[n])
	}
	for _, b := range s.batches.recent {
		f.rest.Batches = append(f.rest.Batches, *b)
	}
	f.rest.Arranged = slices.Clip(s.batches.arranged)
	return f
}

// encode gives the state as a checkpoint holds it: the version, then uvarints: the
// length of the genesis and its JSON, position, number, G, compaction, V, and for each
// shard the number of its runs and these as differences, a few bytes a run; then the
// length of the JSON about batches, and that.
func (f *frozen) encode() []byte {
	b := binary.AppendUvarint([]byte{stateVersion}, uint64(len(f.text)))
	b = append(b, f.text...)
	for _, n := range f.head {
		b = binary.AppendUvarint(b, uint64(n))
	}
	for i, done := range f.done {
		b = binary.AppendUvarint(b, uint64(len(done)+1))
		var last run
		for _, r := range done {
			b, last = appendRun(b, last, r), r
		}
		b = appendRun(b, last, f.last[i])
	}
	text, _ := json.Marshal(f.rest) // strings and numbers: can't fail
	b = binary.AppendUvarint(b, uint64(len(text)))
	return append(b, text...)
}

// appendRun adds one run: how far it begins behind the last one, its length, and the
// same distance in global revisions plus one: a run may share that of the last one's end.
func appendRun(b []byte, last, r run) []byte {
	b = binary.AppendUvarint(b, uint64(r.start-last.start-last.length))
	b = binary.AppendUvarint(b, uint64(r.length))
	return binary.AppendUvarint(b, uint64(r.global-last.global-last.length+1))
}

// decodeState reads a checkpoint. The error is ErrNewer or wraps errCorrupt.
func decodeState(b []byte) (*state, error) {
	if len(b) > 0 && b[0] > stateVersion {
		return nil, ErrNewer
	}
	s, err := parseState(b)
	if err != nil {
		return nil, fmt.Errorf("%w: checkpoint: %w", errCorrupt, err)
	}
	return s, nil
}

func parseState(b []byte) (*state, error) {
	if len(b) == 0 || b[0] == 0 {
		return nil, errors.New("it has no version")
	}
	n, used := binary.Uvarint(b[1:])
	if used <= 0 || n > uint64(len(b)-1-used) {
		return nil, errors.New("its genesis is cut off")
	}
	text, rest := b[1+used:1+used+int(n)], b[1+used+int(n):]
	s := &state{genesis: &Genesis{}}
	if err := json.Unmarshal(text, s.genesis); err != nil {
		return nil, err
	}
	if err := s.genesis.check(); err != nil {
		return nil, err
	}
	p := parser{rest: rest, version: b[0]}
	s.pos, s.number, s.revision, s.compacted = p.number(), p.number(), p.number(), p.number()
	for range s.genesis.Shards {
		s.covered = append(s.covered, p.number())
	}
	for i := range s.genesis.Shards {
		s.maps = append(s.maps, p.runs(s.covered[i], s.revision))
	}
	if b[0] > 1 {
		p.kept(&s.batches, len(s.covered))
	}
	s.batches.activate(len(s.covered))
	switch {
	case p.err != nil:
		return nil, p.err
	case len(p.rest) > 0:
		return nil, errors.New("there is something behind it")
	case s.pos < 1 || s.number < 1 || s.compacted > s.revision:
		return nil, errors.New("its numbers make no sense")
	}
	return s, nil
}

// parser takes numbers off a checkpoint. After the first error it gives zeroes.
type parser struct {
	rest    []byte
	version byte
	err     error
}

func (p *parser) number() int64 {
	n, used := binary.Uvarint(p.rest)
	if p.err == nil && (used <= 0 || n > uint64(maxRevision)) {
		p.err = errors.New("it is cut off, or a number is damaged")
	}
	if p.err != nil {
		return 0
	}
	p.rest = p.rest[used:]
	return int64(n)
}

// runs takes those of one shard, of which everything up to covered has a place among the
// global revisions up to revision. A run takes three bytes at least, so a count that is
// damaged can't make it reserve more than a small multiple of what is there.
func (p *parser) runs(covered, revision int64) runs {
	n := p.number()
	if p.err == nil && (n < 1 || n > int64(len(p.rest))/3) {
		p.err = errors.New("its runs are cut off")
	}
	if p.err != nil {
		return nil
	}
	m := slices.Grow(runs(nil), int(n))
	var last run
	shared := int64(min(1, p.version-1))
	for range n {
		r := run{start: last.start + last.length + p.number(), length: p.number(), global: last.global + last.length + p.number() - shared}
		if r.start < 1 || r.global < 1 || r.length < 1 || r.length > covered-r.start+1 || r.length > revision-r.global+1 {
			p.err = errors.Join(p.err, errors.New("a run makes no sense"))
			return nil
		}
		m, last = append(m, r), r
	}
	return m
}

// kept takes the part about batches.
func (p *parser) kept(bs *batches, shards int) {
	n := p.number()
	if p.err == nil && n > int64(len(p.rest)) {
		p.err = errors.New("its batches are cut off")
	}
	if p.err != nil {
		return
	}
	var k kept
	if p.err = json.Unmarshal(p.rest[:n], &k); p.err != nil {
		return
	}
	p.rest = p.rest[n:]
	bs.arranged = k.Arranged
	for _, b := range k.Batches {
		if err := b.check(shards); err != nil {
			p.err = err
			return
		}
		bs.add(&b)
	}
}

// check finds what would not fit the shards.
func (b *batch) check(shards int) error {
	if len(b.Shards) == 0 || b.Phase < queued || b.Phase > rolledBack || b.Phase == decided && len(b.Ends) != b.Items {
		return errors.New("a batch makes no sense")
	}
	lists := [][]int{b.Shards, b.Left}
	for _, o := range b.Ends {
		lists = append(lists, o.Writes)
	}
	for _, l := range lists {
		if err := ascending(l); err != nil {
			return err
		}
		if len(l) > 0 && l[len(l)-1] >= shards {
			return fmt.Errorf("a batch on shard number %d of %d", l[len(l)-1], shards)
		}
	}
	return nil
}
