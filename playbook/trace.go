package playbook

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"riposte/ledger"
	"riposte/playbook/judge"
)

// Trace leaves each effect's begin and end in a file outside Redis, where an independent
// judge can read them: one O_APPEND line an event. See package judge.
// A nil Trace writes nothing.
type Trace struct{ file *os.File }

// OpenTrace appends to a file.
func OpenTrace(path string) (*Trace, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	return &Trace{f}, nil
}

func (t *Trace) write(event, key string, token ledger.Token, replica, action, outcome string) error {
	if t == nil {
		return nil
	}
	raw, err := json.Marshal(judge.Event{
		TimeUS: time.Now().UnixMicro(), Event: event, Key: key, Token: judge.Token(token),
		Replica: replica, Action: action, Outcome: outcome,
	})
	if err != nil {
		return err
	}
	if _, err := t.file.Write(append(raw, '\n')); err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	return nil
}

// Close closes the file.
func (t *Trace) Close() error {
	if t == nil {
		return nil
	}
	return t.file.Close()
}
