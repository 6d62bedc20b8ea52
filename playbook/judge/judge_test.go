package judge_test

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"riposte/playbook/action"
	"riposte/playbook/judge"
)

var start = time.Unix(1_800_000_000, 0)

func at(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }

var actions = map[string]string{"end": "terminate_process", "log": "log", "script": "run_script"}

// trace reads lines of: milliseconds, event, ALERT/STEP, EPOCH/NONCE, replica, outcome.
func trace(t *testing.T, text string) (events []judge.Event) {
	t.Helper()
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) < 5 {
			t.Fatalf("line %q", line)
		}
		ms, err1 := strconv.Atoi(f[0])
		epoch, nonce, _ := strings.Cut(f[3], "/")
		n, err2 := strconv.ParseUint(epoch, 10, 64)
		_, step, ok := strings.Cut(f[2], "/")
		if err1 != nil || err2 != nil || !ok || actions[step] == "" {
			t.Fatalf("line %q", line)
		}
		e := judge.Event{
			TimeUS: at(ms).UnixMicro(), Event: f[1], Key: f[2],
			Token: judge.Token{Epoch: n, Nonce: nonce}, Replica: f[4], Action: actions[step],
		}
		if len(f) > 5 {
			e.Outcome = f[5]
		}
		events = append(events, e)
	}
	return events
}

