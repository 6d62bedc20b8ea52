package sensor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"riposte/stream/proc"
)

const (
	// receiveBuffer holds some 10,000 events: what a busy machine does in the time in
	// which all processes are looked at.
	receiveBuffer = 16 << 20
	// acknowledgeTimeout bounds the wait for an answer that comes within microseconds.
	acknowledgeTimeout = time.Second
	// patience is how long a read waits, and with it how late the end of the context is seen.
	patience = 100 * time.Millisecond
)

// connector is a subscription to the kernel's proc connector.
type connector struct {
	socket int
	buffer []byte
	log    *slog.Logger
	lost   atomic.Uint64
}

// subscribe opens the proc connector, or says in words for the operator why it is of no
// use here.
func subscribe(log *slog.Logger) (source, error) {
	switch ns, err := proc.Namespace(); {
	case err != nil:
		return nil, err
	case ns != proc.InitialPIDNamespace:
		return nil, errors.New("this is a child PID namespace, the proc connector would deliver host PIDs")
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, fmt.Errorf("this kernel has no proc connector: %w", err)
	}
	c := &connector{socket: fd, buffer: make([]byte, 64<<10), log: log}
	if err := c.open(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return c, nil
}

func (c *connector) open() error {
	// More than net.core.rmem_max takes CAP_NET_ADMIN.
	if unix.SetsockoptInt(c.socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(c.socket, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // a smaller one loses more, and counts it
	}
	cookie := rand.Uint32()
	err := unix.Bind(c.socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: connectorProc})
	if err == nil {
		err = c.request(true, cookie)
	}
	switch {
	case errors.Is(err, unix.EPERM):
		return errPrivilege
	case err != nil:
		return fmt.Errorf("the proc connector does not answer in this network namespace: %w", err)
	}
	return c.acknowledged(cookie)
}

var errPrivilege = errors.New("the proc connector takes root or CAP_NET_ADMIN on this kernel")

func (c *connector) request(listen bool, cookie uint32) error {
	return unix.Sendto(c.socket, appendRequest(nil, listen, cookie), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// acknowledged waits for the answer to our own request: the kernel sends the answers to
// everybody's requests to everybody, and none where it ignores one.
func (c *connector) acknowledged(cookie uint32) error {
	for deadline := time.Now().Add(acknowledgeTimeout); ; {
		n, err := c.receive(time.Until(deadline))
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return errors.New("the proc connector did not acknowledge the subscription")
		}
		answered, errno := false, unix.Errno(0)
		_ = parseProcEvents(c.buffer[:n], func(e procEvent) {
			if e.kind == procNone && e.answers == cookie {
				answered, errno = true, unix.Errno(e.errno)
			}
		})
		switch {
		case answered && errno == unix.EPERM:
			return errPrivilege
		case answered && errno != 0:
			return fmt.Errorf("the proc connector refused the subscription: %w", errno)
		case answered:
			return nil
		}
	}
}

func (c *connector) overruns() uint64 { return c.lost.Load() }

// run is the life of the source. After an overrun the kernel sends nothing more until the
// socket is empty, so it is emptied first and the processes are looked at then.
func (c *connector) run(ctx context.Context, ready func(), handle func(event)) error {
	defer c.close()
	defer hurry()()
	if err := scan(ctx, handle); err != nil {
		return err
	}
	ready()
	overrun, warned := false, time.Time{}
	for ctx.Err() == nil {
		wait := patience
		if overrun {
			wait = 0
		}
		n, err := c.receive(wait)
		switch {
		case err == nil:
			if err := c.dispatch(c.buffer[:n], handle); err != nil {
				c.log.Warn("message of the kernel left out", "err", err, "bytes", n)
			}
		case errors.Is(err, unix.ENOBUFS):
			c.lost.Add(1)
			overrun = true
			if time.Since(warned) > summaryEvery {
				warned = time.Now()
				c.log.Warn("more processes start than can be watched; looking at all of them", "overruns", c.lost.Load())
			}
		case !errors.Is(err, unix.EAGAIN):
			return fmt.Errorf("read from the proc connector: %w", err)
		case overrun:
			overrun = false
			handle(event{kind: lost})
			if err := scan(ctx, handle); err != nil {
				return err
			}
		}
	}
	return nil
}

// receive reads one datagram from the kernel, and returns EAGAIN where none comes in time.
//
// It waits in a system call of its own rather than in Go's poller: measured on a busy
// machine, the detour over another thread costs a process of 5 ms in fifty.
func (c *connector) receive(wait time.Duration) (int, error) {
	for waited := false; ; {
		n, from, err := unix.Recvfrom(c.socket, c.buffer, 0)
		sender, ok := from.(*unix.SockaddrNetlink)
		switch {
		case err == nil && ok && sender.Pid == 0:
			return n, nil
		case err == nil, err == unix.EINTR: // not from the kernel, or disturbed
		case err == unix.EAGAIN && !waited && wait > 0:
			waited = true
			socket := []unix.PollFd{{Fd: int32(c.socket), Events: unix.POLLIN}}
			if _, err := unix.Poll(socket, int(wait.Milliseconds())); err == unix.EINTR {
				waited = false
			}
		default:
			return 0, err
		}
	}
}

func (c *connector) dispatch(datagram []byte, handle func(event)) error {
	return parseProcEvents(datagram, func(e procEvent) {
		switch {
		case e.kind == procFork && e.pid == e.tgid: // else a thread
			handle(event{kind: forked, pid: e.tgid, parent: e.parentTGID, at: wallClock(e.nanoseconds)})
		case e.kind == procExec:
			handle(event{kind: execed, pid: e.tgid, at: wallClock(e.nanoseconds)})
		case e.kind == procExit && e.pid == e.tgid:
			handle(event{kind: exited, pid: e.tgid})
		}
	})
}

// close ends the subscription: kernels before 6.6 count the listeners and do not notice
// when one goes away.
func (c *connector) close() {
	_ = c.request(false, 0)
	unix.Close(c.socket)
}

// wallClock is the time of day of a moment of CLOCK_MONOTONIC.
func wallClock(nanoseconds uint64) time.Time {
	var monotonic unix.Timespec
	now := time.Now()
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic) != nil {
		return now
	}
	return now.Add(time.Duration(int64(nanoseconds) - monotonic.Nano()))
}
