package autobus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// soReusePort is SO_REUSEPORT, which package syscall lacks: 15 by
// asm-generic/socket.h, and 0x200 where SO_REUSEADDR isn't 2 either, as in
// arch/mips/include/uapi/asm/socket.h.
func soReusePort() int {
	if syscall.SO_REUSEADDR == 2 {
		return 15
	}
	return 0x200
}

// A socket set up as Python autobus 1.0.0 does it (transport/multicast.py)
// shares the port, whoever comes first, and each hears the other.
func TestMulticastSharesPythonsPort(t *testing.T) {
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
			for _, option := range []int{syscall.SO_REUSEADDR, soReusePort()} {
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

// startBatching starts a transport on a system that knows batches.
func startBatching(t *testing.T, m *multicast, receive func(ctx context.Context, channel, payload []byte)) *logLines {
	t.Helper()
	log := startMulticast(t, m, receive)
	if !m.session().batches {
		missing(t, "this system knows no batches of datagrams")
	}
	return log
}

// batchOf returns n messages that take about as long as each other.
func batchOf(n int) (batch []Message) {
	for i := range n {
		batch = append(batch, Message{"c", fmt.Append(nil, "number ", i)})
	}
	return batch
}

// A batch takes few sends: a socket that asks for batches gets them as they
// were sent, and one that doesn't, as Python's, gets each datagram alone.
func TestMulticastBatch(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	startBatching(t, m, nil)
	python, whole := pythonSocket(t, m), pythonSocket(t, m)
	if err := control(whole, receiveBatches); err != nil {
		t.Fatal(err)
	}
	batch := batchOf(150)
	if lost, err := m.Send(t.Context(), batch); lost != 0 || err != nil {
		t.Fatal(lost, err)
	}
	check := func(i int, datagram []byte) {
		t.Helper()
		e, at, problem := parseEnvelope(datagram)
		if problem != "" || i >= len(batch) || string(e.data) != string(batch[i].Payload) || e.seq != uint64(i+1) {
			t.Fatalf("number %d is %q: %s at %d", i, datagram, problem, at)
		}
	}
	buf, oob := make([]byte, 1<<16), make([]byte, maxControl)
	for _, conn := range []*net.UDPConn{python, whole} {
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range batch {
		n, err := python.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		check(i, buf[:n])
	}
	reads := 0
	for i := 0; i < len(batch); reads++ {
		n, oobn, _, _, err := whole.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			t.Fatal(err)
		}
		c := parseControls(oob[:oobn])
		for b := buf[:n]; len(b) > 0; i++ {
			size := min(c.segment, len(b))
			if size == 0 {
				t.Fatal("no batch")
			}
			check(i, b[:size])
			b = b[size:]
		}
	}
	if reads != 3 { // 64 and 64 and 22
		t.Errorf("%d messages took %d sends", len(batch), reads)
	}
}

// The kernel takes batches of datagrams that just fit into a packet, and none
// of larger ones: the transport reckons with the right headers and the right
// MTU.
func TestMulticastBatchOfTheLargest(t *testing.T) {
	port := freePort(t)
	for _, url := range []string{ownURL(t), fmt.Sprintf("udp://[ff05::a0b:1]:%d?ttl=0", port), fmt.Sprintf("udp://[ff02::a0b:1]:%d?ttl=0", port)} {
		t.Run(url, func(t *testing.T) {
			m := testMulticast(t, url)
			if m.group.Is6() {
				needIPv6(t)
			}
			h := make(heard, 10)
			m.Subscribe("c")
			log := startBatching(t, m, h.receive)
			s := m.session()
			s.sending.Lock()
			way := func() *way {
				if s.routes() || len(s.ways) == 0 {
					return &s.routed
				}
				return &s.ways[0]
			}
			limit := way().limit
			s.sending.Unlock()
			if limit == 0 || 2*limit > maxSend {
				missing(t, fmt.Sprint("there is no network interface beside loopback that it leaves by: ", limit))
			}
			for over := range 2 {
				n := limit + over - len(appendEnvelope(nil, "c", nil, &s.src, 1))
				s.sending.Lock()
				way().limit = limit + over
				s.sending.Unlock()
				text := strings.Repeat("x", n)
				if lost, err := m.Send(t.Context(), []Message{{"c", []byte(text)}, {"c", []byte(text)}}); lost != 0 || err != nil {
					t.Fatal(lost, err)
				}
				h.next(t, "c", text)
				h.next(t, "c", text)
				s.sending.Lock()
				refused := way().limit == 0
				s.sending.Unlock()
				if refused != (over == 1) {
					t.Errorf("%d bytes, %d over: refused %t\n%q", limit+over, over, refused, log.with("refuses"))
				}
			}
		})
	}
}

// Where the kernel refuses, the batch is sent one by one, and so is what
// follows. Without checksums it refuses.
func TestMulticastBatchRefused(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	h := make(heard, 1000)
	m.Subscribe("c")
	log := startBatching(t, m, h.receive)
	s := m.session()
	if s.routed.limit == 0 {
		t.Fatal("no batches on the way to the group")
	}
	if err := control(s.routed.conn, func(fd uintptr) error {
		return syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_NO_CHECK, 1)
	}); err != nil {
		t.Fatal(err)
	}
	batch := batchOf(100)
	for range 3 {
		if lost, err := m.Send(t.Context(), batch); lost != 0 || err != nil {
			t.Fatal(lost, err)
		}
		for i := range batch {
			h.next(t, "c", string(batch[i].Payload))
		}
		s.setWays(s.cards())
	}
	if lines := log.with("refuses"); len(lines) != 1 || !strings.HasPrefix(lines[0], "DEBUG ") {
		t.Errorf("the log says %q", lines)
	}
	if got := m.stats(); got != (Stats{}) {
		t.Errorf("%+v", got)
	}
	// Another way is asked anew.
	s.routed.mtu++
	s.setWays(s.cards())
	if s.routed.limit == 0 {
		t.Error("the refusal outlives the way")
	}
}

// A message of a batch that goes out one way at least isn't lost, and what
// goes out none is counted, one by one.
func TestMulticastBatchOnOtherWays(t *testing.T) {
	var names []string
	for _, c := range newMulticastSession(testMulticast(t, ownURL(t))).cards() {
		if c.addr.IsValid() {
			names = append(names, c.name)
		}
	}
	m := testMulticast(t, ownURL(t)+"&interface="+strings.Join(names, ","))
	h := make(heard, 1000)
	m.Subscribe("c")
	startBatching(t, m, h.receive)
	s := m.session()
	batch := batchOf(100)
	// Each in turn takes batches, takes none, or takes smaller ones; at last
	// more and more of them take nothing.
	for round := range 4 + len(s.ways) {
		for i := range s.ways {
			s.ways[i].limit = []int{1 << 16, 0, 100}[(i+round)%3]
		}
		if broken := round - 4; broken >= 0 {
			s.ways[len(s.ways)-1-broken].conn.Close()
		}
		want := 0
		if round == 3+len(s.ways) {
			want = len(batch)
		}
		lost, err := m.Send(t.Context(), batch)
		if lost != want || want == 0 && err != nil || want > 0 && !errors.Is(err, net.ErrClosed) {
			t.Fatalf("round %d: lost %d: %v", round, lost, err)
		}
		for i := range batch[want:] {
			h.next(t, "c", string(batch[i].Payload))
		}
	}
	s.sending.Lock()
	s.ways = nil // closed already
	s.sending.Unlock()
}

// Those of a batch that no other interface takes go by loopback, as single
// messages do.
func TestMulticastBatchTakenInPart(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	h := make(heard, 10)
	m.Subscribe("c")
	startBatching(t, m, h.receive)
	s := m.session()
	s.sending.Lock()
	s.noRoute = true
	mtu := 0
	for i := range s.ways {
		w := &s.ways[i]
		if w.loopback {
			continue
		}
		mtu = max(mtu, w.mtu)
		var err error
		if w.conn, err = s.dial(w.card); err != nil {
			t.Fatal(err)
		}
		if err := control(w.conn, func(fd uintptr) error { // no fragments
			return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_MTU_DISCOVER, syscall.IP_PMTUDISC_DO)
		}); err != nil {
			t.Fatal(err)
		}
	}
	s.sending.Unlock()
	if mtu == 0 {
		missing(t, "there is no network interface beside loopback")
	}
	fits, large := strings.Repeat("f", mtu-110), strings.Repeat("l", mtu-20)
	lost, err := m.Send(t.Context(), []Message{{"c", []byte(fits)}, {"c", []byte(large)}})
	if lost != 0 || err != nil {
		t.Fatal(lost, err)
	}
	h.next(t, "c", fits)
	h.next(t, "c", large)
}