func TestDoubled(t *testing.T) {
	for _, tt := range []struct {
		name      string
		trace     string
		lastAlive map[string]int // ms
		exit      int            // ms, of the process that x/end and y/end are to end
		want      []judge.Rule
	}{
		{name: "in good order", trace: `
			10 begin    x/end 1/a A
			12 end      x/end 1/a A terminated
			12 closed   x/end 1/a A terminated
			13 recorded x/end 1/a A terminated
			14 begin    x/log 1/a A
			14 end      x/log 1/a A logged
			14 closed   x/log 1/a A logged
			15 recorded x/log 1/a A logged`, exit: 11},
		{name: "its holder died inside, the successor repeats it", trace: `
			10 begin x/end 1/a A
			50 begin x/end 2/b B
			60 end   x/end 2/b B killed`, lastAlive: map[string]int{"A": 30}, exit: 58},
		{name: "its holder died after the line was logged, and nobody can tell", trace: `
			10 begin x/log 1/a A
			11 end   x/log 1/a A logged
			50 begin x/log 2/b B
			51 end   x/log 2/b B logged
			51 closed x/log 2/b B logged`, lastAlive: map[string]int{"A": 30}},
		{name: "it failed, and the same holder tries again", trace: `
			10 begin x/end 1/a A
			20 end   x/end 1/a A
			30 begin x/end 1/a A
			40 end   x/end 1/a A killed`, exit: 39},
		{name: "closed by one, recorded by another", trace: `
			10 begin    x/log 1/a A
			11 end      x/log 1/a A logged
			50 recorded x/log 2/b B logged
			51 closed   x/log 1/a A logged
			52 recorded x/log 3/c C logged`},
		{name: "never begun, because the process was gone", trace: `
			90 closed   x/end 1/a A already_gone
			91 recorded x/end 1/a A already_gone`, exit: 11},
		{name: "died between the probe and the begin", trace: `
			10 begin x/end 1/a A
			50 begin x/end 2/b B
			51 end   x/end 2/b B already_gone`, lastAlive: map[string]int{"A": 30}, exit: 48},
		{name: "effects on two things", trace: `
			10 begin x/log 1/a A
			10 begin y/log 1/b A
			11 begin x/end 1/a B`},

		{name: "after closed", trace: `
			10 begin  x/log 1/a A
			11 end    x/log 1/a A logged
			12 closed x/log 1/a A logged
			50 begin  x/log 2/b B`, lastAlive: map[string]int{"A": 30}, want: []judge.Rule{judge.AfterClosed}},
		{name: "after closed without an effect", trace: `
			12 closed x/end 1/a A expired
			50 begin  x/end 2/b B`, want: []judge.Rule{judge.AfterClosed}},
		{name: "after recorded", trace: `
			10 begin    x/log 1/a A
			11 end      x/log 1/a A logged
			12 recorded x/log 2/b B logged
			50 begin    x/log 3/c C`, want: []judge.Rule{judge.AfterRecorded}},
		{name: "lower epoch", trace: `
			10 begin x/log 2/b B
			11 end   x/log 2/b B
			50 begin x/log 1/a A`, want: []judge.Rule{judge.OlderToken}},
		{name: "lower epoch than one before the last", trace: `
			10 begin x/log 4/d D
			11 end   x/log 4/d D
			12 begin x/log 1/a A
			13 end   x/log 1/a A
			14 begin x/log 3/c C`, want: []judge.Rule{judge.OlderToken, judge.OlderToken}},
		{name: "equal epoch, other nonce", trace: `
			10 begin x/log 2/b B
			11 end   x/log 2/b B
			50 begin x/log 2/a A`, want: []judge.Rule{judge.OlderToken}},
		{name: "while a live one is inside", trace: `
			10 begin x/end 1/a A
			50 begin x/end 2/b B
			60 end   x/end 1/a A killed
			70 end   x/end 2/b B killed`, exit: 59, want: []judge.Rule{judge.Overlap}},
		{name: "while one is inside that died only later", trace: `
			10 begin x/end 1/a A
			50 begin x/end 2/b B`, lastAlive: map[string]int{"A": 51}, exit: 49, want: []judge.Rule{judge.Overlap}},
		{name: "while one is inside that has ended something else", trace: `
			10 begin x/end 1/a A
			11 end   y/end 1/a A
			50 begin x/end 2/b B`, want: []judge.Rule{judge.Overlap}},
		{name: "twice by one replica at once", trace: `
			10 begin x/end 1/a A
			50 begin x/end 1/a A`, want: []judge.Rule{judge.Overlap}},
		{name: "on one process for two alerts at once", trace: `
			10 begin y/end 1/a A
			50 begin x/end 2/b B`, want: []judge.Rule{judge.Overlap}},
		{name: "on a process that another alert has ended", trace: `
			10 begin y/end 1/a A
			11 end   y/end 1/a A terminated
			13 begin x/end 2/b B`, exit: 12, want: []judge.Rule{judge.InPlace}},
		{name: "in place, as its end said", trace: `
			10 begin x/end 1/a A
			11 end   x/end 1/a A terminated
			13 begin x/end 2/b B`, lastAlive: map[string]int{"A": 12}, want: []judge.Rule{judge.InPlace}},
		{name: "in place, as the exit shows", trace: `
			10 begin x/end 1/a A
			50 begin x/end 2/b B`, lastAlive: map[string]int{"A": 12}, exit: 20, want: []judge.Rule{judge.InPlace}},
		{name: "second of an at-most-once step", trace: `
			10 begin x/script 1/a A
			11 end   x/script 1/a A
			50 begin x/script 1/a A
			51 end   x/script 1/a A ran`, want: []judge.Rule{judge.Second}},
		{name: "every one of them counts", trace: `
			10 begin  x/log 1/a A
			11 end    x/log 1/a A logged
			12 closed x/log 1/a A logged
			50 begin  x/log 2/b B
			60 begin  x/log 3/c C`, want: []judge.Rule{judge.AfterClosed, judge.AfterClosed}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			trial := judge.Trial{
				Events: trace(t, tt.trace),
				Alerts: []judge.Alert{
					{ID: "x", Steps: []judge.Step{{Key: "x/end", Process: "p"}, {Key: "x/log"}}},
					{ID: "y", Steps: []judge.Step{{Key: "y/end", Process: "p"}, {Key: "y/log"}}},
				},
				LastAlive: map[string]time.Time{}, Exits: map[string]time.Time{},
				Classes: map[string]action.Class{"run_script": action.AtMostOnce},
			}
			for replica, ms := range tt.lastAlive {
				trial.LastAlive[replica] = at(ms)
			}
			if tt.exit > 0 {
				trial.Exits["p"] = at(tt.exit)
			}
			var got []judge.Rule
			for _, d := range trial.Judge().Doubled {
				got = append(got, d.Rule)
				if d.Why == "" || !strings.Contains(d.String(), d.Begin.Key) {
					t.Errorf("says too little: %s", d)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLost(t *testing.T) {
	trial := judge.Trial{
		Events: trace(t, `
			10 closed   a/end 1/a A killed
			11 recorded a/log 1/a A logged
			12 end      b/end 1/b A killed
			13 begin    b/log 1/b A
			14 end      b/log 1/b A
			15 closed   c/end 1/c A killed
			16 recorded c/log 1/c A logged`),
		Exits: map[string]time.Time{"pa": at(9), "pb": at(9), "pd": at(9)},
	}
	for _, id := range []string{"a", "b", "c", "d"} {
		trial.Alerts = append(trial.Alerts, judge.Alert{ID: id, Steps: []judge.Step{{Key: id + "/end", Process: "p" + id}, {Key: id + "/log"}}})
	}
	got := fmt.Sprint(trial.Judge().Lost)
	want := "[b: no outcome of b/log c: pc is alive d: no outcome of d/end, no outcome of d/log]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestUnfinished(t *testing.T) {
	trial := judge.Trial{
		Events: trace(t, `
			10 begin    a/end 1/a A
			11 begin    b/end 1/b A
			12 end      a/end 1/a A killed
			13 closed   a/end 1/a A killed
			14 closed   c/end 1/c B already_gone
			15 closed   d/log 1/d B already_gone
			16 recorded d/log 1/d B already_gone
			17 closed   e/end 1/e A already_gone
			18 begin    f/log 1/f C
			19 begin    g/log 1/g C
			30 recorded a/end 2/a B killed
			31 recorded e/end 2/e B already_gone
			32 begin    e/end 3/e A
			33 begin    f/log 2/f B
			51 begin    g/log 2/g B`),
		LastAlive: map[string]time.Time{"A": at(40), "B": at(60), "C": at(20)},
	}
	for what, got := range map[string]map[string][]string{
		// C died before anybody else came to what it had begun; A lost a while it lived.
		"inside: map[A:[b/end e/end] B:[f/log g/log] C:[f/log g/log]]":           trial.Inside(),
		"unclosed: map[A:[b/end e/end] B:[f/log g/log] C:[f/log g/log]]":         trial.Unclosed(),
		"unrecorded: map[A:[b/end e/end] B:[c/end f/log g/log] C:[f/log g/log]]": trial.Unrecorded(),
		// Of replicas that live, the last one to come to a step has it.
		"unclosed: map[A:[b/end e/end] B:[f/log g/log] C:[]]":         judge.Unclosed(trial.Events),
		"unrecorded: map[A:[b/end e/end] B:[c/end f/log g/log] C:[]]": judge.Unrecorded(trial.Events),
	} {
		if name, _, _ := strings.Cut(what, ":"); fmt.Sprint(name, ": ", got) != what {
			t.Errorf("got %s: %v, want %s", name, got, what)
		}
	}
}

// Whatever is in the file, nothing that was read is no event, and what follows the last
// whole line is given back.
func FuzzRead(f *testing.F) {
	const line = `{"t_us":5,"event":"begin","key":"h/g/x/p/s","epoch":7,"nonce":"n","replica":"A","action":"log","outcome":""}`
	for _, text := range []string{"", line, line + "\n" + line[:40], line[:60] + line + "\n", "\n", "{}\n", "null\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		events, rest, err := judge.Read(raw)
		if err != nil {
			return
		}
		if whole := len(raw) - len(rest); bytes.ContainsRune(rest, '\n') || !bytes.HasSuffix(raw, rest) || bytes.Count(raw[:whole], []byte("\n")) != len(events) {
			t.Errorf("%q: %d events, rest %q", raw, len(events), rest)
		}
		for _, e := range events {
			if e.Key == "" || e.Replica == "" || e.Event == "" || e.TimeUS == 0 {
				t.Errorf("%q was read as %+v", raw, e)
			}
		}
		judge.Trial{Events: events}.Judge() // does not panic
	})
}

func TestRead(t *testing.T) {
	const line = `{"t_us":5,"event":"begin","key":"h/g/x/p/s","epoch":7,"nonce":"n","replica":"A","action":"log","outcome":""}`
	want := judge.Event{TimeUS: 5, Event: judge.Begin, Key: "h/g/x/p/s", Token: judge.Token{Epoch: 7, Nonce: "n"}, Replica: "A", Action: "log"}
	for _, text := range []string{
		line + "\n",
		line + "\n" + line[:40],            // being written
		line[:60] + line + "\n" + line[:9], // a replica was killed while it wrote the first
	} {
		events, rest, err := judge.Read([]byte(text))
		if err != nil || len(events) != 1 || events[0] != want || !strings.HasSuffix(text, string(rest)) {
			t.Errorf("%s: got %+v, %q, %v", text, events, rest, err)
		}
	}
	for _, text := range []string{"\n", "{}\n", line[:40] + "\n", strings.Replace(line, "begin", "began", 1) + "\n"} {
		if events, _, err := judge.Read([]byte(text)); err == nil {
			t.Errorf("%q was read as %+v", text, events)
		}
	}
}
