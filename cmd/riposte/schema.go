package main

import (
	"github.com/spf13/cobra"

	"riposte/playbook"
)

func newSchemaCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of playbooks, for editors",
		Long: `Schema prints the JSON Schema of a playbook. An editor that speaks it completes and checks while
you write, for example by this first line of the playbook:

  # yaml-language-server: $schema=./playbook.schema.json`,
		Example: `  riposte schema > playbook.schema.json`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := a.out.Write(playbook.Schema)
			return err
		},
	}
}
