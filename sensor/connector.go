package sensor

import (
	"encoding/binary"
	"errors"
)

// The messages of the proc connector, from include/uapi/linux/cn_proc.h and connector.h:
// a netlink header, a connector header, an event. All numbers are in the byte order of the
// machine.
const (
	netlinkHeader   = 16 // length u32, type u16, flags u16, sequence u32, port u32
	connectorHeader = 20 // id {idx u32, val u32}, sequence u32, ack u32, length u16, flags u16
	eventHeader     = 16 // what u32, cpu u32, timestamp u64

	connectorProc = 1 // CN_IDX_PROC, and CN_VAL_PROC as well
)

// procEventKind is the field what of struct proc_event.
type procEventKind uint32

const (
	procNone procEventKind = 0 // the acknowledgement of a request
	procFork procEventKind = 0x00000001
	procExec procEventKind = 0x00000002
	procExit procEventKind = 0x80000000
)

// procEvent is one event. Threads have PIDs of their own (pid); a process is known by that
// of its first thread (tgid).
type procEvent struct {
	kind        procEventKind
	answers     uint32 // with procNone: the cookie of the request it answers
	errno       uint32 // with procNone
	nanoseconds uint64 // since boot, without sleep: CLOCK_MONOTONIC
	pid, tgid   int    // with procFork: of the child
	parentTGID  int    // with procFork
}

var errBadMessage = errors.New("message of the proc connector that makes no sense")

// parseProcEvents calls yield for each event in a datagram, leaving out the kinds that
// have no constant above. It keeps nothing of b.
func parseProcEvents(b []byte, yield func(procEvent)) error {
	for len(b) > 0 {
		if len(b) < netlinkHeader {
			return errBadMessage
		}
		length := int(binary.NativeEndian.Uint32(b))
		if length < netlinkHeader || length > len(b) {
			return errBadMessage
		}
		if e, ok := parseProcEvent(b[netlinkHeader:length]); ok {
			yield(e)
		}
		aligned := (length + 3) &^ 3 // NLMSG_ALIGN
		b = b[min(aligned, len(b)):]
	}
	return nil
}

// parseProcEvent parses a connector message. ok is false where it is none of ours.
func parseProcEvent(b []byte) (e procEvent, ok bool) {
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	if len(b) < connectorHeader+eventHeader || u32(0) != connectorProc || u32(4) != connectorProc {
		return e, false
	}
	e.answers = u32(12) - 1 // the sequence number is the kernel's own
	b = b[connectorHeader:]
	e.kind = procEventKind(u32(0))
	e.nanoseconds = binary.NativeEndian.Uint64(b[8:])
	b = b[eventHeader:]
	switch {
	case e.kind == procNone && len(b) >= 4:
		e.errno = u32(0)
	case e.kind == procFork && len(b) >= 16: // parent pid, parent tgid, child pid, child tgid
		e.parentTGID, e.pid, e.tgid = int(u32(4)), int(u32(8)), int(u32(12))
	case (e.kind == procExec || e.kind == procExit) && len(b) >= 8: // pid, tgid
		e.pid, e.tgid = int(u32(0)), int(u32(4))
	default:
		return e, false
	}
	return e, true
}

// appendRequest is the message that subscribes to the events, or ends the subscription.
// The answer carries the cookie.
func appendRequest(b []byte, listen bool, cookie uint32) []byte {
	const (
		length      = netlinkHeader + connectorHeader + 4
		typeDone    = 3 // NLMSG_DONE
		mcastListen = 1 // PROC_CN_MCAST_LISTEN
		mcastIgnore = 2 // PROC_CN_MCAST_IGNORE
	)
	request := uint32(mcastIgnore)
	if listen {
		request = mcastListen
	}
	ne := binary.NativeEndian
	b = ne.AppendUint32(b, length)
	b = ne.AppendUint16(b, typeDone)
	b = ne.AppendUint16(b, 0) // flags
	b = ne.AppendUint32(b, 0) // sequence
	b = ne.AppendUint32(b, 0) // port: the kernel fills it in
	b = ne.AppendUint32(b, connectorProc)
	b = ne.AppendUint32(b, connectorProc)
	b = ne.AppendUint32(b, 0)      // sequence
	b = ne.AppendUint32(b, cookie) // ack: the answer has one more
	b = ne.AppendUint16(b, 4)      // length of what follows
	b = ne.AppendUint16(b, 0)      // flags
	return ne.AppendUint32(b, request)
}
