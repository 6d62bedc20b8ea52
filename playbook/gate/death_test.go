package gate

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Whoever sees a death first may die soon after: the others go on counting from then, or
// in a crash loop of all replicas no dead one would ever be old enough to be forgotten.
func TestTimeOfADeathOutlivesWhoSawIt(t *testing.T) {
	run := filepath.Join(t.TempDir(), "run")
	open := func(name string) *Gate {
		t.Helper()
		g, err := Open(run, "", name, "containment")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { g.Close() })
		return g
	}
	member := func(g *Gate) Member {
		members, err := g.Members()
		if err != nil || len(members) != 1 {
			t.Fatalf("members: %v, %v", members, err)
		}
		return members[0]
	}

	life, err := open("h-1-dying").Join()
	if err != nil {
		t.Fatal(err)
	}
	if m := member(open("h-2-first")); !m.Alive || !m.Died.IsZero() {
		t.Errorf("a live one: %+v", m)
	}
	before := time.Now()
	if err := life.file.Close(); err != nil {
		t.Fatal(err)
	}
	first := member(open("h-2-first"))
	if first.Alive || first.Died.Before(before) || first.Died.After(time.Now()) {
		t.Errorf("a dead one, seen between %v and now: %+v", before, first)
	}
	if again := member(open("h-3-second")); again.Alive || again.Died.Sub(first.Died).Abs() > time.Microsecond {
		t.Errorf("first seen dead at %v, and by the next one at %v", first.Died, again.Died)
	}
}

// When one dies all peers look at its life file, at the same moment. None of them may
// take another one's look for a sign of life.
func TestPeersLookAtADeathTogether(t *testing.T) {
	run := filepath.Join(t.TempDir(), "run")
	g, err := Open(run, "", "h-1-looking", "containment")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	dead, err := os.Create(filepath.Join(run, lifeDir, "h-2-dead"))
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	if _, err := dead.WriteString("{}"); err != nil {
		t.Fatal(err)
	}
	if free, err := tryShared(dead); !free || err != nil { // as another peer does
		t.Fatal(free, err)
	}
	members, err := g.Members()
	if err != nil || len(members) != 1 || members[0].Alive {
		t.Errorf("got %+v, %v; want one, dead", members, err)
	}
}

// Who stops in good order says so, and is told from who died.
func TestRetired(t *testing.T) {
	run := filepath.Join(t.TempDir(), "run")
	peer, err := Open(run, "", "h-1-stopping", "containment")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	g, err := Open(run, "", "h-2-own", "containment")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	life, err := peer.Join()
	if err != nil {
		t.Fatal(err)
	}
	look := func() Member {
		t.Helper()
		members, err := g.Members()
		if err != nil || len(members) != 1 {
			t.Fatalf("members %+v, %v", members, err)
		}
		return members[0]
	}
	if m := look(); m.Left || !m.Alive {
		t.Errorf("at work: %+v", m)
	}
	if err := life.Retire(); err != nil {
		t.Fatal(err)
	}
	if m := look(); !m.Left || !m.Alive || m.Replica != "h-1-stopping" || m.Role != "containment" {
		t.Errorf("about to stop: %+v", m)
	}
	if err := life.file.Close(); err != nil {
		t.Fatal(err)
	}
	if m := look(); !m.Left || m.Alive {
		t.Errorf("stopped: %+v", m)
	}
}

// A life file that a power cut has left empty is that of a dead one, known by its name. It
// must not hide the others.
func TestLifeFileWithoutWords(t *testing.T) {
	run := filepath.Join(t.TempDir(), "run")
	g, err := Open(run, "", "h-1-looking", "containment")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := os.WriteFile(filepath.Join(run, lifeDir, "h-2-dead"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(run, lifeDir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	members, err := g.Members()
	if err != nil || len(members) != 1 || members[0].Alive || members[0].Replica != "h-2-dead" {
		t.Errorf("got %+v, %v; want one, dead", members, err)
	}
	if err := g.Forget("h-2-dead"); err != nil {
		t.Error(err)
	}
	locked, err := os.Create(filepath.Join(run, lifeDir, "h-3-alive"))
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Close()
	if ok, err := tryLock(locked); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if members, err := g.Members(); err == nil {
		t.Errorf("one that lives, and nobody knows who it is: %+v", members)
	}
}
