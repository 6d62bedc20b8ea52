package sensor

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
)

// message is a netlink message of the connector with an event of these numbers.
func message(kind procEventKind, numbers ...uint32) []byte {
	ne := binary.NativeEndian
	event := ne.AppendUint32(nil, uint32(kind))
	event = ne.AppendUint32(event, 1) // cpu
	event = ne.AppendUint64(event, 123456789)
	for _, n := range numbers {
		event = ne.AppendUint32(event, n)
	}
	b := ne.AppendUint32(nil, uint32(netlinkHeader+connectorHeader+len(event)))
	b = append(b, make([]byte, netlinkHeader-4)...)
	for _, n := range []uint32{connectorProc, connectorProc, 99, 78, uint32(len(event))} {
		b = ne.AppendUint32(b, n)
	}
	return append(b, event...)
}

func TestParseProcEvents(t *testing.T) {
	foreign := message(procExec, 1, 1)
	foreign[netlinkHeader] = 5 // another connector
	var datagram []byte
	for _, m := range [][]byte{
		message(procNone, 1), message(procFork, 10, 11, 20, 21), message(procExec, 30, 31),
		message(0x200, 1, 1, 1, 1), foreign, message(procExec, 30), message(procExit, 40, 41, 0, 0, 1, 1),
	} {
		binary.NativeEndian.PutUint32(m, uint32(len(m)))
		datagram = append(datagram, m...)
	}
	var got []procEvent
	if err := parseProcEvents(datagram, func(e procEvent) { got = append(got, e) }); err != nil {
		t.Fatal(err)
	}
	const ns = 123456789
	want := []procEvent{
		{kind: procNone, answers: 77, nanoseconds: ns, errno: 1},
		{kind: procFork, answers: 77, nanoseconds: ns, parentTGID: 11, pid: 20, tgid: 21},
		{kind: procExec, answers: 77, nanoseconds: ns, pid: 30, tgid: 31},
		{kind: procExit, answers: 77, nanoseconds: ns, pid: 40, tgid: 41},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	long := message(procExec, 1, 1)
	binary.NativeEndian.PutUint32(long, uint32(len(long)+1))
	for _, bad := range [][]byte{{1}, make([]byte, netlinkHeader), long} {
		if err := parseProcEvents(bad, func(procEvent) {}); !errors.Is(err, errBadMessage) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func FuzzParseProcEvents(f *testing.F) {
	f.Add(message(procFork, 1, 2, 3, 4))
	f.Add(append(message(procExec, 1, 2), message(procExit, 1, 2, 3, 4)...))
	f.Add(appendRequest(nil, true, 7))
	f.Fuzz(func(t *testing.T, b []byte) {
		events := 0
		_ = parseProcEvents(b, func(e procEvent) {
			events++
			if !slices.Contains([]procEventKind{procNone, procFork, procExec, procExit}, e.kind) {
				t.Errorf("kind %x", e.kind)
			}
		})
		if least := netlinkHeader + connectorHeader + eventHeader; events*least > len(b) {
			t.Errorf("%d events from %d bytes", events, len(b))
		}
	})
}
