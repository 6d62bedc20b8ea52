package guard

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"riposte/playbook/action"
)

const goodAllow = `allow:
  processes:
    - name: restic
      exe: /usr/bin/restic
      sha256: "2CF24DBA5FB0A30E26E83B2AC5B9E29E1B161E5C1FA7425E73043362938B9824"
      uid: 0
      cgroup: /system.slice/backup.service
      cmdline: "^restic backup "
      parent: cron
      reason: our backup
  networks:
    - {network: 10.0.0.0/8, reason: our own}
    - network: 2001:db8::1
`

func TestDecodeAllow(t *testing.T) {
	a, err := Decode("f.yaml", []byte(goodAllow))
	if err != nil {
		t.Fatal(err)
	}
	if p := a.Processes[0]; len(a.Processes) != 1 || len(a.Networks) != 2 || len(a.Warnings) != 0 || len(p.asks) != 7 || p.SHA256 != helloSum || *p.UID != 0 {
		t.Errorf("%+v", a)
	}
	for _, src := range []string{"allow: {}", "allow: {processes: [], networks: []}", "allow: {networks: []}"} {
		if a, err := Decode("f.yaml", []byte(src)); err != nil || len(a.Processes)+len(a.Networks)+len(a.Warnings) != 0 {
			t.Errorf("%s: %+v, %v", src, a, err)
		}
	}
	const processes, networks = "allow:\n  processes:\n", "allow:\n  networks:\n"
	for _, c := range []struct{ src, want string }{
		{strings.Replace(goodAllow, "cmdline", "cmdlien", 1), `f.yaml:8:7: unknown field "cmdlien"; did you mean "cmdline"?`},
		{strings.Replace(goodAllow, "networks", "network", 1), `f.yaml:11:3: unknown field "network"; did you mean "networks"?`},
		{strings.Replace(goodAllow, "reason: our own", "raeson: x", 1), `unknown field "raeson"; did you mean "reason"?`},
		{strings.Replace(goodAllow, "allow:", "alow:", 1), `f.yaml:1:1: unknown field "alow"; did you mean "allow"?`},
		{"", "f.yaml: empty"}, {"allow:\n", "write `allow: {}`"}, {"allow: [x]\n", "f.yaml:1:"},
		{processes + "    - {}\n", "f.yaml:3:7: an entry needs one of name, exe"},
		{processes + "    - reason: x\n", "f.yaml:3:13: an entry needs one of"},
		{processes + "    - name: x\n      exe:\n", "exe is empty; leave it out"},
		{processes + "    - name: x\n      exe: \" \"\n", "f.yaml:4:12: exe is empty"},
		{processes + "    - name: x\n      uid:\n", "uid is empty; leave it out"},
		{processes + "    - name: x\n      cgroup: ''\n", "f.yaml:4:15: cgroup is empty"},
		{processes + "    - name: x\n      \"exe\": ''\n", "exe is empty"},
		{"allow:\n  \"processes\":\n    - {name: x, exe: ~}\n", "exe is empty"},
		{processes + "    - name: x\n      ? exe\n      :\n", "exe is empty"},
		{processes + "    - &a {name: x}\n    - {<<: *a, exe: }\n", "exe is empty"},
		{processes + "    -\n", "an entry needs one of"},
		{processes + "    - uid: root\n", "f.yaml:3:12: want a whole number"},
		{processes + "    - uid: -1\n", "f.yaml:3:12: uid: want the number"},
		{processes + "    - uid: 4294967295\n", "uid: want the number"},
		{processes + "    - name: /bin/x\n", "f.yaml:3:13: name: want a name"},
		{processes + "    - parent: bin/x\n", "f.yaml:3:15: parent: want a name"},
		{processes + "    - exe: bin/x\n", "f.yaml:3:12: exe: want a path"},
		{processes + "    - exe: /usr/../bin/x\n", "f.yaml:3:12: exe: want a path"},
		{processes + "    - cgroup: /\n", "f.yaml:3:15: cgroup: want a path"},
		{processes + "    - cgroup: /system.slice/\n", "f.yaml:3:15: cgroup: want a path"},
		{processes + "    - exe: /opt/agent/*\n", "f.yaml:3:12: exe: * stands for nothing but itself"},
		{processes + "    - uid: 0\n      cgroup: /user.slice/*\n", "f.yaml:4:15: cgroup: * stands for"},
		{processes + "    - uid: 0\n      cmdline: backup|\n", "f.yaml:4:16: cmdline: this is found in all"},
		{processes + "    - cmdline: '('\n", "f.yaml:3:16: cmdline: error parsing regexp"},
		{processes + "    - sha256: abc\n", "f.yaml:3:15: sha256: want the 64 hex digits"},
		{networks + "    - network: 10.0.0.1/8\n", "f.yaml:3:16: network: 10.0.0.1/8 is an address in the network 10.0.0.0/8"},
		{networks + "    - network: ten\n", `f.yaml:3:16: network: "ten": want a network`},
		{networks + "    - reason: x\n", `network: "": want a network`},
		{networks + "    - network: fe80::1%eth0\n", "want a network"},
		{networks + "    - network: ::ffff:10.0.0.0/104\n", "write it as IPv4"},
	} {
		if _, err := Decode("f.yaml", []byte(c.src)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\ngot  %v\nwant %s", c.src, err, c.want)
		}
	}
	for entry, warned := range map[string]bool{
		"name: x": true, "parent: x": true, "cmdline: x": true, "{name: x, parent: y, cmdline: z}": true,
		"{name: x, uid: 0}": false, "uid: 0": true, "uid: 1": false, "exe: /x": false, "cgroup: /x": false, "{parent: y, sha256: " + helloSum + "}": false,
	} {
		a, err := Decode("f.yaml", []byte(processes+"    - "+entry+"\n"))
		if err != nil || len(a.Warnings) > 1 || (len(a.Warnings) == 1) != warned {
			t.Errorf("%s: warnings %q, %v", entry, a.Warnings, err)
		} else if warned && !strings.HasPrefix(a.Warnings[0], "f.yaml:3:") {
			t.Errorf("%s: %s", entry, a.Warnings[0])
		}
	}
	if a, err := Decode("f.yaml", []byte(networks+"    - network: ::/0\n")); err != nil || len(a.Warnings) != 1 || !strings.Contains(a.Warnings[0], "every address") {
		t.Errorf("%+v, %v", a, err)
	}
}

