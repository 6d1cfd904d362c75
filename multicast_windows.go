package autobus

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
)

// Winsock's error codes that package syscall lacks (winsock2.h; "Windows
// Sockets Error Codes").
const (
	wsaEADDRINUSE    = syscall.Errno(10048)
	wsaEADDRNOTAVAIL = syscall.Errno(10049)
	wsaENETDOWN      = syscall.Errno(10050)
	wsaENETUNREACH   = syscall.Errno(10051)
	wsaENOBUFS       = syscall.Errno(10055)
	wsaEHOSTUNREACH  = syscall.Errno(10065)
)

const (
	errAddrInUse    = wsaEADDRINUSE
	readBufferLimit = "nothing: Windows decides"

	// choosesInterface says that interface= works.
	choosesInterface = true

	// memberByIndex is false to join anew when an address changes, since
	// Windows forgets memberships along with the address.
	memberByIndex = false
)

// listenGroup opens a socket on the port: Windows binds none to a group, but
// passes each only what was sent to groups that it joined itself.
func listenGroup(group netip.AddrPort) (*net.UDPConn, error) {
	var setErr error
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		if err := raw.Control(func(fd uintptr) {
			// This is how sockets share a multicast port on Windows
			// ("Using SO_REUSEADDR and SO_EXCLUSIVEADDRUSE").
			if setErr = syscall.SetsockoptInt(syscall.Handle(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); setErr != nil {
				setErr = os.NewSyscallError("setsockopt SO_REUSEADDR", setErr)
			}
		}); err != nil {
			return err
		}
		return setErr
	}}
	network := "udp4"
	if group.Addr().Is6() {
		network = "udp6"
	}
	conn, err := config.ListenPacket(context.Background(), network, ":"+strconv.Itoa(int(group.Port())))
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

func join(fd uintptr, group netip.Addr, c card) error {
	if group.Is4() {
		return syscall.SetsockoptIPMreq(syscall.Handle(fd), syscall.IPPROTO_IP, syscall.IP_ADD_MEMBERSHIP,
			&syscall.IPMreq{Multiaddr: group.As4(), Interface: indexAddr(c)})
	}
	return syscall.SetsockoptIPv6Mreq(syscall.Handle(fd), syscall.IPPROTO_IPV6, syscall.IPV6_JOIN_GROUP,
		&syscall.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(c.index)})
}

func leave(fd uintptr, group netip.Addr, c card) error {
	if group.Is4() {
		return syscall.SetsockoptIPMreq(syscall.Handle(fd), syscall.IPPROTO_IP, syscall.IP_DROP_MEMBERSHIP,
			&syscall.IPMreq{Multiaddr: group.As4(), Interface: indexAddr(c)})
	}
	return syscall.SetsockoptIPv6Mreq(syscall.Handle(fd), syscall.IPPROTO_IPV6, syscall.IPV6_LEAVE_GROUP,
		&syscall.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(c.index)})
}

// indexAddr names an interface as Windows takes it where an IPv4 address is
// wanted: 0.x.x.x is the index ("IPPROTO_IP Socket Options", IP_ADD_MEMBERSHIP).
func indexAddr(c card) (addr [4]byte) {
	binary.BigEndian.PutUint32(addr[:], uint32(c.index))
	return addr
}

// setSending sets how far messages go. Whether this host hears them is up to
// the receiving socket here ("IPPROTO_IP Socket Options", IP_MULTICAST_LOOP).
func setSending(fd uintptr, group netip.Addr, ttl int, loopback bool) error {
	loop := 0
	if loopback {
		loop = 1
	}
	level, ttlOption, loopOption := syscall.IPPROTO_IP, syscall.IP_MULTICAST_TTL, syscall.IP_MULTICAST_LOOP
	if group.Is6() {
		level, ttlOption, loopOption = syscall.IPPROTO_IPV6, syscall.IPV6_MULTICAST_HOPS, syscall.IPV6_MULTICAST_LOOP
	}
	if err := syscall.SetsockoptInt(syscall.Handle(fd), level, ttlOption, ttl); err != nil {
		return os.NewSyscallError("setsockopt IP_MULTICAST_TTL", err)
	}
	return os.NewSyscallError("setsockopt IP_MULTICAST_LOOP",
		syscall.SetsockoptInt(syscall.Handle(fd), level, loopOption, loop))
}

// setCard chooses the interface to send on.
func setCard(fd uintptr, group netip.Addr, c card) error {
	if group.Is4() {
		return os.NewSyscallError("setsockopt IP_MULTICAST_IF",
			syscall.SetsockoptInet4Addr(syscall.Handle(fd), syscall.IPPROTO_IP, syscall.IP_MULTICAST_IF, indexAddr(c)))
	}
	return os.NewSyscallError("setsockopt IPV6_MULTICAST_IF",
		syscall.SetsockoptInt(syscall.Handle(fd), syscall.IPPROTO_IPV6, syscall.IPV6_MULTICAST_IF, c.index))
}

// readBuffer returns what SetReadBuffer was granted.
func readBuffer(fd uintptr, _ int) (int, error) {
	return syscall.GetsockoptInt(syscall.Handle(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF)
}

func isNoRoute(err error) bool {
	return isAny(err, wsaENETUNREACH, wsaEHOSTUNREACH, wsaENETDOWN, wsaEADDRNOTAVAIL)
}

func isQueueFull(err error) bool { return errors.Is(err, wsaENOBUFS) }
