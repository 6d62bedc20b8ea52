package compose_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
	"riposte/test/need"
	"riposte/test/redistest"
)

// guarded is a Redis with the users of a folder like deploy, and clients of them by name;
// the one without a name does not log in.
func guarded(t *testing.T, deploy string) map[string]*redis.Client {
	t.Helper()
	server := redistest.Start(t)
	raw, err := os.ReadFile(filepath.Join(deploy, "users.acl"))
	if err != nil {
		t.Fatal(err)
	}
	admin := server.Client()
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	for i := range lines { // from the last: the first one turns off whoever does this
		words := []any{"ACL", "SETUSER"}
		for _, w := range strings.Fields(lines[len(lines)-1-i])[1:] {
			words = append(words, w)
		}
		if err := admin.Do(t.Context(), words...).Err(); err != nil {
			t.Fatalf("%v: %v", words, err)
		}
	}
	clients := map[string]*redis.Client{}
	for _, user := range []string{"", "health", "sensor", "responder"} {
		o := stream.Options{URL: server.URL}
		switch user {
		case "":
		case "health":
			o.URL = strings.Replace(o.URL, "//", "//health:none@", 1)
		default:
			o.URL = strings.Replace(o.URL, "//", "//"+user+"@", 1)
			o.PasswordFile = filepath.Join(deploy, "secrets", user+".password")
		}
		if clients[user], err = stream.Open(o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { clients[user].Close() })
	}
	return clients
}

// inScript is how Redis, 7.0 and later, refuses what a script asks for.
var inScript = regexp.MustCompile("ACL failure in script|The user executing the script can't")