// Whoever sends batches can't do more harm than with single datagrams.
func TestMulticastHostileBatches(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	h := make(heard, 10)
	m.Subscribe("c")
	startBatching(t, m, h.receive)
	s := newMulticastSession(m)
	conn := dialPatiently(t, s, card{})
	r := rand.New(rand.NewPCG(7, 8))
	malformed := uint64(0)
	for n := range 500 {
		segment, count := 1+r.IntN(40), 1+r.IntN(maxSegments)
		b := make([]byte, segment*(count-1)+1+r.IntN(segment)) // the last one may be shorter
		for i := range b {
			b[i] = ` {}":,c\x`[r.IntN(9)]
		}
		if n%10 == 0 {
			b = bytes.Repeat([]byte{' '}, len(b))
		}
		if _, _, err := conn.WriteMsgUDPAddrPort(b, appendSegmentSize(nil, segment), m.to); err != nil {
			t.Fatal(err)
		}
		malformed += uint64(count)
		if n%50 == 0 {
			mark := fmt.Sprint(n)
			sendMulticast(t, m, "c", mark)
			h.next(t, "c", mark)
		}
	}
	sendMulticast(t, m, "c", "last")
	h.next(t, "c", "last")
	if got := m.stats(); got.DroppedMalformed != malformed || got.Lost > 0 {
		t.Errorf("%d counted as malformed, want %d; %d as lost", got.DroppedMalformed, malformed, got.Lost)
	}
}

