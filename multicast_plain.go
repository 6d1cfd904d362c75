//go:build !linux

package autobus

import (
	"errors"
	"net/netip"
)

// Other systems than Linux send and receive one datagram a call.

const maxControl = 0

var errNoBatches = errors.New("not on this system")

func receiveBatches(uintptr) error               { return errNoBatches }
func appendSegmentSize(dst []byte, _ int) []byte { return dst }
func parseControls([]byte) (c controls)          { return c }
func isRefused(error) bool                       { return false }
func routeMTU(netip.AddrPort) int                { return 0 }
