package chaos

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/playbook/action"
	"riposte/stream"
)

// journal reads along what the ledger's scripts say they did. It is not believed, only
// used to choose whom to kill, to time takeovers, and to look for contradictions.
type journal struct {
	rdb     *redis.Client
	last    string
	changes []change
	alerts  map[string]*holding // that are not settled
	settled int
}

// change is one entry of the journal.
type change struct {
	at                             time.Time // of Redis, on this very host; whole milliseconds
	id, event, owner, step, result string
}

// holding is who may act on an alert.
type holding struct {
	owner   string // empty when handed back
	resumes int
}

func newJournal(rdb *redis.Client) *journal {
	return &journal{rdb: rdb, last: "-", alerts: map[string]*holding{}}
}

// follow reads what is new.
func (j *journal) follow(ctx context.Context) error {
	for {
		const page = 1000
		entries, err := j.rdb.XRangeN(ctx, stream.Host(host).JournalKey(), j.last, "+", page).Result()
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		for _, e := range entries {
			j.add(e)
			j.last = "(" + e.ID
		}
		if len(entries) < page {
			return nil
		}
	}
}

func (j *journal) add(e redis.XMessage) {
	text := func(name string) string { s, _ := e.Values[name].(string); return s }
	c := change{stream.Delivery{StreamID: e.ID}.When(), text("id"), text("event"), text("owner"), text("step"), text("outcome")}
	j.changes = append(j.changes, c)
	h := j.alerts[c.id]
	switch c.event {
	case "run", "resume", "poison":
		if h == nil {
			h = &holding{}
			j.alerts[c.id] = h
		}
		h.owner = c.owner
		if c.event != "run" {
			h.resumes++
		}
	case "release":
		if h != nil {
			h.owner = ""
		}
	case "record":
		if c.step == playbookName+"/"+scriptStep { // the last one
			j.settle(c.id)
		}
	case "bury":
		j.settle(c.id)
	}
}

func (j *journal) settle(id string) {
	delete(j.alerts, id)
	j.settled++
}

// fragile says whether a replica holds an alert that must not lose many more holders.
func (j *journal) fragile(r *replica) bool {
	for _, h := range j.alerts {
		if h.owner != "" && h.resumes >= spareAfter && h.owner == r.name() {
			return true
		}
	}
	return false
}

// takeover is one from a holder that died.
type takeover struct {
	change
	from   string
	died   time.Time     // when it was last seen alive
	after  time.Duration // its death
	before int           // takeovers of the alert
	class  action.Class  // of the first step that was not recorded yet
}

// takeovers are all of them, the fastest first.
func (j *journal) takeovers(lastAlive map[string]time.Time) (all []takeover) {
	owners, before, recorded := map[string]string{}, map[string]int{}, map[string]int{}
	for _, c := range j.changes {
		switch c.event {
		case "run":
			owners[c.id] = c.owner
		case "release":
			delete(owners, c.id)
		case "record":
			recorded[c.id]++
		case "resume", "poison":
			// One that was superseded while it was frozen died later, if at all.
			if died, ok := lastAlive[owners[c.id]]; ok && !died.After(c.at.Add(time.Millisecond)) {
				class := steps[min(recorded[c.id], len(steps)-1)].class
				all = append(all, takeover{c, owners[c.id], died, max(0, c.at.Sub(died)), before[c.id], class})
			}
			owners[c.id] = c.owner
			before[c.id]++
		}
	}
	slices.SortFunc(all, func(a, b takeover) int { return cmp.Compare(a.after, b.after) })
	return all
}

// buried are the alerts that became dead letters.
func (j *journal) buried() map[string]bool {
	buried := map[string]bool{}
	for _, c := range j.changes {
		if c.event == "bury" {
			buried[c.id] = true
		}
	}
	return buried
}

// history is what became of an alert, a line a change.
func (j *journal) history(id string) string {
	var out strings.Builder
	for _, c := range j.changes {
		if c.id == id {
			fmt.Fprintf(&out, "\n%s %s by %s %s %s", c.at.UTC().Format("15:04:05.000"), c.event, c.owner, c.step, c.result)
		}
	}
	return out.String()
}

// contradictions are steps with more than one accepted record.
func (j *journal) contradictions() (found []string) {
	records := map[string]int{}
	for _, c := range j.changes {
		if c.event == "record" {
			records[c.id+" "+c.step]++
		}
	}
	for step, n := range records {
		if n > 1 {
			found = append(found, fmt.Sprintf("%d accepted records of %s", n, step))
		}
	}
	return found
}
