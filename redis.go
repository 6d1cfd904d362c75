package autobus

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

const (
	// Pauses between attempts to connect: full jitter, as "Exponential Backoff
	// And Jitter" of the AWS Architecture Blog names it. The cap is low: a
	// server that is back should have its processes back within two seconds.
	minRedisPause = 50 * time.Millisecond
	maxRedisPause = time.Second

	// maxRefusedPause is the cap for what only people can mend.
	maxRefusedPause = 10 * time.Second

	// receiverFirst is how long a publisher that is back waits for the
	// subscriber, which may be in its longest pause.
	receiverFirst = 2 * maxRedisPause

	// redisLogEvery keeps a server that is away from filling the log.
	redisLogEvery = 10 * time.Second

	// redisWriteChunk is what a server must take within socket_timeout. A
	// batch of the bus is smaller.
	redisWriteChunk = 256 << 10

	keepSendBuffer = 1 << 20 // a larger one is given up
)

// redis is the transport for redis:// URLs and their like: Redis pub/sub, over
// one connection to publish and one to subscribe.
type redis struct {
	redisURL
	sender   redisSender
	receiver redisReceiver

	reconnects atomic.Uint64

	life    mutex // is held while starting and closing, and guards session
	session *redisSession
}

// A redisSender publishes: publisher, or shardPublisher.
type redisSender interface {
	Send(ctx context.Context, messages []Message) (lost int, err error)
	Flush(ctx context.Context) error
	unsent() uint64 // messages that Send took, and that were lost later
	start(s *redisSession)
	stop()
}

// A redisReceiver subscribes: subscriber, or shardSubscriber.
type redisReceiver interface {
	Subscribe(channel string)
	Unsubscribe(channel string)
	start(s *redisSession)
	halt() // starts no goroutine any more
	stop() // forgets the subscriptions

	// await waits until the subscriptions are in force, but not for ever.
	// After an outage the backlog should reach this process too.
	await(ctx context.Context)
}

// newRedis returns the transport for a URL that parseRedisURL takes.
func newRedis(rawURL string) (*redis, error) {
	u, err := parseRedisURL(rawURL)
	if err != nil {
		return nil, err
	}
	t := &redis{redisURL: u}
	if u.sharded {
		slots := &slotMap{addrs: u.addrs}
		t.sender, t.receiver = newShardPublisher(slots), newShardSubscriber(slots)
	} else {
		t.sender, t.receiver = new(publisher), newSubscriber()
	}
	return t, nil
}

func (t *redis) Subscribe(channel string)   { t.receiver.Subscribe(channel) }
func (t *redis) Unsubscribe(channel string) { t.receiver.Unsubscribe(channel) }

// Size knows no limit but that of a receiving autobus.
func (t *redis) Size(_ string, payload []byte) (size, limit int) { return len(payload), maxMessage }

// Send hands messages to the server and doesn't wait for its answers: those
// that it refuses, or that were under way when a connection broke, are lost
// later. They are never sent twice.
func (t *redis) Send(ctx context.Context, messages []Message) (lost int, err error) {
	return t.sender.Send(ctx, messages)
}

func (t *redis) Flush(ctx context.Context) error { return t.sender.Flush(ctx) }

func (t *redis) AddStats(s *Stats) {
	s.Unsent += t.sender.unsent()
	s.Reconnects += t.reconnects.Load()
}

// Start returns once both connections are up and every subscription is
// acknowledged.
func (t *redis) Start(ctx context.Context, receive func(ctx context.Context, channel, payload []byte), log Logger) error {
	t.life.Lock()
	defer t.life.Unlock()
	if t.session != nil {
		return fail("redis: started twice", nil)
	}
	if err := checkTLS(&t.redisURL); err != nil {
		return fail("bad Redis URL", err)
	}
	t.reconnects.Store(0)
	s := &redisSession{of: t, redisURL: &t.redisURL, receive: receive, log: log, events: make(chan error, 8), open: make(map[*redisConn]struct{})}
	s.running, s.cancel = context.WithCancel(context.Background())
	s.starting.Store(true)
	t.sender.start(s)
	t.receiver.start(s)
	if t.sentinel {
		s.wg.Go(s.watchMaster)
	}
	for up := 0; up < 2; {
		var err error
		select {
		case err = <-s.events:
			up++
		case <-ctx.Done():
			s.close()
			return fail("redis: not connected"+s.lastProblem(), ctx.Err())
		}
		if err != nil {
			s.close()
			return err
		}
	}
	s.mu.Lock()
	s.starting.Store(false)
	s.mu.Unlock()
	select {
	case err := <-s.events: // one that was up has given up meanwhile
		if err != nil {
			s.close()
			return err
		}
	default:
	}
	t.session = s
	return nil
}

func (t *redis) Close() error {
	t.life.Lock()
	defer t.life.Unlock()
	if t.session != nil {
		t.session.close()
		t.session = nil
		t.receiver.stop()
	}
	return nil
}

