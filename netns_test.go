//go:build linux

package autobus

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// These tests run hosts: network namespaces, joined by veth pairs as if by
// cables, with this test binary as the program on each.

// hostProgram is what runs on a host. It does as the lines on its standard
// input say:
//
//	start URL    start a transport
//	send TEXT    send TEXT
//	batch TEXTS  send what stands between bars, A|B|C, at once
//	stats        say what the transport has counted
//
// and writes a line for each of them, for each message it hears, and for what
// is logged.
func hostProgram() int {
	say := make(hostLog, 1)
	say <- os.Stdout
	var m *multicast
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		verb, rest, _ := strings.Cut(in.Text(), " ")
		var err error
		switch verb {
		case "start":
			if m, err = newMulticast(rest); err != nil {
				break
			}
			m.Subscribe("c")
			err = m.Start(context.Background(), func(_ context.Context, _, payload []byte) {
				say.line("heard", string(payload))
			}, say)
		case "send":
			_, err = m.Send(context.Background(), []Message{{"c", []byte(rest)}})
		case "batch":
			var messages []Message
			for text := range strings.SplitSeq(rest, "|") {
				messages = append(messages, Message{"c", []byte(text)})
			}
			_, err = m.Send(context.Background(), messages)
		case "stats":
			var s Stats
			m.AddStats(&s)
			say.line("stats", "lost", s.Lost, "duplicates", s.Duplicates, "malformed", s.DroppedMalformed)
		}
		if err != nil {
			say.line("error", err)
		} else {
			say.line("done", verb)
		}
	}
	if m != nil {
		if err := m.Close(); err != nil {
			say.line("error", err)
		}
	}
	return 0
}

func init() { roles["host"] = hostProgram }

// hostLog is a Logger that writes lines; it holds the place to write to.
type hostLog chan io.Writer

func (h hostLog) line(args ...any) {
	w := <-h
	fmt.Fprintln(w, args...)
	h <- w
}

func (h hostLog) Debug(msg string, args ...any) { h.line(append([]any{"log", msg}, args...)...) }
func (h hostLog) Info(msg string, args ...any)  { h.Debug(msg, args...) }
func (h hostLog) Warn(msg string, args ...any)  { h.Debug(msg, args...) }
func (h hostLog) Error(msg string, args ...any) { h.Debug(msg, args...) }

var hostsMade atomic.Int32

// needHosts ends the test where there can't be any.
func needHosts(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		missing(t, "network namespaces need iproute2: "+err.Error())
	}
	t.Parallel()
}

// newHost makes a host with nothing but loopback.
func newHost(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("autobus-%d-%d", os.Getpid(), hostsMade.Add(1))
	ip(t, "netns", "add", name)
	t.Cleanup(func() { ip(t, "netns", "del", name) })
	ip(t, "-n", name, "link", "set", "lo", "up")
	return name
}

// ip runs iproute2's ip.
func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// on runs ip on a host.
func on(t *testing.T, host, command string) {
	t.Helper()
	ip(t, append([]string{"-n", host}, strings.Fields(command)...)...)
}

// cable joins two hosts: card at a gets 10.0.net.1, card at b 10.0.net.2.
func cable(t *testing.T, a, cardA, b, cardB string, net int) {
	t.Helper()
	ip(t, "link", "add", cardA, "netns", a, "type", "veth", "peer", "name", cardB, "netns", b)
	on(t, a, fmt.Sprintf("addr add 10.0.%d.1/24 dev %s", net, cardA))
	on(t, b, fmt.Sprintf("addr add 10.0.%d.2/24 dev %s", net, cardB))
	on(t, a, "link set "+cardA+" up")
	on(t, b, "link set "+cardB+" up")
}

// A program is one that runs on a host.
type program struct {
	t    *testing.T
	name string
	to   io.Writer

	mu    sync.Mutex // guards lines and ended
	lines []string
	ended bool
	more  chan struct{} // has room for one; told when there are more lines
}

