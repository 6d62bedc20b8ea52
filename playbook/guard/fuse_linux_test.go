package guard_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// userFS mounts a file system as a user can who has fusermount: a program of his own
// answers for it, and only he may use it, not even root. It has one file, "program", of which no
// read ends where it is nil: see holdMemory. See /usr/include/linux/fuse.h.
func userFS(t *testing.T, uid int, program []byte) (dir string) {
	t.Helper()
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d", dev, uid, uid)
	if err := unix.Mount("fuse", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); serveFUSE(dev, program) }()
	t.Cleanup(func() {
		unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH) // ends what is served
		<-served
		unix.Close(dev)
	})
	return dir
}

type fuseRequest struct {
	Length, Opcode   uint32
	Unique, Node     uint64
	UID, GID, PID, _ uint32
}

type fuseAttr struct {
	Inode, Size, Blocks uint64
	_                   [9]uint32 // times
	Mode, Links         uint32
	_                   [5]uint32
}

func serveFUSE(dev int, program []byte) {
	attr := func(node uint64) fuseAttr {
		if node == 1 {
			return fuseAttr{Inode: 1, Mode: unix.S_IFDIR | 0o755, Links: 2}
		}
		return fuseAttr{Inode: node, Size: uint64(max(len(program), 4096)), Mode: unix.S_IFREG | 0o755, Links: 1}
	}
	var opened, held uint64
	past := [2]uint64{1: 3} // the cache, which is kept: FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE
	reading := false
	buf := make([]byte, 1<<20)
	for {
		n, err := unix.Read(dev, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		var request fuseRequest
		size, _ := binary.Decode(buf[:n], binary.NativeEndian, &request)
		body := buf[size:n]
		var status unix.Errno
		var answer any = []byte{}
		switch request.Opcode {
		case 1: // LOOKUP
			if string(body) != "program\x00" {
				status = unix.ENOENT
				break
			}
			answer = struct {
				Node, _, Valid, AttrValid, _ uint64
				Attr                         fuseAttr
			}{Node: 2, Valid: 60, AttrValid: 60, Attr: attr(2)}
		case 3: // GETATTR
			answer = struct {
				Valid, _ uint64
				Attr     fuseAttr
			}{Valid: 60, Attr: attr(request.Node)}
		case 14, 27: // OPEN, OPENDIR
			answer = [2]uint64{}
			if opened++; program == nil && opened == 2 {
				answer = past
				if held = request.Unique; !reading {
					continue
				}
			}
		case 15: // READ
			if program == nil {
				answer = past
				if reading = true; held == 0 {
					continue
				}
				request.Unique = held
				break
			}
			at := min(binary.NativeEndian.Uint64(body[8:]), uint64(len(program)))
			answer = program[at:min(at+uint64(binary.NativeEndian.Uint32(body[16:])), uint64(len(program)))]
		case 26: // INIT
			answer = [16]uint32{7, 31, 0, 0, 0, 4096}
		case 18, 25: // RELEASE, FLUSH
		case 2, 36, 42: // FORGET, INTERRUPT, BATCH_FORGET
			continue // want no answer
		default:
			status = unix.ENOSYS
		}
		var reply bytes.Buffer
		binary.Write(&reply, binary.NativeEndian, uint32(16+binary.Size(answer)))
		binary.Write(&reply, binary.NativeEndian, -int32(status))
		binary.Write(&reply, binary.NativeEndian, request.Unique)
		binary.Write(&reply, binary.NativeEndian, answer)
		unix.Write(dev, reply.Bytes())
	}
}

const holdEnv = "RIPOSTE_TEST_HOLD"

func TestMain(m *testing.M) {
	if file := os.Getenv(holdEnv); file != "" {
		holdMemory(file)
	}
	os.Exit(m.Run())
}

// holdMemory keeps the memory of this process locked. One thread reads a file, which keeps a page of
// it locked for as long as nobody answers; another maps the file past the cache, for which the
// kernel, with this process's memory locked, waits for that page.
func holdMemory(file string) {
	open := func() int {
		fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			panic(err)
		}
		return fd
	}
	first := open()
	go unix.Read(first, make([]byte, 1))
	second := open()
	fmt.Println("ready")
	_, _ = unix.Mmap(second, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
}
