package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"riposte/playbook/action"
	"riposte/stream/strict"
)

// fromEnvironment sets the flags that were not given from RIPOSTE_ variables. An empty
// variable counts as none.
func fromEnvironment(flags *pflag.FlagSet, env func(string) (string, bool)) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := variable(f.Name)
		value, ok := env(name)
		if f.Changed || !ok || value == "" || f.Name == "help" {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
		}
	})
	return errors.Join(errs...)
}

// variable is the name under which the environment holds a flag.
func variable(flag string) string {
	return "RIPOSTE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// choice is a flag that takes one of a few words. It is a pflag.Value.
type choice struct {
	value   *string
	allowed []string
}

// newChoice makes a choice that stores into value; the first word is the default, and one
// that is empty stands for none.
func newChoice(value *string, allowed ...string) *choice {
	*value = allowed[0]
	return &choice{value, allowed}
}

// words are those that a person may choose from.
func (c *choice) words(separator string) string {
	return strings.TrimPrefix(strings.Join(c.allowed, separator), separator)
}

func (c *choice) String() string {
	if c.value == nil { // pflag asks a zero value for the zero default
		return ""
	}
	return *c.value
}

func (c *choice) Set(s string) error {
	if !slices.Contains(c.allowed, s) {
		return fmt.Errorf("want one of %s", c.words(", "))
	}
	*c.value = s
	return nil
}

func (c *choice) Type() string { return c.words("|") }

// bounded is a flag that takes a number or a time within limits. It is a pflag.Value. A zero
// is a value like any other: only a flag that is not given takes its default.
type bounded[T cmp.Ordered] struct {
	value *T
	word  string // for the type, in a help text
	limit string // in words, for an error
	fits  func(T) bool
	parse func(string) (T, error)
	text  func(T) string
}

// newCount makes a flag that takes a number from least to most; 0 for most means no limit.
func newCount(value *int, fallback, least, most int) *bounded[int] {
	*value = fallback
	b := &bounded[int]{value: value, word: "int", parse: strconv.Atoi, text: strconv.Itoa}
	b.within(least, most)
	return b
}

// newSpan makes a flag that takes a time from least to most; 0 for most means no limit.
func newSpan(value *time.Duration, fallback, least, most time.Duration) *bounded[time.Duration] {
	*value = fallback
	b := &bounded[time.Duration]{value: value, word: "duration", parse: time.ParseDuration}
	b.text = func(d time.Duration) string {
		if d == 0 {
			return "0" // which help texts leave out
		}
		return action.Duration(d).String()
	}
	b.within(least, most)
	return b
}

func (b *bounded[T]) within(least, most T) {
	var none T
	b.fits = func(v T) bool { return v >= least && (most == none || v <= most) }
	b.limit = "want " + b.text(least) + " to " + b.text(most)
	if most == none {
		b.limit = "want " + b.text(least) + " or more"
	}
}

func (b *bounded[T]) String() string {
	if b.value == nil { // pflag asks a zero value for the zero default
		return ""
	}
	return b.text(*b.value)
}

func (b *bounded[T]) Set(s string) error {
	v, err := b.parse(s)
	switch {
	case err != nil && b.word == "duration":
		return errors.New(strict.Unitless(s, b.limit))
	case err != nil || !b.fits(v):
		return errors.New(b.limit)
	}
	*b.value = v
	return nil
}

func (b *bounded[T]) Type() string { return b.word }

// outputFlag gives a command -o, for table and json.
func (a *app) outputFlag(cmd *cobra.Command) {
	cmd.Flags().VarP(newChoice(&a.output, "table", "json"), "output", "o", "how to print")
}

func newLogger(w io.Writer, level, format string) *slog.Logger {
	var opt slog.HandlerOptions
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // one of the flag's choices
	opt.Level = l
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, &opt))
	}
	return slog.New(slog.NewTextHandler(w, &opt))
}
