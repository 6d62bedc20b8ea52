package main

import "github.com/spf13/cobra"

// newIdleCmd is what the pretend host in docker-compose.yml runs: its image holds this
// binary and no other. Nobody calls it by hand.
func newIdleCmd(*app) *cobra.Command {
	return &cobra.Command{
		Use: "idle", Short: "Wait for a signal", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			<-cmd.Context().Done()
			return nil
		},
	}
}
