package autobus

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// Options that package syscall lacks on most architectures. Without them, a
// socket receives from every group that any socket of the host has joined.
const (
	ipMulticastAll   = 49 // IP_MULTICAST_ALL, linux/in.h (2.6.31)
	ipv6MulticastAll = 29 // IPV6_MULTICAST_ALL, linux/in6.h (4.20)
)

const (
	errAddrInUse    = syscall.EADDRINUSE
	readBufferLimit = "the sysctl net.core.rmem_max"

	// choosesInterface says that interface= works.
	choosesInterface = true

	// memberByIndex says that a membership is an interface's, whatever its
	// addresses (ip(7), struct ip_mreqn).
	memberByIndex = true
)

// listenGroup opens a socket bound to the group. It does so by hand:
// net.ListenPacket takes the wildcard address instead of a group, and a socket
// bound to that hears each group on the port.
//
// SO_REUSEADDR is enough to share the port: with Python, which sets
// SO_REUSEPORT besides, and with other users' sockets.
func listenGroup(group netip.AddrPort) (*net.UDPConn, error) {
	family, all := syscall.AF_INET, ipMulticastAll
	level := syscall.IPPROTO_IP
	if group.Addr().Is6() {
		family, all = syscall.AF_INET6, ipv6MulticastAll
		level = syscall.IPPROTO_IPV6
	}
	fd, err := syscall.Socket(family, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, syscall.IPPROTO_UDP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), "multicast")
	defer file.Close() // FilePacketConn has a copy
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return nil, os.NewSyscallError("setsockopt SO_REUSEADDR", err)
	}
	if family == syscall.AF_INET6 {
		if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 1); err != nil {
			return nil, os.NewSyscallError("setsockopt IPV6_V6ONLY", err)
		}
	}
	// An old kernel without it hears more interfaces than we joined: no harm.
	_ = syscall.SetsockoptInt(fd, level, all, 0)
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
		// Such a group binds to one interface for good (ipv6(7),
		// sin6_scope_id). Let the memberships choose instead.
		sa.Addr = [16]byte{}
	}
	return sa
}

func join(fd uintptr, group netip.Addr, c card) error {
	if group.Is4() {
		return syscall.SetsockoptIPMreqn(int(fd), syscall.IPPROTO_IP, syscall.IP_ADD_MEMBERSHIP,
			&syscall.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(c.index)})
	}
	return syscall.SetsockoptIPv6Mreq(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_JOIN_GROUP,
		&syscall.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(c.index)})
}

func leave(fd uintptr, group netip.Addr, c card) error {
	if group.Is4() {
		return syscall.SetsockoptIPMreqn(int(fd), syscall.IPPROTO_IP, syscall.IP_DROP_MEMBERSHIP,
			&syscall.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(c.index)})
	}
	return syscall.SetsockoptIPv6Mreq(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_LEAVE_GROUP,
		&syscall.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(c.index)})
}

// setSending sets how far messages go, and whether this host hears them.
func setSending(fd uintptr, group netip.Addr, ttl int, loopback bool) error {
	level, ttlOption, loopOption := syscall.IPPROTO_IP, syscall.IP_MULTICAST_TTL, syscall.IP_MULTICAST_LOOP
	if group.Is6() {
		level, ttlOption, loopOption = syscall.IPPROTO_IPV6, syscall.IPV6_MULTICAST_HOPS, syscall.IPV6_MULTICAST_LOOP
	}
	if err := syscall.SetsockoptInt(int(fd), level, ttlOption, ttl); err != nil {
		return os.NewSyscallError("setsockopt IP_MULTICAST_TTL", err)
	}
	loop := 0
	if loopback {
		loop = 1
	}
	return os.NewSyscallError("setsockopt IP_MULTICAST_LOOP", syscall.SetsockoptInt(int(fd), level, loopOption, loop))
}

// setCard chooses the interface to send on.
func setCard(fd uintptr, group netip.Addr, c card) error {
	if group.Is4() {
		return os.NewSyscallError("setsockopt IP_MULTICAST_IF", syscall.SetsockoptIPMreqn(int(fd), syscall.IPPROTO_IP,
			syscall.IP_MULTICAST_IF, &syscall.IPMreqn{Ifindex: int32(c.index)}))
	}
	return os.NewSyscallError("setsockopt IPV6_MULTICAST_IF",
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_MULTICAST_IF, c.index))
}

// readBuffer returns what SetReadBuffer was granted: the kernel keeps twice
// that, for its own use (socket(7), SO_RCVBUF).
func readBuffer(fd uintptr) (int, error) {
	n, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF)
	return n / 2, err
}

func isNoRoute(err error) bool {
	return isAny(err, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EADDRNOTAVAIL)
}

func isQueueFull(err error) bool { return errors.Is(err, syscall.ENOBUFS) }
