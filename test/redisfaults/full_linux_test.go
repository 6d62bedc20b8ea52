package redisfaults

import (
	"testing"
	"time"

	"riposte/stream"
	"riposte/test/redistest"
)

// Redis is full while replicas are in the middle of effects. What was done is written
// down, and nothing new is begun, until there is room.
func TestFull(t *testing.T) {
	t.Parallel()
	s := open(t, scenario{fault: "maxmemory between Begin and Record", each: 80, over: 3 * time.Second, lease: 2 * time.Second, hold: 500 * time.Millisecond, slots: 4})
	s.start()
	s.awaitAccepted(0.5)
	rdb := s.observer()
	var held []int
	s.await("replicas to hold alerts", func() bool {
		held = nil
		for i, state := range s.states(rdb) {
			if state == "held" {
				held = append(held, i)
			}
		}
		return len(held) >= 10
	})
	limit := func(bytes string) {
		t.Helper()
		if err := rdb.ConfigSet(t.Context(), "maxmemory", bytes).Err(); err != nil {
			t.Fatal(err)
		}
	}
	limit("1")
	from := lastLine(t, s.redis)
	s.await("what is held to be recorded, into a full Redis", func() bool {
		states := s.states(rdb)
		for _, i := range held {
			if states[i] != "done" {
				return false
			}
		}
		return true
	})
	s.await("publishers to be told", func() bool { return s.publisher.refused() > 0 })
	s.await("replicas to be told", func() bool { return s.said("OOM command not allowed") >= replicas })
	grants, records := since(t, s.redis, from)
	if len(grants) > 0 {
		t.Errorf("begun while Redis was full: %v", grants)
	}
	if records == 0 {
		t.Error("nothing was recorded while Redis was full")
	}
	limit("0")
	s.drain()
	t.Logf("%d alerts were held when Redis was full; %d outcomes were recorded meanwhile, and publishers told %d times", len(held), records, s.publisher.refused())
	s.innocent(s.judge(), "")
}

// lastLine is the ID of the journal's last line.
func lastLine(t testing.TB, server *redistest.Server) string {
	t.Helper()
	info, err := server.Client().XInfoStream(t.Context(), stream.Host(host).JournalKey()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return info.LastGeneratedID
}

// since are the alerts that were granted after a line of the journal, and the number of
// outcomes recorded.
func since(t testing.TB, server *redistest.Server, line string) (granted []any, records int) {
	t.Helper()
	lines, err := server.Client().XRange(t.Context(), stream.Host(host).JournalKey(), "("+line, "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		switch l.Values["event"] {
		case "run", "resume", "poison":
			granted = append(granted, l.Values["id"])
		case "record":
			records++
		}
	}
	return granted, records
}