// run starts a program with a transport on a host.
func run(t *testing.T, host, url string) *program {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", host, exe)
	cmd.Env = append(os.Environ(), "AUTOBUS_TEST_ROLE=host")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, name: host + " " + url, to: stdin, more: make(chan struct{}, 1)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for in := bufio.NewScanner(stdout); in.Scan(); {
			p.add(in.Text())
		}
		p.add("")
	}()
	t.Cleanup(func() {
		stdin.Close()
		select {
		case <-read:
		case <-time.After(patience):
			t.Error(p.name, "doesn't end")
			cmd.Process.Kill()
		}
		if err := cmd.Wait(); err != nil {
			t.Error(p.name, err)
		}
		if t.Failed() {
			t.Logf("%s:%s", p.name, p.story())
		}
	})
	p.do("start " + url)
	return p
}

// story returns the last lines, the dull ones left out.
func (p *program) story() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	story, left := "", 40
	for _, line := range slices.Backward(p.lines) {
		if left--; left == 0 {
			break
		}
		if line != "done send" {
			story = fmt.Sprintf("\n\t%.150s", line) + story
		}
	}
	return story
}

// add adds a line, or the end.
func (p *program) add(line string) {
	p.mu.Lock()
	if line == "" {
		p.ended = true
	} else {
		p.lines = append(p.lines, line)
	}
	p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
}

// since returns the lines from the from-th on that begin with start.
func (p *program) since(from int, start string) (found []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.lines[from:] {
		if strings.HasPrefix(line, start) {
			found = append(found, line)
		}
	}
	return found
}

func (p *program) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lines)
}

// wait waits for a line that begins with start, among the from-th and later.
func (p *program) wait(from int, start string) string {
	p.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		if found := p.since(from, start); len(found) > 0 {
			return found[0]
		}
		p.mu.Lock()
		ended := p.ended
		p.mu.Unlock()
		if ended {
			p.t.Fatalf("%s ended instead of saying %q", p.name, start)
		}
		select {
		case <-p.more:
		case <-timeout.C:
			p.t.Fatalf("%s doesn't say %q", p.name, start)
		}
	}
}

// do has the program do as the line says.
func (p *program) do(line string) {
	p.t.Helper()
	if err := p.try(line); err != "" {
		p.t.Fatalf("%s: %s: %s", p.name, line, err)
	}
}

// try is do for what may fail.
func (p *program) try(line string) (problem string) {
	p.t.Helper()
	from := p.count()
	if _, err := fmt.Fprintln(p.to, line); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		if errors := p.since(from, "error "); len(errors) > 0 {
			return errors[0]
		}
		if len(p.since(from, "done ")) > 0 {
			return ""
		}
		select {
		case <-p.more:
		case <-timeout.C:
			p.t.Fatalf("%s doesn't say what became of %q", p.name, line)
		}
	}
}

// reaches says something at p again and again until each of the others hears
// it: a link takes its time to come up, and what is sent meanwhile is lost.
func (p *program) reaches(others ...*program) {
	p.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	text := fmt.Sprint("hello ", hostsMade.Add(1))
	var from []int
	for _, other := range others {
		from = append(from, other.count())
	}
	problem := ""
	for {
		if err := p.try("send " + text); err != "" {
			problem = err
		}
		deaf := ""
		for i, other := range others {
			if len(other.since(from[i], "heard "+text)) == 0 {
				deaf = other.name
			}
		}
		if deaf == "" {
			return
		}
		select {
		case <-again.C:
		case <-timeout.C:
			p.t.Fatalf("%s isn't heard by %s %s", p.name, deaf, problem)
		}
	}
}

// once checks that what p says, one by one and in a batch, is heard by the
// others exactly once, also when as many copies as given have come.
func (p *program) once(copies int, others ...*program) {
	p.t.Helper()
	texts := make([]string, 10)
	var from []int
	var before []int
	for _, other := range others {
		from = append(from, other.count())
		before = append(before, other.duplicates())
	}
	for i := range texts {
		texts[i] = fmt.Sprint("once ", hostsMade.Add(1), " ", strings.Repeat("x", 100*i))
		if i < 5 {
			p.do("send " + texts[i])
		}
	}
	p.do("batch " + strings.Join(texts[5:], "|"))
	for i, other := range others {
		for _, text := range texts {
			other.wait(from[i], "heard "+text)
		}
		other.waitDuplicates(before[i] + copies*len(texts))
		for _, text := range texts {
			if got := other.since(from[i], "heard "+text); len(got) != 1 {
				p.t.Errorf("%s heard %q %d times", other.name, text, len(got))
			}
		}
	}
}

