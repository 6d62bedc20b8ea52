package action

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// readElement asks the kernel for one element of a set. The library can only list a set
// as a whole, which takes the longer the more is blocked, and loses the kernel's error.
func readElement(deadline time.Time, set *nftables.Set, key []byte) (standing, error) {
	request, err := elementRequest(set, key)
	if err != nil {
		return standing{}, err
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return standing{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return standing{}, err
	}
	replies, err := conn.Execute(request)
	if errors.Is(err, os.ErrNotExist) { // no such table, set or element
		return standing{}, nil
	}
	if err != nil {
		return standing{}, err
	}
	for _, reply := range replies {
		if s, ok, err := parseElement(reply.Data); ok || err != nil {
			return s, err
		}
	}
	return standing{}, errors.New("the kernel's answer holds no element")
}

// familyHeader is the length of struct nfgenmsg, which precedes the attributes.
const familyHeader = 4

func elementRequest(set *nftables.Set, key []byte) (netlink.Message, error) {
	e := netlink.NewAttributeEncoder()
	e.String(unix.NFTA_SET_ELEM_LIST_TABLE, set.Table.Name)
	e.String(unix.NFTA_SET_ELEM_LIST_SET, set.Name)
	e.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(e *netlink.AttributeEncoder) error {
		e.Nested(unix.NFTA_LIST_ELEM, func(e *netlink.AttributeEncoder) error {
			e.Nested(unix.NFTA_SET_ELEM_KEY, func(e *netlink.AttributeEncoder) error {
				e.Bytes(unix.NFTA_DATA_VALUE, key)
				return nil
			})
			return nil
		})
		return nil
	})
	attributes, err := e.Encode()
	return netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM,
			Flags: netlink.Request,
		},
		Data: append([]byte{byte(set.Table.Family), unix.NFNETLINK_V0, 0, 0}, attributes...),
	}, err
}

// parseElement reads the element in a message of the kernel. ok is false where there is
// none in it.
func parseElement(data []byte) (s standing, ok bool, err error) {
	if len(data) < familyHeader {
		return s, false, errors.New("a netlink message without its header")
	}
	top, err := netlink.NewAttributeDecoder(data[familyHeader:])
	if err != nil {
		return s, false, err
	}
	for top.Next() {
		if top.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		top.Nested(func(list *netlink.AttributeDecoder) error {
			for list.Next() {
				list.Nested(func(element *netlink.AttributeDecoder) error {
					ok = true
					return s.decode(element)
				})
			}
			return nil
		})
	}
	if err := top.Err(); err != nil {
		return standing{}, false, fmt.Errorf("element of an nftables set: %w", err)
	}
	return s, ok, nil
}

func (s *standing) decode(d *netlink.AttributeDecoder) error {
	d.ByteOrder = binary.BigEndian
	limited := false
	for d.Next() {
		switch d.Type() {
		case unix.NFTA_SET_ELEM_TIMEOUT:
			limited = true
			s.Made = milliseconds(d.Uint64())
		case unix.NFTA_SET_ELEM_EXPIRATION:
			s.Left = milliseconds(d.Uint64())
		case unix.NFTA_SET_ELEM_USERDATA:
			s.AlertID = comment(d.Bytes())
		}
	}
	if !limited { // an operator's, without end
		s.Made, s.Left = forever, forever
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
