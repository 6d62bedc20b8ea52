package compose_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"riposte/stream"
)

// contains checks that a text tells what it should.
func contains(t *testing.T, what, text string, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			t.Errorf("%s does not say %q:\n%s", what, w, text)
		}
	}
}

// checkViews reads what an operator reads.
func (p *project) checkViews(rdb *redis.Client, killed string) {
	t := p.t
	await(t, "the group has three consumers, the dead one gone and the one started for it there", 30*time.Second, func() bool {
		consumers, err := rdb.XInfoConsumers(t.Context(), host.AlertsKey(), group).Result()
		dead := func(c redis.XInfoConsumer) bool { return c.Name == killed }
		return err == nil && len(consumers) == 3 && !slices.ContainsFunc(consumers, dead)
	})
	status := p.riposte("status")
	contains(t, "riposte status", status,
		fmt.Sprintf("host endpoint: %d alerts in the stream", attacks), "3 active, 0 silent", fmt.Sprintf("done %d", attacks),
		"containment: all is well: every alert is read, nothing is stuck", "forensics: all is well", "notify: all is well")
	if told := p.riposte("ledger", "list", "--group", "notify", "--outcome", "logged", "-o", "json"); strings.Count(told, `"step": "tell"`) != attacks {
		t.Errorf("not everything was told:\n%s", told)
	}

	views := p.redisCLI("responder",
		fmt.Sprintf("XINFO GROUPS '%s'", host.AlertsKey()),
		fmt.Sprintf("XINFO CONSUMERS '%s' %s", host.AlertsKey(), group))
	contains(t, "redis-cli XINFO", views,
		"name\ncontainment\nconsumers\n3\npending\n0\n", fmt.Sprintf("entries-read\n%d\nlag\n0\n", attacks), "name\nendpoint-")
	t.Logf("%s%s", status, views)
}

// checkBlock has an address blocked in the endpoint's network.
func (p *project) checkBlock() {
	t := p.t
	pub, err := stream.NewPublisher(p.connect("sensor"), stream.PublisherConfig{Host: host})
	if err != nil {
		t.Fatal(err)
	}
	alert := fmt.Sprintf(`{"id":"knock","level":"HIGH","title":"a knock","timestamp":%q,"source_ip":"203.0.113.66"}`, time.Now().Format(time.RFC3339Nano))
	if _, err := pub.PublishRaw(t.Context(), []byte(alert)); err != nil {
		t.Fatal(err)
	}
	await(t, "203.0.113.66 is blocked", 20*time.Second, func() bool {
		for _, e := range p.ledger() {
			for _, s := range e.Steps {
				if e.ID == "knock" && s.Action == "block_ip" && s.Outcome == "blocked" {
					return true
				}
			}
		}
		return false
	})
}

// checkAccess tries what nobody on the endpoint may do, and what its host may not show.
func (p *project) checkAccess() {
	t := p.t
	knock := "'" + host.LedgerKey(stream.DefaultGroup, "knock") + "'"
	for _, c := range []struct {
		user, refusal string
		commands      []string
	}{
		{"", "NOAUTH", []string{"PING", "GET " + knock, "FLUSHALL"}},
		{"sensor", "NOPERM", []string{"GET " + knock, "FLUSHALL"}},
		{"responder", "NOPERM", []string{"CONFIG GET dir", "GET 'riposte:{web-1}:ledger:containment:knock'", "FLUSHALL"}},
	} {
		got := p.redisCLI(c.user, c.commands...)
		if strings.Count(got, c.refusal+" ") != len(c.commands) {
			t.Errorf("user %q was not refused all of %q:\n%s", c.user, c.commands, got)
		}
	}
	if logs := p.compose("logs", "--no-color", "sensor", "responder"); strings.Contains(logs, "NOPERM") {
		t.Errorf("our own work is refused, too:\n%s", logs)
	}
	if !slices.ContainsFunc(p.ledger(), func(e entry) bool { return e.ID == "knock" }) {
		t.Error("the ledger was emptied")
	}
	for _, c := range p.containers("") {
		shown := p.docker("inspect", c.ID)
		for _, user := range []string{"sensor", "responder"} {
			if strings.Contains(shown, password(t, user)) {
				t.Errorf("the password of %s is shown by docker inspect", user)
			}
		}
		for port, bound := range c.NetworkSettings.Ports {
			if len(bound) > 0 {
				t.Errorf("port %s is published: %v", port, bound)
			}
		}
	}
}

// checkScale adds two replicas, whose work is welcome at once.
func (p *project) checkScale() {
	p.compose("up", "--detach", "--no-recreate", "--scale", "responder=5", "responder")
	await(p.t, "five responders are active", 30*time.Second, func() bool {
		return strings.Contains(p.riposte("status"), "5 active, 0 silent")
	})
}
