package tree

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/sharder/sharder/conf"
)

// tomlBlock is a block of TOML in a page.
var tomlBlock = regexp.MustCompile("(?ms)^```toml[^\n]*\n(.*?)^```")

// TOMLBlocks wants every block of TOML in the pages under a root to parse, and those
// that name shards to be configurations that sharder starts with.
func TOMLBlocks(root fs.FS) (blocks int, wrong []string, err error) {
	err = fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != "." && d.Name()[0] == '.':
			return fs.SkipDir
		case d.IsDir() || path.Ext(p) != ".md":
			return nil
		}
		text, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		for _, m := range tomlBlock.FindAllStringSubmatchIndex(string(text), -1) {
			blocks++
			line := 1 + strings.Count(string(text[:m[2]]), "\n")
			if err := checkTOML(string(text[m[2]:m[3]])); err != nil {
				wrong = append(wrong, fmt.Sprintf("%s:%d: %v", p, line, err))
			}
		}
		return nil
	})
	return blocks, wrong, err
}

// checkTOML parses a block.
func checkTOML(text string) error {
	if strings.Contains(text, "[shards.") {
		_, err := conf.Parse("block", []byte(text))
		return err
	}
	var any map[string]any
	_, err := toml.Decode(text, &any)
	return err
}
