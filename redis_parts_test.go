package autobus

import (
	"bufio"
	"context"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The examples of the Redis Cluster specification, and what CLUSTER KEYSLOT says.
func TestSlotOf(t *testing.T) {
	for channel, want := range map[string]uint16{
		"":                     0,
		"123456789":            0x31c3,
		"foo":                  12182,
		"bar":                  5061,
		"{user1000}.following": slotOf("user1000"),
		"foo{}{bar}":           8363,
		"foo{{bar}}zap":        slotOf("{bar"),
		"foo{bar}{zap}":        5061,
		"foo{bar":              slotOf("foo{bar"),
	} {
		if got := slotOf(channel); got != want {
			t.Errorf("%q: got %d, want %d", channel, got, want)
		}
	}
}

func TestServerErrorMoved(t *testing.T) {
	for _, test := range []struct {
		in   string
		slot uint16
		addr string
		ok   bool
	}{
		{"MOVED 3999 127.0.0.1:6381", 3999, "127.0.0.1:6381", true},
		{"MOVED 16383 redis.example:6381", 16383, "redis.example:6381", true},
		{"MOVED 3999 ::1:6381", 3999, "[::1]:6381", true},
		{"MOVED 3999 [::1]:6381", 3999, "[::1]:6381", true},
		{"MOVED 3999 :6381", 3999, "here:6381", true},
		{"MOVED 3999 ?:6381", 3999, "here:6381", true},
		{in: "MOVED 16384 127.0.0.1:6381"},
		{in: "MOVED -1 127.0.0.1:6381"},
		{in: "MOVED 3999 127.0.0.1"},
		{in: "MOVED 3999 127.0.0.1:0"},
		{in: "MOVED 3999 127.0.0.1:65536"},
		{in: "MOVED 3999"},
		{in: "MOVED"},
		{in: "ASK 3999 127.0.0.1:6381"},
		{in: ""},
	} {
		slot, addr, ok := serverError(test.in).moved("here:7000")
		if slot != test.slot || addr != test.addr || ok != test.ok {
			t.Errorf("%q: got %d %q %v", test.in, slot, addr, ok)
		}
	}
}

// A pattern's namespace matches itself alone.
func TestWireChannel(t *testing.T) {
	for channel, want := range map[string]string{
		"autobus::Ping":        "autobus::Ping",
		"autobus:a*b:Ping":     "autobus:a*b:Ping",
		"autobus::*":           "autobus::*",
		"autobus:a:*":          "autobus:a:*",
		`autobus:a*?[x-y]\^:*`: `autobus:a\*\?\[x-y\]\\^:*`,
	} {
		if got := wireChannel(channel); got != want {
			t.Errorf("%q: got %q, want %q", channel, got, want)
		}
	}
}

// An error reply is fit for a log, whatever it repeats.
func TestServerError(t *testing.T) {
	for in, want := range map[string]string{
		"NOPERM no": "NOPERM no",
		"ERR unknown command 'AUTH', with args beginning with: 'secret' ": "ERR unknown command 'AUTH'",
		"ERR a\nb\x00\xff":                 "ERR a b ",
		"ERR " + strings.Repeat("x", 1000): "ERR " + strings.Repeat("x", 296),
		"":                                 "",
	} {
		if got := string(newServerError([]byte(in))); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestRedisBackoff(t *testing.T) {
	for _, refused := range []bool{false, true} {
		most := time.Second
		if refused {
			most = 10 * time.Second
		}
		for range 100 {
			var b backoff
			for i, limit := 0, 50*time.Millisecond; i < 100; i++ {
				if d := b.next(refused); d < 0 || d >= min(limit, most) {
					t.Fatalf("pause %d is %v", i, d)
				}
				limit = min(2*limit, most)
			}
		}
	}
}

// A script is a server that says what a test has it say.
type script struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

// scripted starts a server that calls serve for each connection that has sent
// its first PING, which is answered, and returns its URL. Connections end with
// the test.
func scripted(t *testing.T, serve func(s *script, first []string)) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				s := &script{t, conn, bufio.NewReader(conn)}
				if s.command() == nil {
					return
				}
				s.say("+PONG\r\n")
				if first := s.command(); first != nil {
					serve(s, first)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return "redis://" + l.Addr().String()
}

// command reads one, or returns nil at the connection's end.
func (s *script) command() (args []string) {
	line, err := s.in.ReadString('\n')
	if err != nil {
		return nil
	}
	n, err := strconv.Atoi(strings.TrimSpace(line[1:]))
	if err != nil || line[0] != '*' {
		s.t.Errorf("the command begins with %q", line)
		return nil
	}
	for range n {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return nil
		}
		size, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
		b := make([]byte, size+2)
		if _, err := io.ReadFull(s.in, b); err != nil {
			return nil
		}
		args = append(args, string(b[:size]))
	}
	return args
}

func (s *script) say(lines ...string) {
	if _, err := io.WriteString(s.conn, strings.Join(lines, "")); err != nil {
		s.t.Log(err)
	}
}

func reply(args ...string) string { return string(appendCommand(nil, args...)) }

func acknowledgement(kind, channel string) string {
	b := appendCommand(nil, kind, channel)
	b[1] = '3'
	return string(b) + ":1\r\n"
}

// startRedis starts a transport and returns what it receives.
func startRedis(t *testing.T, url string, channels ...string) (r *redis, got chan string) {
	t.Helper()
	r, err := newRedis(url)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range channels {
		r.Subscribe(c)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got = make(chan string, 1000)
	receive := func(_ context.Context, channel, payload []byte) { got <- string(channel) + " " + string(payload) }
	if err := r.Start(ctx, receive, stderrLogger{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, got
}

// A message reaches a type and the pattern once, whatever the order of
// acknowledgements; names with a ':' belong to another namespace.
func TestRedisPatternAndChannel(t *testing.T) {
	url := scripted(t, func(s *script, first []string) {
		for c := first; c != nil; c = s.command() {
			switch {
			case c[0] == "PSUBSCRIBE":
				s.say(
					reply("pmessage", "autobus:n:*", "autobus:n:A", "early"), // before the acknowledgement it isn't known to be ours
					acknowledgement("psubscribe", "autobus:n:*"),
					reply("pmessage", "autobus:n:*", "autobus:n:A", "1"),
					reply("pmessage", "autobus:n:*", "autobus:n:b:A", "other namespace"),
					reply("pmessage", "autobus:n:*", "autobus:n:", "no name"),
				)
			case c[0] == "SUBSCRIBE":
				s.say(
					reply("pmessage", "autobus:n:*", "autobus:n:A", "2"),
					acknowledgement("subscribe", "autobus:n:A"),
					reply("message", "autobus:n:A", "3"),
					reply("pmessage", "autobus:n:*", "autobus:n:A", "3"),
					reply("pmessage", "autobus:n:*", "autobus:n:B", "4"),
				)
			case c[0] == "UNSUBSCRIBE":
				s.say(
					reply("message", "autobus:n:A", "5"),
					reply("pmessage", "autobus:n:*", "autobus:n:A", "5"),
					acknowledgement("unsubscribe", "autobus:n:A"),
					reply("pmessage", "autobus:n:*", "autobus:n:A", "6"),
				)
			default:
				t.Errorf("unexpected %q", c)
			}
		}
	})
	r, got := startRedis(t, url, "autobus:n:*")
	want := func(messages ...string) {
		t.Helper()
		for _, want := range messages {
			if got := <-got; got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
	}
	want("autobus:n:A 1")
	r.Subscribe("autobus:n:A")
	want("autobus:n:A 2", "autobus:n:A 3", "autobus:n:B 4")
	r.Unsubscribe("autobus:n:A")
	want("autobus:n:A 5", "autobus:n:A 6")
	if len(got) > 0 {
		t.Errorf("then came %q", <-got)
	}
}

// Messages that come before the acknowledgement are delivered.
func TestRedisMessageBeforeAcknowledgement(t *testing.T) {
	url := scripted(t, func(s *script, first []string) {
		if first[0] == "SUBSCRIBE" {
			s.say(reply("message", "autobus::A", "early"), acknowledgement("subscribe", "autobus::A"))
		}
		s.command()
	})
	_, got := startRedis(t, url, "autobus::A")
	if m := <-got; m != "autobus::A early" {
		t.Errorf("got %q", m)
	}
}

// A channel that an ACL denies doesn't keep the others from being subscribed:
// at Start it is an error that names it.
func TestRedisDeniedChannel(t *testing.T) {
	url := scripted(t, func(s *script, first []string) {
		for c := first; c != nil; c = s.command() {
			for _, channel := range c[1:] {
				if slices.Contains(c, "autobus::B") {
					s.say("-NOPERM this user has no permissions to access one of the channels used in the command\r\n")
					break
				}
				s.say(acknowledgement("subscribe", channel))
			}
		}
	})
	r, err := newRedis(url)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"autobus::A", "autobus::B", "autobus::C"} {
		r.Subscribe(c)
	}
	err = r.Start(t.Context(), nil, stderrLogger{})
	if got := errorText(err); !strings.Contains(got, `subscribe to "autobus::B": the server says: NOPERM`) {
		t.Errorf("Start says %q", got)
	}
}

// Each message counts once: answered, refused, or not answered when the
// connection broke, which is not sent again.
func TestRedisAccounting(t *testing.T) {
	var mu sync.Mutex
	var published []string
	broken := false
	url := scripted(t, func(s *script, first []string) {
		for c := first; c != nil; c = s.command() {
			if c[0] != "PUBLISH" {
				continue
			}
			mu.Lock()
			published = append(published, c[2])
			n, first := len(published), !broken
			broken = broken || n == 5
			mu.Unlock()
			switch {
			case first && n == 5:
				return // 4 and 5 are not answered
			case n == 4 && first:
			case c[2] == "2":
				s.say("-NOPERM no\r\n")
			default:
				s.say(":1\r\n")
			}
		}
	})
	r, _ := startRedis(t, url)
	for i := range 10 {
		if i == 6 { // by now the server has seen the first five, or is about to
			if err := r.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if lost, err := r.Send(t.Context(), []Message{{"autobus::A", []byte(strconv.Itoa(i))}}); lost != 0 || err != nil {
			t.Fatal(lost, err)
		}
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	seen := make(map[string]bool)
	for _, p := range published {
		if seen[p] {
			t.Errorf("%s was sent twice", p)
		}
		seen[p] = true
	}
	var s Stats
	r.AddStats(&s)
	// What came to the server after the fifth on the first connection is lost unseen.
	unseen := uint64(10 - len(published))
	if s.Unsent != 3+unseen || s.Reconnects != 1 {
		t.Errorf("%d of 10 came to the server; the transport counts %d lost and %d reconnects", len(published), s.Unsent, s.Reconnects)
	}
}

// A server that answers what it wasn't asked, or not as it should, is left.
func TestRedisNonsense(t *testing.T) {
	for _, nonsense := range []string{":1\r\n:1\r\n", "+OK\r\n", "$1\r\na\r\n", "*0\r\n", "!\r\n", "\x00"} {
		closed := make(chan struct{})
		once := sync.OnceFunc(func() { close(closed) })
		url := scripted(t, func(s *script, first []string) {
			for c := first; c != nil; c = s.command() {
				s.say(nonsense)
			}
			once()
		})
		r, _ := startRedis(t, url)
		if lost, err := r.Send(t.Context(), []Message{{"autobus::A", []byte("1")}}); lost != 0 || err != nil {
			t.Fatal(lost, err)
		}
		<-closed
		r.Close()
	}
}

// What reconnects does so for ever, and Close ends it at any moment.
func TestRedisCloseWhileAway(t *testing.T) {
	broken := make(chan struct{}, 1000)
	url := scripted(t, func(s *script, first []string) { broken <- struct{}{} })
	r, _ := startRedis(t, url)
	r.Subscribe("autobus::A")
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan int)
	go func() {
		lost := 0
		for ctx.Err() == nil {
			n, _ := r.Send(ctx, []Message{{"autobus::A", []byte("1")}})
			lost += n
		}
		sent <- lost
	}()
	for range 3 {
		<-broken
	}
	cancel()
	<-sent
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// What waited for a publisher's new connection is sent once the subscriptions
// are in force again, so that this process hears it too.
func TestRedisReceiverFirst(t *testing.T) {
	var subscribed, publishers atomic.Int32
	cutSubscriber, cutPublisher, published := make(chan struct{}), make(chan struct{}), make(chan struct{})
	url := scripted(t, func(s *script, first []string) {
		switch again := first[0] == "SUBSCRIBE" && subscribed.Add(1) > 1 || first[0] == "PUBLISH" && publishers.Add(1) > 1; {
		case first[0] == "SUBSCRIBE" && again:
			close(cutPublisher)
			select {
			case <-published:
				t.Error("published before the subscription was in force")
			case <-time.After(200 * time.Millisecond): // ample for a publisher that doesn't wait
			}
			s.say(acknowledgement("subscribe", first[1]))
			s.command()
		case first[0] == "SUBSCRIBE":
			s.say(acknowledgement("subscribe", first[1]))
			<-cutSubscriber
		case again:
			close(published)
			for c := first; c != nil; c = s.command() {
				s.say(":1\r\n")
			}
		default:
			s.say(":1\r\n")
			<-cutPublisher
		}
	})
	r, _ := startRedis(t, url, "autobus::A")
	for done := false; !done; {
		if lost, err := r.Send(t.Context(), []Message{{"autobus::A", []byte("1")}}); lost != 0 || err != nil {
			t.Fatal(lost, err)
		}
		if subscribed.Load() == 1 && publishers.Load() == 1 {
			select {
			case <-cutSubscriber:
			default:
				close(cutSubscriber)
			}
		}
		select {
		case <-published:
			done = true
		default:
		}
	}
}

// A server that repeats the password doesn't get it into an error.
func TestRedisPasswordRepeated(t *testing.T) {
	for _, answer := range []string{
		"-ERR no sw0rdf1sh\r\n", "-sw0rdf1sh\r\n", "!12\r\nsw0rdf1sh no\r\n", "-LOADING sw0rdf1sh\r\n",
		"-" + strings.Repeat("x", 295) + "sw0rdf1sh\r\n", "-ERR " + strings.Repeat("x", 291) + "sw0rdf1sh\r\n",
	} {
		near, far := net.Pipe()
		defer near.Close()
		go func() {
			defer far.Close()
			in := bufio.NewReader(far)
			s := &script{t, far, in}
			s.command()
			s.command()
			s.say(answer)
		}()
		c := &redisConn{wire: near, raw: near, in: newRESPReader(near), timeout: time.Minute}
		err := c.hello(t.Context(), &redisURL{password: "sw0rdf1sh"})
		if text := errorText(err); err == nil || strings.Contains(text, "sw0r") {
			t.Errorf("%.20q: hello says %q", answer, text)
		}
	}
}

// Acknowledgements that nobody asked for cost no memory.
func TestRedisAcknowledgedUnasked(t *testing.T) {
	l := listener{subscriber: newSubscriber(), told: map[string]struct{}{"autobus::A": {}}, active: make(map[string]struct{}), patterns: make(map[string]string)}
	for i := range 100 {
		l.acknowledge(push{kind: pushSubscribe, channel: []byte("autobus::" + strconv.Itoa(i))})
		l.acknowledge(push{kind: pushSubscribe, channel: []byte("autobus:" + strconv.Itoa(i) + ":*")})
	}
	l.acknowledge(push{kind: pushSubscribe, channel: []byte("autobus::A")})
	if len(l.active) != 1 || len(l.patterns) != 0 {
		t.Errorf("active: %v, patterns: %v", l.active, l.patterns)
	}
}

// TestRedisAllocations: no message costs one, sent or received.
func TestRedisAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	const batch = 500
	wire := []byte(strings.Repeat(reply("message", "autobus::A", "payload"), batch))
	answers := []byte(strings.Repeat(":1\r\n", batch))
	subscriber := make(chan *script, 1)
	url := scripted(t, func(s *script, first []string) {
		if first[0] == "SUBSCRIBE" {
			s.say(acknowledgement("subscribe", first[1]))
			subscriber <- s
			s.command()
			return
		}
		in := make([]byte, 64<<10)
		size := len(appendPublish(nil, publishVerb, &Message{"autobus::A", []byte("payload")})) * batch
		s.say(":1\r\n") // the first, which was read to come here
		for n := 0; ; {
			m, err := s.in.Read(in)
			if n += m; n >= size {
				s.conn.Write(answers)
				n -= size
			}
			if err != nil {
				return
			}
		}
	})
	r, err := newRedis(url)
	if err != nil {
		t.Fatal(err)
	}
	r.Subscribe("autobus::A")
	n, done := 0, make(chan struct{}, 1)
	err = r.Start(t.Context(), func(context.Context, []byte, []byte) {
		if n++; n == batch {
			n = 0
			done <- struct{}{}
		}
	}, stderrLogger{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	messages := slices.Repeat([]Message{{"autobus::A", []byte("payload")}}, batch)
	if _, err := r.Send(t.Context(), messages[:1]); err != nil {
		t.Fatal(err)
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := <-subscriber
	both := func() {
		if lost, err := r.Send(t.Context(), messages); lost != 0 || err != nil {
			t.Fatal(lost, err)
		}
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.conn.Write(wire)
		<-done
	}
	for range 20 {
		both()
	}
	if n := testing.AllocsPerRun(100, both); n >= 10 { // a few for Flush
		t.Errorf("%v allocations to send and receive %d messages", n, batch)
	}
}
