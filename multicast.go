package autobus

import (
	"bytes"
	"context"
	"errors"
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// defaultGroup and defaultPort are Python autobus 1.0.0's
	// (transport/multicast.py, MulticastTransport.__init__).
	defaultGroup = "239.255.0.1"
	defaultPort  = 5000

	// maxDatagram is Python autobus 1.0.0's MAX_UDP_PAYLOAD. UDP over IPv4
	// would carry 65,507 bytes.
	maxDatagram = 65000

	// maxSend is the most that one call sends: an IP packet of 65,535 bytes
	// without its headers, IPv4's of 20 bytes and UDP's of 8 (RFC 791, RFC 768).
	maxSend = 65507

	// maxSegments is how many datagrams Linux makes of one send: UDP_MAX_SEGMENTS
	// of linux/udp.h, until it was doubled in 6.9.
	maxSegments = 64

	// paddingWorth is how many bytes of padding a send saved is worth. A send
	// takes the processor about as long as a link of its time takes for 500
	// bytes: 4 µs at 1 Gb/s, 40 µs at 100 Mb/s.
	paddingWorth = 128

	// defaultReadBuffer is what the receiving socket asks for: a burst of some
	// 10,000 small events.
	defaultReadBuffer = 4 << 20

	// maxReadBuffer keeps twice the number, as Linux counts, in an int32.
	maxReadBuffer = 1 << 30

	// defaultTTL keeps messages on the link (RFC 1112, section 6.1).
	defaultTTL = 1

	// lookEvery is how often the transport looks at the network interfaces: for
	// those that came up, went away, or were made anew since.
	lookEvery = 3 * time.Second

	// writeStep bounds how long a write that the system holds up goes on
	// before it is seen whether anybody still waits for it.
	writeStep = 100 * time.Millisecond

	// fullQueuePause and fullQueueTries are for systems that refuse a datagram
	// while the interface's queue is full (ENOBUFS), instead of waiting.
	fullQueuePause = 2 * time.Millisecond
	fullQueueTries = 25

	// readPause follows an error of the receiving socket.
	readPause = 50 * time.Millisecond
)

// multicast is the transport for udp:// URLs: one datagram a message, to a
// multicast group, with no server.
type multicast struct {
	multicastURL
	to netip.AddrPort

	malformed, lost, duplicates atomic.Uint64

	life mutex // is held while starting and closing

	mu       mutex             // guards run, started
	run      *multicastSession // nil unless started
	started  chan struct{}     // closed once run has joined the group
	channels channelSet
}

// newMulticast returns the transport for
// udp://[group][:port][?interface=NAME,…&ttl=N&loopback=BOOL&rcvbuf=BYTES].
func newMulticast(rawURL string) (*multicast, error) {
	u, err := parseMulticastURL(rawURL)
	if err != nil {
		return nil, err
	}
	return &multicast{
		multicastURL: u,
		to:           netip.AddrPortFrom(u.group, u.port),
		started:      make(chan struct{}),
	}, nil
}

// Subscribe has the group joined for the first channel, and Unsubscribe has it
// left after the last: a process that only publishes is not woken by others'
// messages, nor by its own.
func (m *multicast) Subscribe(channel string) {
	if m.channels.add(channel) == 1 {
		m.rejoin()
	}
}

func (m *multicast) Unsubscribe(channel string) {
	if m.channels.remove(channel) == 0 {
		m.rejoin()
	}
}

func (m *multicast) rejoin() {
	if s := m.session(); s != nil {
		s.join(s.cards())
	}
}

// Start has nobody to connect to: ctx doesn't matter to it.
func (m *multicast) Start(_ context.Context, receive func(ctx context.Context, channel, payload []byte), log Logger) error {
	m.life.Lock()
	defer m.life.Unlock()
	if m.session() != nil {
		return fail("multicast: started twice", nil)
	}
	m.malformed.Store(0)
	m.lost.Store(0)
	m.duplicates.Store(0)
	s, err := m.open(receive, log)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.run = s
	m.mu.Unlock()
	s.join(s.cards()) // after Subscribe knows of s, or one meanwhile would be for nothing
	close(m.started)  // after the group is joined, to hear what Send has waited with
	return nil
}

func (m *multicast) Close() error {
	m.life.Lock()
	defer m.life.Unlock()
	m.mu.Lock()
	s := m.run
	if s != nil {
		m.run = nil
		m.started = make(chan struct{})
	}
	m.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.close()
}

func (m *multicast) session() *multicastSession {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.run
}

// Size is exact wherever it could be over the limit, but for counting seq at
// its longest, so that what it lets pass never turns out too large. Small
// messages are spared the look at each byte: theirs is the size before
// escaping.
func (m *multicast) Size(channel string, payload []byte) (size, limit int) {
	n := len(channel) + len(payload) + envelopeSize
	if 6*n <= maxDatagram { // the longest escape, \u0000, takes six bytes
		return n, maxDatagram
	}
	return quotedLen(channel) + quotedLen(payload) + envelopeSize - 4, maxDatagram
}

// Send waits until the transport is started. A message that goes out on one
// interface at least isn't lost.
func (m *multicast) Send(ctx context.Context, messages []Message) (lost int, err error) {
	for {
		m.mu.Lock()
		s, started := m.run, m.started
		m.mu.Unlock()
		select {
		case <-started:
			if s != nil {
				return s.send(ctx, messages)
			}
		case <-ctx.Done():
			return len(messages), fail("multicast: not started", ctx.Err())
		}
	}
}

// Flush has nothing to wait for: Send is done once the kernel has the datagrams.
func (m *multicast) Flush(context.Context) error { return nil }

func (m *multicast) AddStats(s *Stats) {
	s.DroppedMalformed += m.malformed.Load()
	s.Lost += m.lost.Load()
	s.Duplicates += m.duplicates.Load()
}

