package hodei_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The hard limits. What comes near them should be divided before it reaches them.
const (
	maxFileLines     = 500
	maxFunctionLines = 70
	maxColumns       = 150
	maxMethods       = 7
)

// drawers are names of packages that say nothing about what is in them.
var drawers = []string{"util", "utils", "common", "types", "models", "helpers", "misc", "base", "shared"}

func trackedFiles(t *testing.T, patterns ...string) []string {
	t.Helper()
	out, err := exec.Command("git", append([]string{"ls-files", "--cached", "--others", "--exclude-standard", "--"}, patterns...)...).Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	return slices.DeleteFunc(strings.Fields(string(out)), func(f string) bool {
		_, err := os.Stat(f)
		return err != nil || strings.HasPrefix(f, "gen/")
	})
}

func TestGoFilesAreTidy(t *testing.T) {
	t.Parallel()
	for _, file := range trackedFiles(t, "*.go") {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		isTest := strings.HasSuffix(file, "_test.go")
		if n := bytes.Count(source, []byte("\n")); n > maxFileLines && !isTest {
			t.Errorf("%s has %d lines, more than %d: divide it by what its parts are about", file, n, maxFileLines)
		}
		for i, line := range strings.Split(string(source), "\n") {
			if n := len([]rune(line)); n > maxColumns && !isTest {
				t.Errorf("%s:%d has %d columns, more than %d", file, i+1, n, maxColumns)
			}
		}
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, file, source, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(drawers, parsed.Name.Name) {
			t.Errorf("%s: package %s says nothing about what is in it", file, parsed.Name.Name)
		}
		if !isTest {
			checkDeclarations(t, fset, parsed)
		}
	}
}

func checkDeclarations(t *testing.T, fset *token.FileSet, file *ast.File) {
	t.Helper()
	for _, declaration := range file.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			if n := fset.Position(d.End()).Line - fset.Position(d.Pos()).Line + 1; n > maxFunctionLines {
				t.Errorf("%s: %s has %d lines, more than %d", fset.Position(d.Pos()), d.Name.Name, n, maxFunctionLines)
			}
			if d.Doc == nil && d.Name.IsExported() && exportedReceiver(d) && !interfaceMethod(d.Name.Name) && file.Name.Name != "main" {
				t.Errorf("%s: %s has no doc comment: say what it promises", fset.Position(d.Pos()), d.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				checkSpec(t, fset, d, spec)
			}
		}
	}
}

// interfaceMethod lets the methods that the standard library's interfaces ask for go without a comment on small types.
func interfaceMethod(name string) bool {
	return slices.Contains([]string{"Len", "Less", "Swap", "Push", "Pop", "Infof", "Errorf", "Fatalf"}, name)
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	kind := d.Recv.List[0].Type
	if star, ok := kind.(*ast.StarExpr); ok {
		kind = star.X
	}
	name, ok := kind.(*ast.Ident)
	return ok && name.IsExported()
}

func checkSpec(t *testing.T, fset *token.FileSet, d *ast.GenDecl, spec ast.Spec) {
	t.Helper()
	switch s := spec.(type) {
	case *ast.TypeSpec:
		if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
			t.Errorf("%s: %s has no doc comment", fset.Position(s.Pos()), s.Name.Name)
		}
		if i, ok := s.Type.(*ast.InterfaceType); ok && i.Methods.NumFields() > maxMethods {
			t.Errorf("%s: the interface %s has %d methods, more than %d", fset.Position(s.Pos()), s.Name.Name, i.Methods.NumFields(), maxMethods)
		}
	case *ast.ValueSpec:
		for _, name := range s.Names {
			if name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
				t.Errorf("%s: %s has no doc comment", fset.Position(s.Pos()), name.Name)
			}
		}
	}
}

// The clock is an argument in the pure packages; a call of it would make a replay differ.
func TestPurePackagesHaveNoClock(t *testing.T) {
	t.Parallel()
	for _, file := range trackedFiles(t, "service/job/*.go", "service/scheduler/*.go", "service/audit/chain/*.go") {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(file, "_test.go") && regexp.MustCompile(`time\.(Now|Since|Until|After|Sleep)\(`).Match(source) {
			t.Errorf("%s looks at the clock: time is an argument here", file)
		}
	}
}

func TestNothingIsLeftUnfinished(t *testing.T) {
	t.Parallel()
	unfinished := regexp.MustCompile(`\b(` + strings.Join([]string{"TO" + "DO", "FIX" + "ME", "XX" + "X"}, "|") + `)\b`)
	for _, file := range trackedFiles(t) {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(source), "\n") {
			if unfinished.MatchString(line) && !strings.HasSuffix(file, ".sum") {
				t.Errorf("%s:%d is marked as unfinished: %s", file, i+1, line)
			}
		}
	}
}

func TestLinksInDocumentsLeadSomewhere(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#:\s]+)(#[^)]*)?\)`)
	for _, file := range trackedFiles(t, "*.md") {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllSubmatch(source, -1) {
			target := filepath.Join(filepath.Dir(file), string(m[1]))
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which is not there", file, m[1])
			}
		}
	}
}
