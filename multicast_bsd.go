//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package autobus

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
)

const (
	errAddrInUse    = syscall.EADDRINUSE
	readBufferLimit = "the sysctl kern.ipc.maxsockbuf"

	// choosesInterface says that interface= works.
	choosesInterface = true

	// memberByIndex is false since struct ip_mreq names an IPv4 interface by
	// its address.
	memberByIndex = false
)

// listenGroup opens a socket bound to the group. It does so by hand:
// net.ListenPacket takes the wildcard address instead of a group, and a socket
// bound to that hears what is sent to this host alone, besides.
func listenGroup(group netip.AddrPort) (*net.UDPConn, error) {
	family := syscall.AF_INET
	if group.Addr().Is6() {
		family = syscall.AF_INET6
	}
	syscall.ForkLock.RLock() // macOS has no SOCK_CLOEXEC
	fd, err := syscall.Socket(family, syscall.SOCK_DGRAM, syscall.IPPROTO_UDP)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), "multicast")
	defer file.Close() // FilePacketConn has a copy
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return nil, os.NewSyscallError("setsockopt SO_REUSEADDR", err)
	}
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEPORT, 1); err != nil {
		return nil, os.NewSyscallError("setsockopt SO_REUSEPORT", err)
	}
	if family == syscall.AF_INET6 {
		// OpenBSD knows no other way and may refuse to be told.
		_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 1)
	}
	if err := syscall.Bind(fd, bindAddr(group)); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	conn, err := net.FilePacketConn(file)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

func bindAddr(group netip.AddrPort) syscall.Sockaddr {
	if group.Addr().Is4() {
		return &syscall.SockaddrInet4{Port: int(group.Port()), Addr: group.Addr().As4()}
	}
	sa := &syscall.SockaddrInet6{Port: int(group.Port()), Addr: group.Addr().As16()}
	if needsZone(group.Addr()) {
		// The KAME stack has the zone inside such an address: it would have
		// to be bound to one interface.
		sa.Addr = [16]byte{}
	}
	return sa
}

func join(fd uintptr, group netip.Addr, c card) error {
	if group.Is4() {
		return member4(fd, syscall.IP_ADD_MEMBERSHIP, group, c)
	}
	return syscall.SetsockoptIPv6Mreq(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_JOIN_GROUP,
		&syscall.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(c.index)})
}

func leave(fd uintptr, group netip.Addr, c card) error {
	if group.Is4() {
		return member4(fd, syscall.IP_DROP_MEMBERSHIP, group, c)
	}
	return syscall.SetsockoptIPv6Mreq(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_LEAVE_GROUP,
		&syscall.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(c.index)})
}

func member4(fd uintptr, option int, group netip.Addr, c card) error {
	mreq := syscall.IPMreq{Multiaddr: group.As4()}
	if c.index != 0 {
		if !c.addr.IsValid() {
			return syscall.EADDRNOTAVAIL // 0.0.0.0 would mean another interface
		}
		mreq.Interface = c.addr.As4()
	}
	return syscall.SetsockoptIPMreq(int(fd), syscall.IPPROTO_IP, option, &mreq)
}

// setSending sets how far messages go, and whether this host hears them. IPv4
// takes one byte for each (OpenBSD's ip(4)).
func setSending(fd uintptr, group netip.Addr, ttl int, loopback bool) error {
	loop := 0
	if loopback {
		loop = 1
	}
	if group.Is4() {
		if err := syscall.SetsockoptByte(int(fd), syscall.IPPROTO_IP, syscall.IP_MULTICAST_TTL, byte(ttl)); err != nil {
			return os.NewSyscallError("setsockopt IP_MULTICAST_TTL", err)
		}
		return os.NewSyscallError("setsockopt IP_MULTICAST_LOOP",
			syscall.SetsockoptByte(int(fd), syscall.IPPROTO_IP, syscall.IP_MULTICAST_LOOP, byte(loop)))
	}
	if err := syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_MULTICAST_HOPS, ttl); err != nil {
		return os.NewSyscallError("setsockopt IPV6_MULTICAST_HOPS", err)
	}
	return os.NewSyscallError("setsockopt IPV6_MULTICAST_LOOP",
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_MULTICAST_LOOP, loop))
}

// setCard chooses the interface to send on.
func setCard(fd uintptr, group netip.Addr, c card) error {
	if group.Is4() {
		return os.NewSyscallError("setsockopt IP_MULTICAST_IF",
			syscall.SetsockoptInet4Addr(int(fd), syscall.IPPROTO_IP, syscall.IP_MULTICAST_IF, c.addr.As4()))
	}
	return os.NewSyscallError("setsockopt IPV6_MULTICAST_IF",
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_MULTICAST_IF, c.index))
}

// readBuffer returns what SetReadBuffer was granted.
func readBuffer(fd uintptr, _ int) (int, error) {
	return syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF)
}

// isNoRoute: macOS says EHOSTUNREACH or EADDRNOTAVAIL where Linux says
// ENETUNREACH.
func isNoRoute(err error) bool {
	return isAny(err, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EADDRNOTAVAIL)
}

func isQueueFull(err error) bool { return errors.Is(err, syscall.ENOBUFS) }