// A multicastSession is what is there from Start to Close.
type multicastSession struct {
	of *multicast
	*multicastURL
	receive func(ctx context.Context, channel, payload []byte)
	log     Logger
	src     [16]byte // in hexadecimal: who sends, for gaps and duplicates
	conn    *net.UDPConn
	granted int  // bytes of its receive buffer; 0: not known
	batches bool // the system takes and gives many datagrams at once
	wg      sync.WaitGroup

	running context.Context // ends when Close begins
	cancel  context.CancelFunc

	joining  mutex              // is held by join, and guards the next two
	members  map[string]*member // by interface name
	isolated bool               // no interface is joined, which was said

	looking     mutex  // is held by cards, and guards the next two
	known       []card // what it found last,
	fingerprint string // when the interfaces had this

	forget atomic.Bool // tells read that what came before is no measure for gaps

	sending mutex // guards what follows; Send has it for all its messages
	seq     uint64
	bundle  bundle
	routed  way   // sends by the routing table
	noRoute bool  // routed said so since the last look at the interfaces
	ways    []way // the interfaces to send on otherwise, loopback last
	closed  bool
	wayLog  occasionally
}

// A member is a network interface on which the session has joined the group,
// or tried to.
type member struct {
	card
	err error
}

// A way is a network interface to send on.
type way struct {
	card
	conn  *net.UDPConn // nil until needed
	limit int          // bytes of a datagram that is sent along with others; 0: each alone
}

// A card is a network interface as the transport found it.
type card struct {
	name     string
	index    int // 0: whichever the system takes
	loopback bool
	mtu      int
	addr     netip.Addr // one of the group's family, if it has any
}

func newMulticastSession(m *multicast) *multicastSession {
	return &multicastSession{of: m, multicastURL: &m.multicastURL, members: make(map[string]*member)}
}

func (m *multicast) open(receive func(ctx context.Context, channel, payload []byte), log Logger) (*multicastSession, error) {
	s := newMulticastSession(m)
	s.receive, s.log = receive, log
	appendHex(s.src[:0], max(1, rand.Uint64()))
	if len(m.interfaces) > 0 && !choosesInterface {
		return nil, fail("multicast: interface= isn't there on "+runtime.GOOS, nil)
	}
	for _, name := range m.interfaces {
		if err := checkInterface(name); err != nil {
			return nil, err
		}
	}
	var err error
	if s.conn, err = listenGroup(m.to); err != nil {
		return nil, m.listenError(err)
	}
	if err := control(s.conn, receiveBatches); err != nil {
		s.log.Debug("autobus: the system knows no batches of datagrams; each goes alone", "error", err)
	} else {
		s.batches = true
	}
	if s.routed.conn, err = s.dial(card{}); err != nil {
		s.conn.Close()
		return nil, fail("multicast: open a socket to send from", err)
	}
	s.running, s.cancel = context.WithCancel(context.Background())
	if runtime.GOOS == "windows" {
		// There, loopback= is an option of the socket that receives.
		if err := control(s.conn, func(fd uintptr) error { return setSending(fd, s.group, s.ttl, s.loopback) }); err != nil {
			s.log.Debug("autobus: loopback= can't be set", "error", err)
		}
	}
	s.setReadBuffer()
	s.setWays(s.cards())
	s.wg.Go(s.watch)
	s.wg.Go(s.read)
	return s, nil
}

func (s *multicastSession) close() error {
	s.cancel()
	s.of.channels.clear()
	err := s.conn.Close()
	s.sending.Lock()
	s.closed = true
	s.routed.conn.Close()
	for _, w := range s.ways {
		if w.conn != nil {
			w.conn.Close()
		}
	}
	s.sending.Unlock()
	s.wg.Wait()
	if err != nil {
		return fail("multicast: close", err)
	}
	return nil
}

// checkInterface tells an interface that is merely down from a mistaken name.
func checkInterface(name string) error {
	all, err := net.Interfaces()
	if err != nil {
		return fail("multicast: look up the network interface "+quoted(name), err)
	}
	names := make([]string, len(all))
	for i := range all {
		if names[i] = all[i].Name; names[i] == name {
			return nil
		}
	}
	return fail("multicast: no network interface "+quoted(name)+" here; there are "+strings.Join(names, ", "), nil)
}

func (m *multicast) listenError(err error) error {
	text := "multicast: listen on " + m.to.String()
	switch {
	case errors.Is(err, errNoMulticast):
		return fail("multicast: there is none on "+runtime.GOOS+"/"+runtime.GOARCH, nil)
	case errors.Is(err, errAddrInUse):
		text += " (another program has the port and doesn't share it)"
	}
	return fail(text, err)
}

var errNoMulticast = errors.New("no multicast in package net")

// setReadBuffer asks for room for a burst of messages, and says when the
// system grants less.
func (s *multicastSession) setReadBuffer() {
	err := errors.New("not asked")
	for ask := s.readBuffer; err != nil && ask > 0; ask /= 2 {
		err = s.conn.SetReadBuffer(ask) // the BSDs and macOS refuse what Linux cuts down
	}
	if err == nil {
		err = control(s.conn, func(fd uintptr) (err error) {
			s.granted, err = readBuffer(fd, s.readBuffer)
			return err
		})
	}
	switch {
	case err != nil:
		s.log.Debug("autobus: the size of the receive buffer isn't known", "error", err)
	case s.granted < s.readBuffer:
		s.log.Info("autobus: the system granted a smaller receive buffer than asked for; bursts may be lost",
			"asked", s.readBuffer, "granted", s.granted, "raise", readBufferLimit)
	default:
		s.log.Debug("autobus: receive buffer", "bytes", s.granted)
	}
}

// control calls set with the socket's descriptor.
func control(conn *net.UDPConn, set func(fd uintptr) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	if err := raw.Control(func(fd uintptr) { setErr = set(fd) }); err != nil {
		return err
	}
	return setErr
}

// watch looks at the network interfaces again and again, since they come and go.
func (s *multicastSession) watch() {
	for sleep(s.running, lookEvery) {
		cards := s.cards()
		s.join(cards)
		s.setWays(cards)
	}
}

