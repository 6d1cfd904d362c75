package autobus

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// clusterSlots is how many hash slots there are
// (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/).
const clusterSlots = 16384

// maxClusterNodes is what Redis recommends at most, in the same specification.
const maxClusterNodes = 1000

const (
	// checkIdle is how old the last answer of a connection may be when
	// shardPublisher writes to it without asking whether it is alive: nobody
	// reads it in between.
	checkIdle = time.Second

	// clusterPause follows a round in which no node took a message, or hops
	// from node to node: while a slot moves, they may disagree.
	clusterPause = 100 * time.Millisecond
	clusterHops  = 5
)

// slotOf is a channel's hash slot: CRC16 of the channel, or of what its first
// '{' and the next '}' enclose, if anything (the same specification).
func slotOf(channel string) uint16 {
	if i := strings.IndexByte(channel, '{'); i >= 0 {
		if n := strings.IndexByte(channel[i+1:], '}'); n > 0 {
			channel = channel[i+1 : i+1+n]
		}
	}
	var crc uint16 // XMODEM: polynomial 0x1021
	for i := range len(channel) {
		crc ^= uint16(channel[i]) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			if crc <<= 1; carry {
				crc ^= 0x1021
			}
		}
	}
	return crc % clusterSlots
}

// A slotMap is what is known of a cluster: where MOVED has said that slots
// are. There is no other way to learn it, and none is needed.
type slotMap struct {
	mu    mutex    // guards what follows
	addrs []string // of the URL, and then what MOVED has named
	owner map[uint16]string
	next  int // of addrs: the node to ask about slots of which nothing is known
}

func (m *slotMap) of(slot uint16) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if addr, ok := m.owner[slot]; ok {
		return addr
	}
	return m.addrs[m.next]
}

// any returns a node to begin with.
func (m *slotMap) any() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.addrs[m.next]
}

func (m *slotMap) set(slot uint16, addr string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.owner == nil {
		m.owner = make(map[uint16]string)
	}
	m.owner[slot] = addr
	if len(m.addrs) < maxClusterNodes && !contains(m.addrs, addr) {
		m.addrs = append(m.addrs[:len(m.addrs):len(m.addrs)], addr)
	}
}

// gone forgets a node that doesn't answer. Another one will know who has its
// slots now.
func (m *slotMap) gone(addr string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for slot, owner := range m.owner {
		if owner == addr {
			delete(m.owner, slot)
		}
	}
	if m.addrs[m.next] == addr {
		m.next = (m.next + 1) % len(m.addrs)
	}
}

// moved returns what an error MOVED says: "MOVED 3999 127.0.0.1:6381", without
// a host if it is that of the node that says so.
func (e serverError) moved(from string) (slot uint16, addr string, ok bool) {
	word, rest, _ := strings.Cut(string(e), " ")
	first, node, _ := strings.Cut(rest, " ")
	node, _, _ = strings.Cut(node, " ")
	n, err := strconv.ParseUint(first, 10, 16)
	i := strings.LastIndexByte(node, ':')
	if word != "MOVED" || err != nil || n >= clusterSlots || i < 0 {
		return 0, "", false
	}
	if _, ok = parsePort(node[i+1:]); !ok {
		return 0, "", false
	}
	host := strings.TrimSuffix(strings.TrimPrefix(node[:i], "["), "]")
	if host == "" || host == "?" {
		if host, _, err = net.SplitHostPort(from); err != nil {
			return 0, "", false
		}
	}
	return uint16(n), net.JoinHostPort(host, node[i+1:]), true
}

// A shardPublisher is the sender of a sharded cluster. It waits for the
// answers to each batch: a message that a node refuses because its slot has
// moved was not published, and goes to the new owner, before any later one.
type shardPublisher struct {
	slots   *slotMap
	session *redisSession // while started
	conns   map[string]*shardConn
	todo    []int                 // messages of a batch that are not settled
	settled []bool                // which are, published or lost
	lost    int                   // of a batch
	problem error                 // why the last of these was
	route   map[uint16]*shardConn // of a round: all of a slot goes to one node, or waits (nil)
	moved   bool                  // of a round: a slot has
	cut     int                   // the message of a batch in whose middle a connection broke
	cuts    int                   // and how often
	watched <-chan struct{}
	unwatch func() bool

	mu   mutex // guards busy
	busy map[*redisConn]struct{}
}

// A shardConn is a connection to a node, and what is under way on it.
type shardConn struct {
	*redisConn
	heard time.Time
	buf   []byte
	sent  []int // messages in buf, by their place in the batch
	ends  []int // where they end
	err   error // the connection is broken
}

func newShardPublisher(slots *slotMap) *shardPublisher {
	return &shardPublisher{slots: slots, conns: make(map[string]*shardConn), route: make(map[uint16]*shardConn), busy: make(map[*redisConn]struct{})}
}

