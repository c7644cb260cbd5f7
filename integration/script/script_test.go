package script

import (
	"strings"
	"testing"

	"github.com/sharder/sharder/integration/etcdtest"
)

// run runs a text on a fresh etcd.
func run(t *testing.T, text string) *Run {
	t.Helper()
	s, err := Parse("inline", text)
	if err != nil {
		t.Fatal(err)
	}
	e := etcdtest.Start(t)
	r, err := Execute(s, Server{Name: "etcd", Endpoint: e.Endpoint, Restart: func(bool) { e.Restart() }})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const right = `
put a 1
> ok rev=$a
get a
> a 1 version=1 mod=$a
> count 1
txn
  if value a = 1
  then put a 2
  then txn
    then get a
> succeeded rev=$a+1
>   ok
>   succeeded
>     a 2
>     count 1
watch w "" from-key rev=$a
> created
expect w
> PUT a 1
> PUT a 2
raw KV/Range key:""
> error InvalidArgument like "*not*provided"
restart
> ok
get a
> a 2
> count 1
`

func TestARightScriptHasNothingWrong(t *testing.T) {
	r := run(t, right)
	if len(r.Wrong) > 0 {
		t.Fatal(strings.Join(r.Wrong, "\n"))
	}
	if len(r.Replies) != 8 {
		t.Fatalf("%d replies", len(r.Replies))
	}
}

// Each row is the right script with one thing wrong.
func TestEveryWrongExpectationIsNoticed(t *testing.T) {
	for _, c := range []struct{ name, old, new string }{
		{"value", "> a 1 version=1", "> a 2 version=1"},
		{"key", "> a 1 version=1", "> b 1 version=1"},
		{"version", "version=1 mod", "version=2 mod"},
		{"known revision", "rev=$a+1", "rev=$a+2"},
		{"count", "> count 1\ntxn", "> count 2\ntxn"},
		{"more", "> count 1\ntxn", "> count 1 more\ntxn"},
		{"missing line", "> a 1 version=1 mod=$a\n", ""},
		{"branch", "> succeeded rev", "> failed rev"},
		{"nesting", ">     a 2", ">   a 2"},
		{"event", "> PUT a 2\n", "> DELETE a\n"},
		{"event not asked for", "> PUT a 2\n", ""},
		{"error code", "error InvalidArgument", "error NotFound"},
		{"error text", "*not*provided", "*never*"},
		{"name there isn't", "> PUT a 1\n", "> PUT a 1 ttl=1\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(right, c.old, c.new, 1)
			if text == right {
				t.Fatal("the row changes nothing")
			}
			if r := run(t, text); len(r.Wrong) == 0 {
				t.Fatal("not noticed")
			}
		})
	}
}

func TestTheParserNamesFileAndLine(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"put a 1\nsteal a\n", `inline:2: no command "steal"`},
		{"> ok\n", "inline:1: an expectation without a command"},
		{"get a\n  if x\n", "inline:2: an indented line belongs to a txn"},
		{"put a 1\ndiffers \"x\"\n", "inline:2: differs follows an expectation"},
		{"put a 1\n> ok\ndiffers\n", "inline:3: differs takes one quoted reason"},
		{"put a 1\n> ok\ndiffers apart\n", "inline:3: differs takes one quoted reason"},
		{"apart\n", "inline:1: apart takes one quoted reason"},
		{"put \"a 1\n", "inline:1: quote not closed: \"a 1"},
		{"shapes many\n", "inline:1: shapes takes the word one or order"},
		{"put a 1\n>\n", "inline:2: an empty expectation"},
	} {
		if _, err := Parse("inline", c.text); err == nil || err.Error() != c.want {
			t.Errorf("%q: %v, want %s", c.text, err, c.want)
		}
	}
}

func TestAMistakeInACommandStopsTheScript(t *testing.T) {
	e := etcdtest.Start(t)
	for _, c := range []struct{ text, want string }{
		{"put a", "a value is missing"},
		{"get a sort=colour", `no sort target "colour"`},
		{"get a rev=$x", "$x is not known here"},
		{"put a 1 2 3", "not understood: 2 3"},
		{"put a 1 lease=L", `no lease "L"`},
		{"expect w", "no watch w"},
		{"txn\n  when x", `line 2: "when" is not if, then or else`},
		{"raw KV/Steal x", "no unary method KV/Steal"},
		{"get a\n> a rev=$x+1", ""},
		{"put a 1\n> ok rev=$x+1", "$x is not known here"},
	} {
		s, err := Parse("inline", c.text)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Execute(s, Server{Name: "etcd", Endpoint: e.Endpoint})
		if c.want == "" {
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), "inline:1: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %s", c.text, err, c.want)
		}
	}
}

func TestCompareKnowsWhatEachShapeMayDo(t *testing.T) {
	s, err := Parse("inline", "put a 1\nsingle-shard\nput b 1\nput b 2\n")
	if err != nil {
		t.Fatal(err)
	}
	replies := func(revs ...int64) *Run {
		r := &Run{Server: "x"}
		for _, rev := range revs {
			r.Replies = append(r.Replies, []Line{{Words: []Word{word("ok"), named("rev", rev)}}})
		}
		return r
	}
	etcd := replies(2, 3, 4)
	for _, c := range []struct {
		name  string
		other *Run
		shape Shape
		wrong int
	}{
		{"one shard, the same", replies(2, 3, 4), OneShard, 0},
		{"one shard, later", replies(3, 4, 5), OneShard, 3},
		{"many shards, other revisions", replies(9, 30, 31), ManyShards, 0},
		{"many shards, a gap on one of them", replies(2, 30, 32), ManyShards, 1},
		{"many shards, not finished", replies(2), ManyShards, 1},
		{"one order, the same", replies(2, 3, 4), Ordered, 0},
		{"one order, a gap", replies(2, 4, 5), Ordered, 2},
	} {
		if wrong := Compare(s, etcd, c.other, c.shape); len(wrong) != c.wrong {
			t.Errorf("%s: %d differences, want %d: %v", c.name, len(wrong), c.wrong, wrong)
		}
	}
	other := replies(2, 3, 4)
	other.Replies[0][0].Words[0].Text = "not ok"
	if wrong := Compare(s, etcd, other, ManyShards); len(wrong) != 1 {
		t.Errorf("a word that differs: %v", wrong)
	}
}

func TestWhatDiffersApartIsAnsweredAsByEtcdUnderOneOrder(t *testing.T) {
	s, err := Parse("inline", "get a rev=$x\n> count 0\ndiffers apart \"no order\"\n> error\nput a 1\n> ok\ndiffers \"never\"\n> error\n")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range map[int][2]bool{0: {true, false}, 1: {true, true}} {
		st := s.Statements[i]
		if got := [2]bool{st.differsOn(ManyShards), st.differsOn(Ordered)}; got != want || st.differsOn(OneShard) {
			t.Errorf("statement %d: %v", i, got)
		}
	}
}

func TestInANamespaceNoKeyIsReserved(t *testing.T) {
	s, err := Parse("inline", "get a\n> count 0\ndiffers reserved \"a key of sharder's\"\n> error\nput a 1\n> ok\ndiffers \"never\"\n> error\n")
	if err != nil {
		t.Fatal(err)
	}
	in := s.InNamespace()
	for i, want := range []bool{false, true} {
		if !s.Statements[i].differsOn(ManyShards) || in.Statements[i].differsOn(ManyShards) != want {
			t.Errorf("statement %d: differs is %v", i, in.Statements[i].differsOn(ManyShards))
		}
	}
}
