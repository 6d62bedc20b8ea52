package gate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// line is one line of a receipt.
type line struct {
	Event string `json:"event"` // entered, begun, left, closed
	Token
	Holder
	At      time.Time `json:"at"`
	Outcome string    `json:"outcome,omitempty"`
	Reason  string    `json:"reason,omitempty"`
}

// maxReceipt bounds what is read of a receipt: more than is written in a day of attempts.
const maxReceipt = 8 << 20

func (l line) encode() []byte {
	if len(l.Reason) > 4096 {
		l.Reason = l.Reason[:4096]
	}
	raw, err := json.Marshal(l)
	if err != nil {
		panic(err) // strings, numbers and times
	}
	return append(raw, '\n')
}

// receipt is what the lines of a file add up to.
type receipt struct {
	newest Token  // that has passed
	holder Holder // who wrote last
	begun  int    // times
	closed *line
}

// readReceipt reads a receipt and says where its last whole line ends, which is where the
// next one goes.
func readReceipt(f *os.File) (receipt, int64, error) {
	raw, err := io.ReadAll(io.NewSectionReader(f, 0, maxReceipt+1))
	if err != nil {
		return receipt{}, 0, err
	}
	if len(raw) > maxReceipt {
		return receipt{}, 0, fmt.Errorf("more than %d bytes", maxReceipt)
	}
	return parseReceipt(raw)
}

func parseReceipt(raw []byte) (r receipt, size int64, err error) {
	whole := raw[:bytes.LastIndexByte(raw, '\n')+1] // a torn last line was never written
	for text := range bytes.Lines(whole) {
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return receipt{}, 0, fmt.Errorf("unreadable line %.80q: %w", text, err)
		}
		if l.Epoch > r.newest.Epoch {
			r.newest = l.Token
		}
		r.holder = l.Holder
		switch l.Event {
		case "entered", "left":
		case "begun":
			r.begun++
		case "closed":
			if r.closed == nil { // the first decision stands
				r.closed = &l
			}
		default:
			return receipt{}, 0, fmt.Errorf("line of another version: %.80q", text)
		}
	}
	return r, int64(len(whole)), nil
}
