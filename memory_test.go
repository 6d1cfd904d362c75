package autobus

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

func init() { roles["small"] = small }

// A smallReport is what a subscriber with little memory prints at its end.
type smallReport struct {
	Stats    Stats
	Resident int // KiB, at the most
}

// small is a subscriber that lives until its standard input ends.
func small() int {
	bus := &Bus{URL: os.Getenv("AUTOBUS_TEST_URL")}
	SubscribeOn(bus, func(context.Context, good) error { return nil })
	if err := bus.Start(background); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("started")
	bufio.NewReader(os.Stdin).ReadString('\n')
	if err := bus.Stop(background); err != nil {
		fmt.Println(err)
		return 1
	}
	json.NewEncoder(os.Stdout).Encode(smallReport{bus.Stats(), peakResident()})
	return 0
}

// A subscriber under a memory limit as on a small device, at 10,000 events a
// second, doesn't grow.
func TestSmallMemory(t *testing.T) {
	const aTick = 100 // events; ticks are 10 ms
	lasts := 2 * time.Second
	if wantAll && !raceEnabled {
		lasts = 20 * time.Second // a minute was no different
	}
	url := ownURL(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), "AUTOBUS_TEST_ROLE=small", "GOMEMLIMIT=16MiB", "AUTOBUS_TEST_URL="+url)
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
	said := bufio.NewScanner(stdout)
	if !said.Scan() || said.Text() != "started" {
		t.Fatalf("the subscriber says %q", said.Text())
	}

	bus := &Bus{URL: url}
	start(t, bus)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	begin, early := time.Now(), 0
	for n := 0; time.Since(begin) < lasts; {
		<-tick.C
		for range aTick {
			publish(t, bus, good{n})
			n++
		}
		if early == 0 && time.Since(begin) > lasts/4 {
			early = resident(child.Process.Pid)
		}
	}
	if err := bus.Flush(background); err != nil {
		t.Fatal(err)
	}
	late := resident(child.Process.Pid)
	stdin.Close()
	var report smallReport
	if !said.Scan() {
		t.Fatal("the subscriber says nothing at its end")
	}
	if err := json.Unmarshal(said.Bytes(), &report); err != nil {
		t.Fatalf("%s: %v", said.Bytes(), err)
	}
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
	published := bus.Stats().Published
	t.Logf("%d of %d events handled in %v; %d KiB resident after a quarter, %d at the end, %d at the most",
		report.Stats.Handled, published, lasts, early, late, report.Resident)
	if report.Stats.Handled < published/2 {
		t.Errorf("%d of %d events handled", report.Stats.Handled, published)
	}
	if raceEnabled {
		return
	}
	if report.Resident > 22<<10 { // the limit, the program itself, and some room
		t.Errorf("%d KiB resident at the most", report.Resident)
	}
}

// resident returns the memory of a process in KiB; 0 where the system doesn't
// tell.
func resident(pid int) int {
	status, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.Atoi(strings.Fields(value)[0])
			return n
		}
	}
	return 0
}
