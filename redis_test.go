//go:build unix

package autobus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The tests called TestServer… run against real redis-server processes, many
// through a proxy that fails as networks do. They wait for what must come.

// backWithin is how soon after the server's return a bus is back.
const backWithin = 2 * time.Second

// moreTypes is how many types beside Tick a rig hears.
const moreTypes = 20

// A rig is a bus under test. It hears itself and the server's other guests.
type rig struct {
	*Bus
	t      testing.TB
	server *redisServer
	log    *guardedLog
	phase  int // of exchange, the By of its ticks
	mark   int // the last number that probe published

	mu    sync.Mutex // guards the rest
	ticks map[int][]int
	more  [moreTypes]int // the highest number heard of each type
	own   int            // the same, of what probe published by the bus
}

func newRig(t testing.TB, s *redisServer, url string) *rig {
	t.Helper()
	log := &guardedLog{t: t}
	r := &rig{Bus: &Bus{URL: url, Logger: log}, t: t, server: s, log: log, ticks: make(map[int][]int)}
	SubscribeOn(r.Bus, func(_ context.Context, e tick) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ticks[e.By] = append(r.ticks[e.By], e.N)
		return nil
	})
	highest := func(n *int) func(context.Context, Raw) error {
		return func(_ context.Context, e Raw) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			*n = max(*n, numberIn(t, e.JSON))
			return nil
		}
	}
	for i := range moreTypes {
		r.SubscribeRaw(fmt.Sprint("More", i), highest(&r.more[i]))
	}
	r.SubscribeRaw("Own", highest(&r.own))
	return r
}

// startRig starts a rig, and checks that all is well.
func startRig(t testing.TB, s *redisServer, url string) *rig {
	t.Helper()
	r := newRig(t, s, url)
	start(t, r.Bus)
	r.exchange()
	return r
}

// numbered is an event of any type, with a number.
type numbered struct {
	name string
	N    int
}

func (e *numbered) Type() string        { return e.name }
func (e *numbered) Marshal(to *Encoder) { to.Key("n").Int(e.N) }
func (e *numbered) Unmarshal(d *Decoder) error {
	for key := range d.Fields() {
		if key == "n" {
			e.N = d.Int()
		}
	}
	return d.Err()
}

func numberIn(t testing.TB, payload []byte) int {
	t.Helper()
	var e numbered
	if err := Unmarshal(payload, &e); err != nil {
		t.Errorf("%q: %v", payload, err)
	}
	return e.N
}

// probe publishes the next number on every channel but Tick's, and returns
// whether all numbers from first on have been heard by now.
func (r *rig) probe(c *serverConn, first int) bool {
	r.mark++
	for i := range moreTypes {
		name := fmt.Sprint("More", i)
		if err := c.send("PUBLISH", "autobus::"+name, fmt.Sprintf(`{"type":%q,"n":%d}`, name, r.mark)); err != nil {
			return false
		}
	}
	for range moreTypes {
		if _, err := c.reply(); err != nil {
			return false
		}
	}
	publish(r.t, r.Bus, &numbered{"Own", r.mark})
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Min(r.more[:]) >= first && r.own >= first
}

// back waits until every subscription is in force and publishing works. That
// must be soon after the server's return.
func (r *rig) back(since time.Time) {
	r.t.Helper()
	r.backIn(since, backWithin)
}

func (r *rig) backIn(since time.Time, within time.Duration) {
	r.t.Helper()
	c, err := r.server.dial()
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	first := r.mark + 1
	until(r.t, "the bus's return", func() bool { return r.probe(c, first) })
	if took := time.Since(since); took > within {
		r.t.Errorf("the bus was back %v after the server", took)
	} else {
		r.t.Logf("back after %v", took.Round(time.Millisecond))
	}
	r.exchange()
}

// exchange publishes 500 events: all must come, in order, and once.
func (r *rig) exchange() {
	r.t.Helper()
	const events = 500
	r.phase++
	for n := range events {
		publish(r.t, r.Bus, tick{r.phase, n})
	}
	if err := r.Flush(soon(r.t)); err != nil {
		r.t.Fatal(told(r.t, err))
	}
	until(r.t, "500 events that were published while all was well", func() bool { return len(r.heard(r.phase)) >= events })
	for n, got := range r.heard(r.phase) {
		if n != got {
			r.t.Fatalf("event %d came in the place of %d", got, n)
		}
	}
	r.addsUp()
}

// heard returns the ticks of a phase.
func (r *rig) heard(phase int) []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ticks[phase])
}