// helloSum is the SHA-256 of hello.
const helloSum = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

// told is a process of which all is known, but for what is blind.
type told struct {
	names, groups, parents []string
	user                   int
	exe, args, hash        string
	blind                  string // fields that cannot be read
}

var errBlind = errors.New("no right to look")

func (p told) see(field string) error {
	if slices.Contains(strings.Fields(p.blind), field) {
		return errBlind
	}
	return nil
}

func (p told) called(n string) (bool, error) { return slices.Contains(p.names, n), p.see("name") }
func (p told) uid() (int, error)             { return p.user, p.see("uid") }
func (p told) cgroups() ([]string, error)    { return p.groups, p.see("cgroup") }
func (p told) parentCalled(n string) (bool, error) {
	return slices.Contains(p.parents, n), p.see("parent")
}
func (p told) runs(exe string) (bool, error) { return p.exe == exe, p.see("exe") }
func (p told) cmdline() (string, error)      { return p.args, p.see("cmdline") }
func (p told) sum() (string, error)          { return p.hash, p.see("sha256") }

// TestAllowedProcess asks of each field alone, and of all of them together.
func TestAllowedProcess(t *testing.T) {
	restic := told{
		names: []string{"restic"}, user: 0, groups: []string{"/system.slice/backup.service"}, parents: []string{"cron"},
		exe: "/usr/bin/restic", args: "restic backup /home", hash: helloSum,
	}
	fields := map[string]struct {
		entry string
		other func(p *told) // makes it another in this field
	}{
		"name":    {"name: restic", func(p *told) { p.names = []string{"restic2", "resti"} }},
		"exe":     {"exe: /usr/bin/restic", func(p *told) { p.exe = "/tmp/usr/bin/restic" }},
		"sha256":  {"sha256: " + helloSum, func(p *told) { p.hash = "" }},
		"uid":     {"uid: 0", func(p *told) { p.user = 1000 }},
		"cgroup":  {"cgroup: /system.slice/backup.service", func(p *told) { p.groups = []string{"/system.slice", "/system.slice/backup.service2", "/"} }},
		"cmdline": {`cmdline: "^restic backup "`, func(p *told) { p.args = "x restic backup " }},
		"parent":  {"parent: cron", func(p *told) { p.parents = []string{"crond"} }},
	}
	all := decode(t, goodAllow)
	want := func(what string, a *Allow, s subject, why string, unread bool) {
		t.Helper()
		err := a.process(7, s)
		reason, refused := action.Reason(err)
		if refused != (why != "") || !strings.Contains(reason, why) {
			t.Errorf("%s: got %v, want %q", what, err, why)
		}
		if r := (*action.Refusal)(nil); errors.As(err, &r) && r.Unread != unread {
			t.Errorf("%s: unread is %t: %v", what, r.Unread, err)
		}
	}
	want("all of it", all, restic, "PID 7 is allow-listed: our backup", false)
	for name, f := range fields {
		alone := decode(t, "allow: {processes: [{"+f.entry+"}]}")
		another := restic
		f.other(&another)
		want(name, alone, restic, "PID 7 is allow-listed: "+name+" ", false)
		want(name+" of another", alone, another, "", false)
		want("all but "+name, all, another, "", false)
		blind := restic
		blind.blind = name
		const untold = "cannot be told: no right to look"
		want(name+" unread", alone, blind, "whether PID 7 is allow-listed ("+name, true)
		want("all but "+name+", unread", all, blind, untold, true)
		for second, g := range fields {
			if second != name { // what is known to be another settles it
				not := blind
				g.other(&not)
				want(name+" unread and "+second+" of another", all, not, "", false)
			}
		}
	}
	below := restic
	below.groups = []string{"/", "/system.slice/backup.service/inner"}
	want("below", all, below, "our backup", false)
	// One that covers it says so, whatever could not be read for those before.
	two := decode(t, "allow: {processes: [{exe: /x}, {uid: 5, reason: \"the\\n  second\"}]}")
	want("the second", two, told{user: 5, blind: "exe"}, "allow-listed: the second", false)
	want("the first unread", two, told{user: 6, blind: "exe"}, "cannot be told", true)
	want("an empty list", decode(t, "allow: {}"), restic, "", false)
}

