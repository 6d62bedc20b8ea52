package chaos

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// choices are what is left to chance, from one seed. Each concern has a generator of its
// own and draws the same numbers each time, used or not, so that the nth choice does not
// depend on how often, when, or with what success others were made.
type choices struct {
	seed                    uint64
	kills, freezes, unwells *rand.Rand
}

// Streams of random numbers under one seed.
const (
	killing = iota
	freezing
	breaking
	alerting // and the number of the decoy
)

func newChoices(seed uint64) *choices {
	c := &choices{seed: seed}
	c.kills, c.freezes, c.unwells = c.stream(killing), c.stream(freezing), c.stream(breaking)
	return c
}

func (c *choices) stream(n int) *rand.Rand { return rand.New(rand.NewPCG(c.seed, uint64(n))) }

// hunt is how a replica is to be killed.
type hunt struct {
	moment int           // what the killer waits for
	wait   time.Duration // where it is any moment
	order  []int         // in which it looks for a victim among the slots
}

// Moments that a killer waits for, in a draw of four.
const (
	inEffect  = 2 // below
	recording = 3 // below
)

func (c *choices) kill() hunt {
	return hunt{c.kills.IntN(4), time.Duration(c.kills.Int64N(int64(aim))), c.kills.Perm(replicas)}
}

// freeze is which replica is to be frozen, and for how long. One in four stays frozen beyond
// the deadline of the gate.
func (c *choices) freeze() (slot int, pause time.Duration) {
	slot = c.freezes.IntN(replicas)
	pause = lease + 200*time.Millisecond + time.Duration(c.freezes.Int64N(int64(lease)))
	if c.freezes.IntN(4) == 0 {
		pause = 5 * time.Second
	}
	return slot, pause
}

// fault is how long Redis is to be well, in means, and how long the fault after that lasts,
// in longests: in its second half, so that "frozen" is for longer than a lease.
func (c *choices) fault() (rest, length float64) {
	return 0.5 + c.unwells.Float64(), 0.5 + c.unwells.Float64()/2
}

// faults is an order of all kinds.
func (c *choices) faults(kinds int) []int { return c.unwells.Perm(kinds) }

// sighting is who reports a decoy, and how.
type sighting struct {
	sensed, foreign bool
	twice, later    bool // published twice at once; and once more later
}

func (c *choices) decoy(number int) (s sighting) {
	rng := c.stream(alerting + number)
	die := rng.IntN(10)
	return sighting{sensed: die < 7 || die == 9, foreign: die >= 7, twice: rng.IntN(10) == 0, later: rng.IntN(10) == 0}
}

// A replay makes the same choices, however often and in whatever order the machine comes
// to make them.
func TestChoicesAreReplayed(t *testing.T) {
	t.Parallel()
	made := func(c *choices, turns [3]int) (all [3][]string, decoys map[int]string) {
		decoys = map[int]string{}
		for i := range 300 {
			if i%turns[0] == 0 {
				all[0] = append(all[0], fmt.Sprint(c.kill()))
			}
			if i%turns[1] == 0 {
				all[1] = append(all[1], fmt.Sprint(c.freeze()))
			}
			if i%turns[2] == 0 {
				all[2] = append(all[2], fmt.Sprint(c.fault()))
				decoys[i] = fmt.Sprint(c.decoy(i))
			}
		}
		return all, decoys
	}
	a, someDecoys := made(newChoices(42), [3]int{1, 2, 3})
	b, moreDecoys := made(newChoices(42), [3]int{3, 1, 2})
	other, _ := made(newChoices(43), [3]int{1, 2, 3})
	for i := range a {
		for n := range min(len(a[i]), len(b[i])) {
			if a[i][n] != b[i][n] {
				t.Fatalf("concern %d, choice %d: %s, and in a replay %s", i, n, a[i][n], b[i][n])
			}
		}
		if fmt.Sprint(a[i]) == fmt.Sprint(other[i]) {
			t.Errorf("concern %d: another seed makes the same choices", i)
		}
	}
	for n, d := range someDecoys {
		if again, ok := moreDecoys[n]; ok && again != d {
			t.Errorf("decoy %d: %s, and in a replay %s", n, d, again)
		}
	}
}
