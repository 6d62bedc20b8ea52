package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"riposte/stream"
)

// app is what all commands share: where they read and write, and the flags of the root.
type app struct {
	in   io.Reader
	out  io.Writer // data
	errw io.Writer // progress, logs, errors
	env  func(string) (string, bool)
	log  *slog.Logger // set before a command runs

	redis     stream.Options
	hostFlag  string
	logLevel  string
	logFormat string
	output    string // table or json, of commands with an outputFlag

	reload atomic.Pointer[func()] // what a running command does on SIGHUP; nil: it ends
}

// Exit codes.
const (
	exitFine    = 0
	exitFailure = 1 // or findings
	exitUsage   = 2
)

// commands lists the subcommands. Each has its own file.
func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		newResponderCmd(a),
		newDemoCmd(a),
		newSensorCmd(a),
		newSimulateCmd(a),
		newDecoyCmd(a),
		newIdleCmd(a),
		newPublishCmd(a),
		newBridgeCmd(a),
		newStatusCmd(a),
		newLedgerCmd(a),
		newDeadCmd(a),
		newPauseCmd(a),
		newResumeCmd(a),
		newBreakerCmd(a),
		newApproveCmd(a),
		newDenyCmd(a),
		newUndoCmd(a),
		newExplainCmd(a),
		newPlaybooksCmd(a),
		newSchemaCmd(a),
		newCheckCmd(a),
		newActionsCmd(a),
		newVersionCmd(a),
	}
}

func newRootCmd(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "riposte",
		Short: "Turn a high-severity alert into a finished containment, once",
		Long: `Riposte is the response half of an EDR: responders claim alerts from a Redis Stream,
stop the process or block the address, and record in a ledger what they did.

Every flag can also be given as an environment variable: RIPOSTE_ and the name of the
flag in upper case with underscores, such as RIPOSTE_REDIS_PASSWORD_FILE. A flag on the
command line wins. Exit codes: 0 fine, 1 failure or findings, 2 wrong usage.`,
		Example: `  riposte demo
  riposte status
  riposte responder --host web-1 --mode observe`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd.Flags(), a.env); err != nil {
				return err
			}
			a.log = newLogger(a.errw, a.logLevel, a.logFormat)
			return a.redis.Validate()
		},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.redis.URL, "redis", "redis://127.0.0.1:6379", "`URL` of Redis: redis://, rediss:// or unix://")
	flags.StringVar(&a.redis.PasswordFile, "redis-password-file", "", "`file` with the password of Redis")
	flags.StringVar(&a.hostFlag, "host", "", "`name` of the host alerts are about (default: the hostname)")
	flags.Var(newChoice(&a.logLevel, "info", "debug", "warn", "error"), "log-level", "least level that is logged")
	flags.Var(newChoice(&a.logFormat, "text", "json"), "log-format", "how logs are written, on stderr")
	root.AddCommand(a.commands()...)
	root.SetHelpCommand(newHelpCmd())
	return root
}

// run executes the command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := newRootCmd(a)
	root.SetArgs(append([]string{}, args...)) // cobra takes nil for os.Args
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.errw)
	started := false
	root.InitDefaultCompletionCmd()
	prepare(root, func() { started = true })

	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitFine
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(a.errw, "riposte:", plain(strings.TrimSuffix(line, "\n")))
	}
	// What fails before the command has started is the command line's fault.
	if misuse := new(usageError); !started || errors.As(err, &misuse) {
		fmt.Fprintf(a.errw, "See %s --help\n", strings.TrimSuffix(cmd.CommandPath(), " help"))
		return exitUsage
	}
	return exitFailure
}

// prepare has every command report its start, and those that only group others ask for
// one of them.
func prepare(cmd *cobra.Command, started func()) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if check(cmd, args) == nil {
				return nil
			}
			if len(args) == 0 {
				return fmt.Errorf("an argument is missing; want %s", cmd.UseLine())
			}
			return fmt.Errorf("wrong number of arguments, %q; want %s", args, cmd.UseLine())
		}
	}
	if work := cmd.RunE; work != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			started()
			return work(cmd, args)
		}
	} else if cmd.HasSubCommands() {
		cmd.Use += " COMMAND"
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = askForCommand
	}
	for _, child := range cmd.Commands() {
		prepare(child, started)
	}
}

func askForCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		cmd.SetOut(cmd.ErrOrStderr())
		_ = cmd.Help()
		return errors.New("a command is missing")
	}
	return unknownCommand(cmd, args[0])
}

// unknownCommand names the commands that are nearest to a wrong one, or all there are.
func unknownCommand(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = 2 // letters that may differ
	if like := cmd.SuggestionsFor(name); len(like) > 0 {
		return fmt.Errorf("unknown command %q for %s; did you mean %s?", name, cmd.CommandPath(), strings.Join(like, " or "))
	}
	var names []string
	for _, child := range cmd.Commands() {
		if child.IsAvailableCommand() {
			names = append(names, child.Name())
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("unknown command %q: %s has none below it", name, cmd.CommandPath())
	}
	return fmt.Errorf("unknown command %q for %s; there are %s", name, cmd.CommandPath(), strings.Join(names, ", "))
}

// newHelpCmd is cobra's own, but for a command that does not exist.
func newHelpCmd() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]...", Short: "Show the help of a command",
		Example: `  riposte help ledger audit`,
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			switch {
			case err != nil:
				return err
			case len(rest) > 0:
				return unknownCommand(about, rest[0])
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// usageError is a mistake in the command line that only the command itself can see.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

// open connects to Redis and makes sure that it answers. The caller closes the client.
func (a *app) open(ctx context.Context) (*redis.Client, error) {
	rdb, err := stream.Open(a.redis)
	if err != nil {
		return nil, err
	}
	if err := stream.Ping(ctx, rdb); err != nil {
		_ = rdb.Close()
		return nil, err
	}
	return rdb, nil
}

// host is the host this process works for: --host, or the hostname.
func (a *app) host() (stream.Host, error) {
	name := a.hostFlag
	if name == "" {
		var err error
		if name, err = os.Hostname(); err != nil {
			return "", fmt.Errorf("no hostname: %w; name the host with --host", err)
		}
	}
	host, err := stream.ParseHost(name)
	if err != nil {
		return "", &usageError{err.Error() + "; name the host with --host"}
	}
	return host, nil
}
