package action

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Extended attributes that a file gets back, beside those of users: file capabilities, and its
// access list. Labels of security modules are for their policy to give.
const (
	capabilityAttr = "security.capability"
	accessAttr     = "system.posix_acl_access"
	userAttrs      = "user."
)

const (
	maxAttr  = 64 << 10 // bytes of one, and of the names of all: the kernel's own bounds
	maxAttrs = 32 << 10 // bytes in a manifest: whoever dropped a file may have put anything there
)

// note takes down the extended attributes of a file, and counts those that are too many.
func (m *deposit) note(fd int) error {
	list, value := make([]byte, maxAttr), make([]byte, maxAttr)
	n, err := unix.Flistxattr(fd, list)
	if errors.Is(err, unix.E2BIG) {
		n, err, m.Left = 0, nil, 1
	}
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("extended attributes: %w", err)
	}
	names := []string{capabilityAttr, accessAttr} // first, for they grant something
	for name := range strings.SplitSeq(string(list[:max(0, n)]), "\x00") {
		if strings.HasPrefix(name, userAttrs) {
			names = append(names, name)
		}
	}
	m.Attributes = map[string][]byte{}
	space := maxAttrs
	for _, name := range names {
		n, err := unix.Fgetxattr(fd, name, value)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
			continue
		}
		if err != nil && !errors.Is(err, unix.E2BIG) {
			return fmt.Errorf("extended attribute %s: %w", quoted(name), err)
		}
		one := map[string][]byte{name: append([]byte{}, value[:max(0, n)]...)}
		raw, _ := json.Marshal(one)
		if fits := err == nil && len(raw)+16 <= space && utf8.ValidString(name); fits {
			m.Attributes[name] = one[name]
			space -= len(raw) + 16 // it is indented
			continue
		}
		if m.Left++; name == accessAttr {
			m.narrow()
		}
	}
	return nil
}

// narrow takes the group's rights out of the mode: of a file with an access list they are those
// of the users on it, too, and its own group may have had less.
func (m *deposit) narrow() {
	mode, err := m.mode()
	if err == nil {
		m.Mode = fmt.Sprintf("%o", mode&^0o070)
	}
}

// give gives a file the extended attributes that were taken down. It says what it lacks where it
// has to do without: but never without the access list, which kept others out.
func (m *deposit) give(fd int) (lacks string, err error) {
	// The folder may have had a list for what is made in it.
	err = unix.Fremovexattr(fd, accessAttr)
	if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP) {
		return "", fmt.Errorf("inherited access list: %w", err)
	}
	for name, value := range m.Attributes {
		err := unix.Fsetxattr(fd, name, value, 0)
		switch {
		case err == nil:
		case name != accessAttr && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP)):
			lacks = clip(lacks+fmt.Sprintf("; without its extended attribute %s: %v", quoted(name), err), maxField)
		default:
			return "", fmt.Errorf("extended attribute %s: %w", quoted(name), err)
		}
	}
	return lacks, nil
}
