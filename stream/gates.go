package stream

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// GateStatus is a gate through which replicas enforce on a host.
type GateStatus struct {
	ID       string   `json:"id"`
	Replicas []string `json:"replicas"`
	Unfenced bool     `json:"unfenced"` // one of them was told to enforce beside other gates
}

// gates reads the gates that live replicas have registered in a host's control hash: field
// gate:REPLICA, value "GATE UNTIL_US fenced|unfenced GROUP".
func gates(control map[string]string, now time.Time) []GateStatus {
	byID := map[string]*GateStatus{}
	for field, value := range control {
		replica, ok := strings.CutPrefix(field, "gate:")
		f := strings.Fields(value)
		if !ok || len(f) < 3 {
			continue
		}
		if until, err := strconv.ParseInt(f[1], 10, 64); err != nil || until <= now.UnixMicro() {
			continue
		}
		g := byID[f[0]]
		if g == nil {
			g = &GateStatus{ID: f[0]}
			byID[f[0]] = g
		}
		g.Replicas = append(g.Replicas, replica)
		g.Unfenced = g.Unfenced || f[2] == "unfenced"
	}
	all := []GateStatus{}
	for _, g := range byID {
		slices.Sort(g.Replicas)
		all = append(all, *g)
	}
	slices.SortFunc(all, func(a, b GateStatus) int { return cmp.Compare(a.Replicas[0], b.Replicas[0]) })
	return all
}

// gateWords warns where nothing fences the effects of one replica from another's.
func gateWords(gates []GateStatus) []string {
	var names []string
	unfenced := false
	for _, g := range gates {
		names = append(names, strings.Join(g.Replicas, ", "))
		unfenced = unfenced || g.Unfenced
	}
	switch {
	case len(gates) > 1:
		return []string{fmt.Sprintf("UNFENCED: %d gates on this host; effects are not fenced between %s; give all replicas the same --runtime-dir",
			len(gates), strings.Join(names, " and "))}
	case unfenced:
		return []string{fmt.Sprintf("UNFENCED: %s may enforce beside replicas with another gate, for --unfenced was given", names[0])}
	}
	return nil
}
