package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf16"
)

// json prints a value as indented JSON.
func (a *app) json(v any) error { return a.encode(v, "  ") }

// jsonLine prints a value as one line of JSON.
func (a *app) jsonLine(v any) error { return a.encode(v, "") }

// encode prints a value as JSON. More is escaped than JSON asks for: it lets DEL, the C1
// controls and what reverses the direction of text pass as they are.
func (a *app) encode(v any, indent string) error {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetIndent("", indent)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(a.out, plain(strings.TrimSuffix(line, "\n"))); err != nil {
			return err
		}
	}
	return nil
}

// table prints rows in columns under a header.
func (a *app) table(header []string, rows [][]string) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = plain(cell)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

// plain escapes what a terminal would obey instead of show, as JSON does: an alert may
// have been written by an attacker.
func plain(s string) string {
	obeyed := func(r rune) bool { return !unicode.IsGraphic(r) }
	s = strings.ToValidUTF8(s, "\uFFFD") // a single byte may be obeyed, too
	if strings.IndexFunc(s, obeyed) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if !obeyed(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}