// cards returns the interfaces that can carry the group's messages, in the
// order to join them: one socket joins no more than 20 groups on Linux (the
// sysctl net.ipv4.igmp_max_memberships), and a host with containers has more
// interfaces, those that matter having an address.
func (s *multicastSession) cards() []card {
	s.looking.Lock()
	defer s.looking.Unlock()
	all, err := net.Interfaces()
	if err != nil {
		// Android shows apps no interfaces. What the system takes for the
		// group is better than nothing.
		s.log.Debug("autobus: the network interfaces can't be listed; leaving the choice to the system", "error", err)
		return []card{{}}
	}
	now := fingerprint(all)
	if now == s.fingerprint {
		return s.known
	}
	var with, without []card
	for i := range all {
		nic := &all[i]
		loopback := nic.Flags&net.FlagLoopback != 0
		// Linux's lo has no multicast flag, and joins all the same.
		if nic.Flags&net.FlagUp == 0 || nic.Flags&net.FlagMulticast == 0 && !loopback {
			continue
		}
		if len(s.interfaces) > 0 && !contains(s.interfaces, nic.Name) {
			continue
		}
		addr := familyAddr(nic, s.group.Is4())
		list := &with
		if !addr.IsValid() {
			list = &without
		}
		*list = append(*list, card{nic.Name, nic.Index, loopback, nic.MTU, addr})
	}
	s.known, s.fingerprint = append(with, without...), now
	return s.known
}

// fingerprint tells whether anything has changed about the interfaces. To ask
// each for its addresses has the kernel list those of all, every time.
func fingerprint(all []net.Interface) string {
	var b []byte
	for _, nic := range all {
		b = strconv.AppendInt(append(b, nic.Name...), int64(nic.Index), 10)
		b = strconv.AppendInt(append(b, ' '), int64(nic.MTU), 10)
		b = strconv.AppendUint(append(b, ' '), uint64(nic.Flags), 16)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		b = strconv.AppendInt(b, time.Now().UnixNano(), 10) // look closely
	}
	for _, a := range addrs {
		b = append(append(b, ' '), a.String()...)
	}
	return string(b)
}

// familyAddr returns nic's first address that is IPv4 or isn't; no address if
// it has none or is gone meanwhile.
func familyAddr(nic *net.Interface, is4 bool) netip.Addr {
	addrs, err := nic.Addrs()
	if err != nil {
		return netip.Addr{}
	}
	for _, a := range addrs {
		if ipNet, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(ipNet.IP); ok && addr.Unmap().Is4() == is4 {
				return addr.Unmap()
			}
		}
	}
	return netip.Addr{}
}

// join makes the group's memberships those of cards, or none while there is no
// channel to listen for.
func (s *multicastSession) join(cards []card) {
	s.joining.Lock()
	defer s.joining.Unlock()
	wanted := !s.of.channels.empty()
	if !wanted {
		cards = nil
	}
	if len(s.members) == 0 {
		s.forget.Store(true)
	}
	for name, was := range s.members {
		if !was.isAmong(cards) {
			// This fails where the system has ended the membership itself.
			err := control(s.conn, func(fd uintptr) error { return leave(fd, s.group, was.card) })
			s.log.Debug("autobus: left the group", "interface", name, "error", err)
			delete(s.members, name)
		}
	}
	joined := 0
	for i := range cards {
		c := &cards[i]
		was := s.members[c.name]
		if was != nil && was.err == nil {
			joined++
			continue
		}
		err := control(s.conn, func(fd uintptr) error { return join(fd, s.group, *c) })
		if errors.Is(err, errAddrInUse) { // it has joined already
			err = nil
		}
		switch {
		case err == nil:
			joined++
			s.log.Debug("autobus: joined the group", "interface", c.name, "index", c.index)
		case was != nil && was.err.Error() == err.Error(): // that was said
		case len(s.interfaces) > 0:
			s.log.Warn("autobus: can't join the group; trying again and again", "interface", c.name, "error", err)
		default:
			s.log.Debug("autobus: can't join the group", "interface", c.name, "error", err)
		}
		s.members[c.name] = &member{*c, err}
	}
	isolated := joined == 0 && wanted
	if isolated && !s.isolated {
		args := []any{"group", s.of.to.String()}
		if len(s.interfaces) > 0 {
			args = append(args, "interface", strings.Join(s.interfaces, ","))
		}
		s.log.Warn("autobus: no network interface is up that can receive from the multicast group; waiting for one", args...)
	}
	s.isolated = isolated
}

// isAmong tells whether a membership on c is still one on one of cards.
func (c *card) isAmong(cards []card) bool {
	for i := range cards {
		now := &cards[i]
		if c.name == now.name && c.index == now.index {
			return c.addr == now.addr || memberByIndex && c.addr.IsValid() == now.addr.IsValid()
		}
	}
	return false
}

// setWays replaces the interfaces to send on, and has the routing table asked
// again.
func (s *multicastSession) setWays(cards []card) {
	mtu := 0
	if s.batches && s.routes() {
		mtu = routeMTU(s.of.to)
	}
	s.sending.Lock()
	defer s.sending.Unlock()
	if s.closed {
		return
	}
	s.noRoute = false
	if s.routed.mtu != mtu { // else a refusal stands
		s.routed.mtu = mtu
		s.routed.limit = s.segmentLimit(mtu)
	}
	old := s.ways
	s.ways = make([]way, 0, len(cards))
	for _, loopback := range []bool{false, true} {
		for _, c := range cards {
			// What has no address can't be answered; a receiver on Linux
			// takes its messages for spoofed.
			if c.loopback != loopback || !c.addr.IsValid() && c.index != 0 {
				continue
			}
			w := way{card: c, limit: s.segmentLimit(c.mtu)}
			if i := slices.IndexFunc(old, func(o way) bool { return o.card == c }); i >= 0 {
				w, old[i].conn = old[i], nil
			}
			s.ways = append(s.ways, w)
		}
	}
	for _, w := range old {
		if w.conn != nil {
			w.conn.Close()
		}
	}
}

