package autobus

import (
	"context"
	"net"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// soReusePort is SO_REUSEPORT of asm-generic/socket.h, which package syscall
// lacks.
const soReusePort = 15

// A socket set up as Python autobus 1.0.0 does it (transport/multicast.py)
// shares the port, whoever comes first, and each hears the other.
func TestMulticastSharesPythonsPort(t *testing.T) {
	if syscall.SO_REUSEADDR != 2 {
		t.Skip("SO_REUSEPORT has another number on " + runtime.GOARCH)
	}
	for _, pythonFirst := range []bool{true, false} {
		m := testMulticast(t, ownURL(t))
		h := make(heard, 10)
		m.Subscribe("c")
		var python *net.UDPConn
		if pythonFirst {
			python = pythonSocket(t, m)
		}
		startMulticast(t, m, h.receive)
		if !pythonFirst {
			python = pythonSocket(t, m)
		}
		sendMulticast(t, m, "c", "from us")
		h.next(t, "c", "from us")
		sender(t, m)(`{"channel": "c", "data": "from Python"}`)
		h.next(t, "c", "from Python")
		if err := python.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"from us", "from Python"} {
			buf := make([]byte, 1000)
			n, _, err := python.ReadFromUDPAddrPort(buf)
			if err != nil {
				t.Fatal(err)
			}
			if e, _, problem := parseEnvelope(buf[:n]); problem != "" || string(e.data) != want {
				t.Errorf("Python hears %q, want %q", buf[:n], want)
			}
		}
	}
}

func pythonSocket(t *testing.T, m *multicast) *net.UDPConn {
	t.Helper()
	var setErr error
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			for _, option := range []int{syscall.SO_REUSEADDR, soReusePort} {
				if err := syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, option, 1); err != nil {
					setErr = err
				}
			}
		})
	}}
	conn, err := config.ListenPacket(context.Background(), "udp4", ":"+strconv.Itoa(int(m.port)))
	if err != nil || setErr != nil {
		t.Fatal(err, setErr)
	}
	t.Cleanup(func() { conn.Close() })
	if err := control(conn.(*net.UDPConn), func(fd uintptr) error {
		return syscall.SetsockoptIPMreq(int(fd), syscall.IPPROTO_IP, syscall.IP_ADD_MEMBERSHIP, &syscall.IPMreq{Multiaddr: m.group.As4()})
	}); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.UDPConn)
}
