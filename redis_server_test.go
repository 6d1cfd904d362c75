//go:build unix

package autobus

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What the tests against real servers stand on: redis-server processes, a
// connection to ask them by, a proxy that fails as networks do, certificates,
// and a log that no password may be in.

// A redisServer is a redis-server process, or one that will be started again.
type redisServer struct {
	t       testing.TB
	network string // "tcp", or "unix"
	addr    string
	dir     string
	args    []string
	secure  *tls.Config // for the test's own connections; nil: plaintext
	login   []string    // what the test's own connections give to AUTH
	process *os.Process
	ended   chan struct{} // closed when the process has ended
}

// redisProgram returns the path of redis-server or redis-cli.
func redisProgram(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, err.Error())
	}
	return path
}

// newServer starts a server on a free port of 127.0.0.1. A test that wants
// something else changes it before run.
func newServer(t testing.TB, args ...string) *redisServer {
	t.Helper()
	s := preparedServer(t, args...)
	s.run()
	return s
}

func preparedServer(t testing.TB, args ...string) *redisServer {
	t.Helper()
	redisProgram(t, "redis-server")
	port := freeTCPPort(t)
	s := &redisServer{t: t, network: "tcp", addr: "127.0.0.1:" + port, dir: t.TempDir()}
	s.args = append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
		"--dir", s.dir, "--logfile", "redis.log", "--loglevel", "warning", "--enable-debug-command", "local"}, args...)
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(s.dir, "redis.log"))
			t.Logf("the log of %s ends:\n%s", s.addr, log[max(0, len(log)-1500):])
		}
	})
	return s
}

var triedPorts sync.Map

// freeTCPPort returns a port that nobody listens on, another each time.
func freeTCPPort(t testing.TB) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, err := net.SplitHostPort(l.Addr().String())
		l.Close()
		if err != nil {
			t.Fatal(err)
		}
		if _, tried := triedPorts.LoadOrStore(port, true); !tried {
			return port
		}
	}
}

// start starts the process; it may not answer yet.
func (s *redisServer) start() {
	s.t.Helper()
	cmd := exec.Command(redisProgram(s.t, "redis-server"), s.args...)
	var trouble bytes.Buffer // what is wrong with the arguments, say
	cmd.Stdout, cmd.Stderr = &trouble, &trouble
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := cmd.Wait(); trouble.Len() > 0 {
			s.t.Errorf("redis-server: %v\n%s", err, &trouble)
		}
	}()
	s.process, s.ended = cmd.Process, ended
}

// run starts the process, and returns when the server answered first.
func (s *redisServer) run() time.Time {
	s.t.Helper()
	s.start()
	return s.answers()
}

// answers waits until the server answers a PING, and returns when that was.
func (s *redisServer) answers() time.Time {
	s.t.Helper()
	until(s.t, "an answer of "+s.addr, func() bool {
		select {
		case <-s.ended:
			s.t.Fatal("redis-server has ended")
		default:
		}
		c, err := s.dial()
		if err != nil {
			return false
		}
		defer c.Close()
		reply, err := c.do("PING")
		return reply == "PONG" || s.login == nil && err != nil && strings.HasPrefix(err.Error(), "NOAUTH")
	})
	return time.Now()
}

// kill ends the process as kill -9 does, and waits until it is gone.
func (s *redisServer) kill() {
	if s.process == nil {
		return
	}
	s.process.Signal(syscall.SIGCONT)
	s.process.Kill()
	<-s.ended
	s.process = nil
}

func (s *redisServer) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// url returns a URL of the server, after the scheme.
func (s *redisServer) url(login, options string) string {
	scheme := "redis://"
	if s.secure != nil {
		scheme = "rediss://"
	}
	if s.network == "unix" {
		scheme = "unix://"
	}
	if login != "" {
		login += "@"
	}
	if options != "" {
		options = "?" + options
	}
	return scheme + login + s.addr + options
}

// A serverConn is a test's own connection to a server. It has nothing of resp.go.
type serverConn struct {
	net.Conn
	r *bufio.Reader
}