func (p *program) duplicates() (n int) {
	p.t.Helper()
	from := p.count()
	p.do("stats")
	line := p.wait(from, "stats ")
	var lost, malformed int
	if _, err := fmt.Sscanf(line, "stats lost %d duplicates %d malformed %d", &lost, &n, &malformed); err != nil || malformed != 0 {
		p.t.Fatalf("%s: %s %v", p.name, line, err)
	}
	return n
}

func (p *program) waitDuplicates(want int) {
	p.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		n := p.duplicates()
		if n >= want { // more, if copies of what was said before came late
			return
		}
		select {
		case <-timeout.C:
			p.t.Fatalf("%s counts %d copies, want %d", p.name, n, want)
		case <-again.C: // no line tells of a copy
		}
	}
}

const hostsURL = "udp://239.255.0.1:5000"

// With a route, as Python needs it.
func TestHostsWithARoute(t *testing.T) {
	needHosts(t)
	a, b := newHost(t), newHost(t)
	cable(t, a, "card0", b, "card0", 1)
	on(t, a, "route add default via 10.0.1.2")
	on(t, b, "route add default via 10.0.1.1")
	pa, pb := run(t, a, hostsURL), run(t, b, hostsURL)
	pa.reaches(pb, pa)
	pb.reaches(pa, pb)
	pa.once(0, pa, pb)
	large := strings.Repeat("x", 60000) // in many fragments
	pb.do("send " + large)
	pa.wait(0, "heard "+large)
}

// With an address on the link and no default route, a plain send says that
// the network is unreachable.
func TestHostsWithoutARoute(t *testing.T) {
	needHosts(t)
	a, b := newHost(t), newHost(t)
	cable(t, a, "card0", b, "card0", 1)
	pa, pb := run(t, a, hostsURL), run(t, b, hostsURL)
	pa.reaches(pb, pa)
	pb.reaches(pa, pb)
	pa.once(0, pa, pb)
	if log := pa.since(0, "log autobus: no route to the group"); len(log) == 0 {
		t.Error("a has a route")
	}
}

func TestHostWithTwoCards(t *testing.T) {
	needHosts(t)
	left, middle, right := newHost(t), newHost(t), newHost(t)
	cable(t, left, "card0", middle, "card0", 1)
	cable(t, right, "card0", middle, "card1", 2)
	on(t, middle, "route add default via 10.0.1.1")
	pl, pm, pr := run(t, left, hostsURL), run(t, middle, hostsURL), run(t, right, hostsURL)
	pl.reaches(pm)
	pr.reaches(pm)
	pl.once(0, pm)
	pr.once(0, pm)
	// It sends by its routing table, to the left.
	pm.do("send from the middle")
	pl.wait(0, "heard from the middle")
	run(t, middle, hostsURL+"?interface=card1").reaches(pr)
	if heard := pr.since(0, "heard from the middle"); len(heard) > 0 {
		t.Errorf("the right heard %q", heard)
	}
}

func TestHostCardComesUpLater(t *testing.T) {
	needHosts(t)
	a, b := newHost(t), newHost(t)
	pa := run(t, a, hostsURL)
	pa.reaches(pa) // with loopback alone
	cable(t, a, "card0", b, "card0", 1)
	pb := run(t, b, hostsURL)
	pb.reaches(pa)
	pa.reaches(pb)
	pa.once(0, pb, pa)

	// A second one, there but down and without an address at first.
	ip(t, "link", "add", "card1", "netns", a, "type", "veth", "peer", "name", "card1", "netns", b)
	on(t, b, "addr add 10.0.2.2/24 dev card1")
	on(t, b, "link set card1 up")
	only := run(t, b, hostsURL+"?interface=card1")
	on(t, a, "addr add 10.0.2.1/24 dev card1")
	on(t, a, "link set card1 up")
	only.reaches(pa)
	pa.reaches(only)
	pb.wait(0, "log autobus: joined the group interface card1")
	pa.once(1, pb)
}

