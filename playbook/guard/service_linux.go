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
// them. A trailing * stands for any ending.
var services = []string{
	"sshd", "sshd-session", "sshd-auth", "dropbear",
	"dockerd", "containerd", "containerd-shim*", "runc", "crun", "crio", "conmon", "podman", "kubelet",
	"systemd", "systemd-journald", "systemd-logind", "systemd-udevd",
}

// servers are the executables of the Redis server, which runs as a user of its own.
// Debian's redis-server is a link to redis-check-rdb.
var servers = []string{"redis-server", "redis-check-rdb", "valkey-server", "valkey-check-rdb"}

// service refuses a process that runs the executable of a service. Both lists count only
// where none but root can have written the file.
func service(st proc.Stat) error {
	name, rootOnly, err := executable(st)
	if err != nil {
		return action.Refuse("the executable of PID %d cannot be read: %v", st.PID, err)
	}
	if !rootOnly {
		return nil
	}
	if oneOf(servers, name) {
		return action.Refuse("PID %d is the Redis server (%s)", st.PID, name)
	}
	if !oneOf(services, name) {
		return nil
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", st.PID))
	if err != nil {
		return action.Refuse("the user of PID %d cannot be read: %v", st.PID, err)
	}
	uid, err := parseUID(status)
	if err != nil {
		return action.Refuse("the user of PID %d cannot be read: %v", st.PID, err)
	}
	if uid == 0 {
		return action.Refuse("PID %d is a service of this host (%s)", st.PID, name)
	}
	return nil
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

// executable is the base name of what a process runs, and whether the file is root's and
// writable by root alone. Both are read of one open file, so that they belong together.
func executable(st proc.Stat) (name string, rootOnly bool, err error) {
	fd, err := openExe(st)
	if err != nil {
		return "", false, err
	}
	defer unix.Close(fd)
	var file unix.Stat_t
	if err := unix.Fstat(fd, &file); err != nil {
		return "", false, err
	}
	target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return "", false, err
	}
	const othersWrite = 0o022
	return path.Base(strings.TrimSuffix(target, " (deleted)")), file.Uid == 0 && file.Mode&othersWrite == 0, nil
}

// openExe opens the executable, deleted or not, without any right to read it. A process
// whose first thread has exited looks like a zombie and shows no executable of its own;
// its other threads still do.
func openExe(st proc.Stat) (int, error) {
	files := []string{fmt.Sprintf("/proc/%d/exe", st.PID)}
	if st.Zombie() {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", st.PID))
		if err != nil {
			return -1, err
		}
		for _, task := range tasks {
			files = append(files, fmt.Sprintf("/proc/%d/task/%s/exe", st.PID, task.Name()))
		}
	}
	var errs error
	for _, file := range files {
		fd, err := unix.Open(file, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err == nil {
			return fd, nil
		}
		errs = errors.Join(errs, fmt.Errorf("%s: %w", file, err))
	}
	return -1, errs
}
