package guard

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"riposte/playbook/action"
	"riposte/stream/proc"
)

// services are the executables of what a host is reached and run by, where root runs
// them. A trailing * stands for any ending. A name that is a link does not count but what
// it links to: k3s goes by containerd and k3s-server, dropbear may be dropbearmulti.
var services = []string{
	"sshd", "sshd-session", "sshd-auth", "dropbear", "dropbearmulti",
	"dockerd", "containerd", "containerd-shim*", "runc", "crun", "crio", "conmon", "conmonrs", "podman", "lxd", "incusd",
	"kubelet", "kubelite", "k3s", "k0s", "rke2",
	"systemd", "systemd-journald", "systemd-logind", "systemd-udevd",
}

// servers are the executables of the Redis server, which runs as a user of its own.
// Debian's redis-server is a link to redis-check-rdb.
var servers = []string{"redis-server", "redis-check-rdb", "valkey-server", "valkey-check-rdb"}

// service refuses a process that runs the executable of a service.
func service(st proc.Stat) error {
	what, err := role(st)
	if err != nil {
		return action.Refuse("the executable of PID %d cannot be read: %v", st.PID, err)
	}
	if what != "" {
		return action.Refuse("PID %d is %s", st.PID, what)
	}
	return nil
}

// role says which service a process is, if it is one. The name is looked at first, and
// then whose the process is, for some file systems are a user's own program: it answers
// for the file what he likes, or never, or not to root.
func role(st proc.Stat) (string, error) {
	exe, err := openExe(st)
	if err != nil {
		return "", err
	}
	defer unix.Close(exe.fd)
	name, err := exe.name()
	if err != nil {
		return "", err
	}
	var what string
	var genuine func() (bool, error)
	switch {
	case oneOf(servers, name):
		what, genuine = "the Redis server", exe.rootMounted
	case oneOf(services, name):
		what, genuine = "a service of this host", func() (bool, error) { return rootRuns(st) }
	default:
		return "", nil
	}
	for _, test := range []func() (bool, error){genuine, exe.rootOnly} {
		if passed, err := test(); err != nil || !passed {
			return "", err
		}
	}
	return fmt.Sprintf("%s (%s)", what, name), nil
}

func oneOf(list []string, name string) bool {
	for _, s := range list {
		prefix, any := strings.CutSuffix(s, "*")
		if name == s || any && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func rootRuns(st proc.Stat) (bool, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", st.PID))
	if err != nil {
		return false, err
	}
	uid, err := parseUID(status)
	return uid == 0, err
}

// executable is what a process runs. All that is asked of the file is asked of one open
// descriptor, so that it belongs together.
type executable struct {
	fd   int
	task string // the folder in /proc of a thread that runs it
}

// openExe opens the executable, deleted or not, without any right to read it. A process
// whose first thread has exited looks like a zombie and shows no executable of its own;
// its other threads still do.
func openExe(st proc.Stat) (executable, error) {
	self := fmt.Sprintf("/proc/%d", st.PID)
	tasks := []string{self}
	if st.Zombie() {
		threads, err := os.ReadDir(self + "/task")
		if err != nil {
			return executable{}, err
		}
		for _, thread := range threads {
			tasks = append(tasks, self+"/task/"+thread.Name())
		}
	}
	var errs error
	for _, task := range tasks {
		fd, err := unix.Open(task+"/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err == nil {
			return executable{fd, task}, nil
		}
		errs = errors.Join(errs, fmt.Errorf("%s/exe: %w", task, err))
	}
	return executable{}, errs
}

// name is the base name. It is empty where the path is longer than the kernel shows, as
// anybody can make one and no service has.
func (e executable) name() (string, error) {
	target, err := e.path()
	if target == "" {
		return "", err
	}
	return path.Base(target), err
}

// path is what the kernel shows, without the word that it was deleted. It is empty where it is
// too long to be shown.
func (e executable) path() (string, error) {
	target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(e.fd))
	if errors.Is(err, unix.ENAMETOOLONG) {
		return "", nil
	}
	return strings.TrimSuffix(target, " (deleted)"), err
}

// rootOnly says that the file is root's and writable by root alone.
func (e executable) rootOnly() (bool, error) {
	var file unix.Stat_t
	if err := unix.Fstat(e.fd, &file); err != nil {
		return false, err
	}
	const othersWrite = 0o022
	return file.Uid == 0 && file.Mode&othersWrite == 0, nil
}

// rootMounted says that the file has its name from a file system that root mounted. Anyone
// is root in a user namespace of his own, where he may bind /usr/bin/perl to any name, and
// run it from outside, too, through /proc/PID/root. So the process must be in this
// process's user namespace and the file on a mount of that process's own mount namespace,
// which then is root's work; containers have one each. The same goes for a FUSE mount that
// is not root's.
func (e executable) rootMounted() (bool, error) {
	var own, its unix.Stat_t
	if err := errors.Join(unix.Stat("/proc/self/ns/user", &own), unix.Stat(e.task+"/ns/user", &its)); err != nil {
		return false, fmt.Errorf("user namespace: %w", err)
	}
	if own.Dev != its.Dev || own.Ino != its.Ino {
		return false, nil
	}
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(e.fd))
	if err != nil {
		return false, err
	}
	mounts, err := os.ReadFile(e.task + "/mountinfo")
	if err != nil {
		return false, err
	}
	return parseMounted(info, mounts)
}