// dial opens a socket to send from, on one card, or by the routing table if
// its index is 0. It isn't connected: one that is loses its route with the
// interface.
func (s *multicastSession) dial(c card) (*net.UDPConn, error) {
	network := "udp4"
	if s.group.Is6() {
		network = "udp6"
	}
	conn, err := net.ListenUDP(network, nil)
	if err != nil {
		return nil, err
	}
	if err := control(conn, func(fd uintptr) error {
		if err := setSending(fd, s.group, s.ttl, s.loopback); err != nil || c.index == 0 {
			return err
		}
		return setCard(fd, s.group, c)
	}); err != nil {
		conn.Close()
		return nil, err
	}
	// From the first write on, or push would wait without an end.
	if err := conn.SetWriteDeadline(time.Now().Add(writeStep)); err != nil {
		conn.Close()
		return nil, err
	}
	// Nobody reads what comes back to this port: hold little of it.
	_ = conn.SetReadBuffer(1)
	// macOS and the BSDs refuse a datagram over the send buffer, 9,216 bytes
	// unless asked (the sysctl net.inet.udp.maxdgram). Linux has more.
	if runtime.GOOS != "linux" {
		_ = conn.SetWriteBuffer(4 * maxDatagram)
	}
	return conn, nil
}

// routes tells whether messages go by the routing table, where that has a route.
func (s *multicastSession) routes() bool { return len(s.interfaces) == 0 && !needsZone(s.group) }

// segmentLimit returns the most bytes of a datagram that fit into one packet:
// what is larger the system must split into fragments, and doesn't do in a
// batch.
func (s *multicastSession) segmentLimit(mtu int) int {
	headers := 40 + 8 // IPv6's (RFC 8200, section 3) and UDP's (RFC 768)
	if s.of.to.Addr().Is4() {
		headers = 20 + 8
	}
	if !s.batches {
		return 0
	}
	return max(0, mtu-headers)
}

func (s *multicastSession) send(ctx context.Context, messages []Message) (lost int, err error) {
	s.sending.Lock()
	defer s.sending.Unlock()
	sent := 0
	note := func(n int, sendErr error) {
		sent += n
		if err == nil && sendErr != nil {
			err = s.sendError(sendErr)
		}
	}
	u := &s.bundle
	u.begin()
	for i := range messages {
		s.seq++
		at := u.next()
		u.buf = appendEnvelope(u.buf, messages[i].Channel, messages[i].Payload, &s.src, s.seq)
		switch size := len(u.buf) - at; {
		case size > maxDatagram:
			u.buf = u.buf[:at]
			note(0, ErrTooLarge)
		case u.takes(size, s.limit()):
			u.add(size)
		default:
			note(s.sendBundle(ctx))
			if err != nil && (s.closed || ctx.Err() != nil) {
				return len(messages) - sent, err
			}
			u.beginWith(at)
		}
	}
	if u.count > 0 {
		note(s.sendBundle(ctx))
	}
	return len(messages) - sent, err
}

// limit returns the most bytes that a datagram may have to share a send.
func (s *multicastSession) limit() int {
	if s.routes() && !s.noRoute {
		return s.routed.limit
	}
	limit := 0
	for i := range s.ways {
		limit = max(limit, s.ways[i].limit)
	}
	return limit
}

// A bundle is envelopes that go out in one send, one after the other. Each but
// the last is padded with spaces to the length of the longest: the system cuts
// the whole into segments of that length.
type bundle struct {
	buf     []byte
	count   int
	segment int // the longest one's length
	end     int // of the last one
}

func (u *bundle) begin() { u.buf, u.count, u.segment, u.end = u.buf[:0], 0, 0, 0 }

// beginWith begins anew with what is in the buffer from at on.
func (u *bundle) beginWith(at int) {
	first := u.buf[at:]
	u.begin()
	u.buf = append(u.buf, first...)
	u.add(len(first))
}

// next pads the last envelope, and returns where the next one is to be.
func (u *bundle) next() (at int) {
	at = u.count * u.segment
	if at > len(u.buf) {
		u.buf = appendSpaces(u.buf, at-len(u.buf))
	}
	return at
}

// takes tells whether one more envelope of that size is better sent with the
// others than on its own.
func (u *bundle) takes(size, limit int) bool {
	if u.count == 0 {
		return true
	}
	segment := max(u.segment, size)
	return u.count < maxSegments && segment <= limit && u.count*segment+size <= maxSend &&
		u.count*segment-u.end <= paddingWorth
}

// add makes what follows the bundle in the buffer a part of it.
func (u *bundle) add(size int) {
	if size > u.segment {
		u.widen(size)
	}
	u.count++
	u.end = len(u.buf)
}

// widen makes the segments longer, and moves the envelope behind them along.
func (u *bundle) widen(segment int) {
	was := u.segment
	u.segment = segment
	u.buf = appendSpaces(u.buf, u.count*(segment-was))
	copy(u.buf[u.count*segment:], u.buf[u.count*was:u.count*was+segment])
	for i := u.count - 1; i >= 0; i-- {
		to := u.buf[i*segment : (i+1)*segment]
		copy(to, u.buf[i*was:(i+1)*was])
		fillSpaces(to[was:])
	}
}

func (s *multicastSession) sendError(err error) error {
	text := "multicast: send to " + s.of.to.String()
	switch {
	case s.group.Is6() && runtime.GOOS == "linux" && isNoRoute(err):
		// Linux gives lo no route for IPv6 multicast, unlike other interfaces.
		text += " (is a network interface up? For loopback alone, root may run: ip -6 route add local ff00::/8 dev lo)"
	case len(s.interfaces) > 0:
		text += " on " + strings.Join(s.interfaces, ", ") + " (is it up, with an address?)"
	case errors.Is(err, errNoWay) || isNoRoute(err):
		text += " (is a network interface up, with an address?)"
	case errors.Is(err, os.ErrPermission):
		text += " (does this host's firewall let it out?)"
	}
	return fail(text, err)
}

