package autobus

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
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
	if err := setInt(uintptr(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1, "SO_REUSEADDR"); err != nil {
		return nil, err
	}
	if family == syscall.AF_INET6 {
		if err := setInt(uintptr(fd), syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 1, "IPV6_V6ONLY"); err != nil {
			return nil, err
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
	return setMember(fd, group, c, syscall.IP_ADD_MEMBERSHIP, syscall.IPV6_JOIN_GROUP)
}

func leave(fd uintptr, group netip.Addr, c card) error {
	return setMember(fd, group, c, syscall.IP_DROP_MEMBERSHIP, syscall.IPV6_LEAVE_GROUP)
}

func setMember(fd uintptr, group netip.Addr, c card, option4, option6 int) error {
	if group.Is4() {
		return syscall.SetsockoptIPMreqn(int(fd), syscall.IPPROTO_IP, option4,
			&syscall.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(c.index)})
	}
	return syscall.SetsockoptIPv6Mreq(int(fd), syscall.IPPROTO_IPV6, option6,
		&syscall.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(c.index)})
}

// setInt sets a socket option, whose name is for the error.
func setInt(fd uintptr, level, option, value int, name string) error {
	return os.NewSyscallError("setsockopt "+name, syscall.SetsockoptInt(int(fd), level, option, value))
}

// setSending sets how far messages go, and whether this host hears them.
func setSending(fd uintptr, group netip.Addr, ttl int, loopback bool) error {
	level, ttlOption, loopOption := syscall.IPPROTO_IP, syscall.IP_MULTICAST_TTL, syscall.IP_MULTICAST_LOOP
	if group.Is6() {
		level, ttlOption, loopOption = syscall.IPPROTO_IPV6, syscall.IPV6_MULTICAST_HOPS, syscall.IPV6_MULTICAST_LOOP
	}
	if err := setInt(fd, level, ttlOption, ttl, "IP_MULTICAST_TTL"); err != nil {
		return err
	}
	loop := 0
	if loopback {
		loop = 1
	}
	return setInt(fd, level, loopOption, loop, "IP_MULTICAST_LOOP")
}

// setCard chooses the interface to send on.
func setCard(fd uintptr, group netip.Addr, c card) error {
	if group.Is4() {
		return os.NewSyscallError("setsockopt IP_MULTICAST_IF", syscall.SetsockoptIPMreqn(int(fd), syscall.IPPROTO_IP,
			syscall.IP_MULTICAST_IF, &syscall.IPMreqn{Ifindex: int32(c.index)}))
	}
	return setInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_MULTICAST_IF, c.index, "IPV6_MULTICAST_IF")
}

// readBuffer returns what SetReadBuffer was granted: the kernel keeps twice
// that, for its own use (socket(7), SO_RCVBUF). Root gets what it asked for
// all the same.
func readBuffer(fd uintptr, asked int) (int, error) {
	n, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF)
	if err == nil && n/2 < asked && syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, asked) == nil {
		n, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF)
	}
	return n / 2, err
}

var noRoute = []error{syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EADDRNOTAVAIL}

func isNoRoute(err error) bool { return isAny(err, noRoute...) }

func isQueueFull(err error) bool { return errors.Is(err, syscall.ENOBUFS) }

// Many datagrams at once: UDP_SEGMENT and UDP_GRO of linux/udp.h, as socket
// options and as control messages (cmsg(3)).
const (
	udpSegment = 103 // 4.18
	udpGRO     = 104 // 5.0

	// maxControl has room for the control messages that are asked for: an
	// int32 of UDP_GRO and a uint32 of SO_RXQ_OVFL, each behind a header.
	maxControl = 64
)

// batchKernel is the first Linux that cuts a batch up right for a socket of
// the same host that doesn't ask for batches, as Python's. Those since 5.0
// spoil the checksums of it.
var batchKernel = [2]int{5, 6}

// receiveBatches has the socket receive many datagrams at once, and tell how
// many were dropped. A system that does can send so, too.
func receiveBatches(fd uintptr) error {
	if v := kernel(); v[0] < batchKernel[0] || v[0] == batchKernel[0] && v[1] < batchKernel[1] {
		return syscall.ENOPROTOOPT
	}
	if err := tryBatch(); err != nil {
		return err
	}
	// What it counts is only for the log.
	_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RXQ_OVFL, 1)
	return setGRO(fd)
}

func setGRO(fd uintptr) error { return setInt(fd, syscall.IPPROTO_UDP, udpGRO, 1, "UDP_GRO") }

