package ledger_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/ledger"
	"riposte/stream"
)

// busy is a world in which a bit of everything that is in order has happened.
func busy(t *testing.T) (w *world, a *ledger.Ledger) {
	t.Helper()
	w = newWorld(t)
	a = w.replica("a")
	// Before alerts are taken up, another one comes: it stays undelivered only at the end.
	w.settle(a, "a", "done")
	w.begin(a, claim("done", w.deliver("a", "done"))) // a duplicate
	w.bury(a, "a", "buried")
	w.bury(a, "a", "revived")
	g := w.take(a, "a", "handed-back")
	w.must(record(w, a, g, 0, "unknown"))
	w.must(a.Release(w.ctx, g, "stop"))
	w.take(a, "a", "held")
	g = w.take(a, "a", "taken-over")
	b := w.replica("b", 100*time.Millisecond) // its lease runs out
	g2 := w.granted(ledger.Resume, b, claim("taken-over", g.StreamID), "a")
	w.wantLost(record(w, a, g, 0, "killed"))
	w.must(record(w, b, g2, 0, "logged"))
	c := claim("done", w.deliver("a", "done")) // a conflict
	c.Digest = "other"
	w.begin(a, c)
	w.must(w.rdb.XAck(w.ctx, w.host.AlertsKey(), "containment", c.StreamID).Err()) // as if it were settled under its own ID
	entry := w.add("alert", "no alert")
	w.read("a")
	n := ledger.Claim{ID: stream.EntryID(entry), StreamID: entry, Nonce: ledger.NewNonce(), Digest: "-", Body: plan()}
	w.must(a.Bury(w.ctx, w.granted(ledger.Run, a, n), letter("no alert", "malformed")))
	w.park(a, "a", "parked", time.Now().Add(time.Hour))
	w.bury(a, "a", "purged")
	w.must(onlyError(w.reader().Purge(w.ctx, w.letter("purged"), "me")))
	w.doubt(a, "a", "resolved")
	w.must(onlyError(w.reader().Resolve(w.ctx, "resolved", "p/one", "me", "it happened")))
	w.deliver("a", "read-only") // delivered, not begun
	w.add("alert", alertJSON("undelivered", 1))
	l, err := w.reader().Letter(w.ctx, "revived")
	w.must(err)
	_, err = w.reader().Revive(w.ctx, l, "me")
	w.must(err)
	return w, a
}

func TestAuditClean(t *testing.T) {
	w, _ := busy(t)
	report := w.clean()
	want := ledger.Counts{
		Accepted: 12, Settled: 2, Dead: 3, Held: 4, Waiting: 1, Pending: 4, Undelivered: 2, Unknown: 2, Unresolved: 1, Duplicates: 1, Letters: 2,
	}
	if report.Counts != want {
		t.Errorf("counts %+v, want %+v", report.Counts, want)
	}
	if report.Host != "h1" || report.Group != "containment" || time.Since(report.At) > time.Minute {
		t.Errorf("%+v", report)
	}
}

func TestAuditOfNothing(t *testing.T) {
	w := newWorld(t)
	if r := w.clean(); r.Counts != (ledger.Counts{}) {
		t.Errorf("%+v", r.Counts)
	}
	w.add("alert", alertJSON("x", 1))
	report, err := ledger.NewReader(w.rdb, w.host, "forensics").Audit(w.ctx, ledger.AuditConfig{})
	if err != nil || len(report.Findings) != 0 || report.Counts.Undelivered != 1 || !strings.Contains(strings.Join(report.Notes, "\n"), "group forensics does not exist") {
		t.Errorf("%+v, %v", report, err)
	}
	report, err = ledger.NewReader(w.rdb, "h9", "containment").Audit(w.ctx, ledger.AuditConfig{})
	if err != nil || len(report.Findings) != 0 || len(report.Notes) == 0 {
		t.Errorf("%+v, %v", report, err)
	}
}

