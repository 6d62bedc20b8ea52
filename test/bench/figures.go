package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// middle are the samples between which 10 % to 90 % of a backlog of n was worked off: the
// start of processes and the end of work do not count. Where nobody looked often enough for
// that, they are the first and the last.
func middle(samples []sample, n int64) (from, to sample) {
	from, to = samples[0], samples[len(samples)-1]
	i := slices.IndexFunc(samples, func(s sample) bool { return s.left <= n-n/10 })
	j := slices.IndexFunc(samples, func(s sample) bool { return s.left <= n/10 })
	if i >= 0 && j > i && samples[i].left-samples[j].left >= n/2 {
		return samples[i], samples[j]
	}
	return from, to
}

// rate is alerts per second between two samples.
func rate(from, to sample) float64 {
	return float64(from.left-to.left) / to.at.Sub(from.at).Seconds()
}

// perAlert are the microseconds of CPU an alert took between two samples.
func perAlert(from, to sample) (redis, workers float64) {
	alerts := float64(from.left - to.left)
	return (to.redis - from.redis) * 1e6 / alerts, (to.workers - from.workers) * 1e6 / alerts
}

// percentile is the p-th, 0 to 1, by nearest rank: a value that was measured.
func percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	rank := int(p*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(rank, 0), len(sorted)-1)]
}

// median is the middle value, or the mean of the two in the middle.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

func clamp(n, low, high int) int { return min(max(n, low), high) }

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// dearest names the commands that took most.
func dearest(commands map[string]float64, n int) string {
	names := slices.SortedFunc(maps.Keys(commands), func(a, b string) int { return cmp.Compare(commands[b], commands[a]) })
	var words []string
	for _, name := range names[:min(n, len(names))] {
		words = append(words, fmt.Sprintf("%s %.1f", name, commands[name]))
	}
	if words == nil {
		return ""
	}
	return " (" + strings.Join(words, ", ") + ")"
}
