package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autobus-go/autobus"
)

// asProgram makes the test binary the program itself, for the tests that need
// real processes, and for the demo, which starts itself again.
const asProgram = "AUTOBUS_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Unsetenv("AUTOBUS_URL")
	os.Unsetenv("AUTOBUS_NAMESPACE")
	os.Unsetenv("AUTOBUS_KEY")
	os.Exit(m.Run())
}

// patience is for what should happen at once.
const patience = 30 * time.Second

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// ownURL returns a multicast group and port that nobody else is likely to use.
// The port is below those that systems hand out by themselves.
func ownURL() string {
	return fmt.Sprintf("udp://239.255.%d.%d:%d", rand.IntN(256), rand.IntN(256), 20000+rand.IntN(12000))
}

// call runs the program in this process, with input from a pipe unless that is "".
func call(input string, args ...string) (code int, stdout, stderr string) {
	var in io.Reader
	if input != "" {
		in = strings.NewReader(input)
	}
	var out, err bytes.Buffer
	code = run(args, in, &out, &err)
	return code, out.String(), err.String()
}

// mustCall is call for what is to succeed without a word.
func mustCall(t *testing.T, input string, args ...string) {
	t.Helper()
	code, stdout, stderr := call(input, args...)
	if code != exitOK || stdout != "" || stderr != "" {
		t.Fatalf("autobus %q: status %d, output %q, errors %q", args, code, stdout, stderr)
	}
}

// A listener is sub, under way in this process.
type listener struct {
	lines  *bufio.Reader
	code   chan int
	stderr bytes.Buffer // to be read after code
}

// listen starts sub and returns once it is on the bus.
func listen(t *testing.T, args ...string) *listener {
	t.Helper()
	r, w := io.Pipe()
	l := &listener{lines: bufio.NewReader(r), code: make(chan int, 1)}
	started := make(chan struct{})
	sub := newTool(nil, w, &l.stderr)
	sub.started = func() { close(started) }
	go func() {
		code := sub.main(append([]string{"sub"}, args...))
		w.Close()
		l.code <- code
	}()
	t.Cleanup(func() { r.Close() })
	select {
	case <-started:
	case code := <-l.code:
		t.Fatalf("sub %q ended with status %d: %s", args, code, l.stderr.String())
	case <-deadline(t).Done():
		t.Fatalf("sub %q doesn't start", args)
	}
	return l
}

// rest reads what is left of the output, and expects a status of 0.
func (l *listener) rest(t *testing.T) []string {
	t.Helper()
	out := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(l.lines)
		out <- string(text)
	}()
	ctx := deadline(t)
	select {
	case text := <-out:
		if code := <-l.code; code != exitOK {
			t.Errorf("sub: status %d: %s", code, l.stderr.String())
		}
		return slices.Collect(strings.Lines(text))
	case <-ctx.Done():
		t.Fatal("sub doesn't end")
		return nil
	}
}

// events takes the payloads out of sub's lines.
func events(t *testing.T, lines []string) (list []string) {
	t.Helper()
	for _, line := range lines {
		r, err := parseRecord([]byte(line))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		list = append(list, string(r.JSON))
	}
	return list
}

// TestPubFor gives up on a server that isn't there.
func TestPubFor(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nobody else listens there now
	code, stdout, stderr := call("", "pub", "Ping", "-for", "300ms", "-url", "redis://"+l.Addr().String())
	if code != exitError || stdout != "" || !strings.Contains(stderr, "nothing was sent within 300ms: redis: not connected") {
		t.Errorf("status %d, output %q, errors %q", code, stdout, stderr)
	}
}

func TestUsageErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ev.jsonl")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args  []string
		input string
		want  string
	}{
		{nil, "", "a command is missing: demo, pub, sub, keygen or version"},
		{[]string{"-url", "udp://239.255.0.1:5000"}, "", "a command is missing"},
		{[]string{"publish"}, "", "did you mean pub?"},
		{[]string{"sbu"}, "", "did you mean sub?"},
		{[]string{"Sub"}, "", "did you mean sub?"},
		{[]string{"PUB", "Ping"}, "", "did you mean pub?"},
		{[]string{"sub", "-URL", "x"}, "", "did you mean -url?"},
		{[]string{"x\x1b[31m"}, "", `there is no command "x\x1b[31m"; there are demo, pub, sub, keygen, version, help`},
		{[]string{"help", "dmeo"}, "", "did you mean demo?"},
		{[]string{"-ulr", "x", "sub"}, "", "did you mean -url?"},
		{[]string{"sub", "--name-space", "x"}, "", "did you mean -namespace?"},
		{[]string{"sub", "-frobnicate"}, "", "there are -url, -namespace, -key, -key-file, -n, -for"},
		{[]string{"pub", "-n", "3", "Ping"}, "", "there is no flag -n here"},
		{[]string{"-n", "3", "pub", "Ping"}, "", "there is no flag -n here"},
		{[]string{"sub", "-url"}, "", "-url needs a value"},
		{[]string{"sub", "-url="}, "", "-url is empty"},
		{[]string{"sub", "-n"}, "", "-n needs a value"},
		{[]string{"sub", "-n", "few"}, "", "-n few: want a number of events, 1 or more"},
		{[]string{"sub", "-n=0"}, "", "-n 0: want"},
		{[]string{"sub", "-for", "10"}, "", "did you mean 10s?"},
		{[]string{"sub", "-for", "soon"}, "", "want a time with its unit"},
		{[]string{"sub", "-for", "-1s"}, "", "want a time with its unit"},
		{[]string{"sub", "a:b"}, "", "has a ':'"},
		{[]string{"sub", "Ping", ""}, "", "is empty"},
		{[]string{"sub", "\xff"}, "", "isn't valid UTF-8"},
		{[]string{"pub"}, "", "pub needs a type"},
		{[]string{"pub", ""}, "", "is empty"},
		{[]string{"pub", "*"}, "", "stands for all types"},
		{[]string{"pub", "a:b"}, "{}", "has a ':'"},
		{[]string{"pub", `{"id":1}`}, "", "pub needs a type before the JSON"},
		{[]string{"pub", "Ping", `{"id":`, "1}"}, "", "quote the JSON"},
		{[]string{"pub", "Ping", "5"}, "", "want an object, have an integer"},
		{[]string{"pub", "Ping", `{"a" 1}`}, "", "at byte 5"},
		{[]string{"pub", "Ping", ""}, "", "the JSON is empty"},
		{[]string{"pub", "Ping", `{"type":"Pong"}`}, "", `want "Ping"`},
		{[]string{"pub", "-", "Ping"}, "{}", "autobus pub Ping -"},
		{[]string{"demo", "now"}, "", "demo takes no argument"},
		{[]string{"version", "x"}, "", "version takes no argument"},
		{[]string{demoPeer}, "", "for autobus demo alone"},
		{[]string{"pub", file}, "", file + " is a file; to play it back: autobus pub - <" + file + "; "},
		{[]string{"pub", file}, "{}", "to play it back: autobus pub - <" + file},
		{[]string{"pub", "-", file}, "{}", "to play " + file + " back: autobus pub - <" + file},
		{[]string{"pub", "Ping", file}, "", "autobus pub Ping - <" + file},
		{[]string{"sub", "-url", "udp://10.0.0.1:5000"}, "", `-url: bad multicast URL "udp://10.0.0.1:5000": `},
		{[]string{"sub", "-url", "udp://239.255.0.1:5000?ttl=x"}, "", "-url: bad multicast URL"},
		{[]string{"sub", "-url", "udp://:secret@239.255.0.1"}, "", "-url: bad multicast URL: "},
		{[]string{"sub", "-url", "redis://localhost:99999"}, "", "-url: bad Redis URL: a port must"},
		{[]string{"sub", "-url", "redis://localhost?tls=1"}, "", `-url: bad Redis URL: there is no option "tls"`},
		{[]string{"sub", "-url", "rediss://localhost?ssl_ca_certs=/nothing.pem"}, "", "-url: bad Redis URL: ssl_ca_certs=: open /nothing.pem: "},
		{[]string{"sub", "-url", "nothing"}, "", "-url: the URL has no scheme"},
		{[]string{"pub", "Ping", "-url", "gopher://x"}, "", `-url: URL scheme "gopher"`},
		{[]string{"demo", "-url", "gopher://x"}, "", `-url: URL scheme "gopher"`},
		{[]string{"demo", "-url", "mem://x"}, "", "-url: mem:// stays within one"},
		{[]string{"pub", "Ping", "-url", "mem://x"}, "", "-url: mem:// stays within one"},
		{[]string{"sub", "-url", "MEM://x"}, "", "-url: mem:// stays within one"},
		{[]string{"sub", "-namespace", "\xff"}, "", "the namespace \"\\xff\" isn't valid UTF-8"},
	} {
		code, stdout, stderr := call(c.input, c.args...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("autobus %q: status %d, output %q, errors %q; want %d and %q", c.args, code, stdout, stderr, exitUsage, c.want)
		}
		if !strings.HasPrefix(stderr, "autobus: ") || strings.Count(stderr, "\n") != 1 || strings.Contains(stderr, "\x1b") {
			t.Errorf("autobus %q: %q isn't one clean line", c.args, stderr)
		}
	}
}

