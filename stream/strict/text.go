package strict

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/goccy/go-yaml/ast"
)

// AtText is an error that names the place of a character within the text of a node, n
// characters into it. Where the file shows the text in other words, with escapes or as an
// alias, it names the place of the node.
func AtText(file string, src []byte, node ast.Node, text string, n int, format string, args ...any) error {
	line, column, ok := locate(string(src), node, text, n)
	if !ok {
		return At(file, node, format, args...)
	}
	return fmt.Errorf("%s:%d:%d: %s", file, line, column, fmt.Sprintf(format, args...))
}

// locate walks over the source and the text side by side. YAML folds white space, and takes
// quotes and backslashes of its own away; the rest it leaves as it is.
func locate(src string, node ast.Node, text string, n int) (line, column int, ok bool) {
	from := node.GetToken()
	if from == nil || from.Position == nil {
		return 0, 0, false
	}
	line, column = from.Position.Line, from.Position.Column
	if _, block := node.(*ast.LiteralNode); block { // its text begins below | or >
		line, column = line+1, 1
	}
	lines := strings.SplitAfter(src, "\n")
	chars := []rune(strings.TrimRightFunc(text, unicode.IsSpace))
	n = min(n, len(chars)-1) // its end, where something is missing there
	at := 0
	for ; line <= len(lines); line, column = line+1, 1 {
		for i, r := range []rune(lines[line-1]) {
			if i+1 < column || unicode.IsSpace(r) {
				continue
			}
			for at <= n && unicode.IsSpace(chars[at]) {
				at++
			}
			switch {
			case at > n:
				return 0, 0, false
			case r == chars[at] && at == n:
				return line, i + 1, true
			case r == chars[at]:
				at++
			case !strings.ContainsRune(`\"'`, r):
				return 0, 0, false
			}
		}
	}
	return 0, 0, false
}
