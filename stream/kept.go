package stream

import (
	"encoding/json"
	"slices"
	"time"
)

// kept is an entry that Redis has acknowledged, and may still lose. From then on only Watch
// changes it.
type kept struct {
	entry
	streamID string
	added    time.Time // acknowledged
	// histories are the replication IDs of the masters that have acknowledged it; empty
	// where Redis did not tell.
	histories []string
	lost      bool // it is to be published again
	size      int  // what it takes of PublisherConfig.KeepBytes
}

// again is the entry to publish in place of one that Redis has lost: the same alert under
// the ID it had, of the time it had. An alert that bears neither got both from the entry.
func (k *kept) again() entry {
	e := k.entry
	if e.letter != nil {
		return e
	}
	a, id, err := Delivery{StreamID: k.streamID, Raw: e.raw, GivenID: string(e.id)}.Alert()
	if err != nil { // it was one when it was published
		return e
	}
	e.id = id
	if a.Timestamp != "" {
		return e
	}
	// Else it would pass for something seen now, and name a process that has its PID by chance.
	a.Timestamp = Delivery{StreamID: k.streamID}.When().UTC().Format("2006-01-02T15:04:05.000Z07:00")
	if a.Given == "" {
		a.ID = "" // it stands in the field
	}
	if raw, err := json.Marshal(a); err == nil && len(raw) <= MaxAlertBytes {
		e.raw = raw
	}
	return e
}

// keep remembers entries that were added, and gives up the oldest where they are too many.
func (p *Publisher) keep(entries []entry, receipts []receipt) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, e := range entries {
		k := &kept{entry: e, streamID: receipts[i].streamID, added: now, size: len(e.raw) + 512}
		if history := receipts[i].history; history != "" {
			k.histories = []string{history}
		}
		p.kept = append(p.kept, k)
		p.keptBytes += k.size
	}
	n := 0
	for ; p.keptBytes > p.cfg.KeepBytes; n++ {
		p.keptBytes -= p.kept[n].size
	}
	p.kept = slices.Delete(p.kept, 0, n)
	p.unkept += n
}

// forget drops what was added before a time and is not lost.
func (p *Publisher) forget(before time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept = slices.DeleteFunc(p.kept, func(k *kept) bool {
		old := !k.lost && k.added.Before(before)
		if old {
			p.keptBytes -= k.size
		}
		return old
	})
}

// renew notes that the entry was published again, as e.
func (k *kept) renew(e entry, r receipt) {
	k.entry, k.streamID, k.added, k.lost = e, r.streamID, time.Now(), false
	if k.histories = append(k.histories, r.history); r.history == "" {
		k.histories = nil
	}
}
