package tree

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
)

// requireLine is a module in go.mod, toolLine a tool.
var (
	requireLine = regexp.MustCompile(`(?m)^(?:require)?\s+(\S+\.\S+) v\S+`)
	toolLine    = regexp.MustCompile(`(?m)^tool (\S+)$`)
	pageLine    = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")
)

// Dependencies wants docs/dependencies.md to explain each module that the tree
// imports or runs as a tool, and no other. Modules inside the tree have dependencies of
// their own, which are theirs to explain.
func Dependencies(root fs.FS, files []*File) ([]string, error) {
	mod, err := fs.ReadFile(root, "go.mod")
	if err != nil {
		return nil, err
	}
	page, err := fs.ReadFile(root, "docs/dependencies.md")
	if err != nil {
		return nil, err
	}
	var modules, used []string
	for _, m := range requireLine.FindAllStringSubmatch(string(mod), -1) {
		modules = append(modules, m[1])
	}
	own := slices.DeleteFunc(slices.Clone(files), func(f *File) bool { return nested(root, f.Dir) })
	for _, path := range imported(own, toolLine.FindAllStringSubmatch(string(mod), -1)) {
		if m := moduleOf(path, modules); m != "" && !slices.Contains(used, m) {
			used = append(used, m)
		}
	}
	var wrong, explained []string
	for _, m := range pageLine.FindAllStringSubmatch(string(page), -1) {
		explained = append(explained, m[1])
		if !slices.Contains(used, m[1]) {
			wrong = append(wrong, fmt.Sprintf("docs/dependencies.md explains %s, which nothing imports", m[1]))
		}
	}
	for _, m := range used {
		if !slices.Contains(explained, m) {
			wrong = append(wrong, fmt.Sprintf("docs/dependencies.md does not explain %s", m))
		}
	}
	return wrong, nil
}

// nested tells whether a directory belongs to a module inside the tree.
func nested(root fs.FS, dir string) bool {
	for ; dir != "."; dir = path.Dir(dir) {
		if _, err := fs.Stat(root, dir+"/go.mod"); err == nil {
			return true
		}
	}
	return false
}

// imported are the paths that files import, tests included, and those of tools.
func imported(files []*File, tools [][]string) (paths []string) {
	for _, f := range files {
		for _, spec := range f.AST.Imports {
			if path, err := strconv.Unquote(spec.Path.Value); err == nil {
				paths = append(paths, path)
			}
		}
	}
	for _, t := range tools {
		paths = append(paths, t[1])
	}
	return paths
}

// moduleOf is the module that holds a package: the longest whose path begins it.
func moduleOf(path string, modules []string) (best string) {
	for _, m := range modules {
		if under(path, m) && len(m) > len(best) {
			best = m
		}
	}
	return best
}
