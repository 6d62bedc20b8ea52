package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"riposte/stream"
)

func newPublishCmd(a *app) *cobra.Command {
	var forward bool
	cmd := &cobra.Command{
		Use:   "publish [FILE|-]...",
		Short: "Add alerts from files or stdin to the stream",
		Long: `Publish adds alerts to the stream of the host and prints their IDs. It reads JSON: one
document, one a line (NDJSON), or an array. What is no alert is reported with its file and
line, the rest is published all the same, and the exit code is 1.

Publishing an alert again is harmless: the same alert has the same ID and is acted upon
once. Only an alert with neither id nor timestamp is a new one each time.

If Redis loses what it has just acknowledged, in a failover say, publish adds it again, for
as long as it runs: with stdin kept open by a detector, not after the end of a file. So
after a failover publish the last files again, or use a sensor or a bridge, which watch on.`,
		Example: `  riposte publish --host web-1 alerts.ndjson
  echo '{"level":"HIGH","title":"test","actionable_pid":4711}' | riposte publish`,
		RunE: func(cmd *cobra.Command, files []string) error {
			host, err := a.host()
			if err != nil {
				return err
			}
			rdb, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer rdb.Close()
			pub, stop, err := a.publisher(cmd.Context(), rdb, host, forward)
			if err != nil {
				return err
			}
			defer stop()
			if len(files) == 0 {
				files = []string{"-"}
			}
			p := publishing{app: a, pub: pub, results: []publishResult{}}
			return errors.Join(p.all(cmd.Context(), files), p.finish())
		},
	}
	cmd.Flags().BoolVar(&forward, "forward", false, "send an alert that names another host to that host's stream")
	a.outputFlag(cmd)
	return cmd
}

// publisher makes a publisher and has it watch, until stop, whether Redis loses what it has
// acknowledged.
func (a *app) publisher(ctx context.Context, rdb redis.UniversalClient, host stream.Host, forward bool) (_ *stream.Publisher, stop func(), err error) {
	pub, err := stream.NewPublisher(rdb, stream.PublisherConfig{Host: host, Forward: forward, Log: a.log})
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { pub.Watch(ctx) })
	return pub, func() { cancel(); watching.Wait() }, nil
}

type publishResult struct {
	ID    stream.AlertID `json:"id,omitempty"`
	File  string         `json:"file"`
	Line  int            `json:"line"`
	Error string         `json:"error,omitempty"`
}

// publishing is one run of the command.
type publishing struct {
	*app
	pub     *stream.Publisher
	results []publishResult // kept for JSON; a table is printed as it grows
	done    int
	failed  int
}

// all publishes files. It goes on after an unfit document or file, and ends where Redis
// takes no more.
func (p *publishing) all(ctx context.Context, files []string) error {
	for _, name := range files {
		if err := p.file(ctx, name); err != nil {
			return fmt.Errorf("%w; %d alerts were published, and may safely be published again with the rest", err, p.done)
		}
	}
	switch {
	case p.failed > 0:
		return fmt.Errorf("%d not published, %d published", p.failed, p.done)
	case p.done == 0:
		return errors.New("nothing to publish: the input holds no JSON document")
	}
	return nil
}

func (p *publishing) file(ctx context.Context, name string) error {
	r := p.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			p.failed++
			fmt.Fprintln(p.errw, "riposte:", err)
			return nil
		}
		defer f.Close()
		r = f
	}
	return p.documents(ctx, name, r)
}

func (p *publishing) documents(ctx context.Context, name string, r io.Reader) error {
	for doc := range stream.Documents(r) {
		var id stream.AlertID
		err := doc.Err
		if err == nil {
			id, err = p.pub.PublishRaw(ctx, doc.Raw)
		}
		result := publishResult{ID: id, File: name, Line: doc.Line}
		switch {
		case err == nil:
			p.done++
		case doc.Err != nil, errors.Is(err, stream.ErrMalformed), errors.Is(err, stream.ErrOtherHost):
			p.failed++
			result.Error = err.Error()
		default:
			return fmt.Errorf("%s:%d: %w", name, doc.Line, err)
		}
		p.report(result)
	}
	return nil
}

func (p *publishing) report(r publishResult) {
	if r.Error != "" {
		fmt.Fprintf(p.errw, "%s:%d: %s\n", plain(r.File), r.Line, plain(r.Error))
	}
	switch {
	case p.output == "json":
		p.results = append(p.results, r)
	case r.Error == "":
		if p.done == 1 {
			fmt.Fprintf(p.out, "%-36s  FROM\n", "ID")
		}
		fmt.Fprintf(p.out, "%-36s  %s:%d\n", r.ID, plain(r.File), r.Line)
	}
}

func (p *publishing) finish() error {
	if p.output == "json" {
		return p.json(p.results)
	}
	return nil
}