func TestHostCardGoesDownAndUp(t *testing.T) {
	needHosts(t)
	a, b := newHost(t), newHost(t)
	cable(t, a, "card0", b, "card0", 1)
	pa, pb := run(t, a, hostsURL), run(t, b, hostsURL)
	pa.reaches(pb)
	from := pb.count()
	on(t, b, "link set card0 down")
	pb.wait(from, "log autobus: left the group interface card0")
	pb.reaches(pb) // by loopback
	on(t, b, "link set card0 up")
	pb.wait(from, "log autobus: joined the group interface card0")
	pa.reaches(pb)
	pb.reaches(pa)

	// So quickly that nobody sees it.
	on(t, b, "link set card0 down")
	on(t, b, "link set card0 up")
	pa.reaches(pb)
	pb.reaches(pa)

	// And with another address, as a DHCP server may have it.
	on(t, b, "addr flush dev card0")
	on(t, b, "addr add 10.0.1.77/24 dev card0")
	pa.reaches(pb)
	pb.reaches(pa)
}

func TestHostCardIsMadeAnew(t *testing.T) {
	needHosts(t)
	a, b := newHost(t), newHost(t)
	cable(t, a, "card0", b, "card0", 1)
	pa, pb := run(t, a, hostsURL+"?interface=card0"), run(t, b, hostsURL)
	pa.reaches(pb)
	on(t, b, "link del card0") // and its peer with it
	cable(t, a, "card0", b, "card0", 1)
	pa.reaches(pb)
	pb.reaches(pa)
}

func TestHostWithLoopbackAlone(t *testing.T) {
	needHosts(t)
	a := newHost(t)
	one, two := run(t, a, hostsURL), run(t, a, hostsURL)
	one.reaches(two, one)
	two.once(0, one, two)

	// For IPv6, Linux needs to be told.
	const group6 = "udp://[ff05::a0b:1]:5000"
	six := run(t, a, group6)
	if problem := six.try("send hello"); !strings.Contains(problem, "ip -6 route add local ff00::/8 dev lo") {
		t.Errorf("the problem with IPv6 is %q", problem)
	}
	on(t, a, "-6 route add local ff00::/8 dev lo")
	run(t, a, group6).reaches(six)
}

// A second link between the same hosts gives no message twice, whether the
// first one is the way to the group or both are.
func TestHostsWithTwoLinks(t *testing.T) {
	needHosts(t)
	a, b := newHost(t), newHost(t)
	cable(t, a, "card0", b, "card0", 1)
	cable(t, a, "card1", b, "card1", 2)
	on(t, a, "route add default via 10.0.1.2")
	pa, pb := run(t, a, hostsURL), run(t, b, hostsURL)
	pa.reaches(pb)
	pb.reaches(pa)
	pa.once(0, pb, pa)
	pb.once(1, pa, pb)
}

// interface= chooses the link to send on, and the one to listen on.
func TestHostChoosesInterface(t *testing.T) {
	needHosts(t)
	a, b := newHost(t), newHost(t)
	cable(t, a, "card0", b, "card0", 1)
	cable(t, a, "card1", b, "card1", 2)
	on(t, a, "route add default via 10.0.1.2") // which doesn't matter
	on(t, b, "route add default via 10.0.1.1")
	var at, to [2]*program
	for i := range 2 {
		url := fmt.Sprintf("%s?interface=card%d", hostsURL, i)
		at[i], to[i] = run(t, a, url), run(t, b, url)
	}
	both := run(t, b, hostsURL+"?interface=card0,card1")
	for i := range 2 {
		at[i].reaches(to[i], both)
		to[i].reaches(at[i])
		from := to[1-i].count()
		for n := range 5 {
			at[i].do(fmt.Sprint("send by card", i, " ", n))
		}
		at[1-i].do("send by the other card")
		to[1-i].wait(from, "heard by the other card")
		if heard := to[1-i].since(from, fmt.Sprint("heard by card", i)); len(heard) > 0 {
			t.Errorf("what left by card%d was heard on card%d: %q", i, 1-i, heard)
		}
		both.wait(0, fmt.Sprint("heard by card", i, " 4"))
	}
	both.reaches(at[0], at[1])

	// Its own card is waited for.
	on(t, b, "link set card0 down")
	late := run(t, b, hostsURL+"?interface=card0")
	late.wait(0, "log autobus: no network interface is up that can receive from the multicast group")
	on(t, b, "link set card0 up")
	at[0].reaches(late)
	late.reaches(at[0])
}

