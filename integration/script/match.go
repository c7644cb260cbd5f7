package script

import (
	"fmt"
	"path"
	"sort"
	"strings"
)

// revisionWords are the words whose values only mean something on one server.
var revisionWords = map[string]bool{"rev": true, "mod": true, "create": true}

// match compares what is expected with what came, and binds the revisions that the
// expectation names for the first time. It returns what is wrong, "" if nothing.
func (e *env) match(want, got []Line) string {
	if len(want) != len(got) {
		return fmt.Sprintf("%d lines expected, %d came", len(want), len(got))
	}
	for i := range want {
		if wrong := e.matchLine(want[i], got[i]); wrong != "" {
			return fmt.Sprintf("line %d: %s", i+1, wrong)
		}
	}
	return ""
}

// matchLine compares one line.
func (e *env) matchLine(want, got Line) string {
	if want.Depth != got.Depth {
		return fmt.Sprintf("nesting %d expected, %d came", want.Depth, got.Depth)
	}
	wantPlain, gotPlain := positional(want), positional(got)
	if n := len(wantPlain); n >= 3 && wantPlain[n-2].Text == "like" && !wantPlain[n-2].Quoted {
		pattern := wantPlain[n-1].Text
		wantPlain = wantPlain[:n-2]
		if len(gotPlain) != n-1 || !like(pattern, gotPlain[n-2].Text) {
			return fmt.Sprintf("not like %q", pattern)
		}
		gotPlain = gotPlain[:n-2]
	}
	if len(wantPlain) != len(gotPlain) {
		return "other words came"
	}
	for i, w := range wantPlain {
		if w.Text != gotPlain[i].Text {
			return fmt.Sprintf("%s expected, %s came", spell(w.Text), spell(gotPlain[i].Text))
		}
	}
	for _, w := range want.Words {
		if w.Name == "" {
			continue
		}
		if wrong := e.matchNamed(w, got); wrong != "" {
			return wrong
		}
	}
	return ""
}

// like tells whether a text fits a pattern with *. A slash is a character like any
// other here.
func like(pattern, text string) bool {
	esc := strings.NewReplacer("/", "\x01", "[", "\x02", "]", "\x03", "?", "\x04", "\\", "\x05")
	ok, err := path.Match(esc.Replace(pattern), esc.Replace(text))
	return ok && err == nil
}

// matchNamed compares a name=value of the expectation.
func (e *env) matchNamed(w Word, got Line) string {
	for _, g := range got.Words {
		if g.Name != w.Name {
			continue
		}
		text := w.Text
		if name, ok := strings.CutPrefix(text, "$"); ok {
			if _, known := e.vars[name]; !known && !strings.ContainsAny(name, "+-") {
				e.vars[name] = e.number(g.Text)
				return ""
			}
			text = fmt.Sprint(e.number(text))
		}
		if text != g.Text {
			return fmt.Sprintf("%s=%s expected (%s), %s came", w.Name, w.Text, text, g.Text)
		}
		return ""
	}
	return fmt.Sprintf("no %s came", w.Name)
}

// positional are the words of a line that have no name.
func positional(l Line) []Word {
	var words []Word
	for _, w := range l.Words {
		if w.Name == "" {
			words = append(words, w)
		}
	}
	return words
}

// sorted is a copy of the lines in the order of their positional words: what
// several shards may deliver in any order.
func sorted(lines []Line) []Line {
	out := append([]Line(nil), lines...)
	key := func(l Line) string {
		var b strings.Builder
		for _, w := range positional(l) {
			b.WriteString(w.Text + "\x00")
		}
		return b.String()
	}
	sort.SliceStable(out, func(i, j int) bool { return key(out[i]) < key(out[j]) })
	return out
}
