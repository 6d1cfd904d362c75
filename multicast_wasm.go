package autobus

import (
	"net"
	"net/netip"
)

const (
	readBufferLimit = ""

	choosesInterface = true
	memberByIndex    = false
)

var errAddrInUse = errNoMulticast // nothing gets as far as that

func listenGroup(netip.AddrPort) (*net.UDPConn, error) { return nil, errNoMulticast }

func join(uintptr, netip.Addr, card) error            { return errNoMulticast }
func leave(uintptr, netip.Addr, card) error           { return errNoMulticast }
func setSending(uintptr, netip.Addr, int, bool) error { return errNoMulticast }
func setCard(uintptr, netip.Addr, card) error         { return errNoMulticast }
func readBuffer(uintptr, int) (int, error)            { return 0, errNoMulticast }
func isNoRoute(error) bool                            { return false }
func isQueueFull(error) bool                          { return false }
