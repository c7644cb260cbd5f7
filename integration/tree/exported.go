package tree

import (
	"go/ast"
	"go/token"
)

// ExportedDocs wants a comment on everything exported: functions, methods of
// exported types, types, constants and variables. A comment on a group of constants
// or variables serves the group.
func ExportedDocs(files []*File) (wrong []string) {
	for _, f := range files {
		if f.Test {
			continue
		}
		for _, d := range f.AST.Decls {
			for _, name := range undocumented(d) {
				wrong = append(wrong, f.at(name)+": "+name.Name+" has no comment")
			}
		}
	}
	return wrong
}

// undocumented are the exported names of a declaration that have no comment.
func undocumented(d ast.Decl) []*ast.Ident {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && receiverExported(d) {
			return []*ast.Ident{d.Name}
		}
	case *ast.GenDecl:
		if d.Tok == token.IMPORT {
			return nil
		}
		return undocumentedSpecs(d)
	}
	return nil
}

// undocumentedSpecs looks into a type, const or var declaration.
func undocumentedSpecs(d *ast.GenDecl) (names []*ast.Ident) {
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && s.Doc == nil && s.Comment == nil && (d.Doc == nil || len(d.Specs) > 1) {
				names = append(names, s.Name)
			}
		case *ast.ValueSpec:
			for _, n := range s.Names {
				if n.IsExported() && s.Doc == nil && s.Comment == nil && d.Doc == nil {
					names = append(names, n)
				}
			}
		}
	}
	return names
}

// receiverExported tells whether a function is no method, or one of an exported
// type.
func receiverExported(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	t := d.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return true
		}
	}
}