func (s *redisServer) dial() (*serverConn, error) {
	conn, err := net.DialTimeout(s.network, s.addr, patience)
	if err != nil {
		return nil, err
	}
	if s.secure != nil {
		conn = tls.Client(conn, s.secure)
	}
	c := &serverConn{conn, bufio.NewReader(conn)}
	if s.login != nil {
		if _, err := c.do(append([]string{"AUTH"}, s.login...)...); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// connect returns a connection that is closed when the test ends.
func (s *redisServer) connect() *serverConn {
	s.t.Helper()
	c, err := s.dial()
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// do has the server do one command.
func (s *redisServer) do(args ...string) any {
	s.t.Helper()
	c, err := s.dial()
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	reply, err := c.do(args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply
}

// do sends a command and returns the reply: a string, an int, nil or []any. An
// error reply is an error.
func (c *serverConn) do(args ...string) (any, error) {
	if err := c.send(args...); err != nil {
		return nil, err
	}
	return c.reply()
}

func (c *serverConn) send(args ...string) error {
	c.SetDeadline(time.Now().Add(patience))
	b := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, arg := range args {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	_, err := c.Write(b)
	return err
}

func (c *serverConn) reply() (any, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	kind, rest := line[0], strings.TrimSpace(line[1:])
	switch kind {
	case '+':
		return rest, nil
	case '-':
		return nil, errors.New(rest)
	}
	n, err := strconv.Atoi(rest)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%q is no reply", line)
	case kind == ':':
		return n, nil
	case n < 0:
		return nil, nil
	case kind == '$':
		text := make([]byte, n+2)
		_, err := io.ReadFull(c.r, text)
		return string(text[:n]), err
	case kind == '*':
		all := make([]any, n)
		for i := range all {
			if all[i], err = c.reply(); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
	return nil, fmt.Errorf("%q is no reply", line)
}

// until waits until ok says yes.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s; goroutines:\n%s", what, stacks())
		}
	}
}

// noLeaks checks, when all else of the test has ended, that it left neither
// goroutines nor descriptors. It is called first.
func noLeaks(t testing.TB) {
	t.Helper()
	if l, err := net.Listen("tcp4", "127.0.0.1:0"); err == nil {
		l.Close() // what the first socket opens for good
	}
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	t.Cleanup(func() {
		if !goroutinesEnd(goroutines) {
			t.Errorf("%d goroutines before, and now:\n%s", goroutines, stacks())
		}
		if now := openFiles(t); now > files {
			t.Errorf("%d descriptors are open, %d before", now, files)
		}
	})
}

// secrets are the passwords of all tests: none may be in a log or an error.
// Each is looked for as it is, percent-encoded, and quoted.
var secrets = []string{"pa55/w:rd?", "pa55%2Fw%3Ard%3F", "0ther-pa55", "sw0rdf1sh"}

const (
	secret      = "pa55/w:rd?"
	secretInURL = "pa55%2Fw%3Ard%3F"
	otherSecret = "0ther-pa55"
)

func tellsSecret(text string) bool {
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			return true
		}
	}
	return false
}

// A guardedLog is a Logger that keeps what it is told, shows it if the test
// fails, and fails it for a password.
type guardedLog struct {
	logLines
	t testing.TB
}

func (l *guardedLog) add(level, msg string, args []any) {
	line := level + " " + msg
	for i := 0; i+1 < len(args); i += 2 {
		line += fmt.Sprintf(" %v=%+q", args[i], fmt.Sprintf("%+v", args[i+1]))
	}
	if tellsSecret(line) || tellsSecret(fmt.Sprintf("%#v", args)) {
		l.t.Errorf("a password is in the log: %s", line)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	if len(l.lines) <= 200 {
		fmt.Fprintln(l.t.Output(), time.Now().Format("05.000"), line)
	}
}

func (l *guardedLog) Debug(msg string, args ...any) { l.add("DEBUG", msg, args) }
func (l *guardedLog) Info(msg string, args ...any)  { l.add("INFO", msg, args) }
func (l *guardedLog) Warn(msg string, args ...any)  { l.add("WARN", msg, args) }
func (l *guardedLog) Error(msg string, args ...any) { l.add("ERROR", msg, args) }

// told fails the test if an error tells a password, and returns its text.
func told(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	text := err.Error()
	for e := err; e != nil; e = errors.Unwrap(e) {
		if tellsSecret(e.Error()) || tellsSecret(fmt.Sprintf("%#v", e)) {
			t.Errorf("a password is in the error %v", err)
		}
	}
	return text
}

// A proxy stands before a server, and fails as networks do.
type proxy struct {
	t        testing.TB
	network  string
	to       string
	addr     string
	listener net.Listener
	wg       sync.WaitGroup

	mu      sync.Mutex // guards the rest
	up      weather    // from the bus to the server
	down    weather    // from the server to the bus
	refuse  bool       // close connections as they come
	only    string     // the weather is for connections whose first bytes have this
	cutUp   int        // bytes until the connections are cut, once; negative: never
	cutDown int
	changed chan struct{} // closed when a weather has changed
	pairs   map[*pair]bool
	passed  int // bytes, both ways
	dropped int
	made    int // connections
}

// A pair is a connection through a proxy.
type pair struct {
	client, server net.Conn
	first          string // what the client sent first; guarded by proxy.mu
}

// weather is what becomes of bytes on their way.
type weather uint8

const (
	fine     weather = iota
	stalled          // they aren't even read
	dropping         // they vanish
	dripping         // one at a time, a millisecond apart
)

func newProxy(t testing.TB, s *redisServer) *proxy {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, network: s.network, to: s.addr, addr: l.Addr().String(), listener: l, cutUp: -1, cutDown: -1,
		changed: make(chan struct{}), pairs: make(map[*pair]bool)}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.set(fine, fine)
		p.cut()
		p.wg.Wait()
	})
	return p
}