func (p *shardPublisher) start(s *redisSession) {
	p.session = s
	s.tell(nil) // the subscriber's is the connection that Start waits for
}

func (p *shardPublisher) stop() {
	clear(p.conns)
	clear(p.route)
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.busy)
}

func (p *shardPublisher) unsent() uint64              { return 0 }
func (p *shardPublisher) Flush(context.Context) error { return nil }

func (p *shardPublisher) Send(ctx context.Context, messages []Message) (lost int, err error) {
	p.watch(ctx)
	p.todo, p.cuts, p.lost, p.problem = p.todo[:0], 0, 0, nil
	p.settled = append(p.settled[:0], make([]bool, len(messages))...)
	for i := range messages {
		p.todo = append(p.todo, i)
	}
	hops := 0
	for len(p.todo) > 0 {
		if ctx.Err() != nil || p.session.running.Err() != nil {
			return p.lost + len(p.todo), p.stopped(ctx)
		}
		before := len(p.todo)
		p.round(ctx, messages)
		if len(p.todo) < before {
			hops = 0
		} else if hops++; (!p.moved || hops%clusterHops == 0) && !p.pause(ctx) {
			return p.lost + len(p.todo), p.stopped(ctx)
		}
		if len(p.todo) > 0 { // the subscriptions have lost their node too
			p.session.of.receiver.await(ctx)
		}
	}
	if p.lost > 0 {
		return p.lost, fail("redis: send", p.problem)
	}
	return 0, nil
}

func (p *shardPublisher) stopped(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fail("redis: send", err)
	}
	return ErrStopped
}

func (p *shardPublisher) pause(ctx context.Context) bool {
	t := time.NewTimer(clusterPause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-p.session.running.Done():
	}
	return false
}

// round sends what is to do, each message to the node that should have it,
// and leaves in todo what must be sent again.
func (p *shardPublisher) round(ctx context.Context, messages []Message) {
	p.moved = false
	p.assign(ctx, messages)
	for _, c := range p.conns {
		if len(c.sent) > 0 {
			p.write(ctx, c, messages)
		}
	}
	for addr, c := range p.conns {
		p.collect(ctx, c)
		if cap(c.buf) > keepSendBuffer {
			c.buf = nil
		}
		c.buf, c.sent, c.ends = c.buf[:0], c.sent[:0], c.ends[:0]
		if c.err != nil {
			p.session.failed(fail("redis at "+addr, endOf(c.err)), false)
			p.release(c)
			p.slots.gone(addr)
		}
	}
	left := p.todo[:0]
	for _, i := range p.todo {
		if !p.settled[i] {
			left = append(left, i)
		}
	}
	p.todo = left
}

// assign gives what is to do to connections.
func (p *shardPublisher) assign(ctx context.Context, messages []Message) {
	last, slot := "", uint16(0)
	clear(p.route)
	failed := false
	for _, i := range p.todo {
		m := &messages[i]
		if m.Channel != last || last == "" {
			last, slot = m.Channel, slotOf(m.Channel)
		}
		// The owner may change meanwhile, by a dial that fails or by what the
		// subscriptions learn: what follows mustn't overtake what is on its way.
		c, known := p.route[slot]
		if !known {
			addr := p.slots.of(slot)
			if c = p.conns[addr]; c == nil && !failed {
				var err error
				if c, err = p.dial(ctx, addr); err != nil {
					failed = true // one a round: the others' slots don't wait for more
					p.session.failed(err, false)
					p.slots.gone(addr)
				}
			}
			p.route[slot] = c
		}
		if c != nil {
			c.buf = appendPublish(c.buf, spublishVerb, m)
			c.sent = append(c.sent, i)
			c.ends = append(c.ends, len(c.buf))
		}
	}
}

// write writes what c was given, and leaves in c.sent what the node has whole.
func (p *shardPublisher) write(ctx context.Context, c *shardConn, messages []Message) {
	n := 0
	if c.check(ctx); c.err == nil {
		n, c.err = c.write(ctx, c.buf)
	}
	if c.err == nil {
		return
	}
	whole, begin := 0, 0
	for whole < len(c.sent) && c.ends[whole] <= n {
		begin = c.ends[whole]
		whole++
	}
	if n > begin && p.isCut(c.sent[whole]) { // what it has in part it can't have understood
		p.lose(c.sent[whole:whole+1], &cutsError{len(messages[c.sent[whole]].Payload)})
	}
	c.sent = c.sent[:whole]
}