// Each kind of violation, planted among much that is in order, is found, and nothing else.
func TestAuditFinds(t *testing.T) {
	ack := func(w *world, entry string) {
		w.must(w.rdb.XAck(w.ctx, w.host.AlertsKey(), "containment", entry).Err())
	}
	journal := func(w *world, fields ...any) {
		fields = append(fields, "id", "x", "group", "containment", "owner", "a")
		w.must(w.rdb.XAdd(w.ctx, &redis.XAddArgs{Stream: w.host.JournalKey(), Values: fields}).Err())
	}
	planted := map[ledger.Kind]bool{ledger.Contradicted: true} // TestAuditComparesReceipts
	past := fmt.Sprint(time.Now().Add(-2 * time.Minute).UnixMicro())
	for _, c := range []struct {
		name  string
		kind  ledger.Kind
		key   string // of the finding, or ENTRY for the stream entry's ID
		says  string
		plant func(w *world, a *ledger.Ledger) (entry string)
	}{
		{"acked before Begin", ledger.Dropped, "ENTRY", "knows nothing", func(w *world, a *ledger.Ledger) string {
			entry := w.deliver("a", "x")
			ack(w, entry)
			return entry
		}},
		{"read with NOACK", ledger.Dropped, "ENTRY", "knows nothing", func(w *world, a *ledger.Ledger) string {
			w.read("a") // what was there before
			entry := w.add("alert", "no alert")
			w.must(w.rdb.XReadGroup(w.ctx, &redis.XReadGroupArgs{Group: "containment", Consumer: "z", Streams: []string{w.host.AlertsKey(), ">"}, NoAck: true}).Err())
			return entry
		}},
		{"acked while held", ledger.Dropped, "ENTRY", "acked while it was held by a", func(w *world, a *ledger.Ledger) string {
			g := w.take(a, "a", "x")
			ack(w, g.StreamID)
			return g.StreamID
		}},
		{"a conflict acked like a copy", ledger.Dropped, "ENTRY", "x~", func(w *world, a *ledger.Ledger) string {
			w.settle(a, "a", "x")
			entry := w.add("id", "x", "alert", alertJSON("x", 4712))
			w.read("a")
			ack(w, entry)
			return entry
		}},
		{"held by nobody", ledger.Orphaned, "x", "held by a until", func(w *world, a *ledger.Ledger) string {
			g := w.take(a, "a", "x")
			ack(w, g.StreamID)
			w.put("x", "held "+fmt.Sprint(g.Token.Epoch)+" "+past+" a n 0 0 0 "+digest(alertJSON("x", 4711))+" "+g.StreamID+" g", plan())
			return ""
		}},
		{"handed back and trimmed", ledger.Orphaned, "x", "handed back", func(w *world, a *ledger.Ledger) string {
			g := w.take(a, "a", "x")
			w.must(a.Release(w.ctx, g, "stop"))
			ack(w, g.StreamID)
			w.must(w.rdb.XDel(w.ctx, w.host.AlertsKey(), g.StreamID).Err())
			return ""
		}},
		{"trimmed while pending", ledger.Deleted, "ENTRY", "deleted from the stream", func(w *world, a *ledger.Ledger) string {
			entry := w.deliver("a", "x")
			w.must(w.rdb.XDel(w.ctx, w.host.AlertsKey(), entry).Err())
			return entry
		}},
		{"a step recorded twice", ledger.RecordedTwice, "x", "p/one was recorded again", func(w *world, a *ledger.Ledger) string {
			g := w.settle(a, "a", "x")
			journal(w, "event", "record", "epoch", g.Token.Epoch, "step", "p/one", "outcome", "killed")
			return ""
		}},
		{"an old token accepted", ledger.EpochFell, "x", "a record of a under epoch 17", func(w *world, a *ledger.Ledger) string {
			w.take(a, "a", "x")
			journal(w, "event", "record", "epoch", "17", "step", "p/one", "outcome", "killed")
			return ""
		}},
		{"an epoch granted twice", ledger.EpochFell, "x", "was granted to a after", func(w *world, a *ledger.Ledger) string {
			g := w.take(a, "a", "x")
			journal(w, "event", "resume", "epoch", g.Token.Epoch)
			return ""
		}},
		{"an entry older than its journal", ledger.EpochFell, "x", "its journal at 9999999999999999", func(w *world, a *ledger.Ledger) string {
			w.take(a, "a", "x")
			journal(w, "event", "resume", "epoch", "9999999999999999")
			return ""
		}},
		{"a record newer than its entry", ledger.EpochFell, "x", "p/one was recorded under epoch", func(w *world, a *ledger.Ledger) string {
			g := w.take(a, "a", "x")
			g.Body.Steps[0].Outcome, g.Body.Steps[0].Epoch = "killed", g.Token.Epoch+1
			w.must(a.Record(w.ctx, g, 0))
			return ""
		}},
		{"done too early", ledger.Unfinished, "x", "p/two has no outcome", func(w *world, a *ledger.Ledger) string {
			g := w.settle(a, "a", "x")
			g.Body.Steps[1].Outcome = ""
			h, _ := w.entry("x")
			w.put("x", fmt.Sprintf("done %d 0 a n 2 0 0 %s %s g", h.Token.Epoch, h.Digest, h.StreamID), g.Body)
			return ""
		}},
		{"settled and not acked", ledger.NotAcked, "x", "it is done", func(w *world, a *ledger.Ledger) string {
			g := w.settle(a, "a", "x")
			w.must(w.rdb.Do(w.ctx, "XGROUP", "SETID", w.host.AlertsKey(), "containment", g.StreamID).Err())
			w.must(w.rdb.Do(w.ctx, "XCLAIM", w.host.AlertsKey(), "containment", "a", 0, g.StreamID, "IDLE", 61000, "FORCE").Err())
			return ""
		}},
		{"dead without a letter", ledger.NoLetter, "x", "no dead letter", func(w *world, a *ledger.Ledger) string {
			w.bury(a, "a", "x")
			l, err := w.reader().Letter(w.ctx, "x")
			w.must(err)
			w.must(w.rdb.XDel(w.ctx, w.host.DeadKey(w.group), l.LetterID).Err())
			return ""
		}},
		{"buried again without a letter", ledger.NoLetter, "x", "no dead letter", func(w *world, a *ledger.Ledger) string {
			w.bury(a, "a", "x")
			sent, err := w.reader().Revive(w.ctx, w.letter("x"), "me")
			w.must(err)
			_, again := w.again(a, sent.Entry)
			w.must(a.Bury(w.ctx, again.Grant, letter(alertJSON("x", 4711), "poison")))
			w.must(w.rdb.XDel(w.ctx, w.host.DeadKey(w.group), w.letter("x").LetterID).Err())
			return ""
		}},
		{"parked and forgotten", ledger.Stranded, "x", "nothing stands to wake it", func(w *world, a *ledger.Ledger) string {
			w.park(a, "a", "x", time.Time{})
			w.must(w.rdb.ZRem(w.ctx, w.host.WaitingKey(w.group), "x").Err())
			return ""
		}},
		{"to be woken without an entry", ledger.Stranded, "x", "there is no entry", func(w *world, a *ledger.Ledger) string {
			w.must(w.rdb.ZAdd(w.ctx, w.host.WaitingKey(w.group), redis.Z{Score: 1, Member: "x"}).Err())
			return ""
		}},
		{"to be woken and done", ledger.Stranded, "x", "is not parked but done", func(w *world, a *ledger.Ledger) string {
			w.settle(a, "a", "x")
			w.must(w.rdb.ZAdd(w.ctx, w.host.WaitingKey(w.group), redis.Z{Score: 1, Member: "x"}).Err())
			return ""
		}},
		{"parked and not acked", ledger.NotAcked, "x", "it is waiting", func(w *world, a *ledger.Ledger) string {
			g := w.park(a, "a", "x", time.Time{})
			w.must(w.rdb.Do(w.ctx, "XCLAIM", w.host.AlertsKey(), "containment", "a", 0, g.StreamID, "IDLE", 61000, "FORCE").Err())
			return ""
		}},
		{"an unreadable header", ledger.Unreadable, "x", "fields", func(w *world, a *ledger.Ledger) string {
			w.must(w.rdb.Set(w.ctx, w.key("x"), "held by me\n{}", 0).Err())
			return ""
		}},
		{"an unreadable body", ledger.Unreadable, "x", "body", func(w *world, a *ledger.Ledger) string {
			w.must(w.rdb.Set(w.ctx, w.key("x"), someHeader+"\n{", 0).Err())
			return ""
		}},
		{"no string", ledger.Unreadable, "x", "hash", func(w *world, a *ledger.Ledger) string {
			w.must(w.rdb.HSet(w.ctx, w.key("x"), "a", "b").Err())
			return ""
		}},
	} {
		planted[c.kind] = true
		t.Run(c.name, func(t *testing.T) {
			w, a := busy(t)
			entry := c.plant(w, a)
			report, err := w.reader().Audit(w.ctx, ledger.AuditConfig{})
			w.must(err)
			key := w.key(c.key)
			if c.key == "ENTRY" {
				key = entry
			}
			if len(report.Findings) != 1 || report.Findings[0].Kind != c.kind || report.Findings[0].Key != key || !strings.Contains(report.Findings[0].Text, c.says) {
				t.Errorf("found %+v; want %s at %s: ...%s...", report.Findings, c.kind, key, c.says)
			}
		})
	}
	kinds := kindsOf(t, "audit.go")
	if len(kinds) < 10 {
		t.Errorf("only %q are declared", kinds)
	}
	for _, kind := range kinds {
		if !planted[kind] {
			t.Errorf("nothing plants a violation of kind %s", kind)
		}
	}
}

