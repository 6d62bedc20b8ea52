package stream

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// lookEvery is how often Watch looks whether Redis still has what it acknowledged.
const lookEvery = time.Second

// Watch publishes again what Redis has acknowledged and lost, until ctx ends. It looks once
// a second; an entry is taken for lost where
//
//   - the master is another one than acknowledged it (a failover, or a restart): its copy
//     may have been behind;
//   - its stream is gone, or was given fewer entries since it began than it once had been,
//     or than are kept of it (FLUSHALL, DEL, a lost tail of the append-only file);
//   - a group of its stream is gone that was there before: recreated, it begins with what
//     the stream still has.
//
// All of that it reads off the groups of the stream, because XINFO STREAM, which would tell
// it outright, also shows alerts, and who may only publish is to read none. So there is a
// loss that it does not see: a stream that was deleted and, within the second, given a group
// again and more entries by others than it ever had. Of a stream without any group it sees
// only that it is gone.
//
// What was not lost is then in the stream twice, under the same ID, and the ledger settles
// the copy. An entry is published once for each loss, however long that takes. While Redis
// is away nothing kept grows old: an entry is dropped when a look at least
// PublisherConfig.Keep after it was added has found Redis as it was.
//
// What is kept is in memory, and ends with the process.
func (p *Publisher) Watch(ctx context.Context) {
	w := watch{Publisher: p, last: map[Host]streamView{}}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.look(ctx)
		}
	}
}

// watch is what Watch remembers from one look to the next. Of what it would say at every
// look it says what has changed.
type watch struct {
	*Publisher
	last    map[Host]streamView // as they were at the last look
	blind   bool                // Redis does not tell; said
	failing bool                // alerts are lost and cannot be published now; said
	said    int                 // of Publisher.unkept
	saidAt  time.Time
}

// look looks once.
func (w *watch) look(ctx context.Context) {
	w.sayUnkept()
	began := time.Now()
	known := w.snapshot() // before asking: what is added meanwhile may be newer than the answer
	if len(known) == 0 {
		clear(w.last)
		return
	}
	seen, err := w.ask(ctx, known)
	if err != nil {
		w.cfg.Log.Debug("cannot look whether Redis still has what was published", "err", err)
		return
	}
	least := w.least(known)
	var lost []*kept
	why := ""
	for _, k := range known {
		if reason := seen.lost(k, w.last[k.host].groups, least[k.host]); reason != "" && !k.lost {
			k.lost, why = true, reason
		}
		if k.lost {
			lost = append(lost, k)
		}
	}
	w.last = seen.streams
	w.forget(began.Add(-w.cfg.Keep))
	if why != "" {
		w.cfg.Log.Warn("Redis may have lost alerts it had acknowledged; publishing them again", "alerts", len(lost), "why", why)
	}
	w.repair(ctx, lost)
}

func (w *watch) snapshot() []*kept {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.kept)
}

// least is how many entries each stream was given since it began, at least: as many as at
// the last look, and those that are kept of it.
func (w *watch) least(known []*kept) map[Host]int64 {
	least := map[Host]int64{}
	for _, k := range known {
		if !k.lost {
			least[k.host]++
		}
	}
	for host, s := range w.last {
		least[host] = max(least[host], s.added)
	}
	return least
}

// ask asks Redis for all that a look wants to know, on one connection.
func (w *watch) ask(ctx context.Context, known []*kept) (view, error) {
	pipe := w.rdb.Pipeline()
	info := pipe.Info(ctx, "replication")
	groups := map[Host]*redis.XInfoGroupsCmd{}
	for _, k := range known {
		if groups[k.host] == nil {
			groups[k.host] = pipe.XInfoGroups(ctx, k.host.AlertsKey())
		}
	}
	_, _ = pipe.Exec(ctx) // each has its own error
	if err := w.unanswered(info.Err()); err != nil {
		return view{}, err
	}
	v := view{history(info.Val()), map[Host]streamView{}}
	for host, cmd := range groups {
		if redis.HasErrorPrefix(cmd.Err(), "no such key") {
			v.streams[host] = streamView{gone: true}
			continue
		}
		if err := w.unanswered(cmd.Err()); err != nil {
			return view{}, err
		}
		if cmd.Err() == nil {
			v.streams[host] = newStreamView(cmd.Val())
		}
	}
	return v, nil
}

