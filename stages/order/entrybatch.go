package order

import (
	"encoding/json"
	"errors"
	"fmt"
)

// The entries about batches of transactions over several shards. A batch is named by the
// position of its Open. An entry that comes when its batch can't take it any more has no
// effect; that is no error, since everybody may append any of them.

// Open puts a batch into the queue of each of its shards.
type Open struct {
	Nonce  string `json:"nonce"`  // of whoever opens; the record of the batch has it in its key
	Until  int64  `json:"until"`  // the entry has a number below this, and is remembered as long
	Shards []int  `json:"shards"` // by number, ascending
	// Items is how many transactions are in it, at least 1. A batch without is a pin: it
	// keeps the fences of others away from its shards and is closed without being decided.
	// Its record names the leases that end under it, and whoever takes it over has them
	// end before it closes: a LeaseRevoke that was held up finds nothing then.
	Items int    `json:"items,omitempty"`
	By    string `json:"by,omitempty"` // who coordinates it, for people
	At    int64  `json:"at,omitempty"` // when, in Unix milliseconds of its clock, for people
}

// Fenced says where the fences of a batch stand: what is before them is covered.
type Fenced struct {
	ID int64     `json:"id"`
	At []Covered `json:"at"` // of all its shards
}

// Decided is the commit point of a batch, or says that nothing of it ever happened.
type Decided struct {
	ID         int64     `json:"id"`
	RolledBack bool      `json:"rolledBack,omitempty"`
	At         []Covered `json:"at,omitempty"`    // of all its shards, the revision of the fence
	Items      []Outcome `json:"items,omitempty"` // of all its items
}

// Outcome is what becomes of one transaction.
type Outcome struct {
	// Again says that it could not be done as it was prepared (a lease of it came to its
	// end): nothing happened, and its coordinator begins anew.
	Again  bool   `json:"again,omitempty"`
	Path   []bool `json:"path,omitempty"`   // for every Txn on its way, in the order met, whether its compares held
	Writes []int  `json:"writes,omitempty"` // the shards on which it makes a revision, ascending
	// Error is the text of etcd's error that it ended with: then it wrote nothing. It is in
	// the log since whoever evaluates it later may know of a newer revision and not find it.
	Error string       `json:"error,omitempty"`
	Order *Arrangement `json:"order,omitempty"` // of its events, unless that of the shards
}

// Closed says that shards are done with a batch.
type Closed struct {
	ID   int64 `json:"id"`
	Ends []End `json:"ends"` // ascending by shard; not necessarily all
}

// End is how a batch ended on one shard.
type End struct {
	Shard int `json:"shard"`
	// Fence is the revision at which its fence was put; 0 if none ever stood there.
	Fence int64 `json:"fence,omitempty"`
	// Steps are the revisions that the items which write here end with, in their order.
	Steps []int64 `json:"steps,omitempty"`
	// Revision is that of the closed id, the last that the batch makes here: that of the
	// last step or, if that did not take the fence away, one more that is sharder's own.
	// A pin makes none: what it ended with is covered up to Revision, but for a fence that
	// it has taken away (Fence) at a revision that is sharder's own as well (Steps).
	Revision int64 `json:"revision,omitempty"`
}

func encodeJSON(kind byte, v any) []byte {
	text, _ := json.Marshal(v) // strings and numbers: can't fail
	return append([]byte{entryVersion, kind}, text...)
}

type checked[T any] interface {
	*T
	check() error
}

func decodeJSON[T any, P checked[T]](text []byte) (P, error) {
	v := P(new(T))
	if err := json.Unmarshal(text, v); err != nil {
		return nil, err
	}
	return v, v.check()
}

func (o *Open) check() error {
	if o.Nonce == "" || o.Items < 0 || len(o.Shards) == 0 {
		return errors.New("a batch without nonce, items or shards")
	}
	return ascending(o.Shards)
}

func (f *Fenced) check() error { return checkCovered(f.At) }

func (d *Decided) check() error {
	if d.RolledBack {
		return nil
	}
	for _, o := range d.Items {
		if err := ascending(o.Writes); err != nil {
			return err
		}
	}
	return checkCovered(d.At)
}

func (c *Closed) check() error {
	shards := make([]int, 0, len(c.Ends))
	for _, e := range c.Ends {
		shards = append(shards, e.Shard)
		last := e.Fence
		for _, rev := range append(e.Steps[:len(e.Steps):len(e.Steps)], max(last, e.Revision)) {
			if rev < last || rev > maxRevision {
				return fmt.Errorf("shard number %d: revisions %v up to %d", e.Shard, e.Steps, e.Revision)
			}
			last = rev
		}
	}
	if len(shards) == 0 {
		return errors.New("no shard is closed")
	}
	return ascending(shards)
}

func checkCovered(cs []Covered) error {
	shards := make([]int, 0, len(cs))
	for _, c := range cs {
		shards = append(shards, c.Shard)
		if c.Revision < 1 || c.Revision > maxRevision {
			return fmt.Errorf("shard number %d at %d", c.Shard, c.Revision)
		}
	}
	return ascending(shards)
}

// ascending checks numbers of shards.
func ascending(shards []int) error {
	for i, n := range shards {
		if n < 0 || n > maxShards || i > 0 && shards[i-1] >= n {
			return fmt.Errorf("shards out of order: %v", shards)
		}
	}
	return nil
}