// kindsOf are the kinds of findings that the source declares.
func kindsOf(t *testing.T, file string) (kinds []ledger.Kind) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if kind, named := (*ast.Ident)(nil), false; ok {
			if kind, named = spec.Type.(*ast.Ident); named && kind.Name == "Kind" {
				name, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				kinds = append(kinds, ledger.Kind(name))
			}
		}
		return true
	})
	return kinds
}

// receipts stands for a host's gate.
type receipts map[string]struct {
	outcome string
	epoch   uint64
	err     error
}

func (r receipts) Receipt(key string) (string, uint64, bool, error) {
	found, ok := r[key]
	return found.outcome, found.epoch, ok, found.err
}

func TestAuditComparesReceipts(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	g := w.settle(a, "a", "x")
	entry := w.add("alert", "no alert")
	w.read("a")
	n := ledger.Claim{ID: stream.EntryID(entry), StreamID: entry, Nonce: ledger.NewNonce(), Digest: "-", Body: ledger.Body{Steps: []ledger.Step{{Playbook: "-", Step: "bury"}}}}
	buried := w.granted(ledger.Run, a, n)
	buried.Body.Steps[0].Outcome, buried.Body.Steps[0].Epoch = "dead", buried.Token.Epoch
	w.must(a.Bury(w.ctx, buried, letter("no alert", "malformed")))

	r := receipts{}
	key := "h1/containment/x/p/one"
	check := func(want string) {
		t.Helper()
		report, err := w.reader().Audit(w.ctx, ledger.AuditConfig{Receipts: r})
		w.must(err)
		got := ""
		for _, f := range report.Findings {
			got += fmt.Sprintln(f.Kind, f.Key, f.Text)
		}
		if want == "" && got != "" || !strings.Contains(got, want) || strings.Count(got, "\n") > 1 {
			t.Errorf("found %q, want %q", got, want)
		}
	}
	check("") // none of this host's
	add := func(key, outcome string, epoch uint64, err error) {
		r[key] = struct {
			outcome string
			epoch   uint64
			err     error
		}{outcome, epoch, err}
	}
	add(key, "logged", g.Token.Epoch, nil)
	add("h1/containment/"+string(n.ID)+"/-/bury0", "dead", buried.Token.Epoch, nil)
	check("")
	add(key, "killed", g.Token.Epoch, nil)
	check("recorded as logged, and its receipt was closed as killed")
	add(key, "", g.Token.Epoch, nil)
	check("while its receipt is still open")
	add(key, "", g.Token.Epoch-1, nil) // one who died here; its successor was elsewhere
	check("")
	add("h1/containment/"+string(n.ID)+"/-/bury0", "observed", buried.Token.Epoch, nil)
	check("closed as observed")
	delete(r, "h1/containment/"+string(n.ID)+"/-/bury0")
	add(key, "", 0, errors.New("no permission"))
	check("")
	report, err := w.reader().Audit(w.ctx, ledger.AuditConfig{Receipts: r})
	if err != nil || !strings.Contains(strings.Join(report.Notes, "\n"), "no permission") {
		t.Errorf("notes %q, %v", report.Notes, err)
	}
}