// unanswered is the error, unless Redis has answered that it does not tell.
func (w *watch) unanswered(err error) error {
	if err == nil || !redis.IsPermissionError(err) && !redis.HasErrorPrefix(err, "unknown") {
		return err
	}
	if !w.blind {
		w.blind = true
		w.cfg.Log.Warn("Redis does not tell whether it has lost alerts; what a failover loses is not published again", "err", err,
			"hint", "allow this user +info +xinfo|groups")
	}
	return nil
}

// view is what a look saw.
type view struct {
	history string              // replication ID of the master; empty where it does not tell
	streams map[Host]streamView // without those of which Redis does not tell
}

// streamView is a stream at a look, as far as its groups tell.
type streamView struct {
	gone    bool
	groups  []string
	counted bool  // a group tells:
	added   int64 // entries it was given since it began
}

func newStreamView(groups []redis.XInfoGroup) (v streamView) {
	for _, g := range groups {
		v.groups = append(v.groups, g.Name)
		if g.Lag >= 0 { // else somebody has deleted what the group has not read
			v.counted, v.added = true, max(v.added, g.EntriesRead+g.Lag)
		}
	}
	return v
}

// lost says why an entry must be taken for lost; empty where it need not. groups are those
// that its stream had before, least is how many entries it was given.
func (v view) lost(k *kept, groups []string, least int64) string {
	if v.history != "" && len(k.histories) > 0 && !slices.Contains(k.histories, v.history) {
		return "another master answers, or a restarted one"
	}
	s, ok := v.streams[k.host]
	switch {
	case !ok:
		return ""
	case s.gone:
		return "the stream is gone"
	case s.counted && s.added < least:
		return "the stream has begun anew"
	}
	for _, g := range groups {
		if !slices.Contains(s.groups, g) {
			return "group " + g + " is gone"
		}
	}
	return ""
}

// A batch of entries that are published again has this many at most, and these bytes.
const (
	againAtOnce = 100
	againBytes  = 4 << 20
)

// repair publishes what is lost again. What it cannot, the next look tries.
func (w *watch) repair(ctx context.Context, lost []*kept) {
	for rest := lost; len(rest) > 0; {
		var batch []entry
		for bytes := 0; len(batch) < min(len(rest), againAtOnce) && bytes < againBytes; {
			batch = append(batch, rest[len(batch)].again())
			bytes += len(batch[len(batch)-1].raw)
		}
		receipts, err := w.send(ctx, batch)
		if err != nil {
			if !w.failing && ctx.Err() == nil {
				w.failing = true
				w.cfg.Log.Warn("alerts that Redis has lost cannot be published again now; trying on", "alerts", len(rest), "err", err)
			}
			return
		}
		for i, r := range receipts {
			rest[i].renew(batch[i], r)
		}
		rest = rest[len(batch):]
	}
	if len(lost) > 0 {
		w.failing = false
		w.cfg.Log.Info("alerts were published again", "alerts", len(lost))
	}
}

// sayUnkept tells of what was given up, once a minute at most.
func (w *watch) sayUnkept() {
	w.mu.Lock()
	n := w.unkept - w.said
	w.mu.Unlock()
	if n > 0 && time.Since(w.saidAt) > time.Minute {
		w.said, w.saidAt = w.said+n, time.Now()
		w.cfg.Log.Warn("more is published than can be kept; what Redis loses of it is not published again",
			"given_up", n, "bytes", w.cfg.KeepBytes)
	}
}

// history is the replication ID in an answer of INFO.
func history(info string) string {
	_, after, _ := strings.Cut(info, "master_replid:")
	id, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(id)
}