// collect reads the answers to what c has sent.
func (p *shardPublisher) collect(ctx context.Context, c *shardConn) {
	for j, i := range c.sent {
		again, err := p.answer(ctx, c)
		switch {
		case c.err != nil: // sent, and not answered
			p.lose(c.sent[j:], c.err)
			return
		case again:
		case err != nil:
			p.lose(c.sent[j:j+1], err)
		default:
			p.settled[i] = true
		}
	}
}

// lose settles messages that are lost.
func (p *shardPublisher) lose(messages []int, err error) {
	for _, i := range messages {
		p.settled[i] = true
	}
	p.lost += len(messages)
	p.problem = err
}

// isCut takes note that a connection broke in the middle of message i, and
// tells whether that was once too often.
func (p *shardPublisher) isCut(i int) bool {
	if p.cut != i {
		p.cut, p.cuts = i, 0
	}
	p.cuts++
	return p.cuts == maxCuts
}

// answer reads one answer. again says that the message was not published, and
// may be later.
func (p *shardPublisher) answer(ctx context.Context, c *shardConn) (again bool, err error) {
	for {
		if c.err == nil {
			c.err = c.wire.SetReadDeadline(time.Now().Add(c.timeout))
		}
		if c.err == nil && ctx.Err() != nil {
			c.err = ctx.Err()
		}
		if c.err == nil {
			c.err = c.reply()
		}
		if errors.Is(c.err, os.ErrDeadlineExceeded) {
			c.err = c.noAnswer()
		}
		if c.err != nil {
			return false, c.err
		}
		c.heard = time.Now()
		switch c.in.values[0].kind {
		case '>': // RESP3: nothing that we asked for
			continue
		case ':':
			return false, nil
		}
		e, refused := c.serverError()
		if !refused {
			c.err = respError("not an answer to SPUBLISH")
			return false, c.err
		}
		if slot, owner, ok := e.moved(c.addr); ok {
			p.slots.set(slot, owner)
			p.moved = true
			return true, nil
		}
		if e.passes() {
			return true, nil
		}
		p.session.refused(e)
		return false, e
	}
}

// check asks a connection that was silent whether it is alive, before a
// message is lost on it.
func (c *shardConn) check(ctx context.Context) {
	if time.Since(c.heard) < checkIdle {
		return
	}
	if err := c.ask(ctx, "PING"); err != nil && !isA[serverError](err) {
		c.err = err
	}
}

func (p *shardPublisher) dial(ctx context.Context, addr string) (*shardConn, error) {
	// Until Close, and as long as Send's context lasts.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.session.running, cancel)()
	conn, err := dialRedis(ctx, p.session.redisURL, addr)
	if err != nil {
		return nil, err
	}
	p.session.hold(conn)
	p.mu.Lock()
	p.busy[conn] = struct{}{}
	p.mu.Unlock()
	c := &shardConn{redisConn: conn, heard: time.Now()}
	p.conns[addr] = c
	return c, nil
}

func (p *shardPublisher) release(c *shardConn) {
	p.mu.Lock()
	delete(p.busy, c.redisConn)
	p.mu.Unlock()
	delete(p.conns, c.addr)
	p.session.drop(c.redisConn)
}

// watch has ctx end what Send waits for, as publisher.watch does.
func (p *shardPublisher) watch(ctx context.Context) {
	done := ctx.Done()
	if done == p.watched {
		return
	}
	if p.unwatch != nil {
		p.unwatch()
	}
	p.watched, p.unwatch = done, context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for c := range p.busy {
			c.wire.SetDeadline(past)
		}
	})
}

// A shardSubscriber is the receiver of a sharded cluster: a subscriber for
// each node that has one of the channels.
type shardSubscriber struct {
	slots   *slotMap
	session *redisSession // while started

	mu     mutex                 // guards what follows
	wanted map[string]*shardNode // by channel; nil before Start
	acked  map[string]struct{}
	nodes  map[string]*shardNode // by address
	hops   map[string]int        // how often a channel was sent on since it was last in force
	ready  bool                  // Start knows

	inForce chan struct{} // closed while all of wanted is acknowledged
}

// A shardNode subscribes to a node's channels.
type shardNode struct {
	in   *subscriber
	of   *shardSubscriber
	addr string
}

func newShardSubscriber(slots *slotMap) *shardSubscriber {
	r := &shardSubscriber{slots: slots, inForce: make(chan struct{})}
	r.stop()
	return r
}

// Subscribe knows no patterns: there are none for SSUBSCRIBE.
func (r *shardSubscriber) Subscribe(channel string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session == nil { // start will see to it
		r.wanted[channel] = nil
		return
	}
	if err := checkSharded(channel); err != nil {
		r.session.log.Error("autobus: can't subscribe", "error", err)
		return
	}
	r.lack(channel)
	r.assign(channel)
}

