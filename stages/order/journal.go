package order

import (
	"context"
	"errors"
)

// Journal is where a log is kept. Etcd is the real one; simulations have their own. All
// methods may be called at once.
type Journal interface {
	// Append adds an entry and gives its position. It has no condition. After an error
	// the entry may be there or may still come.
	Append(ctx context.Context, entry []byte) (position int64, err error)
	Records
	// Create adds the first entry; false if there is one already.
	Create(ctx context.Context, entry []byte) (created bool, err error)
	// Position gives the position of the newest entry at some moment during the call;
	// 0 if there is none.
	Position(ctx context.Context) (int64, error)
	// Load gives the newest checkpoint, and the position to follow from; without a
	// checkpoint the text is nil.
	Load(ctx context.Context) (Checkpoint, error)
	// Follow hands over everything behind a position, in order and each once, until each
	// or the journal fails or ctx ends. It never returns nil. ErrForgotten says that what
	// comes next is not kept any more: load again.
	Follow(ctx context.Context, from int64, each func(Record) error) error
	// Save stores a checkpoint, unless one of a later position is there, and gives back
	// the room of everything before it.
	Save(ctx context.Context, c Checkpoint) error
}

// Records are where the requests of batches are kept, for whoever carries them on.
type Records interface {
	// Open is Append for an entry that opens a batch, and stores the batch's record with
	// it. The record is kept until it is dropped; it is named by the entry's nonce, and by
	// the number of entries up to which the entry counts.
	Open(ctx context.Context, entry []byte, until int64, nonce string, record []byte) (position int64, err error)
	// LoadRecord gives a record; nil if it is not there.
	LoadRecord(ctx context.Context, until int64, nonce string) ([]byte, error)
	// DropRecord removes a record. One that is not there is no error.
	DropRecord(ctx context.Context, until int64, nonce string) error
	// OldRecords lists the records whose entries don't count any more in a log that has so
	// many entries, by their nonces.
	OldRecords(ctx context.Context, number int64) (map[string]int64, error)
}

// Record is what Follow hands over: an entry, or the notice of a checkpoint.
type Record struct {
	Position int64
	// Number counts the entries, the first being 1; 0 if the journal doesn't count. A gap
	// shows that the log is not the one that was followed before.
	Number     int64
	Entry      []byte // nil for a checkpoint
	Checkpoint Checkpoint
}

// Checkpoint is the state at a position, in the form that checkpoint.go writes. In a
// Record its Text is nil: it has to be loaded.
type Checkpoint struct {
	Position int64
	Swept    int64 // the compaction at which the map was swept last, a global revision; 0 if never
	Text     []byte
}

// ErrForgotten says that entries which were to be followed are not kept any more.
var ErrForgotten = errors.New("the order log does not reach back that far any more")

// ErrNoLog says that there is no log yet: nobody has written a genesis.
var ErrNoLog = errors.New("there is no order log")