// A redisSession is what is there from Start to Close.
type redisSession struct {
	of *redis
	*redisURL
	receive func(ctx context.Context, channel, payload []byte)
	log     Logger
	wg      sync.WaitGroup

	running context.Context // ends when Close begins
	cancel  context.CancelFunc

	starting atomic.Bool // is changed with mu held
	events   chan error  // to Start: nil from each of the two that is up, or a mistake

	mu       mutex                   // guards what follows
	open     map[*redisConn]struct{} // connections, for close; nil afterwards
	problem  error                   // the last one
	logged   [2]time.Time            // when one was; the second: when a mistake was
	next     int                     // the address to try first
	refusals map[string]time.Time    // when one of a code was logged
}

func (s *redisSession) close() {
	s.of.receiver.halt()
	s.cancel()
	s.mu.Lock()
	for c := range s.open {
		c.Close()
	}
	s.open = nil
	s.mu.Unlock()
	s.wg.Wait()
	s.of.sender.stop()
}

// hold has close close c.
func (s *redisSession) hold(c *redisConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		c.Close()
		return
	}
	s.open[c] = struct{}{}
}

func (s *redisSession) drop(c *redisConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	c.Close()
}

// A redisLink is a connection that is made again and again.
type redisLink struct {
	connect func(context.Context) (*redisConn, error)
	serve   func(c *redisConn, up func()) error // calls up once it does what it is for
	ready   func()                              // is called by up
	away    func()                              // if not nil: the connection broke, or there is none
	over    func() bool                         // if not nil, asked after the pause that follows
}

// keep connects, serves, and begins again when that ends, until Close.
func (s *redisSession) keep(l redisLink) {
	var pause backoff
	wasUp := false
	for s.running.Err() == nil {
		began := time.Now()
		c, err := l.connect(s.running)
		if err == nil {
			err = s.serve(c, l.serve, func() {
				if wasUp {
					s.of.reconnects.Add(1)
					s.log.Info("autobus: connected to Redis again", "address", c.addr)
				}
				wasUp = true
				l.ready()
			})
			if time.Since(began) > maxRedisPause { // else it may be one that breaks each time
				pause = 0
			}
		}
		mistaken := isA[*mistake](err)
		if mistaken && s.giveUp(err) {
			return
		}
		s.failed(err, mistaken)
		if l.away != nil {
			l.away()
		}
		// The pause counts from the attempt's beginning: one that ran out of
		// time was a pause by itself.
		if !s.wait(time.Until(began.Add(pause.next(mistaken)))) || l.over != nil && l.over() {
			return
		}
	}
}

func (s *redisSession) serve(c *redisConn, serve func(c *redisConn, up func()) error, up func()) error {
	s.hold(c)
	defer s.drop(c)
	return fail("redis at "+c.addr, endOf(serve(c, up)))
}

// firstUp returns what tells Start, once, that one of the two is up.
func (s *redisSession) firstUp() func() {
	told := false
	return func() {
		if !told {
			told = true
			s.tell(nil)
		}
	}
}

// giveUp tells Start of a mistake, and returns false if Start is over.
func (s *redisSession) giveUp(err error) bool {
	s.mu.Lock() // Start looks at the events once more after it has changed starting
	defer s.mu.Unlock()
	if !s.starting.Load() {
		return false
	}
	s.tell(err)
	return true
}

// tell is one of the events that Start waits for; afterwards nobody does.
func (s *redisSession) tell(event error) {
	select {
	case s.events <- event:
	default:
	}
}

// failed logs why there is no connection, but not all the time.
func (s *redisSession) failed(err error, mistaken bool) {
	s.mu.Lock()
	if s.running.Err() != nil {
		if s.problem == nil { // what Start was at, when it had to end
			s.problem = err
		}
		s.mu.Unlock()
		return
	}
	last, now := &s.logged[0], time.Now()
	if mistaken {
		last = &s.logged[1]
	}
	quiet := !last.IsZero() && now.Sub(*last) < redisLogEvery
	if s.problem = err; !quiet {
		*last = now
	}
	s.mu.Unlock()
	switch {
	case quiet:
		s.log.Debug("autobus: no connection to Redis; trying again", "error", err)
	case mistaken:
		s.log.Error("autobus: Redis refuses this process; trying again slowly", "error", err)
	default:
		s.log.Warn("autobus: no connection to Redis; trying again", "error", err)
	}
}

// lastProblem is for the error of a Start that ran out of time.
func (s *redisSession) lastProblem() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.problem == nil {
		return ""
	}
	return " (" + strings.TrimPrefix(s.problem.Error(), "autobus: ") + ")"
}

// wait waits for d, or returns false once Close begins.
func (s *redisSession) wait(d time.Duration) bool { return sleep(s.running, d) }

// A backoff counts failed attempts.
type backoff int

func (b *backoff) next(refused bool) time.Duration {
	most := maxRedisPause
	if refused {
		most = maxRefusedPause
	}
	d := min(minRedisPause<<min(*b, 10), most)
	*b++
	return rand.N(d)
}

// connect connects to the server, or where there are several to one.
func (s *redisSession) connect(ctx context.Context) (*redisConn, error) {
	if s.sentinel {
		return s.connectMaster(ctx)
	}
	return s.tryAddrs(func(addr string) (*redisConn, error) { return dialRedis(ctx, s.redisURL, addr) })
}

