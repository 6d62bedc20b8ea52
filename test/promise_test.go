package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every sentence of the promise names tests that fail where it is not true, and they exist.
func TestPromiseNamesItsTests(t *testing.T) {
	raw, err := os.ReadFile("../ledger/doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(strings.ReplaceAll(string(raw), "\n//", "\n"), "# The promise")
	text, _, ok2 := strings.Cut(text, "Nobody can have exactly-once")
	if !ok || !ok2 {
		t.Fatal("there is no promise in ledger/doc.go")
	}
	text = strings.Join(strings.Fields(text), " ")
	items := strings.Split(text, " - ")[1:]
	if len(items) != 5 {
		t.Fatalf("the promise has %d items, not 5", len(items))
	}
	sentence := regexp.MustCompile(`(?s)(.*?)\[([^]]*)\]\.`)
	title := regexp.MustCompile(`^[A-Z][a-z]+( [a-z]+)*\. `)
	tests := map[string]map[string]bool{}
	count := 0
	for _, item := range items {
		item = title.ReplaceAllString(item, "")
		for _, m := range sentence.FindAllStringSubmatch(item, -1) {
			count++
			if strings.Contains(strings.TrimSpace(m[1]), ". ") {
				t.Errorf("a sentence without a test: %s", m[1])
			}
			folder, named := "", false
			for _, word := range strings.Fields(strings.ReplaceAll(m[2], ",", "")) {
				if !strings.HasPrefix(word, "Test") {
					if folder != "" && !named {
						t.Errorf("package %s is named without a test: %s", folder, m[1])
					}
					folder, named = word, false
					continue
				}
				named = true
				if tests[folder] == nil {
					tests[folder] = testsIn(t, folder)
				}
				if !tests[folder][word] {
					t.Errorf("package %s has no %s", folder, word)
				}
			}
			if !named {
				t.Errorf("a sentence that names no test, or a package without one: %s [%s]", m[1], m[2])
			}
		}
		if rest := strings.TrimSpace(sentence.ReplaceAllString(item, "")); rest != "" {
			t.Errorf("a sentence without a test: %s", rest)
		}
	}
	if count != 8 {
		t.Errorf("%d sentences with tests, want 8", count)
	}
}

func testsIn(t *testing.T, folder string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				found[fn.Name.Name] = true
			}
		}
	}
	return found
}
