package crash

import (
	"testing"

	"riposte/test/build"
	"riposte/test/redistest"
)

// Without the gate the same cases must be found out: a replica that thaws inside an effect
// doubles it.
func TestBoundariesWithoutGate(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	st := staging{build.Riposte(t, "riposte_crashpoints", "riposte_no_gate"), server.URL, server.Client()}
	doubled := 0
	for _, c := range classes[1:] {
		s := st.scene(t, "teeth-"+c.name, c, shortLease, unhurried)
		s.book(s.steps(), s.after())
		s.possible(t)
		victim := s.start("begun:stop")
		s.publish()
		victim.awaitFrozen(t)
		s.start("")
		s.settle()
		victim.thaw(t)
		s.stop()
		v := s.judge()
		t.Logf("%s: the judge finds %d doubled effects", c.name, v.doubled)
		doubled += v.doubled
	}
	if doubled == 0 {
		t.Error("no gate, and no doubled effect was found: this test proves nothing")
	}
}