// tryAddrs tries the URL's addresses in turn, the last good one first.
func (s *redisSession) tryAddrs(dial func(addr string) (*redisConn, error)) (*redisConn, error) {
	s.mu.Lock()
	first := s.next
	s.mu.Unlock()
	var problem error
	for i := range s.addrs {
		i = (first + i) % len(s.addrs)
		c, err := dial(s.addrs[i])
		if err == nil {
			s.mu.Lock()
			s.next = i
			s.mu.Unlock()
			return c, nil
		}
		if problem == nil || isA[*mistake](err) {
			problem = err
		}
	}
	return nil, problem
}

// A mistake is an error that waiting doesn't mend.
type mistake struct {
	text  string
	cause error
}

func (m *mistake) Error() string {
	if m.cause == nil {
		return m.text
	}
	return m.text + ": " + m.cause.Error()
}

func (m *mistake) Unwrap() error { return m.cause }

// find returns the first error of a type that err is or wraps. It is errors.As
// without reflection, of which that would link 8 KB; it doesn't look into
// errors that wrap several.
func find[T error](err error) (found T, ok bool) {
	for err != nil && !ok {
		found, ok = err.(T)
		err = errors.Unwrap(err)
	}
	return found, ok
}

// isA tells whether find finds one.
func isA[T error](err error) bool {
	_, ok := find[T](err)
	return ok
}

// A redisConn is a connection that has said hello.
type redisConn struct {
	wire    net.Conn
	raw     net.Conn // wire, or what is below its TLS
	in      *respReader
	addr    string
	timeout time.Duration // socket_timeout
	until   time.Time     // when all that comes before work must be over
}

// Close says no farewell in TLS, for which it might have to wait.
func (c *redisConn) Close() error { return c.raw.Close() }

// past is a deadline that ends a read or a write at once.
var past = time.Unix(1, 0)

// dialRedis connects to the server at addr, all under one deadline.
func dialRedis(ctx context.Context, u *redisURL, addr string) (_ *redisConn, err error) {
	until := time.Now().Add(u.connectTimeout)
	limited, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	var raw net.Conn // below TLS
	defer func() {
		if err == nil {
			return
		}
		if raw != nil {
			raw.Close()
		}
		if limited.Err() != nil && !isA[*mistake](err) {
			text := "no answer"
			if ctx.Err() == nil {
				text += " within " + u.connectTimeout.String()
			}
			if raw != nil && u.tls {
				text += " (does it speak TLS on this port?)"
			}
			err = &timeoutError{text}
		}
		if op, ok := find[*net.OpError](err); ok && op.Op == "dial" {
			err = op.Err // the rest of its text is the address
		}
		err = fail("redis at "+addr, err)
	}()

	raw, err = new(net.Dialer).DialContext(limited, u.network, addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(limited, func() { raw.SetDeadline(past) })
	defer func() {
		if !stop() && err == nil {
			err = limited.Err()
		}
	}()
	conn := raw
	if u.tls {
		host, _, splitErr := net.SplitHostPort(addr)
		if splitErr != nil {
			return nil, splitErr
		}
		secured, err := secure(limited, raw, u, host)
		if err != nil {
			return nil, explainTLS(err)
		}
		conn = secured
	}
	c := &redisConn{conn, raw, newRESPReader(conn), addr, u.socketTimeout, until}
	if err := c.hello(limited, u); err != nil {
		return nil, explainTLS(err)
	}
	return c, nil
}

type timeoutError struct{ text string }

// noAnswer is the error of a server that keeps silent.
func (c *redisConn) noAnswer() error { return &timeoutError{"no answer for " + c.timeout.String()} }

func (e *timeoutError) Error() string { return e.text }
func (e *timeoutError) Timeout() bool { return true }

// closedError is an end of the connection that came too early.
type closedError struct{ text string }

func (e *closedError) Error() string { return e.text }
func (e *closedError) Unwrap() error { return io.ErrUnexpectedEOF }

// endOf puts the end of a connection into words.
func endOf(err error) error {
	if err == io.EOF {
		return &closedError{"the server closed the connection"}
	}
	return explainTLS(err)
}

// explainTLS marks what is a mistake among the errors of a connection with
// TLS: some of it shows only when the server is first read from.
func explainTLS(err error) error {
	if text := tlsMistake(err); text != "" {
		return &mistake{text, err}
	}
	return err
}

// hello says who we are, and has the server say that it is ready.
func (c *redisConn) hello(ctx context.Context, u *redisURL) error {
	b := make([]byte, 0, 256)
	asked := 0
	ask := func(args ...string) {
		b = appendCommand(b, args...)
		asked++
	}
	if u.protocol == 3 {
		args := []string{"HELLO", "3"}
		if u.username != "" || u.password != "" {
			name := u.username
			if name == "" {
				name = "default"
			}
			args = append(args, "AUTH", name, u.password)
		}
		ask(args...)
	} else if u.username != "" {
		ask("AUTH", u.username, u.password)
	} else if u.password != "" {
		ask("AUTH", u.password)
	}
	if u.clientName != "" {
		ask("CLIENT", "SETNAME", u.clientName)
	}
	ask("PING")
	if _, err := c.write(ctx, b); err != nil {
		return err
	}
	for i := range asked {
		err := c.reply()
		switch {
		case isA[respError](err):
			return &mistake{err.Error(), nil}
		case err == nil:
		case i == 0 && !u.tls && !errors.Is(err, os.ErrDeadlineExceeded):
			// So ends what Redis is told in plaintext where it expects TLS.
			return &closedError{"it closed the connection without an answer (does it want TLS, by rediss://?)"}
		default:
			return err
		}
		answer, is := c.serverError()
		if !is {
			continue
		}
		passes := answer.passes()
		if u.password != "" && strings.Contains(string(c.in.text(c.in.values[0])), u.password) {
			answer = serverError(answer.code())
			if len(answer) > maxErrorCode || strings.Contains(string(answer), u.password) {
				answer = "an error with the password in it"
			}
		}
		switch {
		case passes:
			return answer
		case i < asked-1:
			return &mistake{"the server refuses the connection", answer}
		case answer.code() == "NOAUTH":
			return &mistake{"the server wants a password", answer}
		case answer.code() == "DENIED": // protected mode
			return &mistake{"the server refuses the connection", answer}
		}
		// Any other answer to a PING is a sign of life: an ACL may deny it.
	}
	return nil
}

// reply waits for the next one, as long as the connection's deadline allows.
func (c *redisConn) reply() error {
	for {
		if ok, err := c.in.next(); ok || err != nil {
			return err
		}
		if err := c.in.fill(); err != nil {
			return err
		}
	}
}

// serverError tells whether the reply is an error, and which.
func (c *redisConn) serverError() (e serverError, is bool) {
	root := c.in.values[0]
	if root.kind != '-' && root.kind != '!' {
		return "", false
	}
	return newServerError(c.in.text(root)), true
}

// write writes b, of which a server must take a part now and then. What ends
// it with ctx is a deadline in the past.
func (c *redisConn) write(ctx context.Context, b []byte) (n int, err error) {
	for n < len(b) {
		if err := c.wire.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
			return n, err
		}
		if err := ctx.Err(); err != nil { // that deadline may have been there already
			return n, err
		}
		part, err := c.wire.Write(b[n:min(len(b), n+redisWriteChunk)])
		n += part
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = &timeoutError{"it reads nothing for " + c.timeout.String()}
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// A serverError is an error reply, made fit for logs.
type serverError string

// newServerError leaves out what the server repeats of a command, which may be
// a password or a payload.
func newServerError(text []byte) serverError {
	s, _, _ := strings.Cut(string(text[:min(len(text), 300)]), ", with args")
	b := make([]byte, 0, len(s))
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r < ' ' || r == 0x7f:
			b = append(b, ' ')
		case r != utf8.RuneError || n > 1: // else it isn't UTF-8
			b = append(b, s[:n]...)
		}
		s = s[n:]
	}
	return serverError(b)
}

