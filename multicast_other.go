//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd || windows || wasm)

package autobus

import (
	"errors"
	"net"
	"net/netip"
)

// Here the transport does with what package net gives: it receives on the
// interface that the system takes for the group and sends by the routing
// table, at the system's own TTL (RFC 1112, section 6.1, has it at 1).

const (
	readBufferLimit = "the system's limit for a socket buffer"

	// choosesInterface says that interface= works.
	choosesInterface = false
	memberByIndex    = false
)

var (
	errAddrInUse  = errors.New("address in use") // package net has no name for it
	errNotSetHere = errors.New("this can't be set on this system")
)

func listenGroup(group netip.AddrPort) (*net.UDPConn, error) {
	return net.ListenMulticastUDP("udp", nil, net.UDPAddrFromAddrPort(group))
}

// join does nothing: listenGroup has joined.
func join(uintptr, netip.Addr, card) error  { return nil }
func leave(uintptr, netip.Addr, card) error { return nil }

func setSending(_ uintptr, _ netip.Addr, ttl int, loopback bool) error {
	if ttl != defaultTTL || !loopback {
		return errNotSetHere
	}
	return nil
}

func setCard(uintptr, netip.Addr, card) error { return errNotSetHere }
func readBuffer(uintptr, int) (int, error)    { return 0, errNotSetHere }
func isNoRoute(error) bool                    { return false }
func isQueueFull(error) bool                  { return false }
