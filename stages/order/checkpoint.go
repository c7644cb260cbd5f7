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

// encode gives the state as a checkpoint holds it: the version, then uvarints: the
// length of the genesis and its JSON, position, G, compaction, V, and the runs of each
// shard as differences, a few bytes a run.
func (s *state) encode() []byte {
	text, _ := json.Marshal(s.genesis) // strings and numbers: can't fail
	b := binary.AppendUvarint([]byte{stateVersion}, uint64(len(text)))
	b = append(b, text...)
	for _, n := range append([]int64{s.pos, s.revision, s.compacted}, s.covered...) {
		b = binary.AppendUvarint(b, uint64(n))
	}
	for _, m := range s.maps {
		b = binary.AppendUvarint(b, uint64(len(m)))
		var last run
		for _, r := range m {
			b = binary.AppendUvarint(b, uint64(r.start-last.start-last.length))
			b = binary.AppendUvarint(b, uint64(r.length))
			b = binary.AppendUvarint(b, uint64(r.global-last.global-last.length))
			last = r
		}
	}
	return b
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
	if len(b) == 0 {
		return nil, errors.New("it is empty")
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
	ns, err := numbers(rest)
	if err != nil {
		return nil, err
	}
	shards := len(s.genesis.Shards)
	if len(ns) < 3+shards {
		return nil, errors.New("it is cut off")
	}
	s.pos, s.revision, s.compacted = ns[0], ns[1], ns[2]
	s.covered = slices.Clone(ns[3 : 3+shards])
	ns = ns[3+shards:]
	for range shards {
		var m runs
		if m, ns, err = parseRuns(ns); err != nil {
			return nil, err
		}
		s.maps = append(s.maps, m)
	}
	if len(ns) > 0 {
		return nil, errors.New("there is something behind it")
	}
	return s, nil
}

// parseRuns takes the runs of one shard off the numbers.
func parseRuns(ns []int64) (runs, []int64, error) {
	if len(ns) == 0 || ns[0] > int64(len(ns)-1)/3 {
		return nil, nil, errors.New("its runs are cut off")
	}
	n := int(ns[0])
	m, last := make(runs, n), run{}
	for i := range m {
		t := ns[1+3*i:]
		m[i] = run{start: last.start + last.length + t[0], length: t[1], global: last.global + last.length + t[2]}
		if m[i].start < 1 || m[i].length < 1 || m[i].global < 1 {
			return nil, nil, errors.New("a run makes no sense")
		}
		last = m[i]
	}
	return m, ns[1+3*n:], nil
}