// The users of deploy may do what they are for, and nothing else.
func TestUsers(t *testing.T) {
	t.Parallel()
	clients := guarded(t, filepath.Join(root, "deploy"))
	for _, c := range []struct {
		user    string
		allowed bool
		command string
	}{
		{"", false, "PING"},
		{"", false, "XADD riposte:{endpoint}:alerts * alert {}"},
		{"health", true, "PING"},
		{"health", false, "XLEN riposte:{endpoint}:alerts"},
		{"health", false, "INFO"},

		{"sensor", true, "PING"},
		{"sensor", true, "XADD riposte:{endpoint}:alerts * alert {}"},
		{"sensor", true, "XLEN riposte:{endpoint}:alerts"},
		{"sensor", false, "XADD riposte:{web-1}:alerts * alert {}"},
		{"sensor", false, "XADD riposte:{endpoint}:journal * id forged"},
		{"sensor", false, "XRANGE riposte:{endpoint}:alerts - +"},
		{"sensor", false, "XTRIM riposte:{endpoint}:alerts MAXLEN 0"},
		{"sensor", false, "XDEL riposte:{endpoint}:alerts 1-1"},
		{"sensor", false, "DEL riposte:{endpoint}:alerts"},
		{"sensor", false, "XGROUP CREATE riposte:{endpoint}:alerts g 0"},
		{"sensor", false, "GET riposte:{endpoint}:ledger:containment:a"},
		{"sensor", false, "SET riposte:{endpoint}:ledger:containment:a done"},
		{"sensor", false, "EVAL return(1) 0"},
		{"sensor", false, "SCAN 0"},
		{"sensor", false, "PUBLISH high_severity_alerts {}"},
		{"sensor", true, "INFO replication"},
		{"sensor", false, "XINFO STREAM riposte:{endpoint}:alerts"}, // it shows alerts
		{"sensor", false, "XINFO STREAM riposte:{endpoint}:alerts FULL"},
		{"sensor", true, "XINFO GROUPS riposte:{endpoint}:alerts"},
		{"sensor", false, "XINFO CONSUMERS riposte:{endpoint}:alerts g"},
		{"sensor", false, "XINFO GROUPS riposte:{web-1}:alerts"},
		{"sensor", false, "FLUSHALL"},

		{"responder", true, "INFO persistence memory"},
		{"responder", true, "TIME"},
		{"responder", true, "XGROUP CREATE riposte:{endpoint}:alerts g 0 MKSTREAM"},
		{"responder", true, "XREADGROUP GROUP g c STREAMS riposte:{endpoint}:alerts >"},
		{"responder", true, "XPENDING riposte:{endpoint}:alerts g - + 10"},
		{"responder", true, "XINFO CONSUMERS riposte:{endpoint}:alerts g"},
		{"responder", true, "XTRIM riposte:{endpoint}:alerts MINID 1"},
		{"responder", true, "HSET riposte:{endpoint}:control pause 1"},
		{"responder", true, "HGETALL riposte:{fleet}:control"},
		{"responder", true, "ZADD riposte:hosts 1 endpoint"},
		{"responder", true, "SCAN 0 MATCH riposte:*"},
		{"responder", true, "EVAL return(redis.call('get',KEYS[1])) 1 riposte:{endpoint}:x"},
		{"responder", false, "EVAL return(redis.call('get',KEYS[1])) 1 riposte:{web-1}:x"},
		{"responder", false, "EVAL return(redis.call('flushall')) 0"},
		{"responder", false, "GET riposte:{web-1}:ledger:containment:a"},
		{"responder", false, "XADD riposte:{web-1}:alerts * alert {}"},
		{"responder", false, "FLUSHALL"},
		{"responder", false, "FLUSHDB"},
		{"responder", false, "CONFIG GET dir"},
		{"responder", false, "CONFIG SET dir /tmp"},
		{"responder", false, "KEYS *"},
		{"responder", false, "SAVE"},
		{"responder", false, "SHUTDOWN NOSAVE"},
		{"responder", false, "REPLICAOF 192.0.2.1 6379"},
		{"responder", false, "MIGRATE 192.0.2.1 6379 riposte:hosts 0 1"},
		{"responder", false, "ACL LIST"},
		{"responder", false, "MODULE LIST"},
		{"responder", false, "DEBUG OBJECT riposte:hosts"},
		{"responder", false, "SWAPDB 0 1"},
		{"responder", false, "CLIENT KILL TYPE normal"},
		{"responder", false, "SCRIPT FLUSH"},
		{"responder", false, "FUNCTION LIST"},
		{"responder", false, "MONITOR"},
		{"responder", false, "SUBSCRIBE high_severity_alerts"},
	} {
		var words []any
		for _, w := range strings.Fields(c.command) {
			words = append(words, w)
		}
		err := clients[c.user].Do(t.Context(), words...).Err()
		refused := redis.IsPermissionError(err) || redis.IsAuthError(err) || err != nil && inScript.MatchString(err.Error())
		if refused == c.allowed || c.allowed && err != nil && err != redis.Nil {
			t.Errorf("%q and %s: got %v, allowed should be %v", c.user, c.command, err, c.allowed)
		}
	}
}

// The passwords of the repository are everybody's; one command replaces them.
func TestNewPasswords(t *testing.T) {
	t.Parallel()
	need.Binary(t, "sh")
	need.Binary(t, "openssl")
	mine := filepath.Join(t.TempDir(), "deploy")
	if err := os.CopyFS(mine, os.DirFS(filepath.Join(root, "deploy"))); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", filepath.Join(mine, "new-passwords.sh")).CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("new-passwords.sh: %v\n%s", err, out)
	}
	clients := guarded(t, mine)
	for _, user := range []string{"sensor", "responder"} {
		if err := clients[user].Ping(t.Context()).Err(); err != nil {
			t.Errorf("%s with its new password: %v", user, err)
		}
		public, err := stream.Open(stream.Options{
			URL:          strings.Replace(stream.Address(clients[""]), "//", "//"+user+"@", 1),
			PasswordFile: filepath.Join(root, "deploy/secrets", user+".password"),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer public.Close()
		if err := public.Ping(t.Context()).Err(); !redis.IsAuthError(err) {
			t.Errorf("%s with the password that is public: %v", user, err)
		}
	}
	before, err1 := os.ReadFile(filepath.Join(root, "deploy/users.acl"))
	after, err2 := os.ReadFile(filepath.Join(mine, "users.acl"))
	if err1 != nil || err2 != nil || len(before) != len(after) {
		t.Errorf("more than the hashes has changed: %v, %v\n%s\n%s", err1, err2, before, after)
	}
}
