package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"riposte/playbook/action"
	"riposte/stream/strict"
)

func newActionsCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "actions [NAME]",
		Short: "List what a playbook's steps can do, or show the reference of one action",
		Long: `Actions lists the actions that a step of a playbook can name. With a NAME it prints the
reference page of that action: its fields with their defaults and ranges, its outcomes, what
refuses it, and an example. It needs neither Redis nor privileges.`,
		Example: `  riposte actions
  riposte actions block_ip
  riposte actions -o json`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return action.Names(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.listActions()
			}
			return a.showAction(args[0])
		},
	}
	a.outputFlag(cmd)
	return cmd
}

// actionRow is an action as it is listed. What it needs is what its defaults need.
type actionRow struct {
	Name         string              `json:"name"`
	Class        action.Class        `json:"class"`
	Targeted     bool                `json:"targeted"` // needs something in the alert to act on
	Reversible   bool                `json:"reversible"`
	Platforms    []string            `json:"platforms"`
	Capabilities []action.Capability `json:"capabilities"`
	Reference    string              `json:"reference,omitempty"` // Markdown; of one action only
}

func newActionRow(k action.Kind) actionRow {
	_, reversible := k.Effect().(action.Reversible)
	row := actionRow{
		Name: k.Name, Class: k.Class, Targeted: k.Targeted, Reversible: reversible,
		Platforms: k.Platforms(), Capabilities: k.Spec().Capabilities(false),
	}
	if row.Capabilities == nil {
		row.Capabilities = []action.Capability{} // [], not null
	}
	return row
}

func (a *app) listActions() error {
	var list []actionRow
	for _, name := range action.Names() {
		k, _ := action.Lookup(name)
		list = append(list, newActionRow(k))
	}
	if a.output == "json" {
		return a.json(list)
	}
	yes := map[bool]string{true: "yes", false: "-"}
	var rows [][]string
	for _, l := range list {
		var caps []string
		for _, c := range l.Capabilities {
			caps = append(caps, string(c))
		}
		slices.Sort(caps)
		rows = append(rows, []string{
			l.Name, string(l.Class), yes[l.Targeted], yes[l.Reversible], strings.Join(l.Platforms, " "), cmp.Or(strings.Join(caps, " "), "-"),
		})
	}
	return a.table([]string{"ACTION", "CLASS", "NEEDS A TARGET", "CAN BE UNDONE", "PLATFORMS", "CAPABILITIES"}, rows)
}

func (a *app) showAction(name string) error {
	k, ok := action.Lookup(name)
	if !ok {
		return &usageError{fmt.Sprintf("unknown action %q%s", name, strict.Hint(name, action.Names()))}
	}
	page, err := action.Reference(name)
	if err != nil {
		return err
	}
	if a.output == "json" {
		row := newActionRow(k)
		row.Reference = page
		return a.json(row)
	}
	_, err = io.WriteString(a.out, page)
	return err
}