func TestAuditRetention(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	add := func(id string, age time.Duration) {
		ms := time.Now().Add(-age).UnixMilli()
		w.must(w.rdb.Do(w.ctx, "XADD", w.host.AlertsKey(), fmt.Sprintf("%d-1", ms), "alert", alertJSON(id, 1)).Err())
	}
	add("old", 8*24*time.Hour)
	add("young", 6*24*time.Hour)
	w.must(w.rdb.XReadGroup(w.ctx, &redis.XReadGroupArgs{Group: "containment", Consumer: "z", Streams: []string{w.host.AlertsKey(), ">"}, NoAck: true}).Err())
	report, err := w.reader().Audit(w.ctx, ledger.AuditConfig{})
	w.must(err)
	if len(report.Findings) != 1 || !strings.Contains(report.Findings[0].Text, "young") || !strings.Contains(strings.Join(report.Notes, "\n"), "1 alerts are older") {
		t.Errorf("%+v", report)
	}
	// The same ID, recorded again after that, is a new alert.
	w.must(w.rdb.Del(w.ctx, w.host.AlertsKey()).Err())
	w.must(w.rdb.XGroupCreateMkStream(w.ctx, w.host.AlertsKey(), "containment", "0").Err())
	ms := time.Now().Add(-8 * 24 * time.Hour).UnixMilli()
	w.must(w.rdb.Do(w.ctx, "XADD", w.host.JournalKey(), fmt.Sprintf("%d-1", ms), "id", "x", "group", "containment", "event", "record", "epoch", "5", "step", "p/one").Err())
	w.settle(a, "a", "x")
	w.clean()
}

func TestAuditSaysWhatItCannotSee(t *testing.T) {
	w := newWorld(t)
	a := w.replica("a")
	g := w.settle(a, "a", "x")
	w.settle(a, "a", "y")
	w.must(w.rdb.XDel(w.ctx, w.host.AlertsKey(), g.StreamID).Err())
	report := w.clean()
	if notes := strings.Join(report.Notes, "\n"); !strings.Contains(notes, "1 entries of riposte:{h1}:alerts are gone") || report.Counts.Accepted != 2 {
		t.Errorf("%+v", report)
	}
}