func TestRunTimeErrors(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"sub", "-url", ownURL() + "?interface=none0"}, `-url: multicast: no network interface "none0"`},
		{[]string{"pub", "Ping", `{"x":"` + strings.Repeat("x", 70000) + `"}`, "-url", ownURL()}, "at most 65000"},
		{[]string{"sub", "-n", "1", "-for", "1ms", "-url", ownURL()}, "0 of 1 events"},
	} {
		code, stdout, stderr := call("", c.args...)
		if code != exitError || stdout != "" || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("autobus %.80q: status %d, output %q, errors %q; want %d and %q", c.args, code, stdout, stderr, exitError, c.want)
		}
	}
}

// TestURLOrigin says where a wrong URL came from.
func TestURLOrigin(t *testing.T) {
	t.Setenv("AUTOBUS_URL", "gopher://x")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"sub"}, `autobus: $AUTOBUS_URL: URL scheme "gopher" is unknown`},
		{[]string{"sub", "-url", "ftp://x"}, `autobus: -url: URL scheme "ftp" is unknown`},
	} {
		if code, _, stderr := call("", c.args...); code != exitUsage || !strings.HasPrefix(stderr, c.want) {
			t.Errorf("autobus %q: status %d, errors %q; want %d and %q", c.args, code, stderr, exitUsage, c.want)
		}
	}
}