// sendBundle sends the bundle, and returns how many of its messages went out.
func (s *multicastSession) sendBundle(ctx context.Context) (n int, err error) {
	if s.closed {
		return 0, ErrStopped
	}
	err = errNoWay
	sent := uint64(0)
	if s.routes() && !s.noRoute {
		if sent, err = s.write(ctx, &s.routed); err == nil || sent != 0 || !isNoRoute(err) {
			return bits.OnesCount64(sent), err
		}
		s.log.Debug("autobus: no route to the group; sending on each interface", "error", err)
		s.noRoute = true
	}
	for i := range s.ways {
		w := &s.ways[i]
		if w.loopback && sent == s.bundle.all() && len(s.interfaces) == 0 {
			break // the interfaces before this loop it back themselves
		}
		took, wayErr := s.sendOn(ctx, w)
		sent |= took
		if wayErr == nil {
			continue
		}
		err = wayErr
		if s.wayLog.ok(time.Now()) {
			s.log.Debug("autobus: can't send on this interface", "interface", w.name, "error", err)
		}
	}
	if sent == s.bundle.all() {
		return s.bundle.count, nil
	}
	return bits.OnesCount64(sent), err
}

// isAny tells whether err is one of targets.
//
//go:noinline
func isAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
}

var errNoWay = errors.New("no network interface to send on")

// needsZone tells whether group means another group on each link (RFC 4007,
// section 4), so that no routing table can know where its members are.
func needsZone(group netip.Addr) bool {
	return group.IsLinkLocalMulticast() && group.Is6() || group.IsInterfaceLocalMulticast()
}

func (s *multicastSession) sendOn(ctx context.Context, w *way) (sent uint64, err error) {
	if w.conn == nil {
		conn, err := s.dial(w.card)
		if err != nil {
			return 0, err
		}
		w.conn = conn
	}
	return s.write(ctx, w)
}

// all has the bits of all the bundle's messages.
func (u *bundle) all() uint64 { return 1<<u.count - 1 }

// write sends the bundle one way, and returns a bit for each message that went
// out: at once if it can be, otherwise one by one.
func (s *multicastSession) write(ctx context.Context, w *way) (sent uint64, err error) {
	u := &s.bundle
	if u.count > 1 && u.segment <= w.limit {
		var control [maxControl]byte
		err := s.push(ctx, w.conn, u.buf[:u.end], appendSegmentSize(control[:0], u.segment))
		if err == nil {
			return u.all(), nil
		}
		if !isRefused(err) {
			return 0, err
		}
		s.log.Debug("autobus: the system refuses to send datagrams in batches; each goes alone", "interface", w.name, "error", err)
		w.limit = 0
	}
	for i := range u.count {
		envelope := u.buf[i*u.segment : min((i+1)*u.segment, u.end)]
		oneErr := s.push(ctx, w.conn, bytes.TrimRight(envelope, " "), nil)
		if oneErr == nil {
			sent |= 1 << i
			continue
		}
		if err == nil {
			err = oneErr
		}
		if isNoRoute(oneErr) || s.running.Err() != nil || ctx.Err() != nil {
			break
		}
	}
	return sent, err
}