// addsUp checks, after a Flush, that every event is counted one way or the
// other, and that none came twice or out of order.
func (r *rig) addsUp() {
	r.t.Helper()
	if s := r.Stats(); s.Published != s.Sent+s.Unsent || s.Backlog != 0 {
		r.t.Errorf("it doesn't add up: %+v", s)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for phase, ticks := range r.ticks {
		for i := 1; i < len(ticks); i++ {
			if ticks[i] <= ticks[i-1] {
				r.t.Fatalf("phase %d: event %d came after %d", phase, ticks[i], ticks[i-1])
			}
		}
	}
}

// during publishes 100 events that nobody can take now. They mustn't be
// refused, and what becomes of them is for addsUp.
func (r *rig) during() {
	r.t.Helper()
	r.phase++
	for n := range 100 {
		if err := r.Publish(tick{r.phase, n}); err != nil {
			r.t.Fatalf("Publish with the server away: %v", told(r.t, err))
		}
	}
}

// stopWithin checks that Stop returns when its context ends, if not before.
func (r *rig) stopWithin(patience time.Duration) error {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(background, patience)
	defer cancel()
	begin := time.Now()
	err := r.Stop(ctx)
	if took := time.Since(begin); took > patience+time.Second {
		r.t.Errorf("Stop took %v, its context %v", took, patience)
	}
	told(r.t, err)
	return err
}

// Deadlines that wake a TLS connection, in the middle of records too, don't
// harm it.
func TestServerTLSWoken(t *testing.T) {
	noLeaks(t)
	certs := newCertificates(t)
	s := newTLSServer(t, certs, "no")
	r := startRig(t, s, s.url("", "health_check_interval=0.01&ssl_ca_certs="+certs.ca))
	heard, n := make(chan int, 1000), 0
	for range 100 {
		sub := r.SubscribeRaw("Changing", func(_ context.Context, e Raw) error { heard <- numberIn(t, e.JSON); return nil })
		until(t, "the subscription", func() bool {
			publish(t, r.Bus, tick{70, n})
			publish(t, r.Bus, &numbered{"Changing", n})
			n++
			return len(heard) > 0
		})
		sub.Unsubscribe()
		for len(heard) > 0 {
			<-heard
		}
	}
	r.exchange()
	if s := r.Stats(); s.Reconnects != 0 || s.Unsent != 0 {
		t.Errorf("%+v", s)
	}
	if got := r.heard(70); len(got) != n {
		t.Errorf("%d events came of %d", len(got), n)
	}
}

// Every way to reach a server.
func TestServerKinds(t *testing.T) {
	noLeaks(t)
	certs := newCertificates(t)
	withPassword := newServer(t, "--requirepass", secret)
	withPassword.login = []string{secret}
	withUser := newServer(t, "--user", "device", "on", ">"+secret, "~*", "&*", "+@all")
	anyTLS, clientTLS := newTLSServer(t, certs, "no"), newTLSServer(t, certs, "yes", "--requirepass", secret)
	clientTLS.login = []string{secret}
	plain, unix := newServer(t), newUnixServer(t)
	own := "ssl_certfile=" + certs.client + "&ssl_keyfile=" + certs.clientKey
	_, port, _ := net.SplitHostPort(anyTLS.addr)
	for _, c := range []struct {
		name   string
		server *redisServer
		url    string
	}{
		{"plain", plain, plain.url("", "")},
		{"RESP3", plain, plain.url("", "protocol=3")},
		{"valkey", plain, "valkey://" + plain.addr},
		{"a database", plain, "redis://" + plain.addr + "/5"},
		{"a name", plain, "redis://localhost:" + plain.addr[len("127.0.0.1:"):] + "?client_name=test"},
		{"the second host", plain, "redis://127.0.0.1:" + freeTCPPort(t) + "," + plain.addr},
		{"a password", withPassword, withPassword.url(":"+secretInURL, "")},
		{"a password as an option", withPassword, withPassword.url("", "password="+secretInURL)},
		{"a password and RESP3", withPassword, withPassword.url(":"+secretInURL, "protocol=3")},
		{"a user", withUser, withUser.url("device:"+secretInURL, "")},
		{"a user as an option", withUser, withUser.url("", "username=device&password="+secretInURL)},
		{"a user and RESP3", withUser, withUser.url("device:"+secretInURL, "protocol=3")},
		{"TLS", anyTLS, anyTLS.url("", "ssl_ca_certs="+certs.ca)},
		{"TLS to a name", anyTLS, "rediss://localhost:" + port + "?ssl_ca_certs=" + certs.ca},
		{"valkeys", anyTLS, "valkeys://localhost:" + port + "?ssl_ca_certs=" + certs.ca},
		{"TLS unverified", anyTLS, anyTLS.url("", "ssl_cert_reqs=none")},
		{"TLS with a client certificate", clientTLS, clientTLS.url(":"+secretInURL, own+"&ssl_ca_certs="+certs.ca)},
		{"TLS with a client certificate, RESP3", clientTLS, clientTLS.url(":"+secretInURL, own+"&protocol=3&ssl_ca_certs="+certs.ca)},
		{"a Unix socket", unix, "unix://" + unix.addr},
	} {
		t.Run(c.name, func(t *testing.T) {
			noLeaks(t)
			r := startRig(t, c.server, c.url)
			r.t = t
			r.server.do("CLIENT", "KILL", "TYPE", "pubsub")
			r.server.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
			r.back(time.Now())
		})
	}
}

// A mistake is told at once, and says what it is.
func TestServerRefusal(t *testing.T) {
	noLeaks(t)
	certs := newCertificates(t)
	plain := newServer(t)
	withPassword := newServer(t, "--requirepass", secret)
	withPassword.login = []string{secret}
	anyTLS := newTLSServer(t, certs, "no", "--bind", "127.0.0.1", "127.0.0.2")
	clientTLS := newTLSServer(t, certs, "yes")
	_, port, _ := net.SplitHostPort(anyTLS.addr)
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: http.NotFoundHandler()}
	var wg sync.WaitGroup
	wg.Go(func() { web.Serve(listener) })
	defer wg.Wait()
	defer web.Close()
	for _, c := range []struct {
		name, url, want string
		mayPass         bool // so that Start tries until its context ends
	}{
		{"a wrong password", withPassword.url(":"+otherSecret, ""), "WRONGPASS", false},
		{"a wrong password, RESP3", withPassword.url(":"+otherSecret, "protocol=3"), "WRONGPASS", false},
		{"a wrong user", withPassword.url("nobody:"+otherSecret, ""), "WRONGPASS", false},
		{"no password", withPassword.url("", ""), "NOAUTH", false},
		{"no password, RESP3", withPassword.url("", "protocol=3"), "NOAUTH", false},
		{"a web server", "redis://" + listener.Addr().String(), "HTTP", false},
		{"a web server, RESP3", "redis://" + listener.Addr().String() + "?protocol=3", "HTTP", false},
		{"a web server, with a password", "redis://:" + secretInURL + "@" + listener.Addr().String(), "HTTP", false},
		{"TLS spoken to in plaintext", "redis://" + anyTLS.addr, "TLS", true},
		{"plaintext spoken to in TLS", "rediss://" + plain.addr + "?socket_connect_timeout=0.2", "TLS", true},
		{"an unknown authority", anyTLS.url("", ""), "authority", false},
		{"another authority", anyTLS.url("", "ssl_ca_certs="+certs.otherCA), "authority", false},
		{"another name", "rediss://127.0.0.2:" + port + "?ssl_ca_certs=" + certs.ca, "127.0.0.2", false},
		{"no client certificate", clientTLS.url("", "ssl_ca_certs="+certs.ca), "certificate", false},
		{"no file", anyTLS.url("", "ssl_ca_certs="+filepath.Join(t.TempDir(), "nothing")), "nothing", false},
		{"no socket", "unix://" + filepath.Join(t.TempDir(), "no.sock"), "no.sock", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			noLeaks(t)
			b := &Bus{URL: c.url, Logger: &guardedLog{t: t}}
			SubscribeOn(b, func(context.Context, tick) error { return nil })
			wait := patience
			if c.mayPass {
				wait = time.Second
			}
			ctx, cancel := context.WithTimeout(background, wait)
			defer cancel()
			err := b.Start(ctx)
			if err == nil {
				b.Stop(soon(t))
			}
			if text := told(t, err); !strings.Contains(text, c.want) {
				t.Errorf("got %q, want something about %s", text, c.want)
			}
			if ctx.Err() != nil != c.mayPass {
				t.Error("Start waited for its context to end: ", ctx.Err() != nil)
			}
		})
	}
}

