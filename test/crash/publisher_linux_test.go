package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"riposte/ledger"
	"riposte/playbook/judge"
	"riposte/stream"
	"riposte/stream/proc"
	"riposte/test/build"
	"riposte/test/faultproxy"
	"riposte/test/redistest"
	"riposte/test/table"
)

// source is a process that publishes, and how it comes by its alerts.
type source struct {
	name     string
	args     func(*origin) []string
	ready    string // what it says when no alert can escape it any more
	emit     func(*origin, int) stream.AlertID
	commands []command
}

// What a publisher sends goes by name; of INFO, XADD and XINFO the first times are in
// peace, and later ones when Redis has lost two alerts, which are published again at once.
var sources = []source{
	{"bridge", func(*origin) []string { return []string{"bridge"} }, "bridge ready", publishOnChannel, []command{
		{name: "HELLO"}, {name: "HELLO", nth: 2}, {name: "PING"}, {name: "SUBSCRIBE"},
		{name: "XLEN"}, {name: "INFO"}, {name: "INFO", nth: 4}, {name: "XINFO", arg: "groups"}, {name: "XINFO", arg: "groups", nth: 2},
		{name: "XADD"}, {name: "XADD", nth: 2}, {name: "XADD", nth: 3}, {name: "XADD", nth: 4},
	}},
	{"sensor", senses, "sensor is ready", startDecoy, []command{
		{name: "HELLO"}, {name: "PING"},
		{name: "XLEN"}, {name: "INFO"}, {name: "INFO", nth: 4}, {name: "XINFO", arg: "groups"}, {name: "XINFO", arg: "groups", nth: 2},
		{name: "XADD"}, {name: "XADD", nth: 2}, {name: "XADD", nth: 3}, {name: "XADD", nth: 4},
	}},
}

func publishOnChannel(o *origin, n int) stream.AlertID {
	id := fmt.Sprintf("alert-%d", n)
	heard, err := o.rdb.Publish(o.t.Context(), "high_severity_alerts", fmt.Sprintf(`{"id":%q,"level":"HIGH","title":"t"}`, id)).Result()
	if err != nil || heard != 1 {
		o.t.Fatalf("%d bridges have heard it, %v", heard, err)
	}
	return stream.AlertID(id)
}

const senseRule = "decoy"

// senses has a sensor look for the decoys of this host, and for nothing else.
func senses(o *origin) []string {
	dir := filepath.Join(o.dir, "rules")
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		rule := fmt.Sprintf("rules:\n  - {id: %s, name: a decoy, level: LOW, child: ['*'], cmdline: ['%s$']}\n", senseRule, o.mark())
		err = os.WriteFile(filepath.Join(dir, "decoy.yaml"), []byte(rule), 0o600)
	}
	if err != nil {
		o.t.Fatal(err)
	}
	return []string{"sensor", "--source", "poll", "--rules", dir, "--runtime-dir", o.runtimeDir(), "--state-dir", o.stateDir()}
}

// mark ends the command line of the decoys of this origin, and of no other on the machine.
func (o *origin) mark() string { return fmt.Sprintf("decoy of %s in %d", o.host, os.Getpid()) }

func startDecoy(o *origin, _ int) stream.AlertID {
	d := newDecoy(o.t, meek+" # "+o.mark())
	info, err1 := proc.Read(d.pid)
	boot, err2 := proc.BootID()
	if err1 != nil || err2 != nil {
		o.t.Fatal(err1, err2)
	}
	return stream.DeriveID("sensor", string(o.host), boot, strconv.Itoa(d.pid), strconv.FormatUint(info.StartTicks, 10), senseRule)
}

// origin is a scene with a publisher behind a proxy, and one replica that is not.
type origin struct {
	*scene
	source
	server   *redistest.Server
	proxy    *faultproxy.Proxy
	process  *replica // the publisher
	forgot   bool     // Redis has
	accepted []stream.AlertID
}

func (src source) origin(t *testing.T, binary, host string, server *redistest.Server, more ...string) *origin {
	t.Helper()
	st := staging{binary, server.URL, server.Client()}
	o := &origin{scene: st.scene(t, host, classes[1], longLease, unhurried), source: src, server: server, proxy: faultproxy.Start(t, server.Addr)}
	o.proxy.Expect(rules(src.commands))
	o.book(o.after())
	o.start("", more...)
	return o
}