// push hands b to the kernel. While the send buffer is full, Go's poller
// waits for room, as long as the deadline allows; that is set anew when it
// ran out, be it in idle time, so that no message pays for it.
func (s *multicastSession) push(ctx context.Context, conn *net.UDPConn, b, control []byte) (err error) {
	for tries := 0; ; {
		if len(control) > 0 {
			_, _, err = conn.WriteMsgUDPAddrPort(b, control, s.of.to)
		} else {
			_, err = conn.WriteToUDPAddrPort(b, s.of.to)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			if s.running.Err() != nil {
				return ErrStopped
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := conn.SetWriteDeadline(time.Now().Add(writeStep)); err != nil {
				return err
			}
		case isQueueFull(err) && tries < fullQueueTries:
			tries++
			if !sleep(s.running, fullQueuePause) {
				return ErrStopped
			}
			if ctx.Err() != nil {
				return err
			}
		default:
			return err
		}
	}
}

// read receives datagrams until Close.
func (s *multicastSession) read() {
	var (
		in       = newReceiver(s.running, s.of, s.receive)
		buf      = make([]byte, 64<<10) // more than any UDP datagram, or batch of them
		oob      [maxControl]byte
		overrun  uint32 // what the system has dropped
		badInput occasionally
		badRead  occasionally
		fullRead occasionally
	)
	for {
		n, c, from, err := readBatch(s.conn, buf, oob[:])
		if s.running.Err() != nil {
			return
		}
		if err != nil {
			if badRead.ok(time.Now()) {
				s.log.Warn("autobus: receiving failed; going on", "error", err)
			}
			if !sleep(s.running, readPause) {
				return
			}
			continue
		}
		if s.forget.Load() {
			s.forget.Store(false)
			clear(in.sources)
		}
		if c.dropped != overrun && fullRead.ok(time.Now()) {
			s.log.Warn("autobus: the receive buffer was full, and the system dropped what came; is a larger one needed (rcvbuf=)?",
				"dropped", uint64(c.dropped-overrun), "buffer", s.granted)
			overrun = c.dropped
		}
		for b := buf[:n]; ; {
			// The last one of a batch may be shorter; an empty datagram is one, too.
			size := len(b)
			if c.segment > 0 {
				size = min(size, c.segment)
			}
			at, problem := in.datagram(b[:size])
			if problem != "" && badInput.ok(time.Now()) {
				s.log.Warn("autobus: discarded a datagram that isn't a message", "from", from.String(), "bytes", size, "problem", problem, "offset", at)
			}
			if b = b[size:]; len(b) == 0 {
				break
			}
			if s.running.Err() != nil {
				return
			}
		}
	}
}

// controls is what the system says about what it hands on.
type controls struct {
	segment int    // the length of each datagram of a batch; 0: it is one
	dropped uint32 // datagrams and batches for which the buffer had no room, in all
}

// A receiver turns datagrams into calls of receive.
type receiver struct {
	running  context.Context
	channels *channelSet
	receive  func(ctx context.Context, channel, payload []byte)
	copies   copies
	sources  sources

	malformed, lost, duplicates *atomic.Uint64

	channel, data []byte // room to unescape in
}

func newReceiver(running context.Context, m *multicast, receive func(ctx context.Context, channel, payload []byte)) *receiver {
	return &receiver{
		running:    running,
		channels:   &m.channels,
		receive:    receive,
		copies:     newCopies(),
		sources:    newSources(),
		malformed:  &m.malformed,
		lost:       &m.lost,
		duplicates: &m.duplicates,
	}
}

// datagram receives one; problem says what is wrong with it, and at which offset.
func (r *receiver) datagram(b []byte) (at int, problem string) {
	e, at, problem := parseEnvelope(b)
	if problem != "" {
		r.malformed.Add(1)
		return at, problem
	}
	if e.seq != 0 {
		if r.copies.seen(&e) {
			r.duplicates.Add(1)
			return 0, ""
		}
		if lost := r.sources.count(e.src, e.seq); lost != 0 {
			r.lost.Add(uint64(lost))
		}
	}
	channel := e.channel
	if e.channelEscaped {
		r.channel = appendUnquoted(r.channel[:0], channel)
		channel = r.channel
	}
	if !r.channels.has(channel) {
		return 0, ""
	}
	data := e.data
	if e.dataEscaped {
		r.data = appendUnquoted(r.data[:0], data)
		data = r.data
	}
	r.receive(r.running, channel, data)
	return 0, ""
}

// The envelope: what is around a message in a datagram.

const (
	envelopeChannel = `{"channel":`
	envelopeData    = `,"data":`
	envelopeSrc     = `,"src":"`
	envelopeSeq     = `","seq":`

	// envelopeSize is the most that an envelope adds to a channel and a
	// payload, their quotes included.
	envelopeSize = len(envelopeChannel+envelopeData+envelopeSrc+envelopeSeq) + 4 + 16 + len("18446744073709551615") + len("}")
)

func appendEnvelope(dst []byte, channel string, payload []byte, src *[16]byte, seq uint64) []byte {
	dst = append(dst, envelopeChannel...)
	dst = appendQuoted(dst, channel)
	dst = append(dst, envelopeData...)
	dst = appendQuoted(dst, payload)
	dst = append(dst, envelopeSrc...)
	dst = append(dst, src[:]...)
	dst = append(dst, envelopeSeq...)
	dst = strconv.AppendUint(dst, seq, 10)
	return append(dst, '}')
}

// An envelope is a parsed one.
type envelope struct {
	channel, data               []byte // as they stand between the quotes
	channelEscaped, dataEscaped bool
	src, seq                    uint64 // seq is 0 unless both are there and good
}

const (
	wantObject  = "want '{'"
	wantComma   = "want ',' or '}'"
	wantChannel = `no "channel" that is a string`
	wantData    = `no "data" that is a string`
	wantEnd     = "something follows the envelope"
)

// parseEnvelope parses a datagram. Of fields that are there twice the last
// counts, as in Python; those it doesn't know it skips.
func parseEnvelope(b []byte) (e envelope, at int, problem string) {
	i := skipSpace(b, 0)
	if i == len(b) || b[i] != '{' {
		return e, i, wantObject
	}
	i = skipSpace(b, i+1)
	for first := true; ; first = false {
		if i == len(b) {
			return e, i, endless
		}
		if b[i] == '}' && first {
			break
		}
		name, escaped := i, false
		if b[i] != '"' {
			return e, i, wantName
		}
		if i, escaped, problem = scanString(b, i); problem != "" {
			return e, i, problem
		}
		key := b[name+1 : i-1]
		if escaped {
			key = appendUnquoted(nil, key)
		}
		if i, problem = scanColon(b, i); problem != "" {
			return e, i, problem
		}
		if i, problem = e.field(b, key, i); problem != "" {
			return e, i, problem
		}
		i = skipSpace(b, i)
		if i == len(b) {
			return e, i, endless
		}
		if b[i] == '}' {
			break
		}
		if b[i] != ',' {
			return e, i, wantComma
		}
		i = skipSpace(b, i+1)
	}
	if i = skipSpace(b, i+1); i != len(b) {
		return e, i, wantEnd
	}
	if e.channel == nil {
		return e, i, wantChannel
	}
	if e.data == nil {
		return e, i, wantData
	}
	if e.src == 0 {
		e.seq = 0
	}
	return e, i, ""
}

// field scans the value at i.
func (e *envelope) field(b, key []byte, i int) (end int, problem string) {
	if end, problem = skipValue(b, i, 1); problem != "" {
		return end, problem
	}
	value := b[i:end]
	switch string(key) {
	case "channel":
		e.channel, e.channelEscaped = unquote(value)
	case "data":
		e.data, e.dataEscaped = unquote(value)
	case "src":
		e.src = parseSrc(value)
	case "seq":
		e.seq = parseSeq(value)
	}
	return end, ""
}

// unquote returns what stands between the quotes, nil if value is no string,
// and whether there are escapes in it.
func unquote(value []byte) (s []byte, escaped bool) {
	if value[0] != '"' {
		return nil, false
	}
	s = value[1 : len(value)-1 : len(value)-1]
	return s, bytes.IndexByte(s, '\\') >= 0
}

// parseSrc returns 0 for what isn't 16 hexadecimal digits in quotes.
func parseSrc(value []byte) (src uint64) {
	if len(value) != 18 || value[0] != '"' {
		return 0
	}
	for _, c := range value[1:17] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c-'a' <= 5:
			c -= 'a' - 10
		case c-'A' <= 5:
			c -= 'A' - 10
		default:
			return 0
		}
		src = src<<4 | uint64(c)
	}
	return src
}