// A server that can't be reached is waited for.
func TestServerComesLater(t *testing.T) {
	noLeaks(t)
	s := preparedServer(t)
	r := newRig(t, s, s.url("", ""))
	publish(t, r.Bus, tick{99, 1})
	started := make(chan error)
	go func() { started <- r.Start(soon(t)) }()
	until(t, "a line that the server isn't there", func() bool { return len(r.log.with("refused")) > 0 })
	since := s.run()
	if err := await(t, started); err != nil {
		t.Fatal(told(t, err))
	}
	defer r.stopWithin(patience)
	r.back(since)
	if got := r.heard(99); !slices.Equal(got, []int{1}) {
		t.Errorf("of what was published before the start, %v came", got)
	}

	// And not for longer than Start's context.
	gone := &Bus{URL: "redis://127.0.0.1:" + freeTCPPort(t), Logger: &guardedLog{t: t}}
	ctx, cancel := context.WithTimeout(background, 50*time.Millisecond)
	defer cancel()
	if err := gone.Start(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(told(t, err), "refused") {
		t.Errorf("Start: %v; want its context's error, and why", err)
	}
}

func TestServerKilled(t *testing.T) {
	noLeaks(t)
	s := newServer(t)
	r := startRig(t, s, s.url("", ""))
	s.kill()
	r.during()
	// Long enough that pauses between attempts are as long as they get.
	until(t, "16 attempts", func() bool { return len(r.log.with("refused")) >= 16 })
	r.back(s.run())
}

func TestServerRestartedTenTimes(t *testing.T) {
	noLeaks(t)
	s := newServer(t)
	r := startRig(t, s, s.url("", ""))
	for range 10 {
		s.kill()
		r.during()
		r.back(s.run())
	}
	if s := r.Stats(); s.Reconnects < 10 {
		t.Errorf("%+v", s)
	}
}

// A server that says nothing for longer than the health check is left, and
// messages wait until it speaks again.
func TestServerSuspended(t *testing.T) {
	noLeaks(t)
	s := newServer(t)
	r := startRig(t, s, s.url("", "health_check_interval=0.2&socket_timeout=0.3&socket_connect_timeout=0.3"))
	before := r.Stats().Reconnects
	s.signal(syscall.SIGSTOP)
	until(t, "a line that the server is silent", func() bool { return len(r.log.with("WARN")) > 0 })
	r.during()
	s.signal(syscall.SIGCONT)
	r.back(s.answers())
	if now := r.Stats().Reconnects; now == before {
		t.Error("no new connection")
	}
}

// Stop doesn't wait for a server that says nothing.
func TestServerSuspendedAtStop(t *testing.T) {
	noLeaks(t)
	s := newServer(t)
	r := startRig(t, s, s.url("", ""))
	s.signal(syscall.SIGSTOP)
	r.during()
	if err := r.stopWithin(200 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "abandoned 100 unsent messages") {
		t.Errorf("Stop, with 100 events nobody has taken: %v", err)
	}
	r.addsUp()
	if s := r.Stats(); s.Unsent != 100 {
		t.Errorf("%+v", s)
	}
}

// Nor for one that is gone.
func TestServerGoneAtStop(t *testing.T) {
	noLeaks(t)
	s := newServer(t)
	r := startRig(t, s, s.url("", ""))
	s.kill()
	r.during()
	// What went into the connection before its end was seen is lost already.
	if err := r.stopWithin(200 * time.Millisecond); err != nil && !strings.Contains(err.Error(), "unsent message") {
		t.Errorf("Stop, with 100 events nobody has taken: %v", err)
	}
	r.addsUp()
	if s := r.Stats(); s.Unsent != 100 {
		t.Errorf("%+v", s)
	}
}

func TestServerStartStop(t *testing.T) {
	noLeaks(t)
	s := newServer(t)
	for range 30 {
		r := newRig(t, s, s.url("", ""))
		if err := r.Start(soon(t)); err != nil {
			t.Fatal(told(t, err))
		}
		publish(t, r.Bus, tick{1, 1})
		if err := r.stopWithin(patience); err != nil {
			t.Error(err)
		}
		if s := r.Stats(); s.Sent != 1 || s.Unsent != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// The connection is cut at every byte of the handshake, each way.
func TestServerHandshakeCut(t *testing.T) {
	noLeaks(t)
	s := newServer(t, "--requirepass", secret)
	s.login = []string{secret}
	for _, protocol := range []string{"2", "3"} {
		p := newProxy(t, s)
		url := strings.Replace(p.url("client_name=test&protocol="+protocol), "redis://", "redis://:"+secretInURL+"@", 1)
		// How long it is, both ways and for both connections together, with three channels.
		cutAt := func(t *testing.T, p *proxy, url string, up, down int) {
			b := &Bus{URL: url, Logger: &guardedLog{t: t}}
			heard := make(chan int, 1)
			SubscribeOn(b, func(_ context.Context, e tick) error { heard <- e.N; return nil })
			p.cutOnce(up, down)
			ctx, cancel := context.WithTimeout(background, patience)
			defer cancel()
			if err := b.Start(ctx); err != nil {
				t.Fatalf("cut after %d bytes up, %d down: %s", up, down, told(t, err))
			}
			// The cut may come now, since the server's answer isn't measured.
			again := time.NewTicker(50 * time.Millisecond)
			defer again.Stop()
			for n, ok := 0, false; !ok; n++ {
				publish(t, b, tick{By: 1, N: n})
				select {
				case <-heard:
					ok = true
				case <-again.C:
				case <-ctx.Done():
					t.Fatalf("cut after %d bytes up, %d down: nothing came", up, down)
				}
			}
			for len(heard) > 0 {
				<-heard
			}
			go func() { // handlers of late ones
				for range heard {
				}
			}()
			if err := b.Stop(ctx); err != nil {
				t.Errorf("cut after %d bytes up, %d down: %s", up, down, told(t, err))
			}
			close(heard)
			if s := b.Stats(); s.Published != s.Sent+s.Unsent {
				t.Errorf("cut after %d bytes up, %d down: %+v", up, down, s)
			}
		}
		cutAt(t, p, url, -1, -1)
		length, _, _ := p.counts()
		t.Logf("RESP%s: the handshakes and an event are %d bytes", protocol, length)
		var next atomic.Int64
		var wg sync.WaitGroup
		for range 16 {
			own := newProxy(t, s)
			ownURL := strings.Replace(url, p.addr, own.addr, 1)
			wg.Go(func() {
				for {
					n := int(next.Add(1)) - 1
					if n >= length || t.Failed() {
						return
					}
					if n%2 == 0 {
						cutAt(t, own, ownURL, n/2, -1)
					} else {
						cutAt(t, own, ownURL, -1, n/2)
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestServerClientKill(t *testing.T) {
	noLeaks(t)
	s := newServer(t)
	r := startRig(t, s, s.url("", ""))
	for i := range 20 {
		kinds := [][]string{{"pubsub"}, {"normal"}, {"pubsub", "normal"}}[i%3]
		for _, kind := range kinds {
			s.do("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
		}
		r.back(time.Now())
	}
	if s := r.Stats(); s.Reconnects < 20 {
		t.Errorf("%+v", s)
	}
}

// A handler that holds the receiver up makes the server cut the connection.
func TestServerOutputBuffer(t *testing.T) {
	noLeaks(t)
	s := newServer(t, "--client-output-buffer-limit", "pubsub", "1mb", "0", "0")
	r := newRig(t, s, s.url("", ""))
	entered, release := make(chan struct{}, 1), make(chan struct{})
	r.SubscribeRaw("Big", func(context.Context, Raw) error {
		select {
		case entered <- struct{}{}:
		default:
		}
		<-release
		return nil
	}, Queue(1, Block))
	start(t, r.Bus)
	r.exchange()
	c := s.connect()
	payload := `{"type":"Big","text":"` + strings.Repeat("x", 256<<10) + `"}`
	for cut := false; !cut; {
		n, err := c.do("PUBLISH", "autobus::Big", payload)
		if err != nil {
			t.Fatal(err)
		}
		cut = n == 0
	}
	await(t, entered)
	close(release)
	r.back(time.Now())
	if s := r.Stats(); s.Reconnects == 0 {
		t.Errorf("%+v", s)
	}
}

// While a server reads its data in, it says LOADING.
func TestServerLoading(t *testing.T) {
	noLeaks(t)
	s := newServer(t)
	s.do("DEBUG", "POPULATE", "1000")
	s.do("SAVE")
	r := startRig(t, s, s.url("", ""))
	s.kill()
	r.during()
	s.args = append(s.args, "--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024")
	s.start()
	loading := false
	until(t, "the end of LOADING", func() bool {
		c, err := s.dial()
		if err != nil {
			return false
		}
		defer c.Close()
		reply, err := c.do("PING")
		if err != nil && strings.Contains(err.Error(), "LOADING") {
			loading = true
		}
		return reply == "PONG"
	})
	if !loading {
		t.Error("the server never said LOADING")
	}
	r.back(time.Now())
}

func TestServerMaxClients(t *testing.T) {
	noLeaks(t)
	s := newServer(t, "--maxclients", "8")
	var full []*serverConn
	for {
		c := s.connect()
		if _, err := c.do("PING"); err != nil {
			break
		}
		full = append(full, c)
	}
	r := newRig(t, s, s.url("", ""))
	started := make(chan error)
	go func() { started <- r.Start(soon(t)) }()
	until(t, "a line that the server is full", func() bool { return len(r.log.with("max number of clients")) > 0 })
	select {
	case err := <-started:
		t.Fatal("Start returned with the server full: ", told(t, err))
	default:
	}
	for _, c := range full[1:] {
		c.Close()
	}
	since := time.Now()
	if err := await(t, started); err != nil {
		t.Fatal(told(t, err))
	}
	defer r.stopWithin(patience)
	r.back(since)

	// The same, for a bus that is running.
	s.do("CONFIG", "SET", "maxclients", "1")
	full[0].do("CLIENT", "KILL", "TYPE", "pubsub")
	full[0].do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	lines := len(r.log.with("max number of clients"))
	until(t, "a line that the server is full", func() bool { return len(r.log.with("max number of clients")) > lines })
	r.during()
	full[0].do("CONFIG", "SET", "maxclients", "20")
	r.back(time.Now())
}

// A password that changes while the bus is running is tried again, slowly.
func TestServerPasswordChanged(t *testing.T) {
	noLeaks(t)
	s := newServer(t, "--requirepass", secret)
	s.login = []string{secret}
	r := startRig(t, s, s.url(":"+secretInURL, ""))
	control := s.connect()
	change := func(to string) {
		t.Helper()
		if _, err := control.do("CONFIG", "SET", "requirepass", to); err != nil {
			t.Fatal(err)
		}
		s.login = []string{to}
	}
	change(otherSecret)
	control.do("CLIENT", "KILL", "TYPE", "pubsub")
	control.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	until(t, "a line about the password", func() bool { return len(r.log.with("WRONGPASS")) > 0 })
	r.during()
	change(secret)
	r.backIn(time.Now(), patience)
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if n := len(r.log.lines); n > 50 {
		t.Errorf("%d lines in the log", n)
	}
}

// A channel that is forbidden takes no other with it.
func TestServerNoPermission(t *testing.T) {
	noLeaks(t)
	s := newServer(t, "--user", "device", "on", ">"+secret, "~*", "+@all", "resetchannels", "&autobus::Tick", "&autobus::More*", "&autobus::Own")
	r := startRig(t, s, s.url("device:"+secretInURL, ""))
	forbidden := r.SubscribeRaw("Forbidden", func(context.Context, Raw) error { return nil })
	until(t, "a line about the channel", func() bool {
		return len(r.log.with("NOPERM")) > 0 && len(r.log.with("Forbidden")) > 0
	})
	r.exchange()
	before := r.Stats()
	for n := range 10 {
		publish(t, r.Bus, &numbered{"Forbidden", n})
		publish(t, r.Bus, tick{77, n})
	}
	if err := r.Flush(soon(t)); err != nil {
		t.Fatal(told(t, err))
	}
	if s := r.Stats(); s.Unsent != before.Unsent+10 || s.Sent != before.Sent+10 {
		t.Errorf("of 20 events, half of them forbidden, %d were sent and %d weren't", s.Sent-before.Sent, s.Unsent-before.Unsent)
	}
	until(t, "what isn't forbidden", func() bool { return len(r.heard(77)) == 10 })
	s.do("CLIENT", "KILL", "TYPE", "pubsub")
	r.back(time.Now())

	// Once it is allowed, at the latest a new connection has it.
	s.do("ACL", "SETUSER", "device", "&autobus::Forbidden")
	s.do("CLIENT", "KILL", "TYPE", "pubsub")
	r.back(time.Now())
	until(t, "the subscription that is allowed now", func() bool { return s.subscribers("Forbidden") == 1 })
	forbidden.Unsubscribe()
	until(t, "its end", func() bool { return s.subscribers("Forbidden") == 0 })
}

// subscribers returns how many connections have subscribed to a type, without
// a namespace.
func (s *redisServer) subscribers(name string) int {
	s.t.Helper()
	reply := s.do("PUBSUB", "NUMSUB", "autobus::"+name).([]any)
	return reply[1].(int)
}

// A name is looked up anew for every connection.
func TestServerNewAddress(t *testing.T) {
	noLeaks(t)
	names := newNames(t)
	first := newServer(t)
	_, port, _ := net.SplitHostPort(first.addr)
	second := preparedServer(t)
	second.addr = "127.0.0.2:" + port
	second.args = append(second.args, "--port", port, "--bind", "127.0.0.2")
	if l, err := net.Listen("tcp4", "127.0.0.2:0"); err != nil {
		missing(t, "127.0.0.2 isn't this host: "+err.Error())
	} else {
		l.Close()
	}
	names.set("127.0.0.1")
	r := startRig(t, first, "redis://redis.test:"+port)
	first.kill()
	names.set("127.0.0.2")
	r.during()
	r.server = second
	r.back(second.run())

	// The old address may work on, as that of another server.
	first.run()
	names.set("127.0.0.1")
	second.kill()
	r.server = first
	r.back(time.Now())
}

// names is a name server that knows one address, of every name.
type names struct {
	mu      sync.Mutex // guards address
	address net.IP
}

// newNames starts a name server, which the whole program asks until the test ends.
func newNames(t *testing.T) *names {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := new(names)
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			size, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			conn.WriteTo(n.answer(buf[:size]), from)
		}
	})
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("udp4", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		conn.Close()
		wg.Wait()
	})
	return n
}

func (n *names) set(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.address = net.ParseIP(address).To4()
}

// answer answers a query by RFC 1035, section 4: the address if it asks for an
// A record, else that there is none of the kind.
func (n *names) answer(query []byte) []byte {
	end := 12
	for query[end] != 0 {
		end += 1 + int(query[end])
	}
	end += 5 // the zero, the type and the class
	answer := slices.Clone(query[:end])
	answer[2], answer[3] = 0x81, 0x80 // a response, recursion available, no error
	clear(answer[6:12])
	if query[end-3] == 1 {
		answer[7] = 1
		answer = append(answer, 0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4) // the same name, A, IN, for no time
		n.mu.Lock()
		answer = append(answer, n.address...)
		n.mu.Unlock()
	}
	return answer
}

// What can't be sent is counted exactly: what the network swallows, and what
// is in flight when the connection is cut.
func TestServerCutCountsExactly(t *testing.T) {
	noLeaks(t)
	s := newServer(t)
	p := newProxy(t, s)
	const rounds, events = 10, 300
	heard := observe(t, s, "Tick")
	b := &Bus{URL: p.url(""), Logger: &guardedLog{t: t}}
	start(t, b)
	n := 0
	for round := range rounds {
		for range events {
			publish(t, b, tick{1, n})
			n++
		}
		if err := b.Flush(soon(t)); err != nil {
			t.Fatal(told(t, err))
		}
		until(t, "what was sent", func() bool { return heard.count() == int(b.Stats().Sent) })
		p.set(dropping, fine)
		_, before, _ := p.counts()
		for range 1 + rand.IntN(events) {
			publish(t, b, tick{1, n})
			n++
			if round%2 == 0 {
				runtime.Gosched()
			}
		}
		until(t, "bytes that vanish", func() bool { _, dropped, _ := p.counts(); return dropped > before })
		p.set(fine, fine)
		p.cut()
	}
	// The connection that was cut may take some more events with it.
	first := n
	until(t, "an event by a new connection", func() bool {
		publish(t, b, tick{1, n})
		n++
		return heard.last() >= first
	})
	if err := b.Flush(soon(t)); err != nil {
		t.Fatal(told(t, err))
	}
	until(t, "the last event", func() bool { return heard.last() == n-1 })
	stats := b.Stats()
	if int(stats.Published) != n || int(stats.Sent) != heard.count() || int(stats.Unsent) != n-heard.count() || stats.Unsent == 0 {
		t.Errorf("of %d events, %d arrived: %+v", n, heard.count(), stats)
	}
	heard.inOrder()
}

// Under load, cut anywhere and both ways, no event comes twice or out of
// order, and those that are said to be sent were.
func TestServerCutUnderLoad(t *testing.T) {
	noLeaks(t)
	s := newServer(t)
	p := newProxy(t, s)
	heard := observe(t, s, "Tick")
	b := &Bus{URL: p.url(""), Logger: &guardedLog{t: t}}
	start(t, b)
	rounds := 20
	n := 0
	for range rounds {
		p.cutOnce(rand.IntN(200_000), -1)
		_, _, before := p.counts()
		until(t, "the cut and a new connection", func() bool {
			for range 200 {
				publish(t, b, tick{1, n})
				n++
			}
			_, _, now := p.counts()
			return now > before
		})
	}
	p.cutOnce(-1, -1)
	publish(t, b, tick{1, n})
	n++
	if err := b.Flush(soon(t)); err != nil {
		t.Fatal(told(t, err))
	}
	until(t, "the last event", func() bool { return heard.last() == n-1 })
	stats := b.Stats()
	if int(stats.Published) != n || stats.Sent+stats.Unsent != stats.Published || int(stats.Sent) > heard.count() {
		t.Errorf("of %d events, %d arrived: %+v", n, heard.count(), stats)
	}
	if stats.Reconnects < uint64(rounds) {
		t.Errorf("%+v", stats)
	}
	t.Logf("%d events, %d arrived, %d counted as lost", n, heard.count(), stats.Unsent)
	heard.inOrder()
}

// An observer hears a type by a connection of the test's own.
type observer struct {
	t    *testing.T
	mu   sync.Mutex // guards heard
	nums []int
}

func observe(t *testing.T, s *redisServer, name string) *observer {
	t.Helper()
	o := &observer{t: t}
	c, err := s.dial()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.do("SUBSCRIBE", "autobus::"+name); err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Time{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			reply, err := c.reply()
			if err != nil {
				return
			}
			var e tick
			if err := Unmarshal([]byte(reply.([]any)[2].(string)), &e); err != nil {
				t.Error(err)
			}
			o.mu.Lock()
			o.nums = append(o.nums, e.N)
			o.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		c.Close()
		wg.Wait()
	})
	return o
}

func (o *observer) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.nums)
}

func (o *observer) last() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.nums) == 0 {
		return -1
	}
	return o.nums[len(o.nums)-1]
}

func (o *observer) inOrder() {
	o.t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := 1; i < len(o.nums); i++ {
		if o.nums[i] <= o.nums[i-1] {
			o.t.Fatalf("event %d came after %d", o.nums[i], o.nums[i-1])
		}
	}
}

// A server that stops reading never blocks Publish, and costs no event once it
// reads again.
func TestServerStalled(t *testing.T) {
	noLeaks(t)
	s := newServer(t, "--client-output-buffer-limit", "pubsub", "0", "0", "0")
	p := newProxy(t, s)
	r := newRig(t, s, p.url("socket_timeout=30&health_check_interval=30"))
	r.Backlog = 1 << 20
	start(t, r.Bus)
	r.exchange()
	p.set(stalled, stalled)
	full := make(chan int)
	go func() {
		for n := 0; ; n++ {
			if err := r.Publish(tick{50, n}); err != nil {
				if !errors.Is(err, ErrBacklog) {
					t.Error(told(t, err))
				}
				full <- n
				return
			}
		}
	}()
	taken := await(t, full)
	p.set(fine, fine)
	if err := r.Flush(soon(t)); err != nil {
		t.Fatal(told(t, err))
	}
	until(t, "all events", func() bool { return len(r.heard(50)) == taken })
	if s := r.Stats(); s.Unsent != 0 || s.Reconnects != 0 {
		t.Errorf("%+v", s)
	}
	r.exchange()

	p.set(stalled, stalled)
	r.during()
	if err := r.stopWithin(200 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "abandoned 100 unsent messages") {
		t.Errorf("Stop, with 100 events nobody has taken: %v", err)
	}
}

// Nor is there a write that Stop waits for.
func TestServerStalledAtStop(t *testing.T) {
	noLeaks(t)
	s := newServer(t)
	p := newProxy(t, s)
	r := newRig(t, s, p.url("socket_timeout=30&health_check_interval=30"))
	r.Backlog = 64 << 20
	start(t, r.Bus)
	r.exchange()
	p.set(stalled, stalled)
	big := Raw{Name: "Big", JSON: []byte(`{"text":"` + strings.Repeat("x", 15<<20) + `"}`)} // over what sockets hold
	publish(t, r.Bus, big)
	publish(t, r.Bus, big)
	if err := r.stopWithin(200 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "abandoned 2 unsent messages") {
		t.Errorf("Stop, with two events nobody has taken: %v", err)
	}
	r.addsUp()
}

// A server that stops reading in the middle of a message is left after
// socket_timeout, and the next connection has all of the message.
func TestServerStalledWrite(t *testing.T) {
	noLeaks(t)
	s := newServer(t, "--client-output-buffer-limit", "pubsub", "0", "0", "0")
	p := newProxy(t, s)
	r := newRig(t, s, p.url("socket_timeout=0.3&health_check_interval=30"))
	r.Backlog = 64 << 20
	heard := make(chan struct{}, 2)
	r.SubscribeRaw("Big", func(context.Context, Raw) error { heard <- struct{}{}; return nil })
	start(t, r.Bus)
	r.exchange()
	_, _, before := p.counts()
	p.set(stalled, fine)
	publish(t, r.Bus, Raw{Name: "Big", JSON: []byte(`{"text":"` + strings.Repeat("x", 15<<20) + `"}`)}) // over what sockets hold
	until(t, "a new connection", func() bool { _, _, now := p.counts(); return now > before })
	p.set(fine, fine)
	await(t, heard)
	r.back(time.Now())
	if s := r.Stats(); s.Unsent != 0 || len(heard) > 0 {
		t.Errorf("%d came again; %+v", len(heard), s)
	}
}

// A message that the server cuts the connection for is lost, and holds up no
// other.
func TestServerMessageOverLimit(t *testing.T) {
	noLeaks(t)
	s := newServer(t, "--proto-max-bulk-len", "1mb")
	r := newRig(t, s, s.url("", ""))
	r.Backlog = 64 << 20
	start(t, r.Bus)
	r.exchange()
	publish(t, r.Bus, Raw{Name: "Big", JSON: []byte(`{"text":"` + strings.Repeat("x", 15<<20) + `"}`)})
	publish(t, r.Bus, tick{60, 1})
	until(t, "the event after it", func() bool { return len(r.heard(60)) == 1 })
	if err := r.Flush(soon(t)); err != nil {
		t.Fatal(told(t, err))
	}
	if s := r.Stats(); s.Unsent != 1 || len(r.log.with("in the middle of a message of 15")) == 0 {
		t.Errorf("%+v", s)
	}
	r.exchange()
}

// The two connections live apart: one that is silent is replaced, and the
// other goes on.
func TestServerHalfSilent(t *testing.T) {
	noLeaks(t)
	s := newServer(t)
	p := newProxy(t, s)
	r := startRig(t, s, p.url("health_check_interval=0.2&socket_timeout=0.3"))
	for _, way := range [][2]weather{{dropping, fine}, {fine, dropping}, {dropping, dropping}, {stalled, stalled}, {fine, stalled}} {
		_, _, before := p.counts()
		p.set(way[0], way[1])
		r.during()
		until(t, "new connections", func() bool { _, _, now := p.counts(); return now > before+1 })
		p.set(fine, fine)
		r.back(time.Now())
	}
}

// A network that gives a byte at a time is slow, and nothing else.
func TestServerDrip(t *testing.T) {
	noLeaks(t)
	s := newServer(t)
	p := newProxy(t, s)
	p.set(dripping, dripping)
	b := &Bus{URL: p.url(""), Logger: &guardedLog{t: t}}
	heard := make(chan tick, 10)
	SubscribeOn(b, func(_ context.Context, e tick) error { heard <- e; return nil })
	start(t, b)
	for n := range 10 {
		publish(t, b, tick{1, n})
	}
	for n := range 10 {
		if e := await(t, heard); e.N != n {
			t.Errorf("got %v, want %d", e, n)
		}
	}
	if s := b.Stats(); s.Reconnects != 0 || s.Unsent != 0 {
		t.Errorf("%+v", s)
	}
}

// Whatever changes while the connection is down or up, in one breath or not,
// the server has in the end what the user last said.
func TestServerSubscriptions(t *testing.T) {
	noLeaks(t)
	s := newServer(t)
	p := newProxy(t, s)
	r := startRig(t, s, p.url(""))
	var want []string
	for _, name := range append([]string{"Tick", "Own"}, moreNames()...) {
		want = append(want, "autobus::"+name)
	}
	subs := map[string]*Subscription{}
	random := rand.New(rand.NewPCG(3, 4))
	change := func() {
		for range 50 {
			name := fmt.Sprint("Some", random.IntN(10))
			if subs[name] != nil {
				subs[name].Unsubscribe()
				delete(subs, name)
			} else {
				subs[name] = r.SubscribeRaw(name, func(context.Context, Raw) error { return nil })
			}
		}
	}
	agree := func() {
		t.Helper()
		all := slices.Clone(want)
		for name := range subs {
			all = append(all, "autobus::"+name)
		}
		slices.Sort(all)
		until(t, "the subscriptions "+strings.Join(all, " "), func() bool {
			var has []string
			for _, channel := range s.do("PUBSUB", "CHANNELS").([]any) {
				has = append(has, channel.(string))
			}
			slices.Sort(has)
			return slices.Equal(has, all)
		})
	}
	for range 10 {
		change()
		agree()
		p.refusing(true)
		p.cut()
		change()
		p.refusing(false)
		change()
		agree()
	}
	r.back(time.Now())
	// Cut in the middle of subscribing again.
	for range 10 {
		p.cutOnce(random.IntN(600), -1)
		p.cut()
		change()
		agree()
	}
	p.cutOnce(-1, -1)
	r.back(time.Now())
}

func moreNames() (names []string) {
	for i := range moreTypes {
		names = append(names, fmt.Sprint("More", i))
	}
	return names
}

// Thousands of subscriptions come back too.
func TestServerManySubscriptions(t *testing.T) {
	noLeaks(t)
	s := newServer(t)
	r := newRig(t, s, s.url("", ""))
	const types = 5000
	for i := range types {
		r.SubscribeRaw(fmt.Sprint("Many", i), func(context.Context, Raw) error { return nil })
	}
	start(t, r.Bus)
	count := func() bool { return len(s.do("PUBSUB", "CHANNELS", "autobus::Many*").([]any)) == types }
	if !count() {
		t.Error("Start returned before all subscriptions were in force")
	}
	s.kill()
	since := s.run()
	until(t, "all subscriptions", count)
	r.back(since)
}

// An event reaches a subscription to its type and one to all types, each once,
// in a namespace that is full of what patterns are made of.
func TestServerAllTypes(t *testing.T) {
	noLeaks(t)
	s := newServer(t)
	for _, protocol := range []string{"2", "3"} {
		for _, namespace := range []string{"", "a", `a*[b-c]?\x^`, "é ü"} {
			b := &Bus{URL: s.url("", "protocol="+protocol), Namespace: namespace, Logger: noWarnings{t}}
			typed, all, all2 := make(chan string, 100), make(chan string, 100), make(chan string, 100)
			into := func(c chan string) func(context.Context, Raw) error {
				return func(_ context.Context, r Raw) error { c <- r.Name; return nil }
			}
			b.SubscribeRaw("Tick", into(typed))
			star := b.SubscribeRaw("*", into(all))
			b.SubscribeRaw("*", into(all2))
			start(t, b)
			c := s.connect()
			for _, channel := range []string{ // of other namespaces, which a pattern might match
				"autobus:aXbX\\x^:Other", "autobus:ab:Other", "autobus:" + namespace + "x:Other", "autobus:" + namespace + ":x:Other", "autobus:" + namespace + ":",
			} {
				if _, err := c.do("PUBLISH", channel, `{"type":"Other"}`); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				publish(t, b, tick{})
			}
			publish(t, b, &numbered{name: "Última"})
			want := []string{"Tick", "Tick", "Tick", "Última"}
			for _, name := range want {
				if got := await(t, all); got != name {
					t.Errorf("%q: got %s, want %s", namespace, got, name)
				}
				if got := await(t, all2); got != name {
					t.Errorf("%q: got %s, want %s", namespace, got, name)
				}
				if name == "Tick" {
					await(t, typed)
				}
			}
			star.Unsubscribe()
			publish(t, b, tick{})
			await(t, typed)
			await(t, all2)
			if len(typed)+len(all)+len(all2) > 0 {
				t.Errorf("%q: more than was published", namespace)
			}
			if s := b.Stats(); s.Received != 5 {
				t.Errorf("%q: %+v", namespace, s)
			}
		}
	}
}

// Of one publisher's events, and of each of eight, none is lost, comes twice
// or out of order.
func TestServerOrder(t *testing.T) {
	events := 1_000_000
	if raceEnabled {
		events /= 20
	}
	for _, publishers := range []int{1, 8} {
		t.Run(fmt.Sprint(publishers), func(t *testing.T) {
			noLeaks(t)
			s := newServer(t, "--client-output-buffer-limit", "pubsub", "0", "0", "0")
			from := &Bus{URL: s.url("", ""), Logger: &guardedLog{t: t}}
			to := &Bus{URL: s.url("", ""), Logger: &guardedLog{t: t}}
			next := make([]int, publishers)
			left := events
			done := make(chan struct{})
			SubscribeOn(to, func(_ context.Context, e tick) error {
				if e.N != next[e.By] {
					t.Errorf("publisher %d: event %d where %d is due", e.By, e.N, next[e.By])
				}
				next[e.By] = e.N + 1
				if left--; left == 0 {
					close(done)
				}
				return nil
			}, Queue(65536, Block))
			start(t, to)
			start(t, from)
			begin := time.Now()
			var wg sync.WaitGroup
			for by := range publishers {
				wg.Go(func() {
					for n := range events / publishers {
						publish(t, from, &tick{by, n})
					}
				})
			}
			wg.Wait()
			select {
			case <-done:
			case <-time.After(2 * patience):
				t.Fatalf("%d events are missing: %+v %+v", left, from.Stats(), to.Stats())
			}
			t.Logf("%.0f events/s", float64(events)/time.Since(begin).Seconds())
			if s := from.Stats(); s.Sent != uint64(events) || s.Unsent != 0 {
				t.Errorf("%+v", s)
			}
			until(t, "the last handler to be counted", func() bool { return to.Stats().Handled >= uint64(events) })
			if s := to.Stats(); s.Handled != uint64(events) || s.Received != uint64(events) {
				t.Errorf("%+v", s)
			}
		})
	}
}

// Handlers that publish at full load, and wait for Flush now and then, don't
// block one another.
func TestServerPublishInHandlers(t *testing.T) {
	noLeaks(t)
	events := 100_000
	if raceEnabled {
		events /= 10
	}
	s := newServer(t, "--client-output-buffer-limit", "pubsub", "0", "0", "0")
	b := &Bus{URL: s.url("", ""), Backlog: 256 << 10, Logger: &guardedLog{t: t}}
	var ticks, echoes int
	done := make(chan struct{})
	SubscribeOn(b, func(_ context.Context, e tick) error {
		if e.N != ticks {
			t.Errorf("event %d where %d is due", e.N, ticks)
		}
		ticks++
		publish(t, b, reading{ID: e.N})
		return nil
	}, Queue(1000, Block))
	SubscribeOn(b, func(_ context.Context, e reading) error {
		if e.ID != echoes {
			t.Errorf("echo %d where %d is due", e.ID, echoes)
		}
		if echoes++; echoes == events {
			close(done)
		}
		return nil
	}, Queue(1000, Block))
	start(t, b)
	for n := range events {
		publish(t, b, &tick{N: n})
	}
	await(t, done)
	if s := b.Stats(); s.Sent != uint64(2*events) || s.Unsent != 0 {
		t.Errorf("%+v", s)
	}
}

// What is wrong with a message is counted, and stalls no other.
func TestServerGarbage(t *testing.T) {
	noLeaks(t)
	s := newServer(t)
	b := &Bus{URL: s.url("", ""), Logger: testLogger(t, slog.LevelError)}
	heard := make(chan tick, 10)
	SubscribeOn(b, func(_ context.Context, e tick) error { heard <- e; return nil })
	start(t, b)
	c := s.connect()
	for _, payload := range []string{"", "{", "\x00\xff", `{"type":"Other"}`, `{"type":"Tick","n":-1}`, strings.Repeat("[", 2000), strings.Repeat("x", 1<<20)} {
		if _, err := c.do("PUBLISH", "autobus::Tick", payload); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, b, tick{1, 2})
	if e := await(t, heard); e != (tick{1, 2}) {
		t.Errorf("got %+v", e)
	}
	if s := b.Stats(); s.DroppedMalformed != 5 || s.DroppedType != 1 || s.DroppedInvalid != 1 || s.Received != 8 {
		t.Errorf("%+v", s)
	}
}

// A bus that has nothing to say asks now and then whether the server is there,
// whatever it is subscribed to, and takes the answer for one.
func TestServerIdle(t *testing.T) {
	noLeaks(t)
	s := newServer(t)
	pings := func() (n int) {
		for line := range strings.Lines(s.do("INFO", "commandstats").(string)) {
			if rest, ok := strings.CutPrefix(line, "cmdstat_ping:calls="); ok {
				fmt.Sscan(strings.Split(rest, ",")[0], &n)
			}
		}
		return n
	}
	for _, protocol := range []string{"2", "3"} {
		b := &Bus{URL: s.url("", "health_check_interval=0.02&protocol="+protocol), Logger: noWarnings{t}}
		start(t, b)
		idle := func(what string) {
			t.Helper()
			before := pings()
			until(t, "PINGs "+what, func() bool { return pings() > before+10 })
		}
		idle("with no subscription")
		heard := make(chan int, 1)
		subscription := SubscribeOn(b, func(_ context.Context, e tick) error { heard <- e.N; return nil })
		idle("with one")
		publish(t, b, tick{N: 7})
		await(t, heard)
		subscription.Unsubscribe()
		idle("with none again")
		if s := b.Stats(); s.Reconnects != 0 || s.Unsent != 0 {
			t.Errorf("%+v", s)
		}
	}
}
