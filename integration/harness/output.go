package harness

import (
	"strings"
	"sync"
)

// Output keeps everything a process printed and lets tests wait for it. The
// process writes, any number of goroutines read.
type Output struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{} // closed and replaced at each write
}

// NewOutput is an Output with nothing in it.
func NewOutput() *Output { return &Output{changed: make(chan struct{})} }

// Write appends to what was printed; it never fails.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	close(o.changed)
	o.changed = make(chan struct{})
	return len(p), nil
}

// String is everything printed so far.
func (o *Output) String() string {
	text, _ := o.snapshot()
	return text
}

// snapshot is the text and a channel that closes when there is more.
func (o *Output) snapshot() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.changed
}

// Lines is everything printed so far by line, an unfinished last line included.
func (o *Output) Lines() []string {
	text := strings.TrimRight(o.String(), "\n")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// tail is the end of the output, for the log of a failed test.
func (o *Output) tail(lines int) string {
	all := o.Lines()
	if len(all) > lines {
		all = append([]string{"..."}, all[len(all)-lines:]...)
	}
	return strings.Join(all, "\n")
}
