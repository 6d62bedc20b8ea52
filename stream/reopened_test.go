package stream_test

import (
	"testing"

	"github.com/redis/go-redis/v9"
)

// TestReopenedBringsNoAlert: what says that an alert was opened again has none of its own, and
// an alert does not get lost by saying so.
func TestReopenedBringsNoAlert(t *testing.T) {
	rdb, h, a, _ := team(t)
	for _, c := range []struct{ alert, want string }{{"", "0123"}, {"{}", ""}} {
		entry := []any{"id", "x", "reopened", "0123"}
		if c.alert != "" {
			entry = append(entry, "alert", c.alert)
		}
		if err := rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: h.AlertsKey(), Values: entry}).Err(); err != nil {
			t.Fatal(err)
		}
		if ds := read(t, a, 1); len(ds) != 1 || ds[0].Reopened != c.want || string(ds[0].Raw) != c.alert {
			t.Errorf("%v: got %+v", entry, ds)
		}
	}
}
