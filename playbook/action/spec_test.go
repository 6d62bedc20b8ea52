package action_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"riposte/playbook/action"
	"riposte/stream"
)

func TestSpecs(t *testing.T) {
	for _, c := range []struct{ action, with, fault string }{
		{"terminate_process", "", ""},
		{"terminate_process", "grace: 0s", ""},
		{"terminate_process", "grace: 60s", ""},
		{"terminate_process", "tree: true\ntarget: parent", ""},
		{"terminate_process", "tree: 1", "cannot unmarshal"},
		{"terminate_process", "target: tree", "target: "},
		{"terminate_process", "grace: 61s", "grace: "},
		{"terminate_process", "grace: -1s", "grace: "},
		{"terminate_process", "grace: 5", "cannot unmarshal"}, // not 5 ns
		{"terminate_process", "grace: soon", "invalid duration"},
		{"terminate_process", "pid: 5", "unknown field"},
		{"suspend_process", "", ""},
		{"suspend_process", "target: parent", ""},
		{"suspend_process", "target: process", ""},
		{"suspend_process", "target: child", `target: "child" is not one of`},
		{"suspend_process", "target: ''", "target: "},
		{"suspend_process", "grace: 1s", "unknown field"},
		{"resume_process", "", ""},
		{"resume_process", "target: parent", ""},
		{"resume_process", "target: tree", "target: "},
		{"quarantine_file", "", ""},
		{"quarantine_file", "path: /tmp/x\nsha256: " + strings.Repeat("aB", 32), ""},
		{"quarantine_file", "path: alert.process.exe", ""},
		{"quarantine_file", "path: alert.title", "path: "},
		{"quarantine_file", "path: tmp/x", "path: "},
		{"quarantine_file", "path: /tmp/../x", "path: "},
		{"quarantine_file", "path: ''", "path: "},
		{"quarantine_file", "sha256: abc", "sha256: "},
		{"restore_file", "", ""},
		{"restore_file", "entry: " + strings.Repeat("ab", 32), ""},
		{"restore_file", "entry: ../x", "entry: "},
		{"restore_file", "path: /", "path: "},
		{"block_ip", "", ""},
		{"block_ip", "address: alert.source_ip\nttl: 24h\nbackend: iptables", ""},
		{"block_ip", "address: 2001:db8::1\nbackend: netsh", ""},
		{"block_ip", "address: alert.title", "address: "},
		{"block_ip", "address: 0.0.0.0/0", "is a network broader than /24"},
		{"block_ip", "address: 2001:db8::/63", "is a network broader than /64"},
		{"block_ip", "address: 198.51.100.0/24", ""},
		{"block_ip", "address: 198.51.100.1/24", "is an address in the network 198.51.100.0/24"},
		{"block_ip", "address: '::ffff:198.51.100.0/120'", "write it as IPv4"},
		{"block_ip", "address: [alert.source_ip, 198.51.100.2, '2001:db8::/64']", ""},
		{"block_ip", "address: [198.51.100.2, nobody]", `address: "nobody" is not an IP address`},
		{"block_ip", "address: []", "address: 0 of them"},
		{"block_ip", "address: [" + strings.Repeat("198.51.100.2,", 65) + "]", "address: 65 of them"},
		{"block_ip", "address: {a: b}", "mapping was used"},
		{"unblock_ip", "address: [198.51.100.2, 198.51.100.0/24]", ""},
		{"block_ip", "address: ''", "address: "},
		{"block_ip", "ttl: 25h", "ttl: "},
		{"block_ip", "ttl: 500ms", "ttl: "},
		{"block_ip", "ttl: 1500ms", "ttl: "},
		{"block_ip", "ttl: 0s", "ttl: "},
		{"block_ip", "backend: pf", `backend: "pf" is not one of`},
		{"block_ip", "program: parent\nbackend: netsh", ""},
		{"block_ip", "program: parent\nbackend: nftables", "program: only the backend netsh"},
		{"block_ip", "program: process\nbackend: netsh", `program: "process" is not parent`},
		{"block_ip", "program: 'C:\\x.exe'\nbackend: netsh", "program: "},
		{"unblock_ip", "program: parent", "unknown field"},
		{"unblock_ip", "", ""},
		{"unblock_ip", "address: 2001:db8::1\nbackend: iptables", ""},
		{"unblock_ip", "address: somewhere", "address: "},
		{"unblock_ip", "backend: pf", "backend: "},
		{"unblock_ip", "ttl: 1h", "unknown field"},
		{"collect_evidence", "", ""},
		{"collect_evidence", "max_size: 1MiB", ""},
		{"collect_evidence", "max_size: 1GiB", ""},
		{"collect_evidence", "max_size: 1025MiB", "max_size: "},
		{"collect_evidence", "max_size: 1023KiB", "max_size: "},
		{"collect_evidence", "max_size: 64", "want a whole number and a unit"}, // not 64 bytes
		{"collect_evidence", "max_size: 64MB", "want a whole number and a unit"},
		{"collect_evidence", "keep: 1h", "unknown field"},
		{"isolate_host", "ttl: 1m", ""},
		{"isolate_host", "ttl: 24h\nallow: [10.0.0.0/8, '2001:db8::1']\ndns: true", ""},
		{"isolate_host", "", "ttl: an isolation must end by itself"},
		{"isolate_host", "dns: true", "ttl: an isolation must end by itself"},
		{"isolate_host", "ttl: 59s", "within 1m to 24h"},
		{"isolate_host", "ttl: 25h", "within 1m to 24h"},
		{"isolate_host", "ttl: 1h\nallow: ['::/0']", "allow: ::/0 is everybody"},
		{"isolate_host", "ttl: 1h\nallow: [10.0.0.1/8]", "allow: 10.0.0.1/8 is an address in the network 10.0.0.0/8"},
		{"release_host", "", ""},
		{"release_host", "ttl: 1h", "unknown field"},
		{"log", "", ""},
		{"log", "path: relative/path", "path: "},
	} {
		kind, ok := action.Lookup(c.action)
		if !ok {
			t.Fatal(c.action)
		}
		spec := kind.Spec()
		var err error
		if c.with != "" { // without `with`, the defaults
			err = yaml.UnmarshalWithOptions([]byte(c.with), spec, yaml.Strict())
		}
		if err == nil {
			err = spec.Validate()
		}
		if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("%s with %q: got %v, want %q", c.action, c.with, err, c.fault)
		}
	}
}

