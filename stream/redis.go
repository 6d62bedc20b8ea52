package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Options say how to reach Redis.
type Options struct {
	// URL is redis://[user[:password]@]host[:port][/db], the same with rediss:// for
	// TLS, or unix://[user[:password]@]/path/to/socket[?db=N].
	URL string
	// PasswordFile holds the password, so that it need not stand in argv or in the
	// environment. Line ends after it are ignored. Empty means the URL's password, or none.
	PasswordFile string
	// PoolSize is the number of connections kept for commands; default 10 per CPU.
	PoolSize int
}

// Open makes a client; it does not connect yet, see Ping. Errors never name a password.
//
// The client never repeats a command by itself: a command whose reply was lost may have
// been carried out, and only its caller knows whether carrying it out twice is harmless.
// It sends nothing at connect but HELLO, AUTH and SELECT, so that a user who may do little
// else can connect.
func Open(o Options) (*redis.Client, error) {
	opt, err := o.parse()
	if err != nil {
		return nil, err
	}
	if o.PasswordFile != "" {
		if opt.Password, err = readPassword(o.PasswordFile); err != nil {
			return nil, err
		}
	}
	if o.PoolSize > 0 {
		opt.PoolSize = o.PoolSize
	}
	if opt.DialTimeout == 0 {
		opt.DialTimeout = 2 * time.Second
	}
	if opt.ReadTimeout == 0 {
		opt.ReadTimeout = 3 * time.Second // blocking reads add their own time
	}
	opt.MaxRetries = -1
	opt.DialerRetries = 1
	opt.ContextTimeoutEnabled = true
	opt.DisableIdentity = true
	opt.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewClient(opt), nil
}

// Validate says what is wrong with the options as they are written. It reads no file and
// connects to nothing.
func (o Options) Validate() error {
	_, err := o.parse()
	return err
}

func (o Options) parse() (*redis.Options, error) {
	opt, err := parseURL(o.URL)
	if err == nil && opt.Password != "" && o.PasswordFile != "" {
		return nil, errors.New("the Redis URL holds a password and a password file is given as well; drop one of them")
	}
	return opt, err
}

const urlForms = "want redis://[user[:password]@]host[:port][/db], rediss://... for TLS, or unix:///path/to/socket"

func parseURL(raw string) (*redis.Options, error) {
	opt, err := redis.ParseURL(raw)
	if err == nil && opt.Network == "tcp" {
		_, port, _ := net.SplitHostPort(opt.Addr)
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err == nil {
		return opt, nil
	}
	// The parser's own words may quote any part of the URL, so they are passed on only
	// where there cannot be a password in it.
	if u, e := url.Parse(raw); e != nil || u.User != nil || strings.Contains(raw, "@") {
		return nil, errors.New("the Redis URL cannot be read (not shown, it may hold a password); " + urlForms)
	}
	return nil, fmt.Errorf("the Redis URL %q: %w; %s", clip(raw), err, urlForms)
}

func readPassword(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the Redis password: %w", err)
	}
	password := strings.TrimRight(string(raw), "\r\n")
	if password == "" {
		return "", fmt.Errorf("read the Redis password: %s is empty", path)
	}
	return password, nil
}

// Address is where a client connects to, as a URL without its password.
func Address(rdb *redis.Client) string {
	opt := rdb.Options()
	u := url.URL{Scheme: "redis", Host: opt.Addr}
	switch {
	case opt.Network == "unix":
		u = url.URL{Scheme: "unix", Path: opt.Addr}
	case opt.TLSConfig != nil:
		u.Scheme = "rediss"
	}
	if opt.Username != "" {
		u.User = url.User(opt.Username)
	}
	if opt.DB != 0 {
		u.RawQuery = fmt.Sprintf("db=%d", opt.DB)
	}
	return u.String()
}

// Ping returns nil if Redis answers. Otherwise the error says where it was looked for and
// what to do about it.
func Ping(ctx context.Context, rdb *redis.Client) error {
	err := rdb.Ping(ctx).Err()
	where := Address(rdb)
	switch {
	case err == nil:
		return nil
	case redis.IsAuthError(err):
		return fmt.Errorf("the Redis at %s asks for another user or password: %w; put the user into the URL and the password into a file for --redis-password-file", where, err)
	case redis.IsPermissionError(err):
		return nil // it answers, and knows us; whether that is enough will show
	case redis.IsLoadingError(err):
		return fmt.Errorf("the Redis at %s is still loading its data: %w; try again in a moment", where, err)
	case ctx.Err() != nil:
		return fmt.Errorf("connect to the Redis at %s: %w", where, ctx.Err())
	}
	return fmt.Errorf("no Redis at %s: %w; start one with `redis-server --appendonly yes` or `docker run -d -p 127.0.0.1:6379:6379 redis:7 redis-server --appendonly yes`, name another with --redis, or try `riposte demo`, which brings its own", where, err)
}
