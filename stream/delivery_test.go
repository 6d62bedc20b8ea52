package stream_test

import (
	"errors"
	"strings"
	"testing"

	"riposte/stream"
)

// Under which ID the ledger knows a delivery.
func TestDeliveryAlert(t *testing.T) {
	t.Parallel()
	const anonymous, named = `{"level":"HIGH","actionable_pid":7}`, `{"id":"a","level":"HIGH","actionable_pid":7}`
	d := decode(t, anonymous).Digest()
	for _, c := range []struct{ raw, given, want string }{
		{named, "", "a"}, {named, "b", "a"}, {anonymous, "b", "b"},
		{anonymous, "", string(decode(t, anonymous).ID)},
		{named, "a~" + d, "a~" + d}, {anonymous, "b~" + d, "b~" + d},
		// Nobody names the entry of another alert.
		{named, "b~" + d, "a"}, {named, "a~0123456789abcdef", "a"}, {named, "entry~1-1", "a"},
	} {
		_, id, err := stream.Delivery{StreamID: "1-1", Raw: []byte(c.raw), GivenID: c.given}.Alert()
		if err != nil || string(id) != c.want {
			t.Errorf("%s with id %q: %q, %v; want %q", c.raw, c.given, id, err, c.want)
		}
	}
	for _, delivery := range []stream.Delivery{
		{}, {Raw: []byte("x")}, {Raw: []byte(named), Problem: "no"}, {Raw: []byte(anonymous), GivenID: "a b"},
		{Raw: []byte(anonymous), GivenID: "b~0123456789abcdef"}, {Raw: []byte(anonymous), GivenID: "~" + d}, {Raw: []byte(anonymous), GivenID: "a b~" + d},
	} {
		if _, id, err := delivery.Alert(); !errors.Is(err, stream.ErrMalformed) {
			t.Errorf("%+v: %q, %v", delivery, id, err)
		}
	}
}

func TestDeliveryDeadLetter(t *testing.T) {
	t.Parallel()
	whole := stream.Delivery{Raw: []byte("x"), Length: 1, SHA256: "?"}.DeadLetter("why")
	if whole.Length != 1 || len(whole.SHA256) != 64 || whole.Reason != "why" || string(whole.Raw) != "x" {
		t.Errorf("%+v", whole)
	}
	cut := stream.Delivery{Raw: []byte(strings.Repeat("x", stream.MaxDeadBytes)), Problem: "p", Length: 1 << 21, SHA256: "whole"}.DeadLetter("why")
	if cut.Length != 1<<21 || cut.SHA256 != "whole" || len(cut.Raw) != stream.MaxDeadBytes {
		t.Errorf("%d, %s, %d", cut.Length, cut.SHA256, len(cut.Raw))
	}
}
