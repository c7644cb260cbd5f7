package conf

import "testing"

func TestChangesNameEveryKeyThatSaysSomethingElse(t *testing.T) {
	older := []byte("listen = [\"a:1\"]\ndrain_timeout = \"5s\"\n[shards.x]\nendpoints = [\"h:1\"]\ntimeout = \"1s\"\n[shards.y]\nendpoints = [\"h:2\"]\n[routes]\n\"\" = \"x\"\n\"b\" = { hash = [\"x\", \"y\"] }\n")
	newer := []byte("# comment\ndrain_timeout = '5s'\nlisten = [ \"a:1\" ] # the same\n[shards.y]\nendpoints = [\"h:2\"]\n[shards.x]\nendpoints = [\"h:1\", \"h:3\"]\n[routes]\n\"b\".hash = [\"x\", \"y\"]\n\"\" = \"y\"\n")
	have, err := Changes(older, newer)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, have, []Change{
		{Key: `routes.""`, Line: 10, Old: "x", New: "y"},
		{Key: "shards", Line: 4, Old: "[x y]", New: "[y x]"},
		{Key: "shards.x.endpoints", Line: 7, Old: "[h:1]", New: "[h:1 h:3]"},
		{Key: "shards.x.timeout", Old: "1s"},
	})
	if have, err = Changes(older, older); err != nil || have != nil {
		t.Errorf("a text differs from itself: %v, %v", have, err)
	}
	if _, err = Changes(older, []byte("x = ")); err == nil {
		t.Error("half a line is a configuration")
	}
}
