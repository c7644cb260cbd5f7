package script

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
)

// args are the words of a command, taken one after the other; what nobody took is
// an error.
type args struct {
	env   *env
	words []Word
	flags map[string]bool
	opts  map[string]Word
}

// flags are the options without a value. A quoted word is never one.
var flagNames = map[string]bool{
	"prefix": true, "from-key": true, "keys-only": true, "count-only": true, "serializable": true,
	"stream": true, "prev-kv": true, "ignore-value": true, "ignore-lease": true, "physical": true,
	"keys": true, "no-put": true, "no-delete": true, "progress-notify": true, "fragment": true, "unordered": true,
}

// newArgs sorts the words after a command's name.
func newArgs(e *env, words []Word) *args {
	a := &args{env: e, flags: map[string]bool{}, opts: map[string]Word{}}
	for _, w := range words {
		switch {
		case w.Name != "":
			a.opts[w.Name] = w
		case !w.Quoted && flagNames[w.Text]:
			a.flags[w.Text] = true
		default:
			a.words = append(a.words, w)
		}
	}
	return a
}

// failure carries an error of the script itself out of the parsing of a command.
type failure struct{ err error }

// fail ends the command with an error; run catches it.
func fail(format string, v ...any) { panic(failure{fmt.Errorf(format, v...)}) }

// next takes a positional word.
func (a *args) next(what string) Word {
	if len(a.words) == 0 {
		fail("%s is missing", what)
	}
	w := a.words[0]
	a.words = a.words[1:]
	return w
}

// flag takes an option without value.
func (a *args) flag(name string) bool {
	set := a.flags[name]
	delete(a.flags, name)
	return set
}

// opt takes an option's text, "" if it is not there.
func (a *args) opt(name string) string {
	w := a.opts[name]
	delete(a.opts, name)
	return w.Text
}

// number takes an option that is a number, 0 if it is not there.
func (a *args) number(name string) int64 {
	text := a.opt(name)
	if text == "" {
		return 0
	}
	return a.env.number(text)
}

// lease takes an option that names a lease, 0 if it is not there.
func (a *args) lease(name string) int64 {
	text := a.opt(name)
	if text == "" {
		return 0
	}
	return a.env.lease(text)
}

// done fails if something was left.
func (a *args) done() {
	var left []string
	for _, w := range a.words {
		left = append(left, w.Text)
	}
	for f := range a.flags {
		left = append(left, f)
	}
	for o := range a.opts {
		left = append(left, o+"=")
	}
	if len(left) > 0 {
		sort.Strings(left)
		fail("not understood: %s", strings.Join(left, " "))
	}
}

// keys takes KEY [END] [prefix] [from-key] as clientv3 makes them: the empty key
// with an end is the first key there is.
func (a *args) keys() (key, end []byte) {
	key = a.next("a key").Value()
	prefix, fromKey := a.flag("prefix"), a.flag("from-key")
	switch {
	case prefix:
		end = prefixEnd(key)
	case fromKey:
		end = []byte{0}
	case len(a.words) > 0 && !isOperator(a.words[0]):
		end = a.next("an end").Value()
	}
	if len(key) == 0 && (prefix || fromKey) {
		key, end = []byte{0}, []byte{0}
	}
	return key, end
}

// prefixEnd is the first key after all keys with a prefix.
func prefixEnd(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			end := append([]byte(nil), prefix[:i+1]...)
			end[i]++
			return end
		}
	}
	return []byte{0}
}

// isOperator tells a compare's operator from a range's end.
func isOperator(w Word) bool {
	_, ok := operators[w.Text]
	return ok && !w.Quoted
}

// number reads a number or $name, with +N or -N after it.
func (e *env) number(text string) int64 {
	if !strings.HasPrefix(text, "$") {
		n, err := strconv.ParseInt(text, 0, 64)
		if err != nil {
			fail("%q is not a number", text)
		}
		return n
	}
	name, delta := text[1:], int64(0)
	if i := strings.IndexAny(name, "+-"); i > 0 {
		d, err := strconv.ParseInt(name[i:], 10, 64)
		if err != nil {
			fail("%q is not a revision", text)
		}
		name, delta = name[:i], d
	}
	value, ok := e.vars[name]
	if !ok {
		fail("$%s is not known here", name)
	}
	return value + delta
}
