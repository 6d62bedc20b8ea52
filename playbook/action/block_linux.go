package action

func newFirewall(backend string, env Env) (firewall, error) {
	switch backend {
	case NFTables:
		return nft{env.AlertID}, nil
	case IPTables:
		return iptables{env.Locks}, nil
	}
	return nil, Refuse("backend %s does not exist on Linux: use nftables or iptables", backend)
}