// TestPubNamedLikeFile: a type is one also where a file has its name, if there
// is something to publish.
func TestPubNamedLikeFile(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"Ping", "Ping.v2"} {
		if err := os.WriteFile(name, nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, stderr := call("", "pub", "Ping"); code != exitUsage || !strings.Contains(stderr, "Ping is a file; ") {
		t.Errorf("status %d, errors %q", code, stderr)
	}
	url := ownURL()
	l := listen(t, "-url", url, "-n", "2")
	mustCall(t, `{"id":1}`, "pub", "-url", url, "Ping")
	mustCall(t, "", "pub", "-url", url, "Ping.v2", "{}")
	want := []string{`{"type":"Ping","id":1}`, `{"type":"Ping.v2"}`}
	if got := events(t, l.rest(t)); !slices.Equal(got, want) {
		t.Errorf("have %q, want %q", got, want)
	}
}

func TestHelp(t *testing.T) {
	code, all, stderr := call("", "help")
	if code != exitOK || stderr != "" {
		t.Fatalf("status %d, errors %q", code, stderr)
	}
	for _, c := range commands {
		if !c.shown() {
			if strings.Contains(all, c.name) {
				t.Errorf("help tells of %s", c.name)
			}
			continue
		}
		if !strings.Contains(all, c.does) {
			t.Errorf("help doesn't tell of %s", c.name)
		}
		if helpFor[c.name] == "" {
			t.Errorf("there is no help for %s", c.name)
		}
		var texts []string
		for _, args := range [][]string{{"help", c.name}, {c.name, "-h"}, {c.name, "x", "--help"}} {
			code, text, stderr := call("", args...)
			if code != exitOK || stderr != "" {
				t.Errorf("autobus %q: status %d, errors %q", args, code, stderr)
			}
			texts = append(texts, text)
		}
		if texts[0] != texts[1] || texts[0] != texts[2] {
			t.Errorf("the ways to get help for %s differ", c.name)
		}
		for _, f := range c.flags {
			if !strings.Contains(texts[0], "  -"+f+" ") {
				t.Errorf("help for %s doesn't tell of -%s", c.name, f)
			}
		}
	}
	for _, args := range [][]string{{"-h"}, {"--help"}, {"-url", "x", "-help"}} {
		if code, text, _ := call("", args...); code != exitOK || text != all {
			t.Errorf("autobus %q: status %d, %q", args, code, text)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, arg := range []string{"version", "-version", "--version"} {
		code, stdout, stderr := call("", arg)
		if code != exitOK || stderr != "" || !strings.HasPrefix(stdout, "autobus ") || !strings.Contains(stdout, " go") {
			t.Errorf("autobus %s: status %d, output %q, errors %q", arg, code, stdout, stderr)
		}
	}
}

func TestFlagsAnywhere(t *testing.T) {
	t.Setenv("AUTOBUS_URL", "udp://239.1.1.1:1111")
	t.Setenv("AUTOBUS_NAMESPACE", "env")
	type settings struct {
		url, namespace string
		count          int
		period         time.Duration
		args           string
	}
	var got settings
	real := slices.Clone(commands)
	defer func() { copy(commands, real) }()
	for i := range commands {
		commands[i].run = func(t *tool, _ context.Context, args []string) error {
			got = settings{t.url, t.namespace, t.count, t.period, strings.Join(args, ",")}
			return nil
		}
	}
	env := settings{url: "udp://239.1.1.1:1111", namespace: "env"}
	for _, c := range []struct {
		args string
		want settings
	}{
		{"sub", env},
		{"sub Ping -n 3", settings{env.url, "env", 3, 0, "Ping"}},
		{"sub -n 3 Ping Pong", settings{env.url, "env", 3, 0, "Ping,Pong"}},
		{"sub Ping --n=3 Pong -for=1s", settings{env.url, "env", 3, time.Second, "Ping,Pong"}},
		{"-n 3 -url u sub Ping", settings{"u", "env", 3, 0, "Ping"}},
		{"-url u pub -namespace n Ping -", settings{"u", "n", 0, 0, "Ping,-"}},
		{"pub -namespace= Ping {}", settings{env.url, "", 0, 0, "Ping,{}"}},
		{"pub -namespace -- Ping", settings{env.url, "--", 0, 0, "Ping"}},
		{"pub -- -odd {}", settings{env.url, "env", 0, 0, "-odd,{}"}},
		{"-url=a sub -url=b", settings{"b", "env", 0, 0, ""}},
	} {
		got = settings{}
		if code, _, stderr := call("", strings.Fields(c.args)...); code != exitOK || got != c.want {
			t.Errorf("autobus %s: status %d, %+v, want %+v %s", c.args, code, got, c.want, stderr)
		}
	}
}

func TestSub(t *testing.T) {
	url := ownURL()
	l := listen(t, "-url", url, "-namespace", `k"<x>`, "-n", "4")
	mustCall(t, "", "pub", "-url", url, "Ping", "{}") // another namespace
	mustCall(t, "", "pub", "-url", url, "-namespace", `k"<x>`, "Ping", `{ "a" : [ 1 , NaN, "x y\\\" z" ] , "b":{}}`)
	mustCall(t, "", "pub", "-url", url, "-namespace", `k"<x>`, "Ping")
	mustCall(t, "", "pub", "-url", url, "-namespace", `k"<x>`, "Föhn", `{"f":1.0}`)
	mustCall(t, "", "pub", "-url", url, "-namespace", `k"<x>`, "Ping", `{"type":"Ping","e":1}`)
	mustCall(t, "", "pub", "-url", url, "-namespace", `k"<x>`, "Ping", `{"late":true}`)
	lines := l.rest(t)
	want := []struct{ typ, event string }{
		{"Ping", `{"type":"Ping","a":[1,NaN,"x y\\\" z"],"b":{}}`},
		{"Ping", `{"type":"Ping"}`},
		{"Föhn", `{"type":"Föhn","f":1.0}`},
		{"Ping", `{"type":"Ping","e":1}`},
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d: %q", len(lines), len(want), lines)
	}
	for i, line := range lines {
		var r struct {
			Time          time.Time
			Channel, Type string
			Event         json.RawMessage
		}
		strict := json.NewDecoder(strings.NewReader(strings.Replace(line, "NaN", `"NaN"`, 1)))
		strict.DisallowUnknownFields()
		if err := strict.Decode(&r); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if r.Channel != `autobus:k"<x>:`+want[i].typ || r.Type != want[i].typ || r.Time.IsZero() || r.Time.Location() != time.UTC {
			t.Errorf("have %s, want an event %s", line, want[i].typ)
		}
		if !strings.HasPrefix(line, `{"time":"`) || !strings.HasSuffix(line, `,"event":`+want[i].event+"}\n") {
			t.Errorf("have %s, want the event %s", line, want[i].event)
		}
	}
	if l.stderr.Len() > 0 {
		t.Errorf("sub says %q", l.stderr.String())
	}
}

func TestSubTypes(t *testing.T) {
	url := ownURL()
	both := listen(t, "-url", url, "-n", "3", "Ping", "Pong", "Ping")
	one := listen(t, "-url", url, "Pong", "-n", "1")
	star := listen(t, "-url", url, "-n", "4", "Ping", "*")
	for _, name := range []string{"Ping", "Pang", "Pong", "Ping"} {
		mustCall(t, "", "pub", "-url", url, name)
	}
	for l, want := range map[*listener]string{
		both: `{"type":"Ping"} {"type":"Pong"} {"type":"Ping"}`,
		one:  `{"type":"Pong"}`,
		star: `{"type":"Ping"} {"type":"Pang"} {"type":"Pong"} {"type":"Ping"}`,
	} {
		if got := strings.Join(events(t, l.rest(t)), " "); got != want {
			t.Errorf("have %s, want %s", got, want)
		}
	}
}

func TestSubForSomeTime(t *testing.T) {
	if code, stdout, stderr := call("", "sub", "-for", "1ms", "-url", ownURL()); code != exitOK || stdout != "" || stderr != "" {
		t.Errorf("status %d, output %q, errors %q", code, stdout, stderr)
	}
}

func TestSubWarns(t *testing.T) {
	url := ownURL()
	l := listen(t, "-url", url, "-n", "1")
	conn, err := net.Dial("udp4", strings.TrimPrefix(url, "udp://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, datagram := range []string{
		`{"channel":"autobus::Evil\u001b[2J","data":"{"}`,
		`{"channel":"autobus::Ping","data":"{\"type\":\"Pong\"}"}`,
	} {
		if _, err := conn.Write([]byte(datagram)); err != nil {
			t.Fatal(err)
		}
	}
	mustCall(t, "", "pub", "-url", url, "Ping")
	l.rest(t)
	for _, want := range []string{"warning: 1 message dropped: not what", "warning: 1 message dropped: their type"} {
		if !strings.Contains(l.stderr.String(), want) {
			t.Errorf("sub says %q, want %q", l.stderr.String(), want)
		}
	}
	if strings.Contains(l.stderr.String(), "\x1b") {
		t.Errorf("an escape sequence came through: %q", l.stderr.String())
	}
}

func TestPubLines(t *testing.T) {
	url := ownURL()
	l := listen(t, "-url", url, "-n", "5")
	mustCall(t, "{\"n\":1}\r\n\n  \n{\"n\":2}", "pub", "-url", url, "Ping", "-")
	mustCall(t, `{"n":3}`, "pub", "-url", url, "Ping")
	code, _, stderr := call("{\"n\":4}\n\n{\"n\":\n{\"n\":5}\n", "pub", "-url", url, "Ping")
	if code != exitError || !strings.Contains(stderr, "line 3: event Ping: ") {
		t.Errorf("status %d, errors %q", code, stderr)
	}
	mustCall(t, "not read", "pub", "-url", url, "Ping", `{"n":6}`)
	want := `{"type":"Ping","n":1} {"type":"Ping","n":2} {"type":"Ping","n":3} {"type":"Ping","n":4} {"type":"Ping","n":6}`
	if got := strings.Join(events(t, l.rest(t)), " "); got != want {
		t.Errorf("have %s, want %s", got, want)
	}
}

// TestPubManyLines is more than the backlog holds.
func TestPubManyLines(t *testing.T) {
	url := "mem://" + t.Name()
	ctx := deadline(t)
	bus := &autobus.Bus{URL: url}
	const n, size = 200, 100 << 10 // 20 MiB, and 8 MiB is the limit
	count, done := 0, make(chan struct{})
	bus.SubscribeRaw("Ping", func(context.Context, autobus.Raw) error {
		if count++; count == n {
			close(done)
		}
		return nil
	}, autobus.Queue(1, autobus.Block))
	if err := bus.Start(ctx); err != nil {
		t.Fatal(err)
	}
	defer bus.Stop(ctx)
	var stderr bytes.Buffer
	pub := newTool(strings.NewReader(strings.Repeat(`{"x":"`+strings.Repeat("x", size)+"\"}\n", n)), nil, &stderr)
	pub.inProcess = true
	if code := pub.main([]string{"pub", "-url", url, "Ping"}); code != exitOK || stderr.Len() > 0 {
		t.Fatalf("status %d, errors %q", code, stderr.String())
	}
	select {
	case <-done:
	case <-ctx.Done():
		t.Fatalf("%d of %d events came: %+v", count, n, bus.Stats())
	}
}

func TestReplay(t *testing.T) {
	url := ownURL()
	recorder := listen(t, "-url", url, "-namespace", "a", "-n", "2")
	mustCall(t, "", "pub", "-url", url, "-namespace", "a", "Ping", `{"f":Infinity}`)
	mustCall(t, "", "pub", "-url", url, "-namespace", "a", "Pong")
	record := recorder.rest(t)

	player := listen(t, "-url", url, "-namespace", "b", "-n", "4")
	mustCall(t, strings.Join(record, ""), "pub", "-url", url, "-namespace", "b")
	mustCall(t, strings.Join(record, "\n"), "pub", "-url", url, "-namespace", "b", "-")
	again := events(t, player.rest(t))
	if want := slices.Repeat(events(t, record), 2); !slices.Equal(again, want) {
		t.Errorf("have %q, want %q", again, want)
	}

	for _, line := range []string{`{"id":1}`, `{"type":"Ping","id":1}`, `{"event":{}}`, `{"type":"a:b","event":{}}`, `{"type":"Ping","event":[]}`, `[]`} {
		code, _, stderr := call(line, "pub", "-url", url)
		if code != exitError || !strings.Contains(stderr, "line 1: ") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: status %d, errors %q", line, code, stderr)
		}
	}
}

func TestWriteError(t *testing.T) {
	url := ownURL()
	for _, c := range []struct {
		err  error
		code int
		text string
	}{
		{io.ErrClosedPipe, exitOK, ""},
		{io.ErrShortWrite, exitError, "autobus: write: short write\n"},
		{&os.PathError{Op: "write", Path: "/dev/stdout", Err: errors.New("no space")}, exitError, "autobus: write /dev/stdout: no space\n"},
	} {
		var stderr bytes.Buffer
		sub := newTool(nil, failingWriter{c.err}, &stderr)
		sub.started = func() { mustCall(t, "", "pub", "-url", url, "Ping") }
		if code := sub.main([]string{"sub", "-url", url}); code != c.code || stderr.String() != c.text {
			t.Errorf("%v: status %d, errors %q", c.err, code, stderr.String())
		}
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestCompact(t *testing.T) {
	for _, text := range []string{
		`{}`, " { } \n", `{"a b" : "c\" : \\" , "d" : [ 1 , 2.0e5 , null ] }`, "[\t\"\\\\\", \" \\\\\\\" \" ]\r\n", `"é 😀"`,
	} {
		var want bytes.Buffer
		if err := json.Compact(&want, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := appendCompact(nil, []byte(text)); string(got) != want.String() {
			t.Errorf("%s: have %s, want %s", text, got, want.String())
		}
	}
	if got := appendCompact(nil, []byte("[ NaN , -Infinity ]")); string(got) != "[NaN,-Infinity]" {
		t.Errorf("have %s", got)
	}
}

func TestReadable(t *testing.T) {
	noon := time.Date(2026, 1, 2, 12, 0, 0, 5e6, time.UTC)
	for _, c := range []struct{ name, json, want string }{
		{"Ping", `{"type": "Ping", "id": 1}`, `Ping  {"type":"Ping","id":1}`},
		{"Ping", "{\"a\":\"é 😀 日本 👩‍👩‍👦 می\u200cخواهم\"}", "Ping  {\"a\":\"é 😀 日本 👩‍👩‍👦 می\u200cخواهم\"}"},
		{"\x1b]0;x\a", `{}`, `\u001b]0;x\u0007  {}`},
		{"Ping", "{\"a\":\"\u007f\u0085\u009b31m\"}", `Ping  {"a":"\u007f\u0085\u009b31m"}`},
		{"Ping", "{\"a\":\"\u202etxt.exe\u202c\u2066\u061c\u200f\"}", `Ping  {"a":"\u202etxt.exe\u202c\u2066\u061c\u200f"}`},
		{"Ping", "{\"a\":\"\u2028\u2029\ufeff\u00ad\"}", `Ping  {"a":"\u2028\u2029\ufeff\u00ad"}`},
		{"Ping", "{\"a\":\"\U000e0041\"}", `Ping  {"a":"\udb40\udc41"}`},
	} {
		got := string(appendReadable(nil, noon, autobus.Raw{Name: c.name, JSON: []byte(c.json)}))
		if want := "12:00:00.005  " + c.want + "\n"; got != want {
			t.Errorf("have %q, want %q", got, want)
		}
	}
	escaped := appendPrintable(nil, "\"\u009b\U000e0041\u202e\"")
	var back string
	if err := json.Unmarshal(escaped, &back); err != nil || back != "\u009b\U000e0041\u202e" {
		t.Errorf("%s is %q in JSON: %v", escaped, back, err)
	}
}

func TestIsTerminal(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, v := range []any{null, file, r, w, new(bytes.Buffer), nil} {
		if isTerminal(v) {
			t.Errorf("%v is taken for a terminal", v)
		}
	}
	for v, want := range map[any]bool{null: false, file: true, r: true, nil: false} {
		if isStream(v) != want {
			t.Errorf("isStream(%v) is %v", v, !want)
		}
	}
}

// program is the program as a process.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(deadline(t), self, args...)
	// The race detector would wait for a second at the end of each process.
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.WaitDelay = patience
	return cmd
}

func TestDemo(t *testing.T) {
	var stderr bytes.Buffer
	url := ownURL()
	cmd := program(t, "demo", "-url", url)
	cmd.Stderr = &stderr
	began := time.Now()
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
	t.Logf("it took %v, and 5 s are promised", time.Since(began))
	for _, want := range []string{
		": go run ./cmd/autobus sub -namespace demo -url " + url + "\n", // a test is built in a go-build folder
		"publishes Ping 1\n", "hears Ping 5, and publishes Pong 5\n", "hears Pong 5, ",
		"It works: 5 of 5 Pings crossed to the other process, and 5 Pongs back",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}

func TestDemoWithoutMulticast(t *testing.T) {
	var stderr bytes.Buffer
	cmd := program(t, "demo", "-url", ownURL()+"?loopback=0")
	cmd.Stderr = &stderr
	began := time.Now()
	out, _ := cmd.Output()
	t.Logf("it took %v, and 5 s are promised", time.Since(began))
	if code := cmd.ProcessState.ExitCode(); code != exitError {
		t.Errorf("status %d", code)
	}
	for _, want := range []string{"hears nothing", "None of 3 Pings crossed", "What was found here:\n", "The URL has loopback=0", "What to check:", "firewall"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is missing in\n%s%s", want, out, stderr.String())
		}
	}
}

// publishUntil publishes on a bus, again and again since nobody knows when a
// subscriber in another process is there, until done is closed.
func publishUntil(t *testing.T, url string, done <-chan struct{}) {
	t.Helper()
	bus := &autobus.Bus{URL: url}
	ctx := deadline(t)
	if err := bus.Start(ctx); err != nil {
		t.Fatal(err)
	}
	defer bus.Stop(ctx)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := bus.Publish(autobus.Raw{Name: "Ping"}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
			return
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("nobody hears")
		}
	}
}

func TestListenIn(t *testing.T) {
	const hash = "/tmp/cache/3f/3f00000000000000000000000000000000000000000000000000000000000000-d/autobus"
	for _, c := range []struct{ program, url, namespace, want string }{
		{"autobus", autobus.DefaultURL, "demo", "autobus sub -namespace demo"},
		{"./autobus", "udp://239.1.1.1:5000", "demo", "./autobus sub -namespace demo -url udp://239.1.1.1:5000"},
		{"/opt/my tools/autobus", autobus.DefaultURL, "it's", `'/opt/my tools/autobus' sub -namespace 'it'\''s'`},
		{"/tmp/go-build12/b001/exe/autobus", autobus.DefaultURL, "demo", "go run ./cmd/autobus sub -namespace demo"},
		{"/root/.cache/go-build/3f/3f-d/autobus", autobus.DefaultURL, "demo", "go run ./cmd/autobus sub -namespace demo"},
		{hash, "udp://239.1.1.1?ttl=1&rcvbuf=1", "a\x1bb", `go run ./cmd/autobus sub -namespace 'a\u001bb' -url 'udp://239.1.1.1?ttl=1&rcvbuf=1'`},
		{"autobus", "redis://:secret@host", "demo", "autobus sub -namespace demo -url redis://:xxxxx@host"},
		{"autobus", "redis://me:se%zz@cr:et@a,b:2/1", "demo", "autobus sub -namespace demo -url redis://me:xxxxx@a,b:2/1"},
		{"autobus", "rediss://host?password=secret&db=1&pass%77ord=secret", "demo", "autobus sub -namespace demo -url 'rediss://host?password=xxxxx&db=1&pass%77ord=xxxxx'"},
		{"autobus", "redis+sentinel://s/m?sentinel_password=secret", "demo", "autobus sub -namespace demo -url 'redis+sentinel://s/m?sentinel_password=xxxxx'"},
		{"autobus", "unix://:secret@/run/redis.sock", "demo", "autobus sub -namespace demo -url unix://:xxxxx@/run/redis.sock"},
	} {
		d := &tool{url: c.url, namespace: c.namespace}
		if got := d.listenIn(c.program); got != c.want {
			t.Errorf("have %s, want %s", got, c.want)
		}
	}
}

func TestAdvice(t *testing.T) {
	lo := net.Interface{Name: "lo", Flags: net.FlagUp | net.FlagLoopback}
	eth0 := net.Interface{Name: "eth0", Flags: net.FlagUp | net.FlagMulticast}
	tun0 := net.Interface{Name: "tun0", Flags: net.FlagUp}
	down := net.Interface{Name: "eth1", Flags: net.FlagMulticast}
	for _, c := range []struct {
		url        string
		interfaces []net.Interface
		want       []string
		not        []string
	}{
		{autobus.DefaultURL, nil, []string{"No network interface is up, not even loopback", "port 5000, and IGMP", "-url 'udp://239.255.0.1:5000?interface=NAME'"}, []string{"loopback=0", "another transport"}},
		{autobus.DefaultURL, []net.Interface{lo, down}, []string{"No network interface but loopback is up"}, []string{"eth1"}},
		{autobus.DefaultURL, []net.Interface{tun0}, []string{"No network interface that is up can do multicast"}, []string{"tun0"}},
		{"udp://239.1.1.1:7000", []net.Interface{lo, eth0, tun0, down}, []string{"Up, and able to do multicast: eth0.", "port 7000", "-url 'udp://239.1.1.1:7000?interface=NAME'"}, []string{"loopback", "5000"}},
		{"udp://[ff02::1]:7000?loopback=false", []net.Interface{lo, eth0}, []string{"The URL has loopback=false", "-url 'udp://[ff02::1]:7000?interface=NAME'"}, nil},
		{"redis://host", []net.Interface{lo, eth0}, []string{"The server was reached", "ACL"}, []string{"multicast", "eth0", "udp://", "several hosts"}},
		{"rediss://a,b", nil, []string{"several hosts"}, []string{"multicast"}},
	} {
		text := advice(c.url, c.interfaces)
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s %v: %q is missing in\n%s", c.url, c.interfaces, want, text)
			}
		}
		for _, not := range c.not {
			if strings.Contains(text, not) {
				t.Errorf("%s %v: %q is in\n%s", c.url, c.interfaces, not, text)
			}
		}
	}
}