// begin starts the publisher. One that cannot start, because its first words were lost, is
// started again, as whatever supervises it would.
func (o *origin) begin() {
	o.t.Helper()
	for range 3 {
		args := append(o.args(o), "--redis", o.proxy.URL, "--host", string(o.host))
		o.process = launch(o.t, o.dir, "", o.binary, args...)
		o.replicas = append(o.replicas, o.process)
		await(o.t, "the publisher to be ready", func() bool { return strings.Contains(o.process.said(), o.source.ready) || o.process.dead() })
		if !o.process.dead() {
			return
		}
	}
	o.t.Fatalf("the publisher does not start: %v\n%s", o.process.err, o.process.words())
}

// accept has the source accept one more alert, and waits until it is in the stream.
func (o *origin) accept() {
	o.t.Helper()
	id := o.emit(o, len(o.accepted))
	o.accepted = append(o.accepted, id)
	await(o.t, "an alert to be in the stream", func() bool { return o.copies()[id] > 0 })
}

// copies counts the entries of the stream by alert.
func (o *origin) copies() map[stream.AlertID]int {
	o.t.Helper()
	n := map[stream.AlertID]int{}
	entries, err := o.rdb.XRange(o.t.Context(), o.host.AlertsKey(), "-", "+").Result()
	if err != nil {
		return nil // Redis is being broken
	}
	for _, e := range entries {
		id, _ := e.Values["id"].(string)
		n[stream.AlertID(id)]++
	}
	return n
}

// open says what is wrong with the alerts that were accepted; empty where each is in the
// stream, settled once, and each further copy of it as a duplicate. Where Redis has forgotten
// a copy, a replica may have had it in its hands.
func (o *origin) open() string {
	copies := o.copies()
	groups, err := o.rdb.XInfoGroups(o.t.Context(), o.host.AlertsKey()).Result()
	if err != nil || len(groups) != 1 || groups[0].Pending > 0 || groups[0].Lag != 0 {
		return fmt.Sprintf("groups %+v, %v", groups, err)
	}
	if len(copies) != len(o.accepted) {
		return fmt.Sprintf("%d alerts are in the stream, %d were accepted", len(copies), len(o.accepted))
	}
	for _, id := range o.accepted {
		e, err := o.reader.Find(o.t.Context(), string(id))
		further := e.Header.Duplicates - (copies[id] - 1)
		if err != nil || e.Header.State != ledger.Done || further != 0 && !(o.forgot && further == 1) {
			return fmt.Sprintf("%s is %s with %d duplicates and %d copies in the stream, %v", id, e.Header.State, e.Header.Duplicates, copies[id], err)
		}
	}
	return ""
}

func (o *origin) settled() {
	o.t.Helper()
	defer func() {
		if o.t.Failed() {
			o.t.Log(o.open())
		}
	}()
	await(o.t, "every alert to be settled once", func() bool { return o.open() == "" })
}

// end stops everybody and returns what became of the alerts.
func (o *origin) end(row table.Row) table.Row {
	o.t.Helper()
	o.process.stop(o.t)
	o.settled() // the publisher may have had a last word
	o.stop()
	trial := judge.Trial{Events: o.events()}
	for _, id := range o.accepted {
		key := stream.StepKey(o.host, stream.DefaultGroup, id, bookName, "after")
		trial.Alerts = append(trial.Alerts, judge.Alert{ID: string(id), Steps: []judge.Step{{Key: key}}})
		if n := count(o.t, o.afterFile(), key); n != 1 {
			o.t.Errorf("the effect of %s happened %d times", id, n)
		}
	}
	finding := trial.Judge()
	for _, l := range finding.Lost {
		o.t.Errorf("lost %s", l)
	}
	for _, d := range finding.Doubled {
		o.t.Errorf("doubled: %s", d)
	}
	o.audit()
	uncovered(o.t, o.proxy)
	row.Accepted += len(o.accepted)
	row.Settled += len(o.accepted)
	row.Lost += len(finding.Lost)
	row.Doubled += len(finding.Doubled)
	return row
}