func decode(t *testing.T, src string) *Allow {
	t.Helper()
	a, err := Decode("f.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAllowedNetworks(t *testing.T) {
	a := decode(t, "allow: {networks: [{network: 198.51.100.64/26, reason: ours}, {network: 203.0.113.7}, {network: '2001:db8:1::/48'}, {network: '::ffff:192.0.2.7'}]}")
	want := func(what string, err error, why string) {
		t.Helper()
		if reason, refused := action.Reason(err); refused != (why != "") || !strings.Contains(reason, why) {
			t.Errorf("%s: got %v, want %q", what, err, why)
		}
	}
	for addr, why := range map[string]string{
		"198.51.100.64": "198.51.100.64 is allow-listed: ours (198.51.100.64/26)", "198.51.100.127": "ours", "198.51.100.128": "", "198.51.100.63": "",
		"203.0.113.7": "is allow-listed: 203.0.113.7", "203.0.113.8": "", "::ffff:203.0.113.7": "203.0.113.7 is allow-listed", "192.0.2.7": "allow-listed",
		"2001:db8:1::5": "allow-listed: 2001:db8:1::/48", "2001:db8:2::5": "", "2001:db8:1::5%eth0": "allow-listed",
		"64:ff9b::cb00:7107": "stands for 203.0.113.7, which is allow-listed", "2002:cb00:7107::1": "allow-listed", "64:ff9b::cb00:7108": "",
	} {
		want(addr, a.address(netip.MustParseAddr(addr)), why)
	}
	for network, why := range map[string]string{
		"198.51.100.0/24": "198.51.100.0/24 has addresses in it that are allow-listed: ours (198.51.100.64/26)", "198.51.100.64/30": "ours", "198.51.100.0/26": "",
		"203.0.113.0/29": "allow-listed", "203.0.113.8/29": "", "2001:db8:1:5::/64": "allow-listed", "2001:db8:2::/64": "",
		"64:ff9b::cb00:7100/120": "allow-listed", "2002:cb00:7107::/64": "allow-listed",
	} {
		want(network, a.network(netip.MustParsePrefix(network)), why)
	}
}

func FuzzDecodeAllow(f *testing.F) {
	f.Add([]byte(goodAllow))
	f.Add([]byte("allow: {}"))
	f.Add([]byte("allow: {processes: [{uid: 0x10}], networks: [{network: '::'}]}"))
	f.Add([]byte("allow:\n  processes:\n    - &a {name: x}\n    - *a\n    - {<<: *a, uid: 1}\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		a, err := Decode("f.yaml", src)
		if err != nil {
			if a != nil {
				t.Error("half a list with an error")
			}
			return
		}
		nobody := told{user: -1, blind: "name exe sha256 uid cgroup cmdline parent"}
		for i := range a.Processes {
			if p := &a.Processes[i]; len(p.asks) == 0 || p.fields() == "" {
				t.Errorf("an entry that covers everybody: %+v", p)
			} else if covers, err := p.covers(nobody); covers || err == nil {
				t.Errorf("it covers whom nobody can see: %+v", p)
			}
		}
		for _, n := range a.Networks {
			if err := a.address(n.prefix.Addr()); err == nil {
				t.Errorf("%v does not cover its own address", n)
			}
			if err := a.network(n.prefix); err == nil {
				t.Errorf("%v does not cover itself", n)
			}
		}
		if again, err := Decode("f.yaml", src); err != nil || !reflect.DeepEqual(again.Warnings, a.Warnings) {
			t.Errorf("another list at the second time: %v", err)
		}
	})
}