func (e serverError) Error() string { return "the server says: " + string(e) }

// maxErrorCode is the length of what is taken for a code and no part of a
// password. Redis's longest have 13 characters.
const maxErrorCode = 16

// code is the error's first word, by which Redis tells its errors apart.
func (e serverError) code() string {
	code, _, _ := strings.Cut(string(e), " ")
	return code
}

// passes tells whether it is a matter of time.
func (e serverError) passes() bool {
	switch e.code() {
	case "LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN":
		return true
	}
	return strings.HasPrefix(string(e), "ERR max number of clients")
}

// A publisher is the sender of everything but a sharded cluster.
type publisher struct {
	session *redisSession // while started

	// writing is held while something is written to conn, which is then not
	// given up. It is locked before mu.
	writing mutex
	buf     []byte
	ends    []int // of the messages in buf

	// Send's own. Of what the server hasn't answered, about sendWindow bytes
	// go before Send waits: that much may be lost with a connection.
	since   int             // bytes written since mark was set
	mark    uint64          // of written
	watched <-chan struct{} // the context that abort waits for
	unwatch func() bool

	mu               mutex      // guards what follows
	change           news       // of what follows
	conn             *redisConn // nil: none
	written, settled uint64     // messages: on their way, and of these answered or lost
	lost             uint64     // of these
	asked            time.Time  // since when an answer is waited for, if it is
}

const sendWindow = 1 << 20

func (p *publisher) start(s *redisSession) {
	p.mu.Lock()
	p.lost = 0
	p.mu.Unlock()
	p.session = s
	s.wg.Go(func() { s.keep(redisLink{connect: s.connect, serve: p.serve, ready: s.firstUp()}) })
}

func (p *publisher) stop() {}

func (p *publisher) unsent() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// Send writes messages, all in one buffer.
func (p *publisher) Send(ctx context.Context, messages []Message) (lost int, err error) {
	p.watch(ctx)
	p.buf, p.ends = p.buf[:0], p.ends[:0]
	for i := range messages {
		p.buf = appendPublish(p.buf, publishVerb, &messages[i])
		p.ends = append(p.ends, len(p.buf))
	}
	cuts := 0 // how often a connection broke in the middle of the message that is next
	for sent, begin := 0, 0; sent < len(messages); {
		c, takeErr := p.take(ctx, len(messages)-sent)
		if takeErr != nil {
			lost, err = lost+len(messages)-sent, takeErr
			break
		}
		n, writeErr := c.write(ctx, p.buf[begin:])
		p.since += n
		for n += begin; sent < len(messages) && p.ends[sent] <= n; sent++ {
			begin, cuts = p.ends[sent], 0
		}
		if writeErr != nil {
			// What the server has in part it can't have understood.
			p.giveBack(c, len(messages)-sent)
			c.Close()
			if n > begin {
				cuts++
			}
			if cuts == maxCuts {
				lost, err = lost+1, &cutsError{len(messages[sent].Payload)}
				begin, cuts = p.ends[sent], 0
				sent++
			}
		}
		p.writing.Unlock()
	}
	if cap(p.buf) > keepSendBuffer {
		p.buf = nil
	}
	if lost > 0 {
		return lost, fail("redis: send", err)
	}
	return 0, nil
}

