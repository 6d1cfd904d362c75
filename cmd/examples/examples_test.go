//go:build unix

package examples

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autobus-go/autobus"
)

// patience is for what should happen within a second or two.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	os.Unsetenv("AUTOBUS_URL")
	os.Unsetenv("AUTOBUS_NAMESPACE")
	os.Unsetenv("AUTOBUS_KEY")
	os.Exit(m.Run())
}

// missing ends a test that can't run here.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("AUTOBUS_TEST_ALL") == "1" {
		t.Fatalf("%s, and AUTOBUS_TEST_ALL=1 asks for every test", what)
	}
	t.Skip(what)
}

func ownURL() string {
	return fmt.Sprintf("udp://239.255.%d.%d:%d", rand.IntN(256), rand.IntN(256), 20000+rand.IntN(12000))
}

// build builds one of the programs.
func build(t *testing.T, name string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("go", "build", "-o", path, "./"+name).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// A process is a program that runs, and is told to end with the test.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string // of both its outputs
	ended bool
}

func start(t *testing.T, env []string, path string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(path, args...), lines: make(chan string, 1000)}
	p.cmd.Env = append(os.Environ(), env...)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p.cmd.Stdout
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			p.lines <- in.Text()
		}
	}()
	t.Cleanup(func() {
		if !p.ended {
			p.cmd.Process.Kill()
			p.cmd.Wait()
		}
	})
	return p
}

// until reads lines until one has each of the texts, in any order.
func (p *process) until(texts ...string) (last string) {
	p.t.Helper()
	timeout := time.After(patience)
	for len(texts) > 0 {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("%s ended before it said %q", p.cmd.Path, texts)
			}
			last = line
			for i, text := range texts {
				if strings.Contains(line, text) {
					texts = append(texts[:i:i], texts[i+1:]...)
					break
				}
			}
		case <-timeout:
			p.t.Fatalf("%s doesn't say %q", p.cmd.Path, texts)
		}
	}
	return last
}

// end sends an interrupt, as Ctrl-C does, and expects a clean end.
func (p *process) end() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		p.t.Fatal(err)
	}
	p.wait()
}

func (p *process) wait() {
	p.t.Helper()
	timeout := time.After(patience)
	var said []string
	for open := true; open; {
		var line string
		select {
		case line, open = <-p.lines:
			said = append(said, line)
		case <-timeout:
			p.t.Fatalf("%s doesn't end", p.cmd.Path)
		}
	}
	p.ended = true
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("%s: %v\n%s", p.cmd.Path, err, strings.Join(said, "\n"))
	}
}

func TestSensors(t *testing.T) {
	path, url := build(t, "sensors"), ownURL()
	display := start(t, nil, path, "-url", url, "display")
	kitchen := start(t, nil, path, "-url", url, "device", "kitchen")
	attic := start(t, nil, path, "-url", url, "device", "attic")
	display.until("kitchen", "attic")
	for _, p := range []*process{kitchen, attic, display} {
		p.end()
	}
	if err := exec.Command(path, "device").Run(); err == nil {
		t.Error("a device without a name")
	}
}

func TestWorker(t *testing.T) {
	python := os.Getenv("AUTOBUS_PYTHON")
	if python == "" {
		missing(t, "AUTOBUS_PYTHON doesn't name a Python with the package autobus")
	}
	env := []string{"AUTOBUS_URL=" + redis(t), "AUTOBUS_KEY=" + autobus.GenerateKey().Encode()}
	service := start(t, env, build(t, "worker"))
	worker := start(t, append(env, "PYTHONDONTWRITEBYTECODE=1"), python, "worker/worker.py")
	fmt.Fprintln(service.stdin, "to be or not to be")
	service.until("map[be:2 not:1 or:1 to:2]")
	fmt.Fprintln(service.stdin, "ünï ☃ ünï")
	service.until("map[ünï:2 ☃:1]")
	service.stdin.Close()
	service.wait()
	waits := start(t, env, service.cmd.Path)
	fmt.Fprintln(waits.stdin, "or not")
	waits.until("map[not:1 or:1]")
	waits.end() // though it waits for a line
	worker.cmd.Process.Signal(os.Interrupt)
}

// redis starts a Redis server and returns its URL.
func redis(t *testing.T) string {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		missing(t, "there is no redis-server")
	}
	port := freePort(t)
	server := exec.Command(path, "--port", port, "--save", "", "--dir", t.TempDir())
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
	})
	return "redis://localhost:" + port // both programs wait until it is there
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestWeb(t *testing.T) {
	path, url := build(t, "web"), ownURL()
	var servers []*process
	var addrs []string
	for range 2 {
		p := start(t, nil, path, "-url", url, "-listen", "localhost:0")
		_, addr, _ := strings.Cut(p.until("listening on "), "listening on ")
		servers, addrs = append(servers, p), append(addrs, addr)
	}
	res, err := http.Post(addrs[0], "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusAccepted {
		t.Fatal(res.Status)
	}
	for _, addr := range addrs {
		var body []byte
		for begin := time.Now(); !strings.Contains(string(body), "hello"); {
			res, err := http.Get(addr)
			if err != nil {
				t.Fatal(err)
			}
			body, err = io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			if time.Since(begin) > patience {
				t.Fatalf("%s has %q", addr, body)
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()
	for _, p := range servers {
		p.end()
	}
}

func TestHeartbeat(t *testing.T) {
	path, url := build(t, "heartbeat"), ownURL()
	alice := start(t, nil, path, "-url", url, "-every", "0.2", "alice")
	bob := start(t, nil, path, "-url", url, "-every", "0.2", "bob")
	carol := start(t, nil, path, "-url", url, "-every", "0.2", "carol")
	alice.until("alice is here", "bob is here", "carol is here")
	bob.end()
	alice.until("bob has left")
	carol.cmd.Process.Signal(syscall.SIGKILL)
	alice.until("carol is missing")
	alice.end()
}

func TestBridge(t *testing.T) {
	from, to := ownURL(), ownURL()
	device := build(t, "sensors")
	bridge := start(t, nil, build(t, "bridge"), "-from", from, "-to", to)
	start(t, nil, device, "-url", from, "device", "kitchen")
	display := start(t, nil, device, "-url", to, "display")
	display.until("kitchen")
	display.end()
	bridge.end()
}
