package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
)

// measurements in the order in which they run.
var measurements = []struct {
	name string
	run  func(context.Context, *lab) ([]Row, error)
}{
	{"throughput", throughput},
	{"response", response},
	{"takeover", takeover},
	{"exec", execToDead},
	{"burst", burst},
	{"publish", publish},
	{"memory", memory},
	{"growth", growth},
}

// options are the command line.
type options struct {
	short  bool
	rounds int
	only   *regexp.Regexp
	json   string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == hidden {
		if err := act(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	var only string
	flag.BoolVar(&o.short, "short", false, "run everything once and tiny; fail on wrong results, never on timing")
	flag.IntVar(&o.rounds, "rounds", 5, "repetitions of what is cheap; what is slow gets half of it, rounded up")
	flag.StringVar(&only, "only", "", "run the measurements whose name matches this `regexp`")
	flag.StringVar(&o.json, "json", "", "write the results to `file`, too")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(only); err != nil || o.rounds < 1 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = bench(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench makes one run. What has been measured is printed also where a later one fails.
func bench(ctx context.Context, o options) (err error) {
	l, err := newLab(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	report := Report{Machine: l.machine}
	var failed error
	for _, m := range measurements {
		if !o.only.MatchString(m.name) {
			continue
		}
		l.say("== %s", m.name)
		rows, err := m.run(ctx, l)
		report.Rows = append(report.Rows, rows...)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", m.name, err))
		}
		l.stopAll()
		if ctx.Err() != nil {
			break
		}
	}
	if o.short { // its figures are of a few alerts, and nothing may be concluded from them
		for i := range report.Rows {
			report.Rows[i].Goals = nil
		}
	}
	report.Markdown(os.Stdout)
	if o.json != "" {
		raw, err := json.MarshalIndent(report, "", "  ")
		failed = errors.Join(failed, err, os.WriteFile(o.json, append(raw, '\n'), 0o644))
	}
	return failed
}
