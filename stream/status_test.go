package stream_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
	"riposte/test/redistest"
)

// do runs commands that must succeed.
func do(t *testing.T, rdb *redis.Client, commands ...string) {
	t.Helper()
	for _, c := range commands {
		var args []any
		for _, word := range strings.Fields(c) {
			args = append(args, word)
		}
		if err := rdb.Do(t.Context(), args...).Err(); err != nil && !errors.Is(err, redis.Nil) {
			t.Fatalf("%s: %v", c, err)
		}
	}
}

func inspect(t *testing.T, rdb *redis.Client, hosts ...stream.Host) []stream.HostStatus {
	t.Helper()
	all, err := stream.Inspect(t.Context(), rdb, hosts...)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestInspect(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	now, err := rdb.Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	// Entries as old as the buckets want them: under 1 s, 10 s, 1 min, 10 min, and older.
	at := func(ago time.Duration) string { return fmt.Sprintf("%d-0", now.Add(-ago).UnixMilli()) }
	ids := []string{at(time.Hour), at(5 * time.Minute), at(30 * time.Second), at(5 * time.Second), "*"}
	do(t, rdb, "XGROUP CREATE riposte:{h1}:alerts containment 0 MKSTREAM", "XGROUP CREATE riposte:{h1}:alerts forensics 0")
	for _, id := range ids {
		do(t, rdb, "XADD riposte:{h1}:alerts "+id+" alert {}")
	}
	do(t, rdb,
		"XREADGROUP GROUP containment h1-1-a COUNT 3 STREAMS riposte:{h1}:alerts >",
		"XREADGROUP GROUP containment h1-2-b COUNT 2 STREAMS riposte:{h1}:alerts >",
		"XADD riposte:{h1}:alerts * alert {}",
		"XADD riposte:{h1}:dead:containment * id x reason first raw x",
		"XADD riposte:{h1}:dead:containment * id y reason malformed\x1b[2J raw y",
		fmt.Sprintf("ZADD riposte:{h1}:waiting:containment %d a +inf b", now.Add(10*time.Minute).UnixMilli()),
		"ZADD riposte:{h1}:waiting:forensics +inf c",
		"ZADD riposte:hosts "+fmt.Sprint(now.UnixMilli())+" h1",
		"SET riposte:{h1}:ledger:containment:c held",
	)
	for i, state := range []string{"done", "done", "held", "dead", "NONSENSE"} {
		owner, body := "o", []string{`{}`, `{"unresolved":2,"level":"x"}`, `{"unresolved":1}`, `{"level":"\\n{\"unresolved\":9}"}`, `{`}[i]
		if i == 1 {
			owner = strings.Repeat("h", 253) + "-4194304-0123abcd"
		}
		entry := state + " 17 0 " + owner + " n 1 0 0 d 1-1 g\n" + body
		if err := rdb.Set(t.Context(), stream.Host("h1").LedgerKey("containment", stream.AlertID(fmt.Sprint("a:", i))), entry, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	do(t, rdb, "HSET riposte:{h1}:ledger:containment:hash a b", "SET riposte:{h2}:ledger:containment:a done", "SET riposte:{h1}:ledger:forensics:a waiting")

	s := inspect(t, rdb, "h1")[0]
	if s.Host != "h1" || s.Alerts != 6 || s.LastSeen.UnixMilli() != now.UnixMilli() || s.At.Sub(now) > time.Minute || s.LastAlert.Before(now.Truncate(time.Millisecond)) {
		t.Errorf("host: %+v", s)
	}
	if len(s.Groups) != 2 {
		t.Fatalf("%d groups, want 2", len(s.Groups))
	}
	g := s.Groups[0]
	if g.Group != "containment" || g.Lag == nil || *g.Lag != 1 || g.Pending != 5 || g.Dead != 2 || g.Waiting != 2 || g.Unknown != 3 || g.NextDue == nil || g.NextDue.UnixMilli() != now.Add(10*time.Minute).UnixMilli() {
		t.Errorf("group: %+v", g)
	}
	if want := (stream.Ages{Second: 1, Ten: 1, Minute: 1, TenMin: 1, Older: 1}); g.Ages != want {
		t.Errorf("ages %+v, want %+v", g.Ages, want)
	}
	if g.Oldest == nil || g.Oldest.Entry != ids[0] || g.Oldest.Consumer != "h1-1-a" || g.Oldest.Deliveries != 1 || s.At.Sub(g.Oldest.Added) < 59*time.Minute {
		t.Errorf("oldest %+v", g.Oldest)
	}
	if len(g.Consumers) != 2 || !g.Consumers[0].Active || g.Consumers[0].Pending != 3 || g.Consumers[1].Pending != 2 || s.At.Sub(g.Consumers[0].Seen) > 9*time.Second {
		t.Errorf("consumers %+v", g.Consumers)
	}
	if want := map[string]int64{"done": 2, "held": 2, "dead": 1, "unreadable": 2}; fmt.Sprint(g.Ledger) != fmt.Sprint(want) || g.Partial {
		t.Errorf("ledger %v (partial %v), want %v", g.Ledger, g.Partial, want)
	}
	if !strings.HasPrefix(g.LastDead, "malformed") {
		t.Errorf("last dead %q", g.LastDead)
	}
	words := strings.Join(g.Summary, "\n")
	for _, want := range []string{"1 alert not read", "60 min old", "2 alerts parked, waiting for a person or a breaker; the next is woken in 9 min; see `riposte ledger list --state waiting --host ", "UNKNOWN: 3 steps may or may not have happened", "2 dead letters", "2 ledger entries cannot be read"} {
		if !strings.Contains(words, want) {
			t.Errorf("%q is not in:\n%s", want, words)
		}
	}
	f := s.Groups[1]
	if f.Group != "forensics" || *f.Lag != 6 || f.Pending != 0 || f.Oldest != nil || f.Ledger["waiting"] != 1 || f.NextDue != nil || f.Unknown != 0 {
		t.Errorf("other group: %+v", f)
	}
	if words := strings.Join(f.Summary, "\n"); !strings.Contains(words, "no responder has asked for work") || !strings.Contains(words, "--group forensics") {
		t.Errorf("a group without replicas: %s", words)
	} else if !strings.Contains(words, "1 alert parked, waiting for a person or a breaker; a person decides") {
		t.Errorf("parked for a person: %s", words)
	}

	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{`"host":"h1"`, `"lag":1`, `"pending_by_age":{"under_1s":1,`, `"oldest_pending":{`, `"ledger":{"dead":1,`} {
		if !strings.Contains(string(raw), field) {
			t.Errorf("JSON lacks %s: %s", field, raw)
		}
	}
}

// Gates that do not fence each other are told of for as long as they are live, also where
// there is nothing else.
func TestInspectGates(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	now, err := rdb.Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	do(t, rdb, "ZADD riposte:hosts 1000 h1")
	live, over := now.Add(time.Minute).UnixMicro(), now.UnixMicro()
	register := func(replica, gate string, until int64, fence string) {
		t.Helper()
		if err := rdb.HSet(t.Context(), "riposte:{h1}:control", "gate:"+replica, fmt.Sprintf("%s %d %s containment", gate, until, fence)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want, says string) {
		t.Helper()
		for range 10 { // a hash has no order
			s := inspect(t, rdb)[0]
			raw, err := json.Marshal(s.Gates)
			if words := strings.Join(s.Summary, "\n"); err != nil || string(raw) != want || !strings.Contains(words, says) || strings.Contains(words, "UNFENCED") != (says != "") {
				t.Errorf("gates %s, want %s; %s", raw, want, words)
			}
		}
	}
	check(`[]`, "")
	do(t, rdb, "HSET riposte:{h1}:control paused 1 gate:broken x gate:broken2 x|y|z|w")
	register("h1-9-z", "g9", over, "unfenced")
	register("h1-2-b", "g1", live, "fenced")
	register("h1-1-a", "g1", live, "fenced")
	check(`[{"id":"g1","replicas":["h1-1-a","h1-2-b"],"unfenced":false}]`, "")
	register("h1-1-a", "g1", live, "unfenced")
	check(`[{"id":"g1","replicas":["h1-1-a","h1-2-b"],"unfenced":true}]`, "UNFENCED: h1-1-a, h1-2-b may enforce beside replicas with another gate")
	register("h1-1-a", "g1", live, "fenced")
	register("h1-2-b", "g1", live, "unfenced")
	check(`[{"id":"g1","replicas":["h1-1-a","h1-2-b"],"unfenced":true}]`, "UNFENCED: ")
	register("h1-1-a", "g1", live, "unfenced")
	register("h1-2-b", "g2", live, "unfenced")
	check(`[{"id":"g1","replicas":["h1-1-a"],"unfenced":true},{"id":"g2","replicas":["h1-2-b"],"unfenced":true}]`,
		"UNFENCED: 2 gates on this host; effects are not fenced between h1-1-a and h1-2-b")
	register("h1-1-a", "g1", over, "unfenced")
	register("h1-2-b", "g2", live, "fenced")
	check(`[{"id":"g2","replicas":["h1-2-b"],"unfenced":false}]`, "")
	for _, s := range inspect(t, rdb) {
		if s.Groups == nil || len(s.Summary) != 1 || !strings.Contains(s.Summary[0], "no stream of alerts yet") {
			t.Errorf("%+v", s)
		}
	}
}

// Deleting entries behind a group's back makes its lag unknown.
func TestInspectUnknownLag(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	do(t, rdb, "XADD riposte:{h1}:alerts 1-1 alert {}", "XADD riposte:{h1}:alerts 1-2 alert {}", "XADD riposte:{h1}:alerts 1-3 alert {}",
		"XGROUP CREATE riposte:{h1}:alerts containment 1-1", "XDEL riposte:{h1}:alerts 1-2")
	g := inspect(t, rdb)[0].Groups[0]
	if g.Lag != nil {
		t.Fatalf("lag is %d, want unknown", *g.Lag)
	}
	if words := strings.Join(g.Summary, "\n"); !strings.Contains(words, "unknown") {
		t.Errorf("summary: %s", words)
	}
}

func TestInspectHosts(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	if all := inspect(t, rdb); len(all) != 0 {
		t.Errorf("an empty Redis knows %v", all)
	}
	var unknown *stream.UnknownHostError
	if _, err := stream.Inspect(t.Context(), rdb, "web-9"); !errors.As(err, &unknown) || len(unknown.Known) != 0 || !strings.Contains(err.Error(), "web-9") {
		t.Errorf("got %v", err)
	}
	do(t, rdb,
		"ZADD riposte:hosts 1000 b 2000 c 3000 bad}name",
		"XADD riposte:{a}:alerts * alert {}", "XADD riposte:{b}:alerts * alert {}", "XADD riposte:{bad}name}:alerts * alert {}")
	var names []string
	all := inspect(t, rdb)
	for _, s := range all {
		names = append(names, string(s.Host))
	}
	if !slices.Equal(names, []string{"a", "b", "c"}) {
		t.Fatalf("hosts %v, want a, b, c", names)
	}
	if !all[0].LastSeen.IsZero() || all[1].LastSeen.UnixMilli() != 1000 {
		t.Errorf("last seen %v and %v", all[0].LastSeen, all[1].LastSeen)
	}
	if words := strings.Join(all[0].Summary, ""); !strings.Contains(words, "1 alert in the stream and no responder has ever read it") {
		t.Errorf("a host nobody reads: %s", words)
	}
	if words := strings.Join(all[2].Summary, ""); !strings.Contains(words, "no stream of alerts yet") {
		t.Errorf("a host without a stream: %s", words)
	}
	if _, err := stream.Inspect(t.Context(), rdb, "b", "web-9"); !errors.As(err, &unknown) || !strings.HasSuffix(err.Error(), "known are a, b, c") {
		t.Errorf("got %v", err)
	}
}

// Looking is bounded and touches nothing, whatever is in the keys.
func TestInspectChangesNothing(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	do(t, rdb, "XGROUP CREATE riposte:{h1}:alerts containment 0 MKSTREAM", "XADD riposte:{h1}:alerts * alert {}",
		"XREADGROUP GROUP containment c STREAMS riposte:{h1}:alerts >")
	writes := func() string {
		for line := range strings.Lines(rdb.Info(t.Context(), "persistence").Val()) {
			if strings.HasPrefix(line, "rdb_changes_since_last_save") {
				return line
			}
		}
		return ""
	}
	before := writes()
	inspect(t, rdb)
	if after := writes(); after != before || before == "" {
		t.Errorf("before %q, after %q", before, after)
	}
}

func TestInspectAsARestrictedUser(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	do(t, s.Client(), "XGROUP CREATE riposte:{h1}:alerts containment 0 MKSTREAM",
		"ACL SETUSER ops on >secret resetkeys ~riposte:{h1}:* -@all +@read +@connection +time")
	rdb, err := stream.Open(stream.Options{URL: "redis://ops:secret@" + s.Addr})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	if all := inspect(t, rdb, "h1"); len(all) != 1 || len(all[0].Groups) != 1 {
		t.Errorf("got %+v", all)
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 ms", 999 * time.Millisecond: "999 ms", time.Second: "1 s", 119 * time.Second: "119 s",
		2 * time.Minute: "2 min", 119 * time.Minute: "119 min", 2 * time.Hour: "2 h", 47 * time.Hour: "47 h", 49 * time.Hour: "2 days",
	} {
		if got := stream.Span(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}
