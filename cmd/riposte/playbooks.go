package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"riposte/playbook"
)

// shipped is one playbook that comes with Riposte, for scripts.
type shipped struct {
	Name        string `json:"name"`
	Mode        string `json:"mode,omitempty"`
	Description string `json:"description"`
}

func newPlaybooksCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "playbooks [NAME]",
		Short: "List the playbooks that come with riposte, or print one",
		Long: `Playbooks lists the playbooks that come with riposte, or prints one, to be put into the folder of
--playbooks and changed there. Without that folder a responder runs the one called default.`,
		Example: `  riposte playbooks
  riposte playbooks cryptominer > /etc/riposte/playbooks/20-cryptominer.yaml`,
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: playbook.Shipped(),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				src, err := playbook.Source(args[0])
				if err != nil {
					return &usageError{err.Error()}
				}
				_, err = a.out.Write(src)
				return err
			}
			all := []shipped{}
			var rows [][]string
			for _, name := range playbook.Shipped() {
				src, err := playbook.Source(name)
				if err != nil {
					return err
				}
				p, err := playbook.Decode(name, src)
				if err != nil {
					return fmt.Errorf("a playbook of this binary: %w", err)
				}
				all = append(all, shipped{name, string(p.Mode), p.Description})
				mode := string(p.Mode)
				if mode == "" {
					mode = "as --mode"
				}
				rows = append(rows, []string{name, mode, p.Description})
			}
			if a.output == "json" {
				return a.json(all)
			}
			return a.table([]string{"NAME", "MODE", "DESCRIPTION"}, rows)
		},
	}
	a.outputFlag(cmd)
	return cmd
}