func TestCapabilities(t *testing.T) {
	for name, want := range map[string]string{
		"terminate_process": `["CAP_KILL","CAP_SYS_PTRACE"] null`,
		"suspend_process":   `["CAP_KILL","CAP_SYS_PTRACE"] null`,
		"resume_process":    `["CAP_KILL","CAP_SYS_PTRACE"] null`,
		"quarantine_file":   `["CAP_DAC_OVERRIDE","CAP_FOWNER","CAP_SYS_PTRACE"] null`,
		"restore_file":      `["CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_FOWNER","CAP_FSETID"] null`,
		"block_ip":          `["CAP_NET_ADMIN"] ["CAP_NET_ADMIN"]`,
		"unblock_ip":        `["CAP_NET_ADMIN"] ["CAP_NET_ADMIN"]`,
		"collect_evidence":  `["CAP_SYS_PTRACE","CAP_DAC_READ_SEARCH"] null`,
		"isolate_host":      `["CAP_NET_ADMIN"] ["CAP_NET_ADMIN"]`,
		"release_host":      `["CAP_NET_ADMIN"] ["CAP_NET_ADMIN"]`,
		"log":               `null null`,
	} {
		kind, _ := action.Lookup(name)
		spec := kind.Spec()
		if b, ok := spec.(*action.BlockSpec); ok {
			b.Backend = action.NFTables
		}
		if u, ok := spec.(*action.UnblockSpec); ok {
			u.Backend = action.NFTables
		}
		all, _ := json.Marshal(spec.Capabilities(false))
		own, _ := json.Marshal(spec.Capabilities(true))
		if got := string(all) + " " + string(own); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	for backend, want := range map[string]string{action.Netsh: "[]", action.IPTables: "[CAP_NET_ADMIN CAP_NET_RAW]"} {
		if got := fmt.Sprint((&action.BlockSpec{Backend: backend}).Capabilities(true)); got != want {
			t.Errorf("%s needs %s, want %s", backend, got, want)
		}
	}
}

func TestBlockResolve(t *testing.T) {
	for _, c := range []struct {
		spec   action.BlockSpec
		source string
		want   string
	}{
		{action.BlockSpec{Address: action.Addresses{"alert.source_ip"}, TTL: "1h", Backend: "nftables"}, "", `null`},
		{action.BlockSpec{Address: action.Addresses{"alert.source_ip"}, TTL: "90s", Backend: "nftables"}, "1.2.3.4; rm -rf /", `{"address":"1.2.3.4; rm -rf /","ttl":"1m30s","backend":"nftables"}`},
		{action.BlockSpec{Address: action.Addresses{"alert.source_ip", "198.51.100.2"}, TTL: "1h", Backend: "nftables"}, "192.0.2.0/24", `{"address":"192.0.2.0/24","addresses":["198.51.100.2"],"ttl":"1h","backend":"nftables"}`},
		{action.BlockSpec{Address: action.Addresses{"alert.source_ip", "198.51.100.2"}, TTL: "1h", Backend: "nftables"}, "", `{"addresses":["198.51.100.2"],"ttl":"1h","backend":"nftables"}`},
		{action.BlockSpec{Address: action.Addresses{"198.51.100.0/24"}, TTL: "1h", Backend: "nftables"}, "1.2.3.4", `{"addresses":["198.51.100.0/24"],"ttl":"1h","backend":"nftables"}`},
		{action.BlockSpec{Address: action.Addresses{"198.51.100.2"}, TTL: "1h", Backend: "iptables"}, "1.2.3.4", `{"address":"198.51.100.2","ttl":"1h","backend":"iptables"}`},
	} {
		raw, err := json.Marshal(c.spec.Resolve(&stream.Alert{SourceIP: c.source}, action.Seen{}))
		if err != nil || string(raw) != c.want {
			t.Errorf("got %s, %v; want %s", raw, err, c.want)
		}
		if c.want == "null" {
			continue
		}
		effect, _, err := action.Decode("block_ip", raw)
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := json.Marshal(effect); string(again) != c.want {
			t.Errorf("after a round trip: %s", again)
		}
	}
}

// TestPlanBounds resolves alerts as long as alerts can be, with characters of which JSON
// makes six bytes each. What is planned is written with every change of a ledger entry, and
// an entry that Redis will not take would come back to each replica in turn.
func TestPlanBounds(t *testing.T) {
	long := strings.Repeat("<", stream.MaxAlertBytes)
	pid := int64(4711)
	alert := &stream.Alert{
		Host: long, Source: long, Level: long, Title: long, Description: long, Timestamp: long, SourceIP: long,
		Details: json.RawMessage(strconv.Quote(long)), ActionablePID: &pid,
		Rule: stream.Rule{ID: long, Name: long, Author: long, Tags: []string{long}},
		Process: &stream.Process{PID: pid, BootID: long, Name: long, Exe: long, Cmdline: long, UID: &pid,
			Parent: &stream.Parent{PID: 1, Name: long, Exe: long}},
		Extra: map[string]json.RawMessage{"more": json.RawMessage(strconv.Quote(long))},
	}
	bounds := map[string]int{
		"terminate_process": 28 << 10, // a path
		"suspend_process":   28 << 10,
		"resume_process":    28 << 10,
		"quarantine_file":   56 << 10, // two paths
		"restore_file":      26 << 10,
		"run_script":        100 << 10, // two paths and a command line
		"block_ip":          2 << 10,
		"unblock_ip":        2 << 10,
		"collect_evidence":  28 << 10, // a path
		"isolate_host":      1 << 10,
		"release_host":      1 << 10,
		"log":               16 << 10,
		"notify":            100 << 10, // as run_script
	}
	for name, bound := range bounds {
		kind, _ := action.Lookup(name)
		raw, err := json.Marshal(kind.Spec().Resolve(alert, action.Seen{}))
		if err != nil || len(raw) > bound {
			t.Errorf("%s: a plan of %d bytes, %v; want at most %d", name, len(raw), err, bound)
		}
	}
	for _, name := range action.Names() {
		if _, bounded := bounds[name]; !bounded {
			t.Errorf("nothing bounds the plan of %s", name)
		}
	}
}

func TestTargets(t *testing.T) {
	for want, e := range map[string]action.Effect{
		"process/4711":            &action.TerminateProcess{Process: action.Process{PID: 4711}},
		"process/4712":            &action.SuspendProcess{Process: action.Process{PID: 4712}},
		"process/4713":            &action.ResumeProcess{Process: action.Process{PID: 4713}},
		"file//tmp/x":             &action.QuarantineFile{Path: "/tmp/x"},
		"file//tmp/y":             &action.RestoreFile{Path: "/tmp/y", Entry: "e"},
		"vault/e":                 &action.RestoreFile{Entry: "e"},
		"address/198.51.100.0/24": &action.BlockIP{Address: "::ffff:198.51.100.2", Backend: action.NFTables},
		"address/2001:db8::/64 firewall/iptables": &action.BlockIP{Address: "2001:DB8:0::1", Backend: action.IPTables},
		"address/junk": &action.BlockIP{Address: "junk"},
		"address/198.51.100.0/24 address/198.51.101.0/24 address/2001:db8::/64": &action.BlockIP{Address: "198.51.100.2",
			Addresses: []string{"198.51.100.0/24", "198.51.101.0/31", "2001:db8::1", "198.51.100.128/25"}},
		"": &action.Log{},
	} {
		if got := strings.Join(e.Targets(), " "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
