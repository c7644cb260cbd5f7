package tree

import (
	"fmt"
	"io/fs"
	"regexp"
	"strings"
)

// claimed finds the tests, benchmarks and examples that a page names in backquotes.
var claimed = regexp.MustCompile("`((?:Test|Benchmark|Fuzz|Example)[A-Za-z0-9_]+)`")

// defined finds those that there are.
var defined = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz|Example)[A-Za-z0-9_]*)\(`)

// Claims checks that every test a page names, as what shows a claim, exists. It gives
// how many names it saw, and "file: name" for those that are nobody's.
func Claims(root fs.FS) (names int, wrong []string, err error) {
	tests := map[string]bool{}
	pages := map[string]string{}
	err = fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && d.Name()[0] == '.':
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		isTest, isPage := strings.HasSuffix(path, "_test.go"), strings.HasSuffix(path, ".md")
		if !isTest && !isPage {
			return nil
		}
		text, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		if isPage {
			pages[path] = string(text)
			return nil
		}
		for _, m := range defined.FindAllStringSubmatch(string(text), -1) {
			tests[m[1]] = true
		}
		return nil
	})
	for path, text := range pages {
		for _, m := range claimed.FindAllStringSubmatch(text, -1) {
			if names++; !tests[m[1]] {
				wrong = append(wrong, fmt.Sprintf("%s: there is no %s", path, m[1]))
			}
		}
	}
	return names, wrong, err
}