// parseSeq returns 0 for what isn't an integer from 1 to 1<<63.
func parseSeq(value []byte) (seq uint64) {
	if len(value) > len("9223372036854775808") {
		return 0
	}
	for _, c := range value {
		if c-'0' > 9 {
			return 0
		}
		seq = seq*10 + uint64(c-'0')
	}
	if seq > 1<<63 {
		return 0
	}
	return seq
}

// appendSpaces stays out of line: messages of one length need none.
//
//go:noinline
func appendSpaces(dst []byte, n int) []byte {
	const spaces = "                                                                "
	for ; n > len(spaces); n -= len(spaces) {
		dst = append(dst, spaces...)
	}
	return append(dst, spaces[:max(0, n)]...)
}

func fillSpaces(b []byte) { appendSpaces(b[:0], len(b)) }

func appendHex(dst []byte, v uint64) []byte {
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, "0123456789abcdef"[v>>shift&15])
	}
	return dst
}

// copies remembers the last messages, to drop a second copy: from 4,096 to
// twice that.
//
// It knows them by all they say, not by src and seq alone: whoever overhears a
// src could otherwise spend its next numbers on messages of their own, and
// have the true ones dropped as copies. The hash's seed is secret for the same
// reason.
type copies struct {
	seed        maphash.Seed
	recent, old *[2 * maxRecent]uint64 // hash tables; 0: free
	count       int                    // in recent
}

const maxRecent = 4096

func newCopies() copies {
	return copies{seed: maphash.MakeSeed(), recent: new([2 * maxRecent]uint64), old: new([2 * maxRecent]uint64)}
}

// seen notes e, and tells whether it had before.
func (c *copies) seen(e *envelope) bool {
	var h maphash.Hash
	h.SetSeed(c.seed)
	var numbers [24]byte
	for i := range 8 {
		numbers[i] = byte(e.src >> (8 * i))
		numbers[8+i] = byte(e.seq >> (8 * i))
		numbers[16+i] = byte(len(e.channel) >> (8 * i)) // where data begins
	}
	h.Write(numbers[:])
	h.Write(e.channel)
	h.Write(e.data)
	id := max(1, h.Sum64())
	if *slot(c.old, id) == id {
		return true
	}
	free := slot(c.recent, id)
	if *free == id {
		return true
	}
	if c.count == maxRecent {
		c.recent, c.old = c.old, c.recent
		clear(c.recent[:])
		c.count = 0
		free = slot(c.recent, id)
	}
	*free = id
	c.count++
	return false
}

// slot returns where id is in the table, or is to be. Half of the table is
// free, so that it is found after a step or two.
func slot(table *[2 * maxRecent]uint64, id uint64) *uint64 {
	for i := id; ; i++ {
		if at := &table[i%uint64(len(table))]; *at == id || *at == 0 {
			return at
		}
	}
}

// sources counts the messages that gaps in each source's seq show to be lost.
type sources map[uint64]*source

const (
	maxSources = 1024

	// seqWindow is how far behind the newest a message may come and still be
	// told from a source that began anew.
	seqWindow = 1024

	// maxSeqJump is the longest gap that is believed.
	maxSeqJump = 1 << 20
)

// A source is who sends.
type source struct {
	newest uint64
	jump   uint64 // how many the last step forward counted as lost
	// missing has a bit for each of the seqWindow up to newest that is counted
	// as lost, at seq modulo seqWindow.
	missing [seqWindow / 64]uint64
}

func newSources() sources { return make(sources) }

// count notes a message and returns by how much that changes the number of
// lost ones: down again, when one comes late.
func (m sources) count(src, seq uint64) (lost int) {
	s := m[src]
	if s == nil {
		s = m.add(src)
		s.newest = seq
		return 0
	}
	switch {
	case seq > s.newest && seq-s.newest <= maxSeqJump:
		s.jump = seq - s.newest - 1
		for i := max(s.newest+1, seq-min(seq, seqWindow)); i < seq; i++ {
			s.missing[i%seqWindow/64] |= 1 << (i % 64)
		}
		s.missing[seq%seqWindow/64] &^= 1 << (seq % 64)
		s.newest = seq
		return int(s.jump)
	case seq <= s.newest && s.newest-seq < seqWindow:
		word, bit := &s.missing[seq%seqWindow/64], uint64(1)<<(seq%64)
		if *word&bit == 0 {
			return 0
		}
		*word &^= bit
		if s.jump > 0 {
			s.jump--
		}
		return -1
	}
	if seq < s.newest {
		// The source never was where the last step led: somebody forged that.
		lost = -int(s.jump)
	}
	*s = source{newest: seq}
	return lost
}

// add makes room for a new source, in the place of another if need be.
func (m sources) add(src uint64) *source {
	s := new(source)
	if len(m) == maxSources {
		for other := range m {
			s = m[other]
			delete(m, other)
			break
		}
		*s = source{}
	}
	m[src] = s
	return s
}

// A channelSet is the channels subscribed to.
type channelSet struct {
	mu    sync.RWMutex        // guards what follows
	exact map[string]struct{} // by channel
	every map[string]struct{} // "autobus:x:" for "autobus:x:*"
}

// add returns how many channels there are then, as does remove.
func (c *channelSet) add(channel string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.exact == nil {
		c.exact, c.every = make(map[string]struct{}), make(map[string]struct{})
	}
	if prefix, ok := strings.CutSuffix(channel, ":*"); ok {
		c.every[prefix+":"] = struct{}{}
	} else {
		c.exact[channel] = struct{}{}
	}
	return len(c.exact) + len(c.every)
}