// url returns the URL of the server by way of the proxy.
func (p *proxy) url(options string) string { return "redis://" + p.addr + "?" + options }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial(p.network, p.to)
		p.mu.Lock()
		p.made++
		if err != nil || p.refuse {
			client.Close()
			if err == nil {
				server.Close()
			}
		} else {
			c := &pair{client: client, server: server}
			p.pairs[c] = true
			p.wg.Go(func() { p.pump(c, server, client, &p.up, &p.cutUp) })
			p.wg.Go(func() { p.pump(c, client, server, &p.down, &p.cutDown) })
		}
		p.mu.Unlock()
	}
}

// pump moves bytes one way.
func (p *proxy) pump(c *pair, to, from net.Conn, now *weather, cutAfter *int) {
	defer p.end(c)
	buf := make([]byte, 64<<10)
	for p.waits(c, now) != stalled {
		n, err := from.Read(buf)
		if from == c.client {
			p.mu.Lock()
			if c.first == "" {
				c.first = string(buf[:n])
			}
			p.mu.Unlock()
		}
		for data := buf[:n]; len(data) > 0; {
			is := p.waits(c, now)
			if is == stalled {
				return
			}
			size, cut := len(data), false
			if is == dripping {
				size = 1
			}
			p.mu.Lock()
			if *cutAfter >= 0 {
				if *cutAfter <= size {
					size, cut = *cutAfter, true
				}
				if *cutAfter -= size; cut {
					*cutAfter = -1
				}
			}
			if is == dropping {
				p.dropped += size
			} else {
				p.passed += size
			}
			p.mu.Unlock()
			if is != dropping {
				if _, err := to.Write(data[:size]); err != nil {
					return
				}
			}
			if data = data[size:]; cut {
				return
			}
			if is == dripping {
				<-time.After(time.Millisecond)
			}
		}
		if err != nil {
			return
		}
	}
}

