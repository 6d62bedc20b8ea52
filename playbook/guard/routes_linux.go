package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// gateways are the routers of this host, in all its routing tables: not only the default
// ones, for a router of this host is no attacker. The files under /proc would tell of one
// table alone, and of the first of several next hops.
func gateways() (list addrs, err error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		routes, err := dump(conn, unix.RTM_GETROUTE, family, unix.SizeofRtMsg)
		if err != nil {
			return nil, err
		}
		// Where nexthop_compat_mode is off, a route tells its next hop by a number only.
		hops, err := dump(conn, unix.RTM_GETNEXTHOP, family, unix.SizeofNhmsg)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) { // it is since Linux 5.3
			return nil, err
		}
		for _, raw := range routes {
			found, err := parseRoute(raw)
			if err != nil {
				return nil, err
			}
			list = append(list, found...)
		}
		for _, raw := range hops {
			found, err := parseNexthop(raw)
			if err != nil {
				return nil, err
			}
			list = append(list, found...)
		}
	}
	return list, nil
}

// dump asks the kernel for all it has of a kind, and returns their attributes. What
// precedes those is head bytes long, and the first of them is the family.
func dump(conn *netlink.Conn, kind netlink.HeaderType, family byte, head int) (all [][]byte, err error) {
	messages, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{family}, make([]byte, head-1)...),
	})
	for _, m := range messages {
		// Asked for a family it does not know, the kernel tells of all others.
		if len(m.Data) >= head && m.Data[0] == family {
			all = append(all, m.Data[head:])
		}
	}
	return all, err
}

// parseRoute reads the gateways in the attributes of a route, see rtnetlink(7).
func parseRoute(raw []byte) (list addrs, err error) {
	attributes, err := netlink.NewAttributeDecoder(raw)
	if err != nil {
		return nil, err
	}
	for attributes.Next() {
		var found addrs
		var err error
		switch data := attributes.Bytes(); attributes.Type() {
		case unix.RTA_GATEWAY:
			found, err = parseGateway(data)
		case unix.RTA_VIA: // a gateway of another family, which is named in two bytes
			found, err = parseGateway(data[min(2, len(data)):])
		case unix.RTA_MULTIPATH:
			found, err = parseMultipath(data)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	if err := attributes.Err(); err != nil {
		return nil, err
	}
	return list, nil
}

// parseMultipath reads several next hops: each begins with its length, in all, and has
// the attributes of a route.
func parseMultipath(raw []byte) (list addrs, err error) {
	for len(raw) > 0 {
		size := 0
		if len(raw) >= unix.SizeofRtNexthop {
			size = int(binary.NativeEndian.Uint16(raw))
		}
		if size < unix.SizeofRtNexthop || size > len(raw) {
			return nil, fmt.Errorf("next hop of %d bytes where a route has %d left", size, len(raw))
		}
		found, err := parseRoute(raw[unix.SizeofRtNexthop:size])
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
		raw = raw[min(len(raw), (size+3)&^3):] // the next one is aligned
	}
	return list, nil
}

// parseNexthop reads the gateway in the attributes of a next hop that has a number.
func parseNexthop(raw []byte) (addrs, error) {
	attributes, err := netlink.NewAttributeDecoder(raw)
	if err != nil {
		return nil, err
	}
	for attributes.Next() {
		if attributes.Type() == unix.NHA_GATEWAY {
			return parseGateway(attributes.Bytes())
		}
	}
	return nil, attributes.Err()
}

func parseGateway(raw []byte) (addrs, error) {
	addr, ok := netip.AddrFromSlice(raw)
	if !ok {
		return nil, fmt.Errorf("gateway of %d bytes", len(raw))
	}
	return addrs{addr}, nil
}
