package action_test

import (
	"encoding/json"
	"testing"

	"riposte/playbook/action"
)

// FuzzDecode reads plans that another version, or somebody else, may have frozen. What can be
// read can be asked about, and is frozen again as it was.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"pid":4711,"described_pid":4711,"start_ticks":9,"boot_id":"b","pid_ns":5,"name":"n","exe":"/e","seen_until":"1970-01-01T00:01:41Z","grace":"1s"}`,
		`{"address":"198.51.100.2","ttl":"1h","backend":"iptables"}`, `{"path":"/var/log/x","host":"h","title":"\u001b[2J","pid":-1}`,
		`{"argv":["/bin/true"],"env":{"A":"b"},"alert":{"id":"a"}}`, `null`, `{"grace":"9223372036854775807ns","pid":1e3}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, name := range action.Names() {
			effect, class, err := action.Decode(name, raw)
			if err != nil {
				if effect != nil || class != "" {
					t.Errorf("%s: %v, %s with %v", name, effect, class, err)
				}
				continue
			}
			_, _ = effect.Targets(), effect.Describe()
			frozen, err := json.Marshal(effect)
			if err != nil {
				t.Fatalf("%s: %q cannot be frozen again: %v", name, raw, err)
			}
			again, _, err := action.Decode(name, frozen)
			if err != nil {
				t.Fatalf("%s: %s was frozen and cannot be read: %v", name, frozen, err)
			}
			if back, _ := json.Marshal(again); string(back) != string(frozen) {
				t.Errorf("%s: frozen as %s, then as %s", name, frozen, back)
			}
		}
	})
}
