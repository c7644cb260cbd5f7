package order

import "sync"

// batchNamed is what the log says about a batch by its nonce; nil if it knows none. A batch
// that this process drives is not forgotten, however long ago it ended.
func (o *Order) batchNamed(nonce string) *batch {
	o.mu.RLock()
	defer o.mu.RUnlock()
	b := o.state.batches.byNonce[nonce]
	if b == nil {
		b = o.drives.kept(nonce)
	}
	if b == nil {
		return nil
	}
	picture := *b
	return &picture
}

// number is how many entries have been replayed.
func (o *Order) number() int64 {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.state.number
}

// drives are the batches that this process drives at the moment, by nonce. A coordinator
// may sleep for so long that others have done its batch and the state has forgotten it; so
// what it opened is kept here, too, until it has looked.
type drives struct {
	mu  sync.Mutex
	all map[string]*driven
}

type driven struct {
	batch   *batch // the state's; nil until the log has it
	skipped bool   // entries were not replayed that may have been about it
}

// enter begins to drive a batch; false if that is done already.
func (d *drives) enter(nonce string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all[nonce] != nil {
		return false
	}
	if d.all == nil {
		d.all = map[string]*driven{}
	}
	d.all[nonce] = &driven{}
	return true
}

func (d *drives) leave(nonce string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.all, nonce)
}

func (d *drives) has(nonce string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all[nonce] != nil
}

// kept is a batch that is driven here and whose Open was replayed. It belongs to the state.
func (d *drives) kept(nonce string) *batch {
	d.mu.Lock()
	defer d.mu.Unlock()
	if one := d.all[nonce]; one != nil {
		return one.batch
	}
	return nil
}

// skipped tells whether the batch may have come and gone without our seeing it.
func (d *drives) skipped(nonce string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	one := d.all[nonce]
	return one != nil && one.skipped
}

// opened notes a batch whose Open was replayed; the state is locked.
func (d *drives) opened(b *batch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if one := d.all[b.Nonce]; one != nil {
		one.batch = b
	}
}

// reloaded notes that the state was replaced by a newer one, which is locked. What ended
// in between, and is forgotten, ended in a way that we don't know.
func (d *drives) reloaded(bs *batches) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for nonce, one := range d.all {
		switch b := bs.byNonce[nonce]; {
		case b != nil:
			one.batch = b
		case one.batch == nil || !one.batch.finished():
			one.batch, one.skipped = nil, true
		}
	}
}
