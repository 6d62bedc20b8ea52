package stream_test

import (
	"strings"
	"testing"

	"riposte/stream"
)

func TestParseNames(t *testing.T) {
	host := func(s string) error { _, err := stream.ParseHost(s); return err }
	group := func(s string) error { _, err := stream.ParseGroup(s); return err }
	id := func(s string) error { _, err := stream.ParseAlertID(s); return err }
	for _, c := range []struct {
		name  string
		parse func(string) error
		max   int
		good  []string
		bad   []string
	}{
		{"host", host, 253, []string{"a", "web-1", "web_1.example.com", "10.0.0.1"}, []string{"web:1", "{h}", "a/b"}},
		{"group", group, 64, []string{"containment", "g.1_2-3"}, []string{"a:b", "a/b"}},
		{"alert ID", id, 128, []string{"a", "a:b", "2f1c-._:"}, []string{"a/b", "entry~1-1", "{a}"}},
	} {
		good := append(c.good, strings.Repeat("x", c.max))
		bad := append(c.bad, "", " ", "a b", "a\n", "\n", "a\x00", "é", "*", "a~b", strings.Repeat("x", c.max+1))
		for _, s := range good {
			if err := c.parse(s); err != nil {
				t.Errorf("%s %.20q: %v", c.name, s, err)
			}
		}
		for _, s := range bad {
			if err := c.parse(s); err == nil {
				t.Errorf("%s %.20q is accepted", c.name, s)
			} else if len(err.Error()) > 200 || strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("%s %.20q: unfit to print: %q", c.name, s, err)
			}
		}
	}
}

func TestKeys(t *testing.T) {
	h, g := stream.Host("web-1"), stream.DefaultGroup
	for got, want := range map[string]string{
		h.AlertsKey():                       "riposte:{web-1}:alerts",
		h.JournalKey():                      "riposte:{web-1}:journal",
		h.ControlKey():                      "riposte:{web-1}:control",
		h.LedgerKey(g, "a:b"):               "riposte:{web-1}:ledger:containment:a:b",
		h.DeadKey(g):                        "riposte:{web-1}:dead:containment",
		h.WaitingKey(g):                     "riposte:{web-1}:waiting:containment",
		stream.StepKey(h, g, "a", "p", "s"): "web-1/containment/a/p/s",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// IDs that Riposte makes up must not be within reach of a publisher.
func TestOwnIDsCannotBePublished(t *testing.T) {
	for _, id := range []stream.AlertID{stream.AlertID("a").Conflicting("0123456789abcdef"), stream.EntryID("1-1")} {
		if _, err := stream.ParseAlertID(string(id)); err == nil {
			t.Errorf("%s can be published", id)
		}
	}
}

func TestDeriveID(t *testing.T) {
	if one, two := stream.DeriveID("a", "b"), stream.DeriveID("a", "b"); one != two {
		t.Error("the same parts have two IDs")
	}
	if stream.DeriveID("a", "b") == stream.DeriveID("ab") || stream.DeriveID("a", "bc") == stream.DeriveID("ab", "c") {
		t.Error("parts run into each other")
	}
	if _, err := stream.ParseAlertID(string(stream.DeriveID("a"))); err != nil {
		t.Error(err)
	}
}
