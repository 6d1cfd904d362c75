package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/autobus-go/autobus"
)

const (
	demoPeer      = "demo-peer" // the command of the second process
	demoNamespace = "demo"      // spares programs with a Ping of their own this one
	demoEvents    = 5
	demoPause     = 150 * time.Millisecond // between events, for the eye
	demoPatience  = time.Second            // for an answer
	demoTime      = 4 * time.Second        // for everything but the end of the second process
)

// ping and pong are the events of the demo. Run keeps demos on one network
// apart.
type ping struct {
	Run    string
	Number int
	From   int
}

func (ping) Type() string { return "Ping" }

func (p ping) Marshal(e *autobus.Encoder) {
	e.Key("run").String(p.Run)
	e.Key("number").Int(p.Number)
	e.Key("from").Int(p.From)
}

func (p *ping) Unmarshal(d *autobus.Decoder) error {
	for key := range d.Fields() {
		switch key {
		case "run":
			p.Run = d.String()
		case "number":
			p.Number = d.Int()
		case "from":
			p.From = d.Int()
		}
	}
	return d.Err()
}

type pong struct{ ping }

func (pong) Type() string { return "Pong" }

// demo starts the program a second time, and has the two exchange events.
func (t *tool) demo(ctx context.Context, args []string) error {
	if len(args) > 0 {
		return usagef("demo takes no argument, but here is %s", quoteArg(args[0]))
	}
	if t.namespace == "" {
		t.namespace = demoNamespace
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, demoTime)
	defer cancel()

	d := &demo{tool: t, run: rand.Text(), pid: os.Getpid(), pongs: make(chan demoPong, demoEvents), own: make(chan int, demoEvents)}
	bus := t.bus()
	autobus.SubscribeOn(bus, func(_ context.Context, p pong) error {
		if p.Run == d.run {
			offer(d.pongs, demoPong{p.Number, time.Now()})
		}
		return nil
	})
	autobus.SubscribeOn(bus, func(_ context.Context, p ping) error {
		if p.Run == d.run {
			offer(d.own, p.Number)
		}
		return nil
	})
	if err := t.start(ctx, bus); err != nil {
		return err
	}
	fmt.Fprintf(t.stdout, "Two processes, one bus: %s, namespace %q.\n", t.shownURL(), t.namespace)
	fmt.Fprintf(t.stdout, "To listen in, run this in another terminal: %s\n\n", t.listenIn(os.Args[0]))
	d.say(d.pid, "is this process")

	err := d.exchange(ctx, bus)
	stopping, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	if stopErr := bus.Stop(stopping); err == nil {
		err = stopErr
	}
	if err != nil {
		return err
	}
	t.warn(bus.Stats())
	return d.sum(ctx, time.Since(began))
}

// listenIn is the command that shows what goes on in the demo, for the shell.
func (t *tool) listenIn(program string) string {
	if builtByRun.MatchString(filepath.ToSlash(program)) {
		program = "go run ./cmd/autobus"
	} else {
		program = quoteShell(program)
	}
	line := program + " sub -namespace " + quoteShell(t.namespace)
	if t.url != autobus.DefaultURL {
		line += " -url " + quoteShell(t.shownURL())
	}
	return line
}

// builtByRun matches where "go run" leaves a program: below a go-build folder,
// or wherever the build cache is, in one named by a hash.
var builtByRun = regexp.MustCompile(`/go-build|/[0-9a-f]{64}-d/[^/]*$`)

// quoteShell is s as one word of a POSIX shell.
func quoteShell(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("+,-./:=@_%", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) {
		s = "'" + strings.ReplaceAll(string(appendPrintable(nil, s)), "'", `'\''`) + "'"
	}
	return s
}

// A demo is what the first process knows of it.
type demo struct {
	*tool
	run   string
	pid   int
	peer  int
	pongs chan demoPong
	own   chan int // the events that came back to this process

	sent, heard int // Pings of ours, and how many the peer heard
	trips       []time.Duration
}

type demoPong struct {
	number int
	at     time.Time
}

// offer sends v unless c is full: more than the demo sent is from somebody else.
func offer[T any](c chan<- T, v T) {
	select {
	case c <- v:
	default:
	}
}

func (d *demo) say(pid int, format string, args ...any) {
	fmt.Fprintf(d.stdout, "process %-7d %s\n", pid, fmt.Sprintf(format, args...))
}

