package conf

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the .err files from what Parse says now")

// TestEveryMistakeIsToldAsTheGoldenFilesSay parses testdata/NAME.toml and compares all it
// says with NAME.err; a NAME.ok.toml has nothing wrong with it.
func TestEveryMistakeIsToldAsTheGoldenFilesSay(t *testing.T) {
	files, err := filepath.Glob("testdata/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".toml")
		t.Run(name, func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Parse(name+".toml", src)
			if strings.HasSuffix(name, ".ok") {
				if err != nil {
					t.Fatalf("want no error, have\n%v", err)
				}
				return
			}
			if err == nil {
				t.Fatalf("want an error, have %+v", c)
			}
			if c != nil {
				t.Error("there is a configuration beside the error")
			}
			checkErrors(t, err)
			compare(t, strings.TrimSuffix(file, ".toml")+".err", err.Error()+"\n")
		})
	}
}

// compare holds have against the golden file, or writes it.
func compare(t *testing.T, golden, have string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(golden, []byte(have), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if have != string(want) {
		t.Errorf("have\n%s\nwant\n%s", have, want)
	}
}

// checkErrors checks what is true of every error of Parse: it is an Errors, each in
// it has a place, a key unless it is one of syntax, and one line of its own.
func checkErrors(t *testing.T, err error) {
	t.Helper()
	var all Errors
	if !errors.As(err, &all) || len(all) == 0 {
		t.Fatalf("the error is not an Errors: %#v", err)
	}
	last := 1
	for _, e := range all {
		if e.Line < last {
			t.Errorf("line %d is told after line %d", e.Line, last)
		}
		last = e.Line
		if e.What == "" || e.Key == "" && len(all) > 1 {
			t.Errorf("the error does not say what is wrong where: %#v", e)
		}
		if e.Key != "" && (e.Remedy == "" || strings.ContainsAny(e.Error(), "\n\r\x00")) {
			t.Errorf("the error has no remedy, or not one line: %q", e.Error())
		}
	}
}

// TestNoGoldenFileIsLeftOver keeps testdata from holding answers to questions that
// nobody asks.
func TestNoGoldenFileIsLeftOver(t *testing.T) {
	files, err := filepath.Glob("testdata/*.err")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if _, err := os.Stat(strings.TrimSuffix(file, ".err") + ".toml"); err != nil {
			t.Error(err)
		}
	}
}