// tryBatch sends itself a batch: what stands between us and Linux (qemu-user,
// a sandbox) may take the control messages and spoil or drop them.
func tryBatch() error {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := control(conn, setGRO); err != nil {
		return err
	}
	const batch, segment = "two datagrams", 10
	to := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	if _, _, err := conn.WriteMsgUDPAddrPort([]byte(batch), appendSegmentSize(nil, segment), to); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(writeStep)); err != nil {
		return err
	}
	var buf [2 * len(batch)]byte
	var oob [maxControl]byte
	n, oobn, _, _, err := conn.ReadMsgUDPAddrPort(buf[:], oob[:])
	if err == nil && (string(buf[:n]) != batch || parseControls(oob[:oobn]).segment != segment) {
		err = errors.New("batches of datagrams don't come through as they were sent")
	}
	return err
}

// kernel returns the version of Linux, major and minor.
func kernel() (v [2]int) {
	var name syscall.Utsname
	if syscall.Uname(&name) != nil {
		return v
	}
	i := 0
	for _, c := range name.Release {
		switch {
		case c >= '0' && c <= '9':
			v[i] = 10*v[i] + int(c-'0')
		case c == '.' && i == 0:
			i = 1
		default:
			return v
		}
	}
	return v
}

// appendSegmentSize appends the control message that has a send cut into
// datagrams of n bytes: struct cmsghdr, whose first field is a size_t, and a
// uint16, padded to a whole number of size_t.
func appendSegmentSize(dst []byte, n int) []byte {
	if syscall.SizeofCmsghdr == 16 {
		dst = binary.NativeEndian.AppendUint64(dst, uint64(syscall.CmsgLen(2)))
	} else {
		dst = binary.NativeEndian.AppendUint32(dst, uint32(syscall.CmsgLen(2)))
	}
	dst = binary.NativeEndian.AppendUint32(dst, syscall.IPPROTO_UDP)
	dst = binary.NativeEndian.AppendUint32(dst, udpSegment)
	dst = binary.NativeEndian.AppendUint16(dst, uint16(n))
	return append(dst, make([]byte, syscall.CmsgSpace(2)-syscall.CmsgLen(2))...)
}

// readBatch receives a datagram, or a batch of them.
func readBatch(conn *net.UDPConn, buf, oob []byte) (n int, c controls, from netip.AddrPort, err error) {
	n, oobn, _, from, err := conn.ReadMsgUDPAddrPort(buf, oob)
	return n, parseControls(oob[:oobn]), from, err
}

// parseControls reads control messages. Those it doesn't know it skips.
func parseControls(b []byte) (c controls) {
	for len(b) >= syscall.SizeofCmsghdr {
		size := uint64(binary.NativeEndian.Uint32(b))
		at := 4
		if syscall.SizeofCmsghdr == 16 {
			size, at = binary.NativeEndian.Uint64(b), 8
		}
		if size < syscall.SizeofCmsghdr || size > uint64(len(b)) {
			break
		}
		level, typ := binary.NativeEndian.Uint32(b[at:]), binary.NativeEndian.Uint32(b[at+4:])
		if data := b[syscall.SizeofCmsghdr:size]; len(data) >= 4 {
			switch value := binary.NativeEndian.Uint32(data); {
			case level == syscall.IPPROTO_UDP && typ == udpGRO:
				c.segment = int(min(value, maxSend))
			case level == syscall.SOL_SOCKET && typ == syscall.SO_RXQ_OVFL:
				c.dropped = value
			}
		}
		b = b[min(len(b), syscall.CmsgSpace(int(size)-syscall.SizeofCmsghdr)):]
	}
	return c
}

// isRefused tells whether the kernel takes no batch on that way: the interface
// can't do checksums (EIO), the size doesn't suit the route (EINVAL, and
// EMSGSIZE in new versions), or something between us and Linux doesn't know it.
func isRefused(err error) bool {
	return isAny(err, syscall.EIO, syscall.EINVAL, syscall.EMSGSIZE, syscall.EOPNOTSUPP, syscall.ENOPROTOOPT)
}

// routeMTU returns the most bytes of a packet that the routing table's way to
// the group takes, 0 if it has none.
func routeMTU(to netip.AddrPort) (mtu int) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return 0
	}
	defer conn.Close()
	level, option := syscall.IPPROTO_IP, syscall.IP_MTU
	if to.Addr().Is6() {
		level, option = syscall.IPPROTO_IPV6, syscall.IPV6_MTU
	}
	if err := control(conn, func(fd uintptr) (err error) {
		mtu, err = syscall.GetsockoptInt(int(fd), level, option)
		return err
	}); err != nil {
		return 0
	}
	return mtu
}