// exchange starts the second process, and sends it events.
func (d *demo) exchange(ctx context.Context, bus *autobus.Bus) (err error) {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("autobus: demo: find this program to start it again: %w", err)
	}
	var complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, program, demoPeer, d.run)
	// The URL goes by the environment: it may hold a password, and arguments
	// are for all to see.
	cmd.Env = append(os.Environ(), "AUTOBUS_URL="+d.url, "AUTOBUS_NAMESPACE="+d.namespace)
	cmd.Stderr = &complaints
	cmd.WaitDelay = 500 * time.Millisecond
	input, err := cmd.StdinPipe() // which the peer sees closed when this process ends, however it does
	if err != nil {
		return fmt.Errorf("autobus: demo: %w", err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("autobus: demo: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("autobus: demo: start the second process: %w", err)
	}
	d.peer = cmd.Process.Pid
	heard := make(chan int, demoEvents+1)
	read := make(chan struct{})
	go func() { // waited for below
		defer close(read)
		defer close(heard)
		for scanner := bufio.NewScanner(output); scanner.Scan(); {
			if n, err := strconv.Atoi(scanner.Text()); err == nil {
				offer(heard, n)
			}
		}
	}()
	defer func() {
		input.Close()
		<-read
		if waitErr := cmd.Wait(); waitErr != nil && err == nil && ctx.Err() == nil {
			err = fmt.Errorf("autobus: demo: the second process: %w", waitErr)
		}
		if complaints.Len() > 0 {
			fmt.Fprintf(d.stderr, "process %d complains: %s\n", d.peer, bytes.TrimSpace(complaints.Bytes()))
		}
	}()

	select {
	case _, ok := <-heard: // 0: it is ready
		if !ok {
			return errors.New("autobus: demo: the second process ended before it was on the bus")
		}
	case <-ctx.Done():
		return nil
	}
	d.say(d.peer, "was started by it, and has subscribed to Ping")
	fmt.Fprintln(d.stdout)
	pause := time.NewTicker(demoPause)
	defer pause.Stop()
	for n := 1; n <= demoEvents && ctx.Err() == nil; n++ {
		if err := d.once(ctx, bus, n, heard); err != nil {
			return err
		}
		if d.sent == 3 && d.heard == 0 && len(d.trips) == 0 {
			return nil // it won't get better
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// once sends one Ping, and tells what becomes of it.
func (d *demo) once(ctx context.Context, bus *autobus.Bus, number int, heard <-chan int) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	d.say(d.pid, "publishes Ping %d", number)
	began := time.Now()
	if err := bus.Publish(ping{d.run, number, d.pid}); err != nil {
		return err
	}
	d.sent++

	// The peer tells by its output that it has heard, and by the bus that it
	// answers: whichever comes first, the story is told in order.
	var trip time.Duration
	for heardIt := false; !heardIt || trip == 0; {
		select {
		case n, ok := <-heard:
			if !ok {
				return errors.New("autobus: demo: the second process ended too early")
			}
			if n == number {
				heardIt = true
				d.heard++
				d.say(d.peer, "hears Ping %d, and publishes Pong %d", number, number)
			}
		case p := <-d.pongs:
			if p.number == number {
				trip = max(p.at.Sub(began), 1)
			}
		case <-ctx.Done():
			if heardIt {
				d.say(d.pid, "hears no Pong %d", number)
			} else {
				d.say(d.peer, "hears nothing")
			}
			return nil
		}
	}
	d.trips = append(d.trips, trip)
	d.say(d.pid, "hears Pong %d, %s after its Ping", number, milliseconds(trip))
	return nil
}

func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/1e6, 'f', 2, 64) + " ms"
}

// sum says what has crossed, or what to check if nothing has.
func (d *demo) sum(ctx context.Context, took time.Duration) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		fmt.Fprintln(d.stderr, "autobus: demo: interrupted")
		return errSilent
	}
	fmt.Fprintln(d.stdout)
	if len(d.trips) > 0 {
		least, sum := d.trips[0], time.Duration(0)
		for _, trip := range d.trips {
			least = min(least, trip)
			sum += trip
		}
		fmt.Fprintf(d.stdout, "It works: %d of %d Pings crossed to the other process, and %d Pongs back, in %.1f s.\n", d.heard, d.sent, len(d.trips), took.Seconds())
		fmt.Fprintf(d.stdout, "There and back took %s on average, %s at best.\n", milliseconds(sum/time.Duration(len(d.trips))), milliseconds(least))
		if len(d.trips) < d.sent {
			fmt.Fprintln(d.stdout, "Some were lost or late: is the machine busy, or the network?")
		}
		return nil
	}
	switch {
	case d.sent == 0:
		fmt.Fprintln(d.stdout, "The second process didn't get onto the bus in time: is the machine very busy?")
	case d.heard > 0:
		fmt.Fprintf(d.stdout, "%d of %d Pings crossed to the other process, but no answer came back.\n", d.heard, d.sent)
	case len(d.own) > 0:
		fmt.Fprintf(d.stdout, "None of %d Pings crossed, though this process heard its own.\n", d.sent)
	default:
		fmt.Fprintf(d.stdout, "None of %d Pings crossed; this process didn't hear its own either.\n", d.sent)
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		fmt.Fprintf(d.stderr, "autobus: demo: look at the network interfaces: %v\n", err)
	}
	fmt.Fprint(d.stdout, advice(d.url, interfaces))
	return errSilent
}

