package tree

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"strings"
)

// Module is the path of this module.
const Module = "github.com/sharder/sharder"

// File is one Go file.
type File struct {
	Path string // slash-separated, from the root of the tree
	Dir  string // its directory, "." for the root
	Test bool   // belongs to a test
	AST  *ast.File
	fset *token.FileSet
}

// at is where a node stands, for messages.
func (f *File) at(n ast.Node) string { return f.fset.Position(n.Pos()).String() }

// Load parses every Go file under a root. Directories that the go tool passes over
// (testdata, and names that begin with a dot or "_") are passed over here too.
func Load(root fs.FS) ([]*File, error) {
	fset := token.NewFileSet()
	var files []*File
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != "." && (d.Name() == "testdata" || d.Name()[0] == '.' || d.Name()[0] == '_'):
			return fs.SkipDir
		case d.IsDir() || path.Ext(p) != ".go":
			return nil
		}
		src, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(fset, p, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, &File{Path: p, Dir: path.Dir(p), Test: strings.HasSuffix(p, "_test.go"), AST: parsed, fset: fset})
		return nil
	})
	return files, err
}

// under tells whether a directory is another one or inside it.
func under(dir, top string) bool { return dir == top || strings.HasPrefix(dir, top+"/") }