func checkSharded(channel string) error {
	if _, pattern := patternPrefix(channel); pattern {
		return fail("redis", &mistake{"with sharded=1 there are no subscriptions to all types", nil})
	}
	return nil
}

func (r *shardSubscriber) Unsubscribe(channel string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.wanted[channel]; n != nil {
		n.in.Unsubscribe(channel)
	}
	delete(r.wanted, channel)
	delete(r.acked, channel)
	delete(r.hops, channel)
	if r.ready {
		r.agree()
	}
}

func (r *shardSubscriber) await(ctx context.Context) {
	r.mu.Lock()
	inForce := r.inForce
	r.mu.Unlock()
	awaitClosed(ctx, inForce)
}

func (r *shardSubscriber) start(s *redisSession) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.session, r.ready = s, false
	r.acked, r.nodes = make(map[string]struct{}), make(map[string]*shardNode)
	for channel := range r.wanted {
		if err := checkSharded(channel); err != nil {
			s.tell(err)
			return
		}
	}
	r.node(r.slots.any()) // also without a channel, Start connects
	for channel := range r.wanted {
		r.assign(channel)
	}
}

func (r *shardSubscriber) halt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.session = nil
}

func (r *shardSubscriber) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted, r.acked, r.nodes = make(map[string]*shardNode), make(map[string]struct{}), make(map[string]*shardNode)
	r.hops = make(map[string]int)
}

// node returns the node at addr, which it starts if need be. mu is held.
func (r *shardSubscriber) node(addr string) *shardNode {
	n := r.nodes[addr]
	if n == nil {
		n = &shardNode{newSubscriber(), r, addr}
		n.in.shard = n
		r.nodes[addr] = n
		r.session.wg.Go(func() { n.run(r.session) })
	}
	return n
}

// assign gives a channel to the node that should have it. mu is held.
func (r *shardSubscriber) assign(channel string) {
	n := r.node(r.slots.of(slotOf(channel)))
	r.wanted[channel] = n
	n.in.Subscribe(channel)
}

// run keeps a connection to the node. While it is away, others are asked for
// its channels.
func (n *shardNode) run(s *redisSession) {
	dial := func(ctx context.Context) (*redisConn, error) { return dialRedis(ctx, s.redisURL, n.addr) }
	serve := func(c *redisConn, up func()) error { return n.in.serve(s, c, up) }
	s.keep(redisLink{dial, serve, n.of.check, n.scatter, n.retire})
}

// check looks whether all is acknowledged, and tells Start, once.
func (r *shardSubscriber) check() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.agree()
}

// agree is check with mu held.
func (r *shardSubscriber) agree() {
	if len(r.acked) < len(r.wanted) {
		return
	}
	if !isClosed(r.inForce) {
		close(r.inForce)
	}
	if !r.ready && r.session != nil {
		r.ready = true
		r.session.tell(nil)
	}
}

// lack takes note of a subscription that isn't in force. mu is held.
func (r *shardSubscriber) lack(channel string) {
	delete(r.acked, channel)
	if isClosed(r.inForce) {
		r.inForce = make(chan struct{})
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// acknowledged takes note of a subscription in force.
func (n *shardNode) acknowledged(channel string) {
	n.of.mu.Lock()
	if n.of.wanted[channel] == n {
		n.of.acked[channel] = struct{}{}
		delete(n.of.hops, channel)
	}
	n.of.mu.Unlock()
	n.of.check()
}

// ended takes note that a node has ended a subscription: the slot moves.
func (n *shardNode) ended(channel string) {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	if n.of.wanted[channel] == n {
		n.of.lack(channel)
	}
}

// moved gives a channel to the node that has its slot now, unless it has come
// round too often: then it stays for a pause.
func (n *shardNode) moved(channel string, slot uint16, addr string) bool {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	if n.of.wanted[channel] != n || n.of.session == nil {
		n.in.Unsubscribe(channel)
		return true
	}
	if n.of.hops[channel]++; n.of.hops[channel]%clusterHops == 0 {
		return false
	}
	n.of.slots.set(slot, addr)
	n.in.Unsubscribe(channel)
	n.of.assign(channel)
	return true
}

// scatter gives the channels to other nodes, which know who has them now.
func (n *shardNode) scatter() {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	n.of.slots.gone(n.addr)
	if n.of.session == nil {
		return
	}
	for channel, node := range n.of.wanted {
		if node == n {
			n.of.lack(channel)
			n.in.Unsubscribe(channel)
			n.of.assign(channel)
		}
	}
}

// retire removes a node without channels.
func (n *shardNode) retire() bool {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	for _, node := range n.of.wanted {
		if node == n {
			return false
		}
	}
	if len(n.of.nodes) == 1 && n.of.session != nil {
		return false
	}
	delete(n.of.nodes, n.addr)
	return true
}