// waits waits until bytes move, and returns how. It returns stalled if the
// connection ends first.
func (p *proxy) waits(c *pair, now *weather) weather {
	for {
		p.mu.Lock()
		is, changed, there := *now, p.changed, p.pairs[c]
		if p.only != "" && !strings.Contains(c.first, p.only) {
			is = fine
		}
		p.mu.Unlock()
		if is != stalled || !there {
			if !there {
				is = stalled
			}
			return is
		}
		<-changed
	}
}

func (p *proxy) end(c *pair) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.client.Close()
	c.server.Close()
	delete(p.pairs, c)
	close(p.changed) // the other way may wait
	p.changed = make(chan struct{})
}

// set changes the weather, up and down.
func (p *proxy) set(up, down weather) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up, p.down = up, down
	close(p.changed)
	p.changed = make(chan struct{})
}

// onlyFor keeps the weather to connections whose first bytes have a text in them.
func (p *proxy) onlyFor(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.only = text
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		c.client.Close()
		c.server.Close()
		delete(p.pairs, c)
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// refusing has connections closed as they come, or no more.
func (p *proxy) refusing(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = yes
}

// cutOnce has the connections end when so many bytes more have gone up or
// down; a negative number is never.
func (p *proxy) cutOnce(up, down int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutUp, p.cutDown = up, down
}

// counts returns how many bytes passed and vanished, and the connections made.
func (p *proxy) counts() (passed, dropped, made int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.passed, p.dropped, p.made
}

// certificates are files of a certificate authority, and of what it has signed.
type certificates struct {
	ca, server, serverKey, client, clientKey string
	otherCA                                  string // which signed nothing here
	pool                                     *x509.CertPool
	own                                      tls.Certificate // the client's
}

// newCertificates makes certificates. The server's is for localhost and
// 127.0.0.1.
func newCertificates(t testing.TB) *certificates {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		must(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	serial := int64(0)
	make := func(name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (cert *x509.Certificate, key *ecdsa.PrivateKey, certFile, keyFile string) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
		serial++
		template := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		if name == "server" {
			template.DNSNames, template.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
		}
		if parent == nil {
			template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
			parent, parentKey = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
		must(err)
		cert, err = x509.ParseCertificate(der)
		must(err)
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		must(err)
		return cert, key, write(name+".crt", "CERTIFICATE", der), write(name+".key", "PRIVATE KEY", keyDER)
	}
	c := new(certificates)
	ca, caKey, file, _ := make("ca", nil, nil)
	c.ca = file
	_, _, c.server, c.serverKey = make("server", ca, caKey)
	_, _, c.client, c.clientKey = make("client", ca, caKey)
	_, _, c.otherCA, _ = make("other", nil, nil)
	c.pool = x509.NewCertPool()
	c.pool.AddCert(ca)
	own, err := tls.LoadX509KeyPair(c.client, c.clientKey)
	must(err)
	c.own = own
	return c
}

// newTLSServer starts a server that speaks TLS alone. clients says whether it
// asks for their certificates: "no" or "yes".
func newTLSServer(t testing.TB, c *certificates, clients string, args ...string) *redisServer {
	t.Helper()
	s := preparedServer(t, args...)
	_, port, _ := net.SplitHostPort(s.addr)
	s.args = append(s.args, "--port", "0", "--tls-port", port, "--tls-cert-file", c.server, "--tls-key-file", c.serverKey,
		"--tls-ca-cert-file", c.ca, "--tls-auth-clients", clients)
	s.secure = &tls.Config{RootCAs: c.pool, ServerName: "localhost", Certificates: []tls.Certificate{c.own}}
	s.run()
	return s
}

// newUnixServer starts a server on a Unix socket alone.
func newUnixServer(t testing.TB, args ...string) *redisServer {
	t.Helper()
	s := preparedServer(t, args...)
	dir, err := os.MkdirTemp("", "autobus") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s.network, s.addr = "unix", filepath.Join(dir, "redis.sock")
	s.args = append(s.args, "--port", "0", "--unixsocket", s.addr)
	s.run()
	return s
}

// serverURL returns the URL of a Redis server of the test's own.
func serverURL(t testing.TB) string {
	t.Helper()
	return newServer(t).url("", "")
}