// advice says what to check when nothing crosses. Of multicast, it says first
// what can be seen from here.
func advice(busURL string, interfaces []net.Interface) string {
	if scheme, _, _ := strings.Cut(busURL, "://"); !strings.EqualFold(scheme, "udp") {
		text := `What to check:
  - The server was reached, but brings no events back in time: is it very busy,
    or the network slow?
  - Do its ACL rules let this user publish and subscribe to the channels
    autobus:*? Lines above that begin with "autobus:" would say so.
`
		if strings.Contains(busURL, ",") {
			text += `  - The URL has several hosts. Servers that aren't of one cluster, or one a
    replica of the other, don't pass events to one another: name one of them.
`
		}
		return text
	}
	var able []string
	up, loopback := false, false
	for _, i := range interfaces {
		switch {
		case i.Flags&net.FlagUp == 0:
		case i.Flags&net.FlagLoopback != 0:
			up, loopback = true, true
		default:
			if up = true; i.Flags&net.FlagMulticast != 0 {
				able = append(able, i.Name)
			}
		}
	}
	text := "What was found here:\n"
	group, port := "239.255.0.1", "5000"
	if u, err := url.Parse(busURL); err == nil {
		group, port = cmp.Or(u.Hostname(), group), cmp.Or(u.Port(), port)
		switch value := strings.ToLower(u.Query().Get("loopback")); value {
		case "0", "false", "no", "off":
			text += "  - The URL has loopback=" + value + ": with it, processes on one host don't hear\n    each other. Leave it out.\n"
		}
	}
	switch {
	case !up:
		text += `  - No network interface is up, not even loopback. On Linux, as root:
    "ip link set lo up", and the same for the network's.
`
	case len(able) == 0 && loopback:
		text += `  - No network interface but loopback is up and can do multicast. On Linux,
    "ip link" shows UP and MULTICAST where that is so.
`
	case len(able) == 0:
		text += `  - No network interface that is up can do multicast, and loopback is down.
    On Linux, as root: "ip link set lo up".
`
	default:
		text += "  - Up, and able to do multicast: " + strings.Join(able, ", ") + ".\n"
	}
	return text + `What to check:
  - A firewall on this machine: does it let UDP through, to port ` + port + `, and IGMP?
  - A VPN's or a container's interface often can't do multicast, though it says
    so. Choose another: -url ` + quoteShell("udp://"+net.JoinHostPort(group, port)+"?interface=NAME") + `
  - A container or virtual machine: its network may not carry multicast;
    "--network host" often helps.
  - Another program on the port that doesn't share it: try another port, as in
    -url ` + quoteShell("udp://"+net.JoinHostPort(group, "5001")) + `
`
}

// demoPeer is the second process: it answers every Ping until its standard
// input is closed, and tells the first by its output what it hears.
func (t *tool) demoPeer(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return usagef("%s is for autobus demo alone", demoPeer)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // not waited for: the process ends with it
		defer cancel()
		io.Copy(io.Discard, t.stdin)
	}()
	bus := t.bus()
	autobus.SubscribeOn(bus, func(_ context.Context, p ping) error {
		if p.Run != args[0] {
			return nil
		}
		fmt.Fprintln(t.stdout, p.Number)
		return bus.Publish(pong{ping{p.Run, p.Number, os.Getpid()}})
	})
	if err := t.start(ctx, bus); err != nil {
		return err
	}
	fmt.Fprintln(t.stdout, 0)
	<-ctx.Done()
	stopping, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	return bus.Stop(stopping)
}
