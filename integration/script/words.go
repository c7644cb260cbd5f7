package script

import (
	"fmt"
	"strconv"
	"strings"
)

// Word is one word of a line: positional if Name is empty, else name=text.
type Word struct {
	Name   string
	Text   string
	Quoted bool
}

// Line is one line of a reply, or of what is expected.
type Line struct {
	Depth int // nesting of transactions
	Words []Word
}

// word makes a positional word.
func word(text string) Word { return Word{Text: text} }

// named makes a word with a name.
func named[T int64 | string](name string, value T) Word {
	return Word{Name: name, Text: fmt.Sprint(value)}
}

// lineOf is a line of positional words.
func lineOf(texts ...string) Line {
	var l Line
	for _, t := range texts {
		l.Words = append(l.Words, word(t))
	}
	return l
}

// String shows a line as a file would write it.
func (l Line) String() string {
	var b strings.Builder
	b.WriteString(strings.Repeat("  ", l.Depth))
	for i, w := range l.Words {
		if i > 0 {
			b.WriteByte(' ')
		}
		if w.Name != "" {
			b.WriteString(w.Name + "=")
		}
		b.WriteString(spell(w.Text))
	}
	return b.String()
}

// spell quotes a text if it could not be read back otherwise.
func spell(text string) string {
	if text == "" || strings.ContainsAny(text, " \"#=@>`") || strconv.Quote(text) != `"`+text+`"` {
		return strconv.Quote(text)
	}
	return text
}

// splitWords cuts a line into words.
func splitWords(text string) ([]Word, error) {
	var words []Word
	rest := strings.TrimLeft(text, " \t")
	for rest != "" {
		name := ""
		if i := strings.IndexAny(rest, "= \t\""); i > 0 && rest[i] == '=' && isName(rest[:i]) {
			name, rest = rest[:i], rest[i+1:]
		}
		value, quoted, left, err := cutValue(rest)
		if err != nil {
			return nil, err
		}
		words = append(words, Word{Name: name, Text: value, Quoted: quoted})
		rest = strings.TrimLeft(left, " \t")
	}
	return words, nil
}

// isName tells whether what stands before a "=" is the name of an option. Operators
// (!=) and the sign itself are not.
func isName(s string) bool {
	for _, r := range s {
		if r != '-' && (r < 'a' || r > 'z') {
			return false
		}
	}
	return true
}

// cutValue takes one value from the front of a text.
func cutValue(text string) (value string, quoted bool, rest string, err error) {
	if strings.HasPrefix(text, `"`) {
		q, err := strconv.QuotedPrefix(text)
		if err != nil {
			return "", false, "", fmt.Errorf("quote not closed: %s", text)
		}
		value, err = strconv.Unquote(q)
		return value, true, text[len(q):], err
	}
	if i := strings.IndexAny(text, " \t"); i >= 0 {
		return text[:i], false, text[i:], nil
	}
	return text, false, "", nil
}

// Value is what a word stands for as a value: @N is N bytes, anything else itself.
func (w Word) Value() []byte {
	if size, ok := strings.CutPrefix(w.Text, "@"); ok && !w.Quoted {
		if n, err := strconv.Atoi(size); err == nil {
			return filler(n)
		}
	}
	return []byte(w.Text)
}

// filler is the value that @N stands for.
func filler(n int) []byte {
	const digits = "0123456789"
	b := make([]byte, n)
	for i := range b {
		b[i] = digits[i%len(digits)]
	}
	return b
}

// showValue is the word for a value: @N for long ones that filler made.
func showValue(v []byte) Word {
	if len(v) <= 64 {
		return Word{Text: string(v), Quoted: true}
	}
	if string(filler(len(v))) == string(v) {
		return word("@" + strconv.Itoa(len(v)))
	}
	return word(fmt.Sprintf("%s…(%d bytes)", v[:32], len(v)))
}
