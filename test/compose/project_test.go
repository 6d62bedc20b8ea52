package compose_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
	"riposte/test/need"
)

// root is the repository, as tests run in their package's folder.
const root = "../.."

// project is docker-compose.yml, up under a name of its own.
type project struct {
	t          *testing.T
	name       string
	redisImage string
	env        []string
}

// newProject builds the images. All that it makes goes when the test ends.
func newProject(t *testing.T, env ...string) *project {
	t.Helper()
	need.Linux(t)
	need.Root(t) // to signal what runs in a container
	need.Docker(t)
	need.Binary(t, "docker-compose")
	need.Binary(t, "redis-server")
	var random [4]byte
	rand.Read(random[:])
	p := &project{t: t, name: "riposte-test-" + hex.EncodeToString(random[:])}
	p.redisImage = p.name + "-redis"
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "RIPOSTE_") && !strings.HasPrefix(kv, "COMPOSE_") {
			p.env = append(p.env, kv)
		}
	}
	p.env = append(p.env, "RIPOSTE_IMAGE="+p.name, "REDIS_IMAGE="+p.redisImage)
	p.env = append(p.env, env...)
	riposteImage(t, p.name)
	redisImage(t, p.redisImage)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs:\n%s", p.composeAnyway("logs", "--no-color", "--tail=40"))
			t.Logf("containers:\n%s", p.composeAnyway("ps"))
		}
		p.composeAnyway("down", "--volumes", "--timeout", "5")
		for _, kind := range [][]string{{"ps", "-aq"}, {"volume", "ls", "-q"}, {"network", "ls", "-q"}} {
			if left := p.docker(append(kind, "--filter", "label=com.docker.compose.project="+p.name)...); left != "" {
				t.Errorf("left behind (docker %s): %s", kind[0], left)
			}
		}
	})
	return p
}

// compose runs docker-compose and returns its standard output.
func (p *project) compose(args ...string) string {
	p.t.Helper()
	cmd := p.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		p.t.Fatalf("docker-compose %s: %v\n%s%s", strings.Join(args, " "), err, &out, &errs)
	}
	return out.String()
}

// composeAnyway is for cleaning up: what fails is said, and the test goes on.
func (p *project) composeAnyway(args ...string) string {
	out, err := p.command(args...).CombinedOutput()
	if err != nil {
		p.t.Errorf("docker-compose %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (p *project) command(args ...string) *exec.Cmd {
	cmd := exec.Command("docker-compose", append([]string{"--file", filepath.Join(root, "docker-compose.yml"), "--project-name", p.name}, args...)...)
	cmd.Env = p.env
	return cmd
}

// docker runs docker and returns its standard output without the last line end.
func (p *project) docker(args ...string) string {
	p.t.Helper()
	var errs bytes.Buffer
	cmd := exec.Command("docker", args...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, &errs)
	}
	return strings.TrimSpace(string(out))
}

// container is as much of `docker inspect` as the test needs.
type container struct {
	ID    string `json:"Id"`
	State struct {
		Status   string
		Pid      int
		ExitCode int
	}
	RestartCount    int
	NetworkSettings struct {
		Ports    map[string][]any
		Networks map[string]struct{ IPAddress string }
	}
}

// containers are those of a service, of all services if it is empty.
func (p *project) containers(service string) []container {
	p.t.Helper()
	args := []string{"ps", "-aq", "--filter", "label=com.docker.compose.project=" + p.name}
	if service != "" {
		args = append(args, "--filter", "label=com.docker.compose.service="+service)
	}
	ids := strings.Fields(p.docker(args...))
	var found []container
	if len(ids) > 0 {
		if err := json.Unmarshal([]byte(p.docker(append([]string{"inspect"}, ids...)...)), &found); err != nil {
			p.t.Fatal(err)
		}
	}
	return found
}

// container is the only one of a service.
func (p *project) container(service string) container {
	p.t.Helper()
	all := p.containers(service)
	if len(all) != 1 {
		p.t.Fatalf("%d containers of %s, want 1", len(all), service)
	}
	return all[0]
}

func password(t *testing.T, user string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, "deploy/secrets", user+".password"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

// connect is a client of the project's Redis, under one of its users. This machine reaches
// the containers' network; nobody else does.
func (p *project) connect(user string) *redis.Client {
	p.t.Helper()
	var ip string
	for _, n := range p.container("redis").NetworkSettings.Networks {
		ip = n.IPAddress
	}
	rdb, err := stream.Open(stream.Options{
		URL:          fmt.Sprintf("redis://%s@%s", user, net.JoinHostPort(ip, "6379")),
		PasswordFile: filepath.Join(root, "deploy/secrets", user+".password"),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { rdb.Close() })
	return rdb
}

// redisCLI is a person with redis-cli in the endpoint's network, without a user if it is
// empty. There is one line for each reply, or more.
func (p *project) redisCLI(user string, commands ...string) string {
	p.t.Helper()
	args := []string{"run", "--rm", "--interactive", "--network", "container:" + p.container("endpoint").ID}
	client := []string{p.redisImage, "redis-cli", "-h", "redis"}
	cmd := exec.Command("docker", append(args, client...)...)
	if user != "" {
		cmd = exec.Command("docker", append(append(args, "--env", "REDISCLI_AUTH"), append(client, "--user", user)...)...)
		cmd.Env = append(os.Environ(), "REDISCLI_AUTH="+password(p.t, user))
	}
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("redis-cli as %q: %v\n%s", user, err, out)
	}
	return string(out)
}

// innerPID is the PID of a container's process as its own PID namespace numbers it, 0 if
// it is gone.
func innerPID(pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(rest)
			inner, _ := strconv.Atoi(fields[len(fields)-1])
			return inner
		}
	}
	return 0
}

// await polls until ok, and fails the test when it takes too long.
func await(t *testing.T, what string, within time.Duration, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}
