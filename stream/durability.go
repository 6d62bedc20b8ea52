package stream

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// CheckVersion returns an error if this Redis is older than 7.0, whose scripts and consumer
// groups the protocol is built on. The warning says where it is none that Riposte is tested
// with; it is empty for a Redis.
func CheckVersion(ctx context.Context, rdb *redis.Client) (warning string, err error) {
	info, err := rdb.InfoMap(ctx, "server").Result()
	if refusal(err) {
		return fmt.Sprintf("the server at %s does not say which version of Redis it is (%v); Riposte needs 7.0 or later", Address(rdb), err), nil
	}
	if err != nil {
		return "", fmt.Errorf("ask Redis for its version: %w", err)
	}
	version, name := info["Server"]["redis_version"], info["Server"]["server_name"]
	major, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(major)
	switch {
	case err != nil:
		return fmt.Sprintf("the server at %s does not say which version of Redis it is (%q); Riposte needs 7.0 or later and is tested with Redis only", Address(rdb), clip(version)), nil
	case n < 7:
		return "", fmt.Errorf("the Redis at %s is version %s; Riposte needs 7.0 or later: upgrade it, or run one beside it with `docker run -d -p 127.0.0.1:6380:6379 redis:7 redis-server --appendonly yes` and name that with --redis", Address(rdb), clip(version))
	case name != "" && name != "redis":
		return fmt.Sprintf("the server at %s is %s, compatible with Redis %s; it may work, but Riposte is tested with Redis only", Address(rdb), clip(name), clip(version)), nil
	}
	return "", nil
}

// CheckDurable returns an error if this Redis may forget what it has acknowledged: a
// ledger in it could not keep its promise. It reads INFO only; CONFIG is forbidden on
// managed Redis. Snapshots (RDB) alone are volatile: minutes of records can be lost.
func CheckDurable(ctx context.Context, rdb *redis.Client) error {
	info, err := rdb.InfoMap(ctx, "persistence", "memory").Result()
	if err != nil {
		return fmt.Errorf("look at Redis's persistence: %w", err)
	}
	if info["Persistence"]["aof_enabled"] != "1" {
		return fmt.Errorf(`the Redis at %s keeps no append-only file, so a restart would forget what was done; enable it:
  redis-cli CONFIG SET appendonly yes
  redis-cli CONFIG REWRITE
or accept the loss with --allow-volatile`, Address(rdb))
	}
	if policy := info["Memory"]["maxmemory_policy"]; policy != "noeviction" {
		return fmt.Errorf(`the Redis at %s evicts keys when it is full (maxmemory_policy %s), the ledger among them; forbid it:
  redis-cli CONFIG SET maxmemory-policy noeviction
  redis-cli CONFIG REWRITE
or accept the loss with --allow-volatile`, Address(rdb), policy)
	}
	return nil
}

// CheckPrivate returns an error if anybody who reaches this Redis over the network may
// write to it: whoever may XADD an alert may have a process killed.
func CheckPrivate(rdb *redis.Client) error {
	opt := rdb.Options()
	if opt.Password != "" || opt.Network == "unix" {
		return nil
	}
	host, _, err := net.SplitHostPort(opt.Addr)
	if err != nil {
		host = opt.Addr
	}
	if ip := net.ParseIP(strings.Trim(host, "[]")); host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("the Redis at %s asks for no password, and whoever may write to it may have processes killed here; "+
		"set one (see deploy/users.acl) and give it with --redis-password-file, or accept this with --insecure-redis", Address(rdb))
}
