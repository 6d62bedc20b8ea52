package stream_test

import (
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2/server"

	"riposte/stream"
	"riposte/test/redistest"
)

func TestVersion(t *testing.T) {
	t.Parallel()
	warning, err := stream.CheckVersion(t.Context(), redistest.Start(t).Client())
	if warning != "" || err != nil {
		t.Errorf("this very Redis: %q, %v", warning, err)
	}
	for _, c := range []struct{ info, warning, err string }{
		{"redis_version:7.0.0", "", ""},
		{"redis_version:8.2.1", "", ""},
		{"redis_version:10.0.0", "", ""},
		{"redis_version:6.2.14", "", "is version 6.2.14; Riposte needs 7.0 or later"},
		{"redis_version:5.0.7", "", "is version 5.0.7"},
		{"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1", "is valkey, compatible with Redis 7.2.4; it may work", ""},
		{"redis_version:6.0.16\r\nserver_name:other", "", "is version 6.0.16"},
		{"redis_mode:standalone", "does not say", ""},
		{"redis_version:unstable", "does not say", ""},
	} {
		s, err := server.NewServer("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Register("INFO", func(p *server.Peer, _ string, _ []string) { p.WriteBulk("# Server\r\n" + c.info + "\r\n") }); err != nil {
			t.Fatal(err)
		}
		rdb, err := stream.Open(stream.Options{URL: "redis://" + s.Addr().String()})
		if err != nil {
			t.Fatal(err)
		}
		defer rdb.Close()
		warning, err := stream.CheckVersion(t.Context(), rdb)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if !strings.Contains(warning, c.warning) || (warning == "") != (c.warning == "") || !strings.Contains(text, c.err) || (text == "") != (c.err == "") {
			t.Errorf("%q: warning %q, error %v", c.info, warning, err)
		}
	}
}
