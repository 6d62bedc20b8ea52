package redisfaults

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
	"riposte/test/build"
	"riposte/test/redistest"
)

const (
	host     = "site"
	replicas = 3
	patience = time.Minute // for what is left to be done; it takes a few seconds
)

// scenario is one way to break Redis.
type scenario struct {
	fault string        // as the table calls it
	each  int           // alerts of each class
	over  time.Duration // time in which they are published
	lease time.Duration
	hold  time.Duration // how long the slower effects take
	redis []string      // arguments of the server
	tags  []string      // of the binary
	slots int           // alerts a replica works on at once, so that there is a backlog; 0: the default
}

// site is a host with its replicas, while its Redis is being broken.
type site struct {
	scenario
	t         *testing.T
	dir       string
	binary    string
	redis     *redistest.Server // that has the history; a failover changes it
	alerts    []*alert
	replicas  []*replica
	publisher *publisher
	published sync.WaitGroup
	stop      context.CancelFunc // of the publisher
}

// open makes everything ready, and starts nothing that talks to Redis.
func open(t *testing.T, sc scenario) *site {
	t.Helper()
	s := &site{scenario: sc, t: t, dir: t.ArtifactDir(), binary: build.Riposte(t, sc.tags...), redis: redistest.Start(t, sc.redis...)}
	s.alerts = s.newAlerts()
	for name, text := range s.playbooks() {
		path := filepath.Join(s.dir, "playbooks", name+".yaml")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *site) file(name string) string { return filepath.Join(s.dir, name) }

func (s *site) folders() []string {
	return []string{"--runtime-dir", s.file("run"), "--state-dir", s.file("state")}
}

// start starts the replicas, and the publisher once they are ready. Each replica may have
// a way to Redis of its own, and so may the publisher, the last one.
func (s *site) start(urls ...string) {
	s.t.Helper()
	for len(urls) < replicas+1 {
		urls = append(urls, s.redis.URL)
	}
	for _, url := range urls[:replicas] {
		args := append([]string{"responder", "--redis", url, "--host", host, "--mode", "enforce", "--own-uid",
			"--playbooks", s.file("playbooks"), "--lease", s.lease.String(), "--trace", s.file("trace.jsonl")}, s.folders()...)
		if s.slots > 0 {
			args = append(args, "--concurrency", strconv.Itoa(s.slots))
		}
		s.replicas = append(s.replicas, startReplica(s.t, s.dir, s.binary, args...))
	}
	s.await("the replicas to be ready", func() bool {
		for _, r := range s.replicas {
			if r.dead() {
				s.t.Fatalf("a replica did not start: %v\n%s", r.err, r.words())
			}
		}
		return s.said("responder is ready") == replicas
	})

	rdb, err := stream.Open(stream.Options{URL: urls[replicas]})
	if err == nil {
		s.publisher, err = newPublisher(rdb)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	s.stop = cancel
	s.published.Go(func() { s.publisher.run(ctx, raw(s.alerts), s.over) })
	s.t.Cleanup(func() {
		cancel()
		s.published.Wait()
		rdb.Close()
	})
}

// observer is a client of the test's own, past all proxies.
func (s *site) observer() *redis.Client {
	s.t.Helper()
	return s.redis.Client()
}

// said is how many lines with some words the replicas have logged.
func (s *site) said(words string) (n int) {
	for _, r := range s.replicas {
		n += r.said(words)
	}
	return n
}

// awaitAccepted waits until Redis has acknowledged a part of the alerts.
func (s *site) awaitAccepted(part float64) {
	s.t.Helper()
	n := int(part * float64(len(s.alerts)))
	s.await(fmt.Sprintf("%d alerts to be accepted", n), func() bool { return len(s.publisher.accepted()) >= n })
}

// vanished is how many of the entries that Redis had acknowledged it does not have any more.
// No replica trims what is not a day old.
func (s *site) vanished(acked []string) (n int) {
	s.t.Helper()
	entries, err := s.observer().XRange(s.t.Context(), stream.Host(host).AlertsKey(), "-", "+").Result()
	if err != nil {
		s.t.Fatal(err)
	}
	there := map[string]bool{}
	for _, e := range entries {
		there[e.ID] = true
	}
	for _, id := range acked {
		if !there[id] {
			n++
		}
	}
	return n
}

// drain waits until every alert is settled, and stops the replicas in good order.
func (s *site) drain() {
	s.t.Helper()
	s.awaitAccepted(1)
	rdb := s.observer()
	s.await("every alert to be settled", func() bool { return s.unsettled(rdb) == 0 })
	s.stop()
	s.published.Wait()
	s.await("nothing to be pending", func() bool {
		groups, err := rdb.XInfoGroups(s.t.Context(), stream.Host(host).AlertsKey()).Result()
		last, err2 := rdb.XInfoStream(s.t.Context(), stream.Host(host).AlertsKey()).Result()
		return err == nil && err2 == nil && len(groups) == 1 && groups[0].Pending == 0 && groups[0].LastDeliveredID == last.LastGeneratedID
	})
	for i, r := range s.replicas {
		if r.dead() {
			s.t.Errorf("replica %d died by itself: %v\n%s", i, r.err, r.words())
		}
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, r := range s.replicas {
		s.await("a replica to stop", r.dead)
		if r.err != nil {
			s.t.Errorf("a replica did not stop in good order: %v\n%s", r.err, r.words())
		}
	}
}

// unsettled is how many alerts are.
func (s *site) unsettled(rdb *redis.Client) (n int) {
	for _, state := range s.states(rdb) {
		if state != "done" && state != "dead" {
			n++
		}
	}
	return n
}

// states are those of the alerts' ledger entries, "" where there is none.
func (s *site) states(rdb *redis.Client) []string {
	keys := make([]string, len(s.alerts))
	for i, a := range s.alerts {
		keys[i] = stream.Host(host).LedgerKey(stream.DefaultGroup, a.ID)
	}
	states := make([]string, len(keys))
	entries, err := rdb.MGet(s.t.Context(), keys...).Result()
	if err != nil {
		return states
	}
	for i, e := range entries {
		text, _ := e.(string)
		states[i], _, _ = strings.Cut(text, " ")
	}
	return states
}

// leftovers are the first few alerts that are not settled, as Redis has them.
func (s *site) leftovers() string {
	rdb, ctx := s.observer(), s.t.Context()
	var out strings.Builder
	for i, state := range s.states(rdb) {
		if state == "done" || state == "dead" || strings.Count(out.String(), "\n") > 5 {
			continue
		}
		header, _, _ := strings.Cut(rdb.Get(ctx, stream.Host(host).LedgerKey(stream.DefaultGroup, s.alerts[i].ID)).Val(), "\n")
		fmt.Fprintf(&out, "not settled: %s: %q\n", s.alerts[i].key(), header)
	}
	pending := rdb.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: stream.Host(host).AlertsKey(), Group: string(stream.DefaultGroup), Start: "-", End: "+", Count: 5,
	}).Val()
	fmt.Fprintf(&out, "pending: %+v\ngroups: %+v", pending, rdb.XInfoGroups(ctx, stream.Host(host).AlertsKey()).Val())
	return out.String()
}

// await waits for something to be true. Where it does not become so, the replicas' last
// words, and what is left in Redis, are the best explanation.
func (s *site) await(what string, done func() bool) {
	s.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !done(); <-tick.C {
		if time.Now().After(deadline) {
			for _, r := range s.replicas {
				s.t.Log(r.words())
			}
			s.t.Log(s.leftovers())
			s.t.Fatalf("waited %v for %s", patience, what)
		}
	}
}
