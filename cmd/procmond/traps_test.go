package main

import (
	"go/ast"
	goparser "go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A row of docs/traps.md, and a test that it names.
var (
	trapRow  = regexp.MustCompile(`(?m)^\|.*\|$`)
	trapTest = regexp.MustCompile("`(\\w+)\\.(\\w+)(?:/(\\w+))?`")
)

// TestTraps: each trap of docs/traps.md has tests, and these exist.
func TestTraps(t *testing.T) {
	page, err := os.ReadFile("../../docs/traps.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := trapRow.FindAllString(string(page), -1)
	if len(rows) == 0 {
		t.Fatal("there are no traps")
	}
	packages := make(map[string]testNames)
	for _, row := range rows {
		if row == "| trap | what procmond does | tests |" || row == "|---|---|---|" {
			continue
		}
		cells := strings.Split(strings.Trim(row, "|"), "|")
		tests := trapTest.FindAllStringSubmatch(cells[len(cells)-1], -1)
		if len(cells) != 3 || len(tests) == 0 {
			t.Errorf("no tests: %s", row)
		}
		for _, test := range tests {
			pkg, name, part := test[1], test[2], test[3]
			if packages[pkg].text == nil {
				packages[pkg] = testsOf(t, pkg)
			}
			if !packages[pkg].has(pkg, name, part) {
				t.Errorf("%s: there is no %s", row, test[0])
			}
		}
	}
}

// testNames are the tests of a package, and all texts in it, among which the names of
// their parts are.
type testNames struct{ functions, text map[string]bool }

// has reports whether there is a test, with a part unless that is "". The tests of
// scantest are parts of others.
func (n testNames) has(pkg, name, part string) bool {
	if pkg == "scantest" {
		return n.text[name]
	}
	return n.functions[name] && (part == "" || n.text[strings.ReplaceAll(part, "_", " ")])
}

// testsOf reads the tests of a package, whichever system they are for.
func testsOf(t *testing.T, pkg string) testNames {
	t.Helper()
	folders := map[string]string{
		"collect": "collect", "event": "collect/event", "hash": "collect/hash", "kernel": "collect/kernel", "portable": "collect/portable",
		"procfs": "collect/procfs", "procmond": "cmd/procmond", "scantest": "collect/internal/scantest",
	}
	pattern := "*_test.go"
	if pkg == "scantest" {
		pattern = "*.go"
	}
	files, err := filepath.Glob(filepath.Join("../..", folders[pkg], pattern))
	if err != nil || len(files) == 0 || folders[pkg] == "" {
		t.Fatalf("package %s has no tests: %v", pkg, err)
	}
	names := testNames{make(map[string]bool), make(map[string]bool)}
	for _, file := range files {
		parsed, err := goparser.ParseFile(token.NewFileSet(), file, nil, goparser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, names.note)
	}
	return names
}

func (n testNames) note(node ast.Node) bool {
	switch node := node.(type) {
	case *ast.FuncDecl:
		n.functions[node.Name.Name] = node.Recv == nil
	case *ast.BasicLit:
		if text, err := strconv.Unquote(node.Value); err == nil && node.Kind == token.STRING {
			n.text[text] = true
		}
	}
	return true
}
