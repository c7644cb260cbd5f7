package watch

import (
	"context"
	"maps"
	"slices"
	"time"
)

// progressPatience is how long a progress request is worked at. After that it is left
// unanswered, as etcd leaves it while a watch of the stream is not level.
const progressPatience = 2 * time.Second

// progressPause is the time between two attempts.
const progressPause = 20 * time.Millisecond

// askProgress has the client's progress request answered; requests that come
// meanwhile are answered together, by one more round. A stream without a watch gets no
// answer, as with etcd.
func (c *session) askProgress() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asking {
		c.askAgain = true
		return
	}
	if len(c.watches) == 0 || c.closed {
		return
	}
	c.asking = true
	c.wg.Go(func() { c.guard(c.answerProgress) })
}

func (c *session) answerProgress() {
	for {
		c.progress()
		c.mu.Lock()
		again := c.askAgain && c.ctx.Err() == nil
		c.askAgain, c.asking = false, again
		c.mu.Unlock()
		if !again {
			return
		}
	}
}

// progress has one request answered, or several that came together.
func (c *session) progress() {
	ctx, cancel := context.WithTimeout(c.ctx, progressPatience)
	defer cancel()
	c.server.numbers.progress(ctx, c)
}

// say puts a response into the mailbox unless a watch was created since. It is made while
// nothing else goes in.
func (c *session) say(generation int, make func() item) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation != generation {
		return false
	}
	c.mailbox.forceMade(make)
	return true
}

// present are the watches of the stream, and the number of watches created so far.
func (c *session) present() (watches []*watch, generation int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.watches)), c.generation
}
