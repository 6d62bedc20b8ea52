package ledger

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// FuzzEvent and FuzzLetter hold what is shown of the journal and of dead letters to what is
// there, whoever wrote it: every line can be written as JSON, and what is no number is 0.
func FuzzEvent(f *testing.F) {
	f.Add("1800000000000-0", "a-1", "record", "1800000000000000", "killed")
	f.Add("9223372036854775807-0", "\xff", "late", "18446744073709551616", "\x1b[2J")
	f.Add("x", "", "resume", "-1", "")
	f.Fuzz(func(t *testing.T, line, id, kind, epoch, outcome string) {
		e := event(redis.XMessage{ID: line, Values: map[string]any{"id": id, "event": kind, "epoch": epoch, "outcome": outcome, "owner": 7}})
		checkShown(t, e, e.At(), e.Epoch, epoch)
		if string(e.ID) != id || e.Event != kind || e.Outcome != outcome || e.Owner != "" || e.Words() == "" {
			t.Errorf("%+v", e)
		}
	})
}

func FuzzLetter(f *testing.F) {
	f.Add("1800000000000-0", "a-1", "1800000000000000", "3", []byte("{}\n"))
	f.Add("9223372036854775807-0", "entry~1-0", "18446744073709551616", "18446744073709551615", []byte{0xff})
	f.Add("", "", "", "-5", []byte(nil))
	f.Fuzz(func(t *testing.T, line, id, epoch, length string, raw []byte) {
		l := letter(redis.XMessage{ID: line, Values: map[string]any{"id": id, "epoch": epoch, "length": length, "raw": string(raw)}})
		checkShown(t, l, l.At(), l.Epoch, epoch)
		if l.Length < 0 || string(l.Raw) != string(raw) || string(l.Alert) != id {
			t.Errorf("%+v", l)
		}
	})
}

func checkShown(t *testing.T, shown json.Marshaler, at time.Time, epoch uint64, given string) {
	t.Helper()
	raw, err := json.Marshal(shown)
	if err != nil {
		t.Fatal(err)
	}
	var back struct{ At time.Time }
	if err := json.Unmarshal(raw, &back); err != nil || !back.At.Equal(at) {
		t.Errorf("%s: %v is read back as %v, %v", raw, at, back.At, err)
	}
	if epoch != 0 && strings.TrimLeft(given, "0") != fmt.Sprint(epoch) {
		t.Errorf("epoch %d out of %q", epoch, given)
	}
}
