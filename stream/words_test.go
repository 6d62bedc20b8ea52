package stream

import (
	"strings"
	"testing"
	"time"
)

// What an operator reads about a group, from states that take too long to come about.
func TestWords(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	lag := func(n int64) *int64 { return &n }
	active := ConsumerStatus{Name: "h-1-a", Active: true, Seen: now, Pending: 2}
	silent := ConsumerStatus{Name: "h-2-b", Seen: now.Add(-12 * time.Second), Pending: 3}
	gone := ConsumerStatus{Name: "h-3-c", Seen: now.Add(-time.Hour)}
	for _, c := range []struct {
		name string
		g    GroupStatus
		want string
	}{
		{"no name", GroupStatus{Group: "my \"group\"", Lag: lag(0), Consumers: []ConsumerStatus{active}},
			"no responder can serve a group of such a name, and what it has not acked is kept for ever, with everything newer; if nothing of yours reads it, remove it in redis-cli: XGROUP DESTROY riposte:{h}:alerts \"my \\\"group\\\"\""},
		{"all is well", GroupStatus{Group: "g", Lag: lag(0), Consumers: []ConsumerStatus{active, gone}},
			"all is well: every alert is read, nothing is stuck"},
		{"a silent holder", GroupStatus{Group: "g", Lag: lag(0), Consumers: []ConsumerStatus{active, silent}},
			"3 alerts are held by consumer h-2-b, which has been silent for 12 s; they are taken over when its lease ends"},
		{"nobody to take over", GroupStatus{Group: "g", Lag: lag(0), Consumers: []ConsumerStatus{silent}},
			"no responder has asked for work within 10 s; start one with `riposte responder --host h --group g`\n" +
				"3 alerts are held by consumer h-2-b, which has been silent for 12 s; a responder that is started takes over when its lease has ended"},
		{"busy", GroupStatus{Group: "g", Lag: lag(7), Consumers: []ConsumerStatus{active}},
			"7 alerts not read yet; if that number stays, every replica has its hands full"},
		{"counted in part", GroupStatus{Group: "g", Lag: lag(0), Consumers: []ConsumerStatus{active}, Partial: true},
			"the ledger was counted in part: it is too large to be counted whole, or this user may not list keys"},
	} {
		if got := strings.Join(c.g.words("h", now), "\n"); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}
