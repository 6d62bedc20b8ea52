package main

import (
	"strings"
	"testing"
	"time"
)

// Percentiles are values that were measured, by nearest rank.
func TestPercentile(t *testing.T) {
	var hundred []float64
	for i := 100; i >= 1; i-- {
		hundred = append(hundred, float64(i))
	}
	for _, c := range []struct {
		values  []float64
		p, want float64
	}{
		{hundred, 0.5, 50}, {hundred, 0.99, 99}, {hundred, 1, 100}, {hundred, 0, 1},
		{[]float64{7}, 0.99, 7}, {[]float64{3, 1, 2}, 0.5, 2}, {nil, 0.5, 0},
	} {
		if got := percentile(c.values, c.p); got != c.want {
			t.Errorf("percentile %g of %d values: %g, want %g", c.p, len(c.values), got, c.want)
		}
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("median of an even number: %g, want 2.5", got)
	}
}

// A drain that is slow at both ends counts with what it did in between.
func TestRateBetweenTenAndNinetyPercent(t *testing.T) {
	began := time.Now()
	at := func(ms int, left int64, redis float64) sample {
		return sample{at: began.Add(time.Duration(ms) * time.Millisecond), left: left, redis: redis, workers: 2 * redis}
	}
	samples := []sample{
		at(0, 1000, 0), at(500, 950, 1), // processes start
		at(600, 900, 2), at(1000, 500, 2.04), at(1400, 100, 2.08),
		at(3000, 10, 5), at(4000, 0, 6), // stragglers
	}
	from, to := middle(samples, 1000)
	if got := rate(from, to); got < 999 || got > 1001 {
		t.Errorf("rate: %g alerts/s, want 1000", got)
	}
	redis, workers := perAlert(from, to)
	if redis < 99 || redis > 101 || workers < 199 || workers > 201 {
		t.Errorf("CPU an alert: Redis %g µs, workers %g µs, want 100 and 200", redis, workers)
	}
	// Nobody looked while it was worked off: then all of it counts.
	from, to = middle([]sample{at(0, 1000, 0), at(2000, 0, 0)}, 1000)
	if got := rate(from, to); got < 499 || got > 501 {
		t.Errorf("rate of what was seen twice: %g alerts/s, want 500", got)
	}
}

func TestNumber(t *testing.T) {
	for value, want := range map[float64]string{
		0: "0", 0.1206: "0.121", 1.5: "1.50", 18.04: "18.0", 999.6: "1,000", 1234: "1,230", 118_532: "119,000", 2_345_678: "2,350,000",
	} {
		if got := number(value); got != want {
			t.Errorf("number(%g): %s, want %s", value, got, want)
		}
	}
}

// The table holds medians, ratios and a verdict, and says by how much a goal was missed.
func TestTable(t *testing.T) {
	rate := Row{Measurement: "throughput", Setting: "2 replicas", Unit: "alerts/s"}
	for _, v := range []float64{60_000, 10, 70_000} {
		rate.add(Riposte, v)
	}
	rate.add(Asynq, 10_000)
	rate.add(Floor, 200_000)
	rate.compare(Asynq, Floor)
	rate.goals(times(Asynq, 6), times(Floor, 0.4))
	wait := Row{Measurement: "takeover", Setting: "p99", Unit: "ms"}
	wait.add(Riposte, 60)
	wait.add(Watermill, 120_000)
	wait.capped(Watermill, true)
	wait.goals(wait.atMost(50))
	wait.note(Riposte, "bound by the disk")
	var text strings.Builder
	Report{Rows: []Row{rate, wait}}.Markdown(&text)
	for _, want := range []string{
		"| throughput | 2 replicas | alerts/s | 60,000 | 10,000 |  |  | 200,000 | 6.00x asynq, 0.300x floor | >= 6x asynq: met; >= 0.4x floor: misses by 25 % |\n",
		"| takeover | p99 | ms | 60.0 |  | > 120,000 |  |  |  | <= 50 ms: misses by 20 % |\n",
		"- takeover, p99, riposte: bound by the disk\n",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the table lacks\n%s\nit is\n%s", want, text.String())
		}
	}
}
