package playbook_test

import (
	"testing"

	"riposte/playbook"
)

// TestShipped: every playbook that comes with the binary is one, and is called as its file is.
func TestShipped(t *testing.T) {
	for _, name := range playbook.Shipped() {
		src, err := playbook.Source(name)
		if err != nil {
			t.Fatal(err)
		}
		p, err := playbook.Decode(name+".yaml", src)
		if err != nil {
			t.Error(err)
			continue
		}
		if p.Name != name || p.Description == "" {
			t.Errorf("%s.yaml is called %q, description %q", name, p.Name, p.Description)
		}
	}
}
