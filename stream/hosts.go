package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// KnownHost is a host that Redis has heard of.
type KnownHost struct {
	Host     Host      `json:"host"`
	LastSeen time.Time `json:"last_seen,omitzero"` // zero where it has a stream, but nobody ever reported in
}

// UnknownHostError says that Redis has never heard of a host, and of which it has.
type UnknownHostError struct {
	Host  Host
	Known []Host
}

func (e *UnknownHostError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("host %s is unknown, and so is every other: nothing has been published to this Redis yet", e.Host)
	}
	names, more := e.Known, ""
	if len(names) > 50 {
		more = fmt.Sprintf(" and %d more", len(names)-50)
		names = names[:50]
	}
	var b strings.Builder
	for i, h := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(h))
	}
	return fmt.Sprintf("host %s is unknown; known are %s%s", e.Host, b.String(), more)
}

// Hosts are the hosts known to Redis, by name: those that have reported in, and those that
// merely have a stream of alerts, which nobody may be reading.
func Hosts(ctx context.Context, rdb *redis.Client) ([]KnownHost, error) {
	seen := map[Host]time.Time{}
	signs, err := rdb.ZRangeWithScores(ctx, HostsKey, 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("list hosts: %w", err)
	}
	for _, z := range signs {
		name, _ := z.Member.(string)
		if h, err := ParseHost(name); err == nil {
			seen[h] = fromScore(z.Score)
		}
	}
	_, err = scan(ctx, rdb, Host("*").AlertsKey(), func(keys []string) error {
		for _, key := range keys {
			name := strings.TrimSuffix(strings.TrimPrefix(key, "riposte:{"), "}:alerts")
			h, err := ParseHost(name)
			if _, known := seen[h]; err == nil && !known {
				seen[h] = time.Time{}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list hosts: %w", err)
	}
	hosts := make([]KnownHost, 0, len(seen))
	for h, t := range seen {
		hosts = append(hosts, KnownHost{h, t})
	}
	slices.SortFunc(hosts, func(a, b KnownHost) int { return cmp.Compare(a.Host, b.Host) })
	return hosts, nil
}

// Bounds of what a look at Redis may cost it.
const (
	scanPage    = 1000
	scanPages   = 1000    // so a million keys
	scanEntries = 100_000 // ledger entries read
)

// scan visits the keys that match, a page at a time, as far as scanPages go. A key may be
// visited twice if the server grows or shrinks its table meanwhile.
func scan(ctx context.Context, rdb *redis.Client, match string, visit func(keys []string) error) (complete bool, err error) {
	var cursor uint64
	for range scanPages {
		keys, next, err := rdb.Scan(ctx, cursor, match, scanPage).Result()
		if err != nil {
			return false, err
		}
		if len(keys) > 0 {
			if err := visit(keys); err != nil {
				return false, err
			}
		}
		if cursor = next; cursor == 0 {
			return true, nil
		}
	}
	return false, nil
}

// ledgerCounts counts ledger entries, of hosts by group.
type ledgerCounts map[Host]map[Group]*ledgerCount

type ledgerCount struct {
	states     map[string]int64
	unresolved int64 // steps of unknown outcome that nobody has looked into
}

var errEnough = errors.New("enough")

var stateForm = regexp.MustCompile(`^[a-z]{1,16}$`)

// headBytes are enough of an entry for its header, whose longest word is its owner's name,
// and for the first field of its body.
const headBytes = 512

// unresolvedForm is how the body of an entry begins of which steps are unknown, see
// ledger.Body.
var unresolvedForm = regexp.MustCompile(`^\{"unresolved":([0-9]{1,9})[,}]`)

// parseHead reads the beginning of an entry: its state is the first word of its header.
func parseHead(head string) (state string, unresolved int64) {
	header, body, _ := strings.Cut(head, "\n")
	if state, _, _ = strings.Cut(header, " "); !stateForm.MatchString(state) {
		state = "unreadable"
	}
	if m := unresolvedForm.FindStringSubmatch(body); m != nil {
		unresolved, _ = strconv.ParseInt(m[1], 10, 64) // the pattern keeps it in range
	}
	return state, unresolved
}

// countLedger counts the ledger entries of one host, or of "*".
func countLedger(ctx context.Context, rdb *redis.Client, host Host) (counts ledgerCounts, complete bool, err error) {
	counts = ledgerCounts{}
	read := 0
	complete, err = scan(ctx, rdb, host.LedgerPrefix("*")+"*", func(keys []string) error {
		if read += len(keys); read > scanEntries {
			return errEnough
		}
		pipe := rdb.Pipeline()
		heads := make([]*redis.StringCmd, len(keys))
		for i, key := range keys {
			heads[i] = pipe.GetRange(ctx, key, 0, headBytes-1)
		}
		if _, err := pipe.Exec(ctx); err != nil && !refusal(err) {
			return err
		}
		for i, key := range keys {
			host, group, ok := ledgerOwner(key)
			if !ok || heads[i].Err() == nil && heads[i].Val() == "" { // expired since it was listed
				continue
			}
			state, unresolved := parseHead(heads[i].Val())
			if counts[host] == nil {
				counts[host] = map[Group]*ledgerCount{}
			}
			if counts[host][group] == nil {
				counts[host][group] = &ledgerCount{states: map[string]int64{}}
			}
			counts[host][group].states[state]++
			counts[host][group].unresolved += unresolved
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return counts, false, nil
	}
	return counts, complete, err
}

// ledgerOwner reads host and group out of the key of a ledger entry.
func ledgerOwner(key string) (Host, Group, bool) {
	rest, ok := strings.CutPrefix(key, "riposte:{")
	name, rest, ok2 := strings.Cut(rest, "}:ledger:")
	word, _, ok3 := strings.Cut(rest, ":")
	host, err1 := ParseHost(name)
	group, err2 := ParseGroup(word)
	return host, group, ok && ok2 && ok3 && err1 == nil && err2 == nil
}

// refusal says that Redis is there and answered with an error.
func refusal(err error) bool {
	var answer redis.Error
	return errors.As(err, &answer)
}
