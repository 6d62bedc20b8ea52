package sensor

// bounded is a map that holds a fixed number of entries at most and forgets the one that
// was first put in first. A sensor runs for months: nothing it remembers may grow.
type bounded[K comparable, V any] struct {
	entries map[K]V
	order   []K // in the order of arrival, a ring once it is full
	oldest  int // index in order, once it is full
	max     int
}

func newBounded[K comparable, V any](max int) *bounded[K, V] {
	return &bounded[K, V]{entries: make(map[K]V), max: max}
}

func (b *bounded[K, V]) get(key K) (V, bool) {
	v, ok := b.entries[key]
	return v, ok
}

// put adds an entry, or replaces the one under the key, which keeps its age.
func (b *bounded[K, V]) put(key K, value V) {
	if _, ok := b.entries[key]; !ok {
		if len(b.order) < b.max {
			b.order = append(b.order, key)
		} else {
			delete(b.entries, b.order[b.oldest])
			b.order[b.oldest] = key
			b.oldest = (b.oldest + 1) % b.max
		}
	}
	b.entries[key] = value
}
