package main

import (
	"github.com/spf13/cobra"

	"riposte/cmd/riposte/demo"
)

// newDecoyCmd is what the processes of a decoy chain run. Nobody calls it by hand.
func newDecoyCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "decoy", Short: "A harmless process with a bad name", Hidden: true}
	cmd.AddCommand(
		&cobra.Command{
			Use: "parent NONCE CHILD STUBBORN", Short: "The first process of a chain", Args: cobra.ExactArgs(3),
			RunE: func(cmd *cobra.Command, args []string) error {
				return demo.Parent(cmd.Context(), a.out, args[0], args[1], args[2])
			},
		},
		&cobra.Command{
			Use: "child NONCE STUBBORN", Short: "The second process of a chain", Args: cobra.ExactArgs(2),
			RunE: func(cmd *cobra.Command, args []string) error { return demo.Child(cmd.Context(), args[1]) },
		},
	)
	return cmd
}
