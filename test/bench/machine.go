package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// Machine says where, when and with what a run was made.
type Machine struct {
	Date     string            `json:"date"`
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	Memory   string            `json:"memory"`
	Kernel   string            `json:"kernel"`
	Versions map[string]string `json:"versions"`
}

// versioned are the parts whose versions stand under the table, in this order.
var versioned = []string{"riposte", "go", "redis", "asynq", "watermill-redisstream", "go-redis", "python", "redis-py", "psutil"}

func describe(ctx context.Context, l *lab, root string) (m Machine, err error) {
	m = Machine{
		Date: time.Now().UTC().Format(time.DateOnly), Cores: runtime.NumCPU(),
		CPU: firstLine("/proc/cpuinfo", "model name"), Memory: firstLine("/proc/meminfo", "MemTotal"),
		Versions: map[string]string{"go": runtime.Version()},
	}
	if m.Kernel, err = output(ctx, "uname", "-r"); err != nil {
		return m, err
	}
	if m.Versions["riposte"], err = output(ctx, "git", "-C", root, "describe", "--always", "--dirty"); err != nil {
		m.Versions["riposte"] = "not from a git checkout"
	}
	info, err := infoOf(ctx, l.rdb, "server")
	if err != nil {
		return m, err
	}
	m.Versions["redis"] = info["redis_version"]
	build, _ := debug.ReadBuildInfo()
	for _, d := range build.Deps {
		switch d.Path {
		case "github.com/hibiken/asynq":
			m.Versions["asynq"] = d.Version
		case "github.com/ThreeDotsLabs/watermill-redisstream":
			m.Versions["watermill-redisstream"] = d.Version
		case "github.com/redis/go-redis/v9":
			m.Versions["go-redis"] = d.Version
		}
	}
	l.python, err = python(ctx, m.Versions)
	return m, err
}

// python finds an interpreter with the modules that the original design used.
func python(ctx context.Context, versions map[string]string) (path string, err error) {
	for _, path := range []string{"/usr/bin/python3", "python3"} {
		out, err := exec.CommandContext(ctx, path, "-c",
			"import sys, redis, psutil; print(sys.version.split()[0], redis.__version__, psutil.__version__)").Output()
		if words := strings.Fields(string(out)); err == nil && len(words) == 3 {
			versions["python"], versions["redis-py"], versions["psutil"] = words[0], words[1], words[2]
			return path, nil
		}
	}
	return "", fmt.Errorf("no python3 with redis and psutil; on Debian: apt-get install python3-redis python3-psutil")
}

// firstLine is the value of the first line of a file that begins with a name.
func firstLine(path, name string) string {
	raw, _ := os.ReadFile(path)
	for line := range strings.Lines(string(raw)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func (m Machine) String() string {
	words := []string{m.Date, m.CPU, count(m.Cores, "core"), m.Memory, "Linux " + m.Kernel}
	for _, name := range versioned {
		words = append(words, name+" "+m.Versions[name])
	}
	return strings.Join(words, ", ")
}
