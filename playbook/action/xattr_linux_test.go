package action_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"riposte/playbook/action"
	"riposte/test/need"
)

// acl is an access list of the owner, one more user, the group and the others, as the kernel
// has it. The mask lets all of it through.
func acl(owner, user, group, others uint16) string {
	out := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, rights uint16
		id          uint32
	}{{0x01, owner, 1<<32 - 1}, {0x02, user, 1234}, {0x04, group, 1<<32 - 1}, {0x10, 7, 1<<32 - 1}, {0x20, others, 1<<32 - 1}} {
		out = binary.LittleEndian.AppendUint16(out, e.tag)
		out = binary.LittleEndian.AppendUint16(out, e.rights)
		out = binary.LittleEndian.AppendUint32(out, e.id)
	}
	return string(out)
}

// netRaw are file capabilities: CAP_NET_RAW, effective and permitted.
const netRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func setAttr(t *testing.T, path, name, value string) {
	t.Helper()
	need.Supported(t, "the attribute "+name+" on files in TMPDIR", unix.Setxattr(path, name, []byte(value), 0))
}

// attrs are the extended attributes of a file that matter here.
func attrs(t *testing.T, path string) map[string]string {
	t.Helper()
	list := make([]byte, 64<<10)
	n, err := unix.Listxattr(path, list)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if !strings.HasPrefix(name, "user.") && name != "security.capability" && name != "system.posix_acl_access" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Getxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(value[:n])
	}
	return all
}

// What a file may do by its extended attributes it may do again when it is back, and not while
// it is in the vault.
func TestQuarantineKeepsAttributes(t *testing.T) {
	if !inside(t) {
		return
	}
	for what, want := range map[string]map[string]string{
		"capabilities":   {"security.capability": netRaw},
		"an access list": {"system.posix_acl_access": acl(6, 4, 0, 0)},
		"a user's own":   {"user.note": "\x00 from \xff", "user.empty": "", "user.<ä>": strings.Repeat("x", 2000)},
		"all":            {"user.note": "x", "system.posix_acl_access": acl(7, 5, 1, 1), "security.capability": netRaw},
		"none":           {},
	} {
		env, path := vaultEnv(t), dropped(t, "malware")
		if err := os.Chown(path, 65534, 65533); err != nil {
			t.Fatal(err)
		}
		for name, value := range want {
			setAttr(t, path, name, value)
		}
		before, _ := os.Stat(path)
		e := &action.QuarantineFile{Path: path}
		if r := apply(t, e, env); strings.Contains(r.Reason, "attributes") {
			t.Errorf("%s: %s", what, r.Reason)
		}
		holds(t, env, "malware")
		if got := attrs(t, filepath.Join(vaulted(env), "content")); len(got) > 0 {
			t.Errorf("%s: in the vault it has %q", what, got)
		}
		// Whoever else may write to its folder by now is given nothing by it.
		setAttr(t, filepath.Dir(path), "system.posix_acl_default", acl(7, 7, 7, 7))
		if r := apply(t, takenBack(t, e, "restore_file"), env); strings.Contains(r.Reason, "attribute") {
			t.Errorf("%s: %s", what, r.Reason)
		}
		if got := attrs(t, path); !maps.Equal(got, want) {
			t.Errorf("%s: it is back with %q, and had %q", what, got, want)
		}
		if after, err := os.Stat(path); err != nil || after.Mode() != before.Mode() || !owned(after, 65534, 65533) {
			t.Errorf("%s: it is back with %v, and had %v", what, after, before)
		}
	}
}

// However much somebody has written beside his file, it is taken away, and what grants something
// comes back.
func TestQuarantineOfManyAttributes(t *testing.T) {
	if !inside(t) {
		return
	}
	folder := t.TempDir()
	if err := unix.Mount("none", folder, "tmpfs", 0, ""); err != nil { // it takes more than ext4 does
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(folder, unix.MNT_DETACH) })
	env, path := vaultEnv(t), filepath.Join(folder, strings.Repeat("\x01", 250))
	write(t, path, "malware")
	for i := range 100 {
		setAttr(t, path, "user."+strings.Repeat("<", 240)+fmt.Sprint(i), strings.Repeat("x", 300))
	}
	setAttr(t, path, "user.\xff", "x")
	setAttr(t, path, "system.posix_acl_access", acl(7, 5, 0, 0))
	had := attrs(t, path)
	e := &action.QuarantineFile{Path: path}
	outcome(t, apply(t, e, env), action.Quarantined, "of its extended attributes were not kept")
	inPlace(t, e, env, action.Quarantined)
	if info, err := os.Stat(filepath.Join(vaulted(env), "manifest.json")); err != nil || info.Size() > 64<<10 {
		t.Errorf("the manifest: %v, %v", info.Size(), err)
	}
	outcome(t, apply(t, takenBack(t, e, "restore_file"), env), action.Restored, "")
	got := attrs(t, path)
	if got["system.posix_acl_access"] != acl(7, 5, 0, 0) || len(got) < 10 || len(got) >= len(had) {
		t.Errorf("%d of %d are back: %q", len(got), len(had), slices.Sorted(maps.Keys(got)))
	}
	for name, value := range got {
		if had[name] != value {
			t.Errorf("%q is %q, and was %q", name, value, had[name])
		}
	}
}
