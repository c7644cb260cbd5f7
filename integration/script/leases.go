package script

import (
	"strconv"
	"sync"
)

// leases are the names a script gave to leases. The script adds, the readers of
// streams look up.
type leases struct {
	mu  sync.Mutex
	ids map[string]int64
}

// set binds a name, perhaps anew.
func (l *leases) set(name string, id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ids == nil {
		l.ids = map[string]int64{}
	}
	l.ids[name] = id
}

// id is what a name stands for.
func (l *leases) id(name string) (int64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id, ok := l.ids[name]
	return id, ok
}

// name is the name of an id, or the number itself.
func (l *leases) name(id int64) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, known := range l.ids {
		if known == id {
			return name
		}
	}
	return strconv.FormatInt(id, 10)
}

// lease is the id that a lease's name, or a number, stands for.
func (e *env) lease(text string) int64 {
	if id, ok := e.leases.id(text); ok {
		return id
	}
	id, err := strconv.ParseInt(text, 0, 64)
	if err != nil {
		fail("no lease %q", text)
	}
	return id
}