func (c *channelSet) remove(channel string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if prefix, ok := strings.CutSuffix(channel, ":*"); ok {
		delete(c.every, prefix+":")
	} else {
		delete(c.exact, channel)
	}
	return len(c.exact) + len(c.every)
}

func (c *channelSet) empty() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.exact)+len(c.every) == 0
}

func (c *channelSet) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exact, c.every = nil, nil
}

func (c *channelSet) has(channel []byte) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if _, ok := c.exact[string(channel)]; ok {
		return true
	}
	name := bytes.LastIndexByte(channel, ':') + 1
	if name == 0 || name == len(channel) {
		return false
	}
	_, ok := c.every[string(channel[:name])]
	return ok
}

// A multicastURL is what a udp:// URL says.
type multicastURL struct {
	group      netip.Addr
	port       uint16
	interfaces []string // none: all
	ttl        int
	loopback   bool
	readBuffer int
}

// parseMulticastURL takes what net/url and its Query do, without linking that.
func parseMulticastURL(rawURL string) (u multicastURL, err error) {
	u = multicastURL{ttl: defaultTTL, loopback: true, readBuffer: defaultReadBuffer}
	const scheme = "udp://"
	if len(rawURL) < len(scheme) || lower(rawURL[:len(scheme)]) != scheme {
		return u, badURL(rawURL, "it must begin with "+scheme)
	}
	rest, _, hasFragment := strings.Cut(rawURL[len(scheme):], "#")
	rest, query, _ := strings.Cut(rest, "?")
	host, path, _ := strings.Cut(rest, "/")
	switch {
	case strings.Contains(host, "@"):
		return u, badURL(rawURL, "multicast knows no user and no password: leave out what is before the '@'")
	case hasFragment:
		return u, badURL(rawURL, "nothing may follow a '#': write %23 for one in a value")
	case path != "":
		return u, badURL(rawURL, "it can't have a path such as "+quoted("/"+path))
	}
	problem := u.parseHost(host)
	if problem == "" {
		problem = u.parseOptions(query)
	}
	if problem != "" {
		return u, badURL(rawURL, problem)
	}
	return u, nil
}

// badURL keeps what may be a password to itself.
func badURL(rawURL, problem string) error {
	if strings.Contains(rawURL, "@") {
		return fail("bad multicast URL: "+problem, nil)
	}
	return fail("bad multicast URL "+quoted(rawURL)+": "+problem, nil)
}

func (u *multicastURL) parseHost(host string) (problem string) {
	group, port, bracketed, problem := splitHost(host)
	switch {
	case problem != "":
		return problem
	case bracketed:
		if port != "" && port[0] != ':' {
			return "want :PORT after the ']', not " + quoted(port)
		}
		var zone string
		var hasZone bool
		if group, zone, hasZone = strings.Cut(group, "%"); hasZone {
			// RFC 6874, section 2 writes the '%' as %25; people don't.
			if zone, hasZone = unescapeURL(strings.TrimPrefix(zone, "25"), false); !hasZone || zone == "" {
				return "the zone after the '%' must be a network interface, as in %25eth0"
			}
			u.interfaces = []string{zone}
		}
		if !strings.Contains(group, ":") {
			return "only IPv6 groups stand in brackets, not " + quoted(group)
		}
	case strings.LastIndexByte(port, ':') > 0:
		return "an IPv6 group stands in brackets, as in udp://[ff02::1234]:5000"
	}
	if group == "" {
		group = defaultGroup
	}
	addr, err := netip.ParseAddr(group)
	if err != nil {
		return "the group " + quoted(group) + " isn't an IP address, such as 239.255.0.1 or [ff02::1234]; multicast goes by no names"
	}
	if u.group = addr.Unmap(); !u.group.IsMulticast() {
		return "the group " + group + " isn't a multicast address: those are 224.0.0.0 to 239.255.255.255, and IPv6 from ff00:: on"
	}
	if port == "" || port == ":" {
		u.port = defaultPort
		return ""
	}
	var ok bool
	if u.port, ok = parsePort(port[1:]); !ok {
		return "the port must be a number from 1 to 65535, not " + quoted(port[1:])
	}
	return ""
}

// multicastOptions are the names of the options, sorted.
var multicastOptions = []string{"interface", "loopback", "rcvbuf", "ttl"}

func (u *multicastURL) parseOptions(query string) (problem string) {
	if strings.Contains(query, ";") {
		return "options are separated by '&', not ';'"
	}
	if _, ok := unescapeURL(query, true); !ok {
		return "a '%' in the options must start an escape such as %20"
	}
	_, problem = parseQuery(query, multicastOptions, u.setOption)
	return problem
}

func (u *multicastURL) setOption(name, value string) (problem string) {
	var err error
	switch name {
	case "interface":
		if u.interfaces != nil {
			return "interface= stands there twice (a zone counts): write interface=eth0,eth1 for several"
		}
		for rest, more := value, true; more; {
			var nic string
			if nic, rest, more = strings.Cut(rest, ","); nic == "" {
				return "interface= must name network interfaces, such as interface=eth0 or interface=eth0,wlan0, not " + quoted(value)
			}
			if !contains(u.interfaces, nic) {
				u.interfaces = append(u.interfaces, nic)
			}
		}
	case "loopback":
		switch lower(value) {
		case "1", "true", "yes", "on":
			u.loopback = true
		case "0", "false", "no", "off":
			u.loopback = false
		default:
			return wrongOption(name, "1, true, yes, on, 0, false, no or off", value)
		}
	case "rcvbuf":
		if u.readBuffer, err = strconv.Atoi(value); err != nil || u.readBuffer < 1 || u.readBuffer > maxReadBuffer {
			return wrongOption(name, "a number of bytes from 1 to "+strconv.Itoa(maxReadBuffer), value)
		}
	case "ttl":
		if u.ttl, err = strconv.Atoi(value); err != nil || u.ttl < 0 || u.ttl > 255 {
			return wrongOption(name, "a number from 0 to 255", value)
		}
	}
	return ""
}
