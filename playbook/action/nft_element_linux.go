package action

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// element is one of a set. In a set of intervals it begins one, or is where one has ended.
type element struct {
	addr netip.Addr // or another key
	end  bool
	standing
}

// readElement asks the kernel for one element of a set. The library can only list a set
// as a whole, which takes the longer the more is blocked, and loses the kernel's error.
func readElement(deadline time.Time, set *nftables.Set, key []byte) (standing, error) {
	e, _, err := findElement(deadline, set, key, false)
	return e.standing, err
}

// findElement asks for the element with a key. In a set of intervals that is the one which begins
// the interval that has the key in it, or with end one that ends at the key or after it.
func findElement(deadline time.Time, set *nftables.Set, key []byte, end bool) (element, bool, error) {
	all, err := askElements(deadline, set, 0, func(e *netlink.AttributeEncoder) error {
		e.Nested(unix.NFTA_LIST_ELEM, func(e *netlink.AttributeEncoder) error {
			if end {
				e.ByteOrder = binary.BigEndian
				e.Uint32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
			}
			e.Nested(unix.NFTA_SET_ELEM_KEY, func(e *netlink.AttributeEncoder) error {
				e.Bytes(unix.NFTA_DATA_VALUE, key)
				return nil
			})
			return nil
		})
		return nil
	})
	if err != nil || all == nil {
		return element{}, false, err
	}
	return all[0], true, nil
}

// listElements asks for all elements of a set.
func listElements(deadline time.Time, set *nftables.Set) ([]element, error) {
	return askElements(deadline, set, netlink.Dump, nil)
}

// askElements asks again where the set has changed while the kernel listed it, until the
// deadline: something might be missing. Where there is no such table, set or element there are none.
func askElements(deadline time.Time, set *nftables.Set, flags netlink.HeaderFlags, which func(*netlink.AttributeEncoder) error) ([]element, error) {
	failed := func(err error) error {
		return fmt.Errorf("read nftables set %s: %w", set.Name, needsNetAdmin(err))
	}
	request, err := elementRequest(set, flags, which)
	if err != nil {
		return nil, failed(err)
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, failed(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, failed(err)
	}
	for {
		replies, err := conn.Execute(request)
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, failed(err)
		}
		if slices.ContainsFunc(replies, func(m netlink.Message) bool { return m.Header.Flags&netlink.DumpInterrupted != 0 }) {
			continue
		}
		var all []element
		for _, reply := range replies {
			some, err := parseElements(reply.Data)
			if err != nil {
				return nil, failed(err)
			}
			all = append(all, some...)
		}
		if all == nil && which != nil {
			return nil, failed(errors.New("the kernel's answer holds no element"))
		}
		return all, nil
	}
}

// familyHeader is the length of struct nfgenmsg, which precedes the attributes.
const familyHeader = 4

func elementRequest(set *nftables.Set, flags netlink.HeaderFlags, which func(*netlink.AttributeEncoder) error) (netlink.Message, error) {
	e := netlink.NewAttributeEncoder()
	e.String(unix.NFTA_SET_ELEM_LIST_TABLE, set.Table.Name)
	e.String(unix.NFTA_SET_ELEM_LIST_SET, set.Name)
	if which != nil {
		e.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, which)
	}
	attributes, err := e.Encode()
	return netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM,
			Flags: netlink.Request | flags,
		},
		Data: append([]byte{byte(set.Table.Family), unix.NFNETLINK_V0, 0, 0}, attributes...),
	}, err
}

// parseElements reads the elements in a message of the kernel.
func parseElements(data []byte) (all []element, err error) {
	if len(data) < familyHeader {
		return nil, errors.New("a netlink message without its header")
	}
	top, err := netlink.NewAttributeDecoder(data[familyHeader:])
	if err != nil {
		return nil, err
	}
	for top.Next() {
		if top.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		top.Nested(func(list *netlink.AttributeDecoder) error {
			for list.Next() {
				list.Nested(func(d *netlink.AttributeDecoder) error {
					var e element
					err := e.decode(d)
					all = append(all, e)
					return err
				})
			}
			return nil
		})
	}
	if err := top.Err(); err != nil {
		return nil, fmt.Errorf("element of an nftables set: %w", err)
	}
	return all, nil
}

func (e *element) decode(d *netlink.AttributeDecoder) error {
	d.ByteOrder = binary.BigEndian
	limited := false
	for d.Next() {
		switch d.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			d.Nested(func(key *netlink.AttributeDecoder) error {
				for key.Next() {
					if key.Type() == unix.NFTA_DATA_VALUE {
						e.addr, _ = netip.AddrFromSlice(key.Bytes())
					}
				}
				return nil
			})
		case unix.NFTA_SET_ELEM_FLAGS:
			e.end = d.Uint32()&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_TIMEOUT:
			limited = true
			e.Made = milliseconds(d.Uint64())
		case unix.NFTA_SET_ELEM_EXPIRATION:
			e.Left = milliseconds(d.Uint64())
		case unix.NFTA_SET_ELEM_USERDATA:
			e.AlertID = comment(d.Bytes())
		}
	}
	if !limited { // an operator's, without end
		e.Made, e.Left = forever, forever
	}
	return nil
}

func milliseconds(n uint64) time.Duration {
	return time.Duration(min(n, uint64(forever/time.Millisecond))) * time.Millisecond
}

// comment finds the comment in the type-length-value list that nft keeps in user data.
func comment(list []byte) string {
	for len(list) >= 2 && len(list) >= 2+int(list[1]) {
		value := list[2 : 2+int(list[1])]
		if list[0] == byte(userdata.NFTNL_UDATA_SET_ELEM_COMMENT) {
			if n := len(value); n > 0 && value[n-1] == 0 {
				value = value[:n-1]
			}
			return string(value)
		}
		list = list[2+len(value):]
	}
	return ""
}