// Close doesn't wait until a whole batch is received.
func TestMulticastCloseInABatch(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	m.Subscribe("c")
	began := make(chan struct{})
	calls := 0
	startBatching(t, m, func(ctx context.Context, _, _ []byte) {
		if calls++; calls == 1 {
			close(began)
			<-ctx.Done()
			for !m.channels.empty() { // Close empties them
				runtime.Gosched()
			}
			m.channels.add("c") // or nothing would be received anyway
		}
	})
	if lost, err := m.Send(t.Context(), batchOf(50)); lost != 0 || err != nil {
		t.Fatal(lost, err)
	}
	await(t, began)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if calls != 1 {
		t.Errorf("%d calls", calls)
	}
}

// What the receive buffer has no room for is told.
func TestMulticastOverrun(t *testing.T) {
	m := testMulticast(t, ownURL(t)+"&rcvbuf=10000")
	m.Subscribe("c")
	began, goOn := make(chan struct{}), make(chan struct{})
	h := make(heard, 10000)
	first := true
	log := startBatching(t, m, func(ctx context.Context, channel, payload []byte) {
		if first {
			first = false
			close(began)
			<-goOn
		}
		h.receive(ctx, channel, payload)
	})
	raw := sender(t, m)
	raw(`{"channel":"c","data":"first"}`)
	await(t, began)
	for range 1000 { // from Python, say
		raw(`{"channel":"c","data":"too much"}`)
	}
	close(goOn)
	h.next(t, "c", "first")
	for range 1000 {
		raw(`{"channel":"c","data":"mark"}`)
		if m := await(t, h); string(m.Payload) == "mark" {
			break
		}
	}
	lines := log.with("the receive buffer was full")
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "WARN ") || !strings.Contains(lines[0], "buffer 10000") {
		t.Errorf("the log says %q", lines)
	}
}

// Root gets the receive buffer that it asks for.
func TestMulticastForcedReadBuffer(t *testing.T) {
	m := testMulticast(t, ownURL(t)+"&rcvbuf=16777216")
	log := startMulticast(t, m, nil)
	granted := m.session().granted
	if os.Geteuid() == 0 && granted != 16<<20 {
		if os.Getenv("AUTOBUS_TEST_ALL") == "1" {
			t.Errorf("%d bytes are granted: %q", granted, log.lines)
		}
	}
}