func TestHostsOtherGroup(t *testing.T) {
	needHosts(t)
	a, b := newHost(t), newHost(t)
	cable(t, a, "card0", b, "card0", 1)
	const other = "udp://239.255.0.2:5000"
	pa, pb := run(t, a, hostsURL), run(t, b, hostsURL)
	otherA, otherB := run(t, a, other), run(t, b, other)
	otherA.reaches(otherB)
	pa.reaches(pb)
	otherA.do("send to the other group")
	otherB.wait(0, "heard to the other group")
	pa.do("send the last one")
	pb.wait(0, "heard the last one")
	pa.wait(0, "heard the last one")
	for _, p := range []*program{pa, pb} {
		if heard := p.since(0, "heard to the other group"); len(heard) > 0 {
			t.Errorf("%s heard another group", p.name)
		}
	}
}

// A socket joins no more than 20 groups unless the system is told otherwise.
// The cards of a host full of containers mustn't take those from the real one.
func TestHostWithManyCards(t *testing.T) {
	needHosts(t)
	a, b := newHost(t), newHost(t)
	for i := range 30 {
		on(t, b, fmt.Sprintf("link add container%d type veth peer name inside%d", i, i))
		on(t, b, fmt.Sprintf("link set container%d up", i))
	}
	cable(t, a, "card0", b, "card0", 1)
	pa, pb := run(t, a, hostsURL), run(t, b, hostsURL)
	pa.reaches(pb)
	pb.reaches(pa)
}

func TestHostsIPv6(t *testing.T) {
	needHosts(t)
	a, b := newHost(t), newHost(t)
	cable(t, a, "card0", b, "card0", 1)
	cable(t, a, "card1", b, "card1", 2)
	for _, url := range []string{"udp://[ff02::a0b:1]:5001", "udp://[ff05::a0b:1]:5002", "udp://[ff02::a0b:1%25card1]:5003"} {
		pa, pb := run(t, a, url), run(t, b, url)
		pa.reaches(pb, pa)
		pb.reaches(pa, pb)
	}
}

// A batch on a link with larger packets than usual, and on one with smaller
// ones: none of it is split, and none is lost.
func TestHostsWithOddLinks(t *testing.T) {
	needHosts(t)
	for net, mtu := range []string{"9000", "600"} {
		for _, route := range []bool{true, false} {
			a, b := newHost(t), newHost(t)
			cable(t, a, "card0", b, "card0", net)
			on(t, a, "link set card0 mtu "+mtu)
			on(t, b, "link set card0 mtu "+mtu)
			if route {
				on(t, a, fmt.Sprintf("route add default via 10.0.%d.2", net))
			}
			pa, pb := run(t, a, hostsURL), run(t, b, hostsURL)
			pa.reaches(pb)
			var texts []string
			for i := range 100 {
				texts = append(texts, fmt.Sprint("odd ", i, " ", strings.Repeat("x", 7*i)))
			}
			from := pb.count()
			pa.do("batch " + strings.Join(texts, "|"))
			pb.wait(from, "heard "+texts[99])
			for i, got := range pb.since(from, "heard odd") {
				if i >= len(texts) || got != "heard "+texts[i] {
					t.Fatalf("heard %.20q as number %d", got, i)
				}
			}
			if refused := pa.since(0, "log autobus: the system refuses"); len(refused) > 0 {
				t.Error(refused)
			}
		}
	}
}
