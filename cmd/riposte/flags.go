package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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

// newChoice makes a choice that stores into value; the first word is the default.
func newChoice(value *string, allowed ...string) *choice {
	*value = allowed[0]
	return &choice{value, allowed}
}

func (c *choice) String() string {
	if c.value == nil { // pflag asks a zero value for the zero default
		return ""
	}
	return *c.value
}

func (c *choice) Set(s string) error {
	if !slices.Contains(c.allowed, s) {
		return fmt.Errorf("want one of %s", strings.Join(c.allowed, ", "))
	}
	*c.value = s
	return nil
}

func (c *choice) Type() string { return strings.Join(c.allowed, "|") }

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
