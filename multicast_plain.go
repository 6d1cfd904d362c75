//go:build !linux

package autobus

import (
	"errors"
	"net"
	"net/netip"
)

// Other systems than Linux send and receive one datagram a call.

const maxControl = 0

var errNoBatches = errors.New("not on this system")

func receiveBatches(uintptr) error               { return errNoBatches }
func appendSegmentSize(dst []byte, _ int) []byte { return dst }
func isRefused(error) bool                       { return false }
func routeMTU(netip.AddrPort) int                { return 0 }

func readBatch(conn *net.UDPConn, buf, _ []byte) (n int, c controls, from netip.AddrPort, err error) {
	n, from, err = conn.ReadFromUDPAddrPort(buf)
	return n, c, from, err
}