// maxCuts is how often a connection may break in the middle of one message
// until that is lost. A server that finds it too large (proto-max-bulk-len,
// client-query-buffer-limit) breaks every one, and says so to nobody.
const maxCuts = 3

type cutsError struct{ size int }

func (e *cutsError) Error() string {
	return strconv.Itoa(maxCuts) + " connections broke in the middle of a message of " + strconv.Itoa(e.size) + " bytes: is it over a limit of the server's?"
}

// watch has ctx end what Send waits for. The bus calls Send with the same
// context each time, so this costs a message nothing.
func (p *publisher) watch(ctx context.Context) {
	done := ctx.Done()
	if done == p.watched {
		return
	}
	if p.unwatch != nil {
		p.unwatch()
	}
	p.watched, p.unwatch = done, context.AfterFunc(ctx, p.abort)
}

func (p *publisher) abort() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		p.conn.wire.SetWriteDeadline(past)
	}
}

// take waits for a connection, and for room in the window, and returns with
// writing locked and n messages counted as written.
func (p *publisher) take(ctx context.Context, n int) (*redisConn, error) {
	for {
		p.writing.Lock()
		p.mu.Lock()
		if p.since >= sendWindow/2 && p.settled >= p.mark {
			p.since, p.mark = 0, p.written
		}
		if err := ctx.Err(); err != nil {
			p.mu.Unlock()
			p.writing.Unlock()
			return nil, err
		}
		if c := p.conn; c != nil && p.since < sendWindow/2 {
			if p.written == p.settled { // the reader waits for nothing yet
				p.asked = time.Now()
				c.wire.SetReadDeadline(p.asked.Add(c.timeout))
			}
			p.written += uint64(n)
			p.mu.Unlock()
			return c, nil
		}
		p.writing.Unlock()
		_ = p.change.wait(ctx, &p.mu) // the next turn sees why
		p.mu.Unlock()
	}
}

// giveBack takes n messages from those counted as written, and c from the
// connections to write to.
func (p *publisher) giveBack(c *redisConn, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.written -= uint64(n)
	p.settled = min(p.settled, p.written) // a server that answers what it hasn't read is no Redis
	if p.conn == c {
		p.conn = nil
	}
	p.change.tell()
}

// Flush waits until all that was written is answered or lost.
func (p *publisher) Flush(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for target := p.written; p.settled < min(target, p.written); {
		if err := p.change.wait(ctx, &p.mu); err != nil {
			return fail("redis: flush", err)
		}
	}
	return nil
}

// serve counts the server's answers on c.
func (p *publisher) serve(c *redisConn, up func()) error {
	if !p.session.starting.Load() {
		p.session.of.receiver.await(p.session.running)
	}
	p.mu.Lock()
	p.conn = c
	p.change.tell()
	p.mu.Unlock()
	up()
	a := answers{publisher: p, conn: c}
	err := a.read()

	p.mu.Lock()
	p.conn = nil
	p.mu.Unlock()
	c.Close()        // so that a write ends,
	p.writing.Lock() // and what it wrote is known
	defer p.writing.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.written - p.settled; n > 0 {
		p.lost += n
		p.settled = p.written
		p.session.log.Warn("autobus: the connection to Redis broke before its answers; messages are lost or were not confirmed", "messages", n)
	}
	p.change.tell()
	return err
}

// answers reads what a server says to a publisher.
type answers struct {
	*publisher
	conn         *redisConn
	new, refused uint64 // that settle hasn't seen
	seen         uint64 // in all on this connection
	base         uint64 // of publisher.settled, when the connection was made
	pinged       bool   // a PING is under way
	pingAt       uint64 // how many answers come before its own
}

func (a *answers) read() error {
	a.mu.Lock()
	a.base = a.settled
	a.mu.Unlock()
	in := a.conn.in
	for {
		ok, err := in.next()
		if ok {
			err = a.take(in.values[0].kind)
		}
		if ok && err == nil {
			continue
		}
		if settleErr := a.settle(); err == nil {
			err = settleErr
		}
		if err != nil {
			return err
		}
		err = in.fill()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = a.silence()
		}
		if err != nil {
			return err
		}
	}
}