// broken plays one case: two alerts in peace, and both once more because Redis forgets them.
func (o *origin) broken(fault *faultproxy.Fault, row table.Row) table.Row {
	o.t.Helper()
	o.begin()
	o.accept()
	o.accept()
	o.settled()
	looks := o.proxy.Seen()["XINFO"]
	await(o.t, "the publisher to look", func() bool { return o.proxy.Seen()["XINFO"] > looks })
	o.server.FlushAll()
	o.forgot = true
	o.settled()
	if fault != nil {
		await(o.t, "the fault to strike", fault.Struck)
		o.settled()
	}
	return o.end(row)
}

// Every command of a publisher is broken, before the server ran it and after. What the
// publisher had accepted is in the stream, and settled once; what that took twice to
// publish is settled as a duplicate.
func TestPublisherCommands(t *testing.T) {
	t.Parallel()
	binary := build.Riposte(t)
	faults := []struct {
		words string
		rule  faultproxy.Rule
	}{
		{"broken before it ran", faultproxy.Rule{When: faultproxy.Before}},
		{"refused", faultproxy.Rule{When: faultproxy.Before, Error: "LOADING Redis is loading the dataset in memory"}},
		{"broken after it ran", faultproxy.Rule{When: faultproxy.After}},
	}
	var mu sync.Mutex
	rows := map[string]table.Row{}
	var cases []func()
	for _, src := range sources {
		cases = append(cases, func() {
			t.Run(src.name+"/none", func(t *testing.T) {
				o := src.origin(t, binary, src.name+"-clean", redistest.Start(t))
				o.broken(nil, table.Row{})
				t.Logf("the %s sends %v", src.name, o.proxy.Seen())
			})
		})
		for _, f := range faults {
			name := src.name + ": " + f.words + ", each command"
			for _, cmd := range src.commands {
				host := fmt.Sprintf("p%d", len(cases))
				cases = append(cases, func() {
					t.Run(fmt.Sprintf("%s/%v/%s", src.name, cmd, f.words), func(t *testing.T) {
						o := src.origin(t, binary, host, redistest.Start(t))
						rule := f.rule
						rule.Command, rule.Arg, rule.Nth = cmd.name, cmd.arg, cmd.nth
						row := o.broken(o.proxy.Inject(rule), table.Row{Group: "command", Fault: name, Class: "idempotent"})
						mu.Lock()
						defer mu.Unlock()
						row.Accepted += rows[name].Accepted
						row.Settled += rows[name].Settled
						row.Lost += rows[name].Lost
						row.Doubled += rows[name].Doubled
						rows[name] = row
					})
				})
			}
		}
	}
	together(cases)
	for _, row := range rows {
		table.Add(t, row)
	}
}

// Redis loses all it had between an XADD that it acknowledged and the publisher's next look.
func TestPublisherLoses(t *testing.T) {
	t.Parallel()
	binary := build.Riposte(t)
	for i, loss := range []struct {
		fault      string
		lose, back func(*redistest.Server)
	}{
		{"FLUSHALL", (*redistest.Server).FlushAll, func(*redistest.Server) {}},
		{"kill -9 without a copy on disk", (*redistest.Server).Kill, (*redistest.Server).Restart},
	} {
		for _, src := range sources {
			t.Run(src.name+"/"+loss.fault, func(t *testing.T) {
				t.Parallel()
				o := src.origin(t, binary, fmt.Sprint(src.name, i), redistest.Start(t, "--appendonly", "no"), "--allow-volatile")
				o.begin()
				for unseen := false; !unseen; { // the look may come in between
					if len(o.accepted) == 20 {
						t.Fatal("the publisher looks all the time")
					}
					o.accept()
					looks := o.proxy.Seen()["XINFO"]
					await(t, "the publisher to look", func() bool { return o.proxy.Seen()["XINFO"] > looks })
					looks = o.proxy.Seen()["XINFO"]
					o.accept()
					loss.lose(o.server)
					o.forgot = true
					unseen = o.proxy.Seen()["XINFO"] == looks
					loss.back(o.server)
					o.settled()
				}
				table.Add(t, o.end(table.Row{Group: "redis", Fault: loss.fault + " between XADD and the look of the " + src.name, Class: "idempotent"}))
			})
		}
	}
}
