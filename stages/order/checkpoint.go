package order

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// stateVersion is the form of checkpoints this code writes; it reads all up to it.
const stateVersion = 1

// frozen is a state as it was at one moment. It shares the runs that never change with
// the state, so that a large map is written down without holding anybody up.
type frozen struct {
	head []int64 // position, number, G, compaction, then V
	text []byte  // the genesis, JSON
	done []runs  // by shard number, all runs but the last
	last []run   // by shard number
}

// freeze needs the state's lock for reading; what it gives doesn't.
func (s *state) freeze() *frozen {
	f := &frozen{head: append([]int64{s.pos, s.number, s.revision, s.compacted}, s.covered...)}
	f.text, _ = json.Marshal(s.genesis) // strings and numbers: can't fail
	for _, m := range s.maps {
		n := len(m) - 1
		f.done, f.last = append(f.done, m[:n:n]), append(f.last, m[n])
	}
	return f
}

// encode gives the state as a checkpoint holds it: the version, then uvarints: the
// length of the genesis and its JSON, position, number, G, compaction, V, and for each
// shard the number of its runs and these as differences, a few bytes a run.
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
	return b
}

// appendRun adds one run: how far it begins behind the last one, its length, and the
// same distance in global revisions.
func appendRun(b []byte, last, r run) []byte {
	b = binary.AppendUvarint(b, uint64(r.start-last.start-last.length))
	b = binary.AppendUvarint(b, uint64(r.length))
	return binary.AppendUvarint(b, uint64(r.global-last.global-last.length))
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
	p := parser{rest: rest}
	s.pos, s.number, s.revision, s.compacted = p.number(), p.number(), p.number(), p.number()
	for range s.genesis.Shards {
		s.covered = append(s.covered, p.number())
	}
	for i := range s.genesis.Shards {
		s.maps = append(s.maps, p.runs(s.covered[i], s.revision))
	}
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
	rest []byte
	err  error
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
	for range n {
		r := run{start: last.start + last.length + p.number(), length: p.number(), global: last.global + last.length + p.number()}
		if r.start < 1 || r.global < 1 || r.length < 1 || r.length > covered-r.start+1 || r.length > revision-r.global+1 {
			p.err = errors.Join(p.err, errors.New("a run makes no sense"))
			return nil
		}
		m, last = append(m, r), r
	}
	return m
}