// take takes one answer.
func (a *answers) take(kind byte) error {
	pong := a.pinged && a.seen == a.pingAt
	switch {
	case kind == '>': // RESP3 has those, about nothing that we asked for
		return nil
	case pong:
		a.pinged = false
	case kind == ':':
		a.new++
		a.seen++
		return nil
	}
	e, refused := a.conn.serverError()
	switch {
	case pong:
		// An ACL may deny PING. That too is a sign of life.
		if refused && (e.code() == "NOAUTH" || e.passes()) {
			return e
		}
		return nil
	case !refused:
		return respError("not an answer to PUBLISH")
	case strings.HasPrefix(string(e), "ERR Protocol error"):
		// It comes before the end of the message that it is about, and is the
		// last that comes: what is lost shows when the connection is closed.
		return e
	}
	a.new++
	a.seen++
	a.refused++
	a.session.refused(e)
	if e.code() == "NOAUTH" {
		return e
	}
	return nil
}

// settle makes the answers known, and sets the deadline for the next ones.
func (a *answers) settle() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.settled+a.new > a.written {
		return respError("an answer to nothing")
	}
	a.settled += a.new
	a.lost += a.refused
	if a.new > 0 {
		a.change.tell()
	}
	a.new, a.refused = 0, 0
	var deadline time.Time
	if a.pinged || a.written > a.settled {
		a.asked = time.Now()
		deadline = a.asked.Add(a.conn.timeout)
	} else if a.session.healthCheck > 0 {
		deadline = time.Now().Add(a.session.healthCheck)
	}
	return a.conn.wire.SetReadDeadline(deadline)
}

// silence deals with a deadline: it asks whether the server is there, or
// finds that it isn't.
func (a *answers) silence() error {
	if !a.writing.TryLock() {
		return nil // a write is under way, with a deadline of its own
	}
	defer a.writing.Unlock()
	a.mu.Lock()
	busy := a.pinged || a.written > a.settled
	late := time.Since(a.asked) >= a.conn.timeout
	a.pingAt = a.written - a.base
	a.mu.Unlock()
	if !busy {
		a.pinged = true
		_, err := a.conn.write(a.session.running, appendCommand(nil, "PING"))
		return err
	}
	if late {
		return a.conn.noAnswer()
	}
	return nil
}

// refused logs that the server doesn't take a message, once a second a cause.
func (s *redisSession) refused(answer serverError) {
	s.mu.Lock()
	now, code := time.Now(), answer.code()
	last, known := s.refusals[code]
	quiet := known && now.Sub(last) < time.Second
	if !quiet {
		if s.refusals == nil || len(s.refusals) == 64 {
			s.refusals = make(map[string]time.Time)
		}
		s.refusals[code] = now
	}
	s.mu.Unlock()
	if !quiet {
		s.log.Error("autobus: Redis refused a message, which is lost", "error", error(answer))
	}
}

// redisChunk is how many channels one command names.
const redisChunk = 256

// deniedPause is how long a channel is left alone that the server denied.
const deniedPause = maxRefusedPause

// A subscriber receives, from everything but a sharded cluster.
type subscriber struct {
	shard *shardNode // of a sharded cluster; nil otherwise

	mu      mutex               // guards what follows
	wanted  map[string]struct{} // channels; one that ends in ":*" stands for all types
	changed map[string]struct{} // what the server may not have been told yet
	conn    *redisConn          // to wake when something changes
	inForce chan struct{}       // closed while all of wanted is, as far as it was when the connection was made
}

func newSubscriber() *subscriber {
	s := &subscriber{inForce: make(chan struct{})}
	s.stop()
	return s
}

func (s *subscriber) Subscribe(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted[channel] = struct{}{}
	s.change(channel)
}

func (s *subscriber) Unsubscribe(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.wanted, channel)
	s.change(channel)
}

// change has the connection's goroutine look at a channel. mu is held.
func (s *subscriber) change(channel string) {
	s.changed[channel] = struct{}{}
	if s.conn != nil {
		s.conn.wire.SetReadDeadline(past)
	}
}

func (s *subscriber) start(session *redisSession) {
	session.wg.Go(func() {
		serve := func(c *redisConn, up func()) error { return s.serve(session, c, up) }
		session.keep(redisLink{connect: session.connect, serve: serve, ready: session.firstUp()})
	})
}

func (s *subscriber) halt() {}

func (s *subscriber) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted, s.changed = make(map[string]struct{}), make(map[string]struct{})
}

func (s *subscriber) await(ctx context.Context) {
	s.mu.Lock()
	inForce := s.inForce
	s.mu.Unlock()
	awaitClosed(ctx, inForce)
}

// awaitClosed waits for a receiver, no longer than receiverFirst.
func awaitClosed(ctx context.Context, inForce <-chan struct{}) {
	t := time.NewTimer(receiverFirst)
	defer t.Stop()
	select {
	case <-inForce:
	case <-t.C:
	case <-ctx.Done():
	}
}

// serve subscribes to everything on c, and receives.
func (s *subscriber) serve(session *redisSession, c *redisConn, up func()) error {
	l := listener{
		subscriber: s, session: session, conn: c, up: up, heard: time.Now(),
		told: make(map[string]struct{}), active: make(map[string]struct{}), patterns: make(map[string]string),
		alone: make(map[string]struct{}), denied: make(map[string]struct{}),
	}
	s.mu.Lock()
	s.conn = c
	clear(s.changed)
	for channel := range s.wanted {
		s.changed[channel] = struct{}{}
	}
	s.mu.Unlock()
	err := l.listen()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = nil
	if l.up == nil {
		s.inForce = make(chan struct{})
	}
	return err
}