// The control messages are those that package syscall reads, on this
// processor.
func TestControlMessages(t *testing.T) {
	b := appendSegmentSize(nil, 1234)
	all, err := syscall.ParseSocketControlMessage(b)
	if err != nil || len(all) != 1 || len(b) != syscall.CmsgSpace(2) {
		t.Fatal(all, err, len(b))
	}
	h, data := all[0].Header, all[0].Data
	if h.Level != syscall.IPPROTO_UDP || h.Type != udpSegment || len(data) != 2 || binary.NativeEndian.Uint16(data) != 1234 {
		t.Errorf("%+v %v", h, data)
	}
	message := func(level, typ uint32, data ...byte) []byte {
		b := appendSegmentSize(nil, 0)[:syscall.SizeofCmsghdr]
		if size := syscall.CmsgLen(len(data)); syscall.SizeofCmsghdr == 16 {
			binary.NativeEndian.PutUint64(b, uint64(size))
		} else {
			binary.NativeEndian.PutUint32(b, uint32(size))
		}
		binary.NativeEndian.PutUint32(b[len(b)-8:], level)
		binary.NativeEndian.PutUint32(b[len(b)-4:], typ)
		return append(append(b, data...), make([]byte, syscall.CmsgSpace(len(data))-syscall.CmsgLen(len(data)))...)
	}
	number := func(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
	gro, dropped := message(syscall.IPPROTO_UDP, udpGRO, number(200)...), message(syscall.SOL_SOCKET, syscall.SO_RXQ_OVFL, number(7)...)
	if len(gro)+len(dropped) > maxControl {
		t.Errorf("they take %d bytes, and there is room for %d", len(gro)+len(dropped), maxControl)
	}
	for _, test := range []struct {
		in   [][]byte
		want controls
	}{
		{nil, controls{}},
		{[][]byte{gro, dropped}, controls{200, 7}},
		{[][]byte{dropped, gro}, controls{200, 7}},
		{[][]byte{message(99, 1, 1, 2, 3), gro}, controls{segment: 200}},
		{[][]byte{message(syscall.IPPROTO_UDP, udpGRO, 1)}, controls{}},
		{[][]byte{message(syscall.IPPROTO_UDP, udpGRO, number(1<<32-1)...)}, controls{segment: maxSend}},
		{[][]byte{message(syscall.IPPROTO_UDP, udpGRO, number(0)...), dropped}, controls{dropped: 7}},
		{[][]byte{gro[:len(gro)-8], nil}, controls{}},
		{[][]byte{make([]byte, 64)}, controls{}},
		{[][]byte{bytes.Repeat([]byte{255}, 64)}, controls{}},
	} {
		in := bytes.Join(test.in, nil)
		if got := parseControls(in); got != test.want {
			t.Errorf("%x: %+v, want %+v", in, got, test.want)
		}
	}
	r := rand.New(rand.NewPCG(9, 10))
	for range 100_000 {
		in := append(gro[:len(gro):len(gro)], dropped...)
		for range r.IntN(4) {
			in[r.IntN(len(in))] = byte(r.Uint32())
		}
		if c := parseControls(in[:r.IntN(len(in)+1)]); c.segment < 0 || c.segment > maxSend {
			t.Fatalf("%x: %+v", in, c)
		}
	}
}

func TestKernel(t *testing.T) {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		missing(t, err.Error())
	}
	if v := kernel(); !strings.HasPrefix(string(release), fmt.Sprintf("%d.%d", v[0], v[1])) {
		t.Errorf("%s is %v", release, v)
	}
}

func TestRouteMTU(t *testing.T) {
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if got := routeMTU(netip.MustParseAddrPort("127.0.0.1:9")); got != min(lo.MTU, 65535) {
		t.Errorf("%d over lo, which has %d", got, lo.MTU)
	}
	if got := routeMTU(netip.MustParseAddrPort("[ff01::1]:9")); got != 0 {
		t.Errorf("%d where no route is", got)
	}
}
