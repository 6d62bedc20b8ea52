package sensor

import "testing"

func TestBoundedForgetsTheOldest(t *testing.T) {
	b := newBounded[int, string](3)
	for i, v := range []string{"a", "b", "c"} {
		b.put(i, v)
	}
	b.put(0, "A") // replaced, and still the oldest
	for i := 3; i < 100; i++ {
		b.put(i, "x")
		if _, ok := b.get(i - 3); ok || len(b.entries) != 3 || len(b.order) != 3 {
			t.Fatalf("after %d: %v", i, b.entries)
		}
		if _, ok := b.get(i - 2); !ok {
			t.Fatalf("after %d: %d is gone", i, i-2)
		}
	}
}