// A listener is a subscriber's connection.
type listener struct {
	*subscriber
	session *redisSession
	conn    *redisConn
	up      func() // is called, and set to nil, once all is acknowledged

	told     map[string]struct{} // channels that the server was told to subscribe to
	active   map[string]struct{} // of these, what it has acknowledged, but for patterns
	patterns map[string]string   // and the patterns: by "autobus:x:", as the server has them
	alone    map[string]struct{} // channels to ask for in a command of their own: one that an ACL denies fails all it stands with
	denied   map[string]struct{} // channels that the server denies
	again    time.Time           // when to ask for them again
	pending  []order             // commands that are not answered, the oldest first

	heard time.Time // when the server last gave a sign of life
}

// An order is a command that the server has yet to answer.
type order struct {
	verb     string
	channels []string // that it has yet to acknowledge; none: a PING
}

func (l *listener) listen() error {
	in := l.conn.in
	for {
		ok, err := in.next()
		if err != nil {
			return err
		}
		if ok {
			p, err := in.push()
			if err == nil {
				err = l.take(p)
			}
			if err != nil {
				return err
			}
			continue
		}
		l.heard = time.Now()
		if err := l.wait(); err != nil {
			return err
		}
	}
}

// wait waits for more from the server, and meanwhile tells it what changes.
func (l *listener) wait() error {
	for {
		if err := l.tell(); err != nil {
			return err
		}
		if l.up != nil && len(l.pending) == 0 {
			l.mu.Lock()
			close(l.inForce)
			l.mu.Unlock()
			l.up()
			l.up = nil
		}
		l.mu.Lock()
		changed := len(l.changed) > 0
		if !changed { // else it would undo what wakes it
			l.conn.wire.SetReadDeadline(l.deadline())
		}
		l.mu.Unlock()
		if changed {
			continue
		}
		err := l.conn.in.fill()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = l.silence()
		} else if err == nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// deadline is when silence has to see to something.
func (l *listener) deadline() (t time.Time) {
	switch {
	case l.up != nil:
		t = l.conn.until
		if soon := l.heard.Add(time.Second); t.Before(soon) { // the handlers were slow, not the server
			t = soon
		}
	case len(l.pending) > 0:
		t = l.heard.Add(l.conn.timeout)
	case l.session.healthCheck > 0:
		t = l.heard.Add(l.session.healthCheck)
	}
	if len(l.denied) > 0 && (t.IsZero() || l.again.Before(t)) {
		t = l.again
	}
	return t
}

// silence deals with a deadline, or with one that was set to wake wait.
func (l *listener) silence() error {
	now := time.Now()
	if now.Before(l.deadline()) || l.deadline().IsZero() {
		return nil
	}
	if len(l.denied) > 0 && !now.Before(l.again) {
		l.mu.Lock()
		for channel := range l.denied {
			l.changed[channel] = struct{}{}
		}
		l.mu.Unlock()
		clear(l.denied)
		return nil
	}
	if l.up != nil {
		return &timeoutError{"it doesn't acknowledge all subscriptions within " + l.session.connectTimeout.String()}
	}
	if len(l.pending) > 0 {
		return l.conn.noAnswer()
	}
	l.pending = append(l.pending, order{verb: "PING"})
	l.heard = now
	_, err := l.conn.write(l.session.running, appendCommand(nil, "PING"))
	return err
}

// tell tells the server about the channels that changed.
func (l *listener) tell() error {
	var on, patternsOn, off, patternsOff []string
	l.mu.Lock()
	for channel := range l.changed {
		_, wanted := l.wanted[channel]
		_, told := l.told[channel]
		_, denied := l.denied[channel]
		_, pattern := patternPrefix(channel)
		switch {
		case wanted == told || wanted && denied:
		case wanted && pattern:
			patternsOn = append(patternsOn, channel)
		case wanted:
			on = append(on, channel)
		case pattern:
			patternsOff = append(patternsOff, channel)
		default:
			off = append(off, channel)
		}
		if wanted && !denied {
			l.told[channel] = struct{}{}
		} else {
			delete(l.told, channel)
		}
		if !wanted {
			delete(l.denied, channel)
			delete(l.alone, channel)
		}
	}
	clear(l.changed)
	l.mu.Unlock()
	if len(on)+len(patternsOn)+len(off)+len(patternsOff) == 0 {
		return nil
	}
	if len(l.pending) == 0 {
		l.heard = time.Now()
	}
	var b []byte
	if l.shard != nil {
		b = l.order(b, "SSUBSCRIBE", on)
		b = l.order(b, "SUNSUBSCRIBE", off)
	} else {
		b = l.order(b, "SUBSCRIBE", on)
		b = l.order(b, "PSUBSCRIBE", patternsOn)
		b = l.order(b, "UNSUBSCRIBE", off)
		b = l.order(b, "PUNSUBSCRIBE", patternsOff)
	}
	_, err := l.conn.write(l.session.running, b)
	return err
}

// order appends the commands for channels to b.
func (l *listener) order(b []byte, verb string, channels []string) []byte {
	for len(channels) > 0 {
		n := 1
		if _, alone := l.alone[channels[0]]; !alone && l.shard == nil { // one command is for one slot
			for n < min(len(channels), redisChunk) {
				if _, alone := l.alone[channels[n]]; alone {
					break
				}
				n++
			}
		}
		args := append(make([]string, 0, n+1), verb)
		for _, channel := range channels[:n] {
			args = append(args, wireChannel(channel))
		}
		b = appendCommand(b, args...)
		l.pending = append(l.pending, order{verb, channels[:n:n]})
		channels = channels[n:]
	}
	return b
}

// patternPrefix returns what the channels begin with that "autobus:x:*" stands
// for, and whether channel is such a pattern.
func patternPrefix(channel string) (prefix string, ok bool) {
	if strings.HasSuffix(channel, ":*") {
		return channel[:len(channel)-1], true
	}
	return "", false
}

// wireChannel is a channel as the server has it. In a pattern, a backslash
// escapes the characters *?[]\ (https://redis.io/docs/latest/commands/psubscribe/).
func wireChannel(channel string) string {
	prefix, pattern := patternPrefix(channel)
	if !pattern || !strings.ContainsAny(prefix, `*?[]\`) {
		return channel
	}
	b := make([]byte, 0, len(channel)+8)
	for i := range len(prefix) {
		if strings.IndexByte(`*?[]\`, prefix[i]) >= 0 {
			b = append(b, '\\')
		}
		b = append(b, prefix[i])
	}
	return string(append(b, '*'))
}

// take takes what the server says.
func (l *listener) take(p push) error {
	switch p.kind {
	case pushMessage:
		l.session.receive(l.session.running, p.channel, p.payload)
	case pushPattern:
		// The pattern's '*' matches a ':' too, which begins another namespace.
		name := bytes.LastIndexByte(p.channel, ':') + 1
		if name == len(p.channel) || string(p.pattern) != l.patterns[string(p.channel[:name])] {
			return nil
		}
		// The server sends a message once for its channel and once for the
		// pattern. Which subscriptions it had in force when it sent this one,
		// the acknowledgements before it tell.
		if _, twice := l.active[string(p.channel)]; !twice {
			l.session.receive(l.session.running, p.channel, p.payload)
		}
	case pushSubscribe, pushUnsubscribe:
		l.acknowledge(p)
	case pushPong:
		if len(l.pending) == 0 || len(l.pending[0].channels) > 0 {
			return errPushShape
		}
		l.pending = l.pending[1:]
	case pushError:
		return l.refusal(newServerError(p.channel))
	}
	return nil
}

// acknowledge takes the acknowledgement of one channel. One that belongs to no
// order says that the server has ended a subscription by itself.
func (l *listener) acknowledge(p push) {
	wire := string(p.channel)
	channel := wire
	if len(l.pending) > 0 && len(l.pending[0].channels) > 0 && wireChannel(l.pending[0].channels[0]) == wire {
		first := &l.pending[0]
		channel = first.channels[0]
		if first.channels = first.channels[1:]; len(first.channels) == 0 {
			l.pending = l.pending[1:]
		}
	} else if _, told := l.told[wire]; p.kind == pushSubscribe && !told {
		return // nor did anybody ask for it
	} else if p.kind == pushUnsubscribe {
		for told := range l.told {
			if wireChannel(told) != wire {
				continue
			}
			channel = told
			delete(l.told, told)
			if l.shard != nil {
				l.shard.ended(told)
			}
			l.mu.Lock()
			l.changed[told] = struct{}{}
			l.mu.Unlock()
			break
		}
	}
	prefix, pattern := patternPrefix(channel)
	switch {
	case p.kind == pushSubscribe && pattern:
		l.patterns[prefix] = wire
	case p.kind == pushSubscribe:
		l.active[channel] = struct{}{}
		if l.shard != nil {
			l.shard.acknowledged(channel)
		}
	case pattern:
		delete(l.patterns, prefix)
	default:
		delete(l.active, channel)
	}
}

// refusal takes an error, which is the answer to the oldest order.
func (l *listener) refusal(e serverError) error {
	if len(l.pending) == 0 || e.passes() || e.code() == "NOAUTH" {
		return e
	}
	refused := l.pending[0]
	l.pending = l.pending[1:]
	if !strings.HasSuffix(refused.verb, "SUBSCRIBE") || strings.Contains(refused.verb, "UNSUBSCRIBE") {
		return nil // an ACL may deny PING: that too is a sign of life
	}
	if len(refused.channels) == 1 {
		channel := refused.channels[0]
		if slot, addr, ok := e.moved(l.conn.addr); ok && l.shard != nil {
			delete(l.told, channel)
			if !l.shard.moved(channel, slot, addr) {
				l.denied[channel] = struct{}{}
				l.again = time.Now().Add(clusterPause)
			}
			return nil
		}
		if l.session.starting.Load() {
			return &mistake{"subscribe to " + quoted(clip(channel)), e}
		}
		l.session.log.Error("autobus: Redis refuses a subscription; trying again slowly", "channel", clip(channel), "error", error(e))
		delete(l.told, channel)
		l.denied[channel] = struct{}{}
		l.again = time.Now().Add(deniedPause)
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, channel := range refused.channels {
		delete(l.told, channel)
		l.alone[channel] = struct{}{}
		l.changed[channel] = struct{}{}
	}
	return nil
}
