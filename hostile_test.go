package autobus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

func init() { roles["hostile"] = hostileSubscriber }

// hostileReport is what the subscriber of TestHostileNetwork says at its end.
type hostileReport struct {
	Stats      Stats
	Twice      int // good events that came again
	Resident   int // the most memory it had, in KiB
	Goroutines int // over those at its start
	Log        int // lines
}

// hostileSubscriber handles the events Good on the bus AUTOBUS_TEST_URL. It
// prints the number of each, and at the end of its input a report.
func hostileSubscriber() int {
	before := runtime.NumGoroutine()
	log := new(logLines)
	b := &Bus{URL: os.Getenv("AUTOBUS_TEST_URL"), Logger: log}
	var report hostileReport
	seen := make(map[int]bool)
	SubscribeOn(b, func(_ context.Context, e good) error {
		if seen[e.N] {
			report.Twice++
		}
		seen[e.N] = true
		fmt.Println(e.N)
		return nil
	})
	if err := b.Start(background); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("started")
	io.Copy(io.Discard, os.Stdin)
	if err := b.Stop(background); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if !goroutinesEnd(before) {
		report.Goroutines = runtime.NumGoroutine() - before
	}
	report.Stats = b.Stats()
	report.Resident = peakResident()
	report.Log = len(log.lines)
	json.NewEncoder(os.Stdout).Encode(report)
	return 0
}

// peakResident returns the most memory that this process had, in KiB; 0 where
// the system doesn't tell.
func peakResident() int {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, _ := strconv.Atoi(strings.Fields(value)[0])
			return n
		}
	}
	return 0
}

type good struct{ N int }

func (good) Type() string         { return "Good" }
func (g good) Marshal(e *Encoder) { e.Key("n").Int(g.N) }
func (g *good) Unmarshal(d *Decoder) error {
	for key := range d.Fields() {
		if key == "n" {
			g.N = d.Int()
		}
	}
	return d.Err()
}

func (g *good) Validate() error {
	if g.N < 0 {
		return fmt.Errorf("n is %d", g.N)
	}
	return nil
}

// A subscriber under a flood of garbage handles every good event, and each
// once, and stays small.
func TestHostileNetwork(t *testing.T) {
	const burst = 250 // datagrams between two good events; they fit into a receive buffer
	bursts := 100
	if wantAll && !raceEnabled {
		bursts = 4000
	}
	m := testMulticast(t, ownURL(t))
	raw := sender(t, m)

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), "AUTOBUS_TEST_ROLE=hostile",
		fmt.Sprintf("AUTOBUS_TEST_URL=udp://%s?ttl=0", m.to))
	child.Stderr = t.Output()
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Process.Kill()
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for scan := bufio.NewScanner(stdout); scan.Scan(); {
			lines <- scan.Text()
		}
	}()
	if line := await(t, lines); line != "started" {
		t.Fatalf("the subscriber says %q", line)
	}

	r := rand.New(rand.NewPCG(1, 2))
	src := [16]byte([]byte("00000000feedf00d"))
	var last string // the last good datagram
	for n := range bursts {
		for range burst {
			raw(garbage(r, last, n))
		}
		if n%10 == 0 {
			raw(strings.Repeat("[", 60000)) // one large one at a time, for the buffer's sake
			raw(`{"channel":"autobus::Good","data":"` + strings.Repeat("9", 60000) + `"}`)
		}
		last = string(appendEnvelope(nil, "autobus::Good", fmt.Appendf(nil, `{"type":"Good","n":%d}`, n), &src, uint64(n+1)))
		raw(last)
		if line := await(t, lines); line != strconv.Itoa(n) {
			t.Fatalf("the subscriber says %q, want %d", line, n)
		}
	}
	stdin.Close()
	var report hostileReport
	if err := json.Unmarshal([]byte(await(t, lines)), &report); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d datagrams: %+v", bursts*burst, report)
	s := report.Stats
	if report.Twice > 0 || s.Handled != uint64(bursts) {
		t.Errorf("%d good events handled, %d came twice; want %d, each once", s.Handled, report.Twice, bursts)
	}
	for cause, n := range map[string]uint64{"malformed": s.DroppedMalformed, "type": s.DroppedType, "invalid": s.DroppedInvalid, "duplicates": s.Duplicates} {
		if n == 0 {
			t.Errorf("nothing was counted as %s", cause)
		}
	}
	if s.DroppedOverflow+s.Failed > 0 || report.Goroutines > 0 {
		t.Errorf("%d dropped, %d failed, %d goroutines left", s.DroppedOverflow, s.Failed, report.Goroutines)
	}
	if !raceEnabled && report.Resident > 32<<10 {
		t.Errorf("%d KiB resident", report.Resident)
	}
}

// garbage returns a datagram that no handler must see.
func garbage(r *rand.Rand, good string, n int) string {
	quote := func(payload string) string {
		return string(appendQuoted(nil, payload))
	}
	envelope := func(payload, more string) string {
		return `{"channel":"autobus::Good","data":` + quote(payload) + more + `}`
	}
	switch r.IntN(14) {
	case 0: // random bytes
		b := make([]byte, r.IntN(1200))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return string(b)
	case 1: // a good one cut off
		if good != "" {
			return good[:r.IntN(len(good))]
		}
	case 2: // a good one with the wrong bytes, which can't make another good one
		if b := []byte(good); good != "" {
			b[r.IntN(len(b))] = byte(r.IntN(32))
			return string(bytes.Replace(b, []byte(`\"Good\"`), []byte(`\"Bad\"`), 1))
		}
	case 3:
		return strings.Repeat(`{"channel":`, r.IntN(100)) + strings.Repeat("[", r.IntN(1000))
	case 4: // deep payloads
		depth := 1 + r.IntN(1100)
		return envelope(`{"type":"Bad","x":`+strings.Repeat("[", depth)+strings.Repeat("]", depth)+`}`, "")
	case 5: // huge numbers
		return envelope(`{"type":"Good","n":`+strings.Repeat("9", 20+r.IntN(1000))+`}`, "")
	case 6: // envelopes that lie
		return []string{
			`{"channel":5,"data":"{}"}`, `{"channel":"autobus::Good"}`, `{"data":"{}"}`, `[]`, `null`, `{}`,
			`{"channel":"autobus::Good","data":{}}`, `{"channel":"autobus::Good","data":"{}"} x`,
		}[r.IntN(8)]
	case 7: // wrong types
		return envelope(fmt.Sprintf(`{"type":"Bad","n":%d}`, r.IntN(1000)), "")
	case 8:
		return envelope(fmt.Sprintf(`{"n":%d}`, r.IntN(1000)), "")
	case 9: // replays of one good event
		if good != "" {
			return good
		}
	case 10: // the good source's numbers, present and future, on messages of another
		return envelope(`{"type":"Bad"}`, fmt.Sprintf(`,"src":"00000000feedf00d","seq":%d`, n+1+r.IntN(3)))
	case 11: // wild numbers
		return envelope(`{"type":"Bad"}`, fmt.Sprintf(`,"src":"00000000feedf00d","seq":%d`, r.Uint64()))
	case 12: // a thousand sources
		return envelope(`{"type":"Bad"}`, fmt.Sprintf(`,"src":"%016x","seq":%d`, r.Uint64(), r.Uint64()))
	case 13: // events that refuse themselves
		return envelope(`{"type":"Good","n":-5}`, "")
	}
	return ""
}
