//go:build linux

// Udp measures this package's multicast transport beside LCM, Python autobus
// and bare loops in C and Go, in one run: from bench/, go run ./udp.
//
// For each contender in turn, again and again so that drift hits all of them,
// it looks for the highest rate at which one process publishes and another
// hears every event of 100 bytes. Ours publishes a typed event and decodes it
// into a typed handler, JSON included, as Python's does; the others are given
// ready payloads, and hand theirs to nobody.
//
// It builds the C programs with cc, LCM's if Debian's liblcm-dev is there; for
// Python, AUTOBUS_PYTHON names an interpreter that has autobus. The group must
// have a route: script/own-network makes a network for it.
package main

import (
	"bufio"
	"embed"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/autobus-go/autobus/bench/load"
)

//go:embed peers
var peers embed.FS

func main() {
	log.SetFlags(0)
	rounds := flag.Int("rounds", 5, "how often each contender runs")
	probe := flag.Duration("probe", 500*time.Millisecond, "how long to publish at each rate")
	ttls := flag.String("ttl", "0,1", "the TTLs to measure with")
	only := flag.String("only", "", "contenders, as in autobus,LCM; default: all")
	rate := flag.Int("rate", 0, "only publish at this rate, once a round")
	isChild := flag.Bool("child", false, "for the processes that this one starts")
	profile := flag.String("profile", "", "a folder for CPU profiles of autobus's two sides, with -rate")
	flag.Parse()
	if *isChild {
		child(flag.Args(), *profile)
		return
	}
	dir, err := os.MkdirTemp("", "autobus-bench")
	load.Check(err)
	defer os.RemoveAll(dir)
	var chosen []contender
	for _, c := range contenders(dir) {
		if *only == "" || slices.Contains(strings.Split(*only, ","), c.name) {
			chosen = append(chosen, c)
		}
	}
	fmt.Printf("%s, %s/%s, %d cores; events of %d bytes, medians of %d rounds\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), size, *rounds)
	for text := range strings.SplitSeq(*ttls, ",") {
		ttl, err := strconv.Atoi(text)
		load.Check(err)
		if *rate > 0 {
			for range *rounds {
				for _, c := range chosen {
					s := startSubscriber(c, ttl, *profile)
					r, lossless := s.try(*rate, *probe)
					s.stop()
					fmt.Printf("%-8s %8.0f/s, heard all: %v, %4.0f + %4.0f ns CPU an event, p50 %v\n", c.name, r.rate, lossless, r.published, r.heard, r.p50)
				}
			}
			continue
		}
		best := make([][]result, len(chosen))
		slow := make([][]result, len(chosen))
		for range *rounds {
			for i, c := range chosen {
				from := 1000.0
				if n := len(best[i]); n > 0 {
					from = best[i][n-1].rate / 3
				}
				best[i] = append(best[i], highest(c, ttl, from, *probe))
				s := startSubscriber(c, ttl, "")
				r, _ := s.try(1000, 2*time.Second)
				s.stop()
				slow[i] = append(slow[i], r)
			}
		}
		table(ttl, chosen, best, slow)
		report(ttl, chosen, best, slow)
	}
}

// contenders are those that there are here, those in C built in dir, if any.
func contenders(dir string) []contender {
	self, err := os.Executable()
	load.Check(err)
	all := []contender{
		{name: "autobus", command: []string{self}, publish: newOurs, hear: hearOurs},
		{name: "Go loop", command: []string{self}, publish: newBare, hear: hearBare},
	}
	if dir == "" {
		return all
	}
	load.Check(os.CopyFS(dir, peers))
	for _, c := range []struct{ name, source, library string }{{"C loop", "bare.c", ""}, {"LCM", "lcm.c", "-llcm"}} {
		program := filepath.Join(dir, strings.TrimSuffix(c.source, ".c"))
		args := []string{"-O2", "-pthread", "-o", program, filepath.Join(dir, "peers", c.source)}
		if c.library != "" {
			args = append(args, c.library)
		}
		if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
			log.Printf("without %s: cc: %v\n%s", c.name, err, out)
			continue
		}
		all = append(all, contender{name: c.name, command: []string{program}})
	}
	python := os.Getenv("AUTOBUS_PYTHON")
	if python == "" {
		python = "python3"
	}
	if err := exec.Command(python, "-c", "import autobus").Run(); err != nil {
		log.Printf("without Python autobus: %s: %v; set AUTOBUS_PYTHON", python, err)
	} else {
		all = append(all, contender{name: "Python", command: []string{python, filepath.Join(dir, "peers", "peer.py")}})
	}
	return all
}

// A result is what a run took, CPU times in nanoseconds an event.
type result struct {
	rate             float64
	published, heard float64
	allocs           float64 // an event, of the publisher
	p50, p99         time.Duration
}

// highest looks for the highest rate without loss: it climbs until twice an
// event is lost or the publisher can't follow, and then tries rates between.
func highest(c contender, ttl int, from float64, probe time.Duration) (best result) {
	s := startSubscriber(c, ttl, "")
	defer s.stop()
	good := func(rate float64) bool {
		for range 2 {
			r, lossless := s.try(int(rate), probe)
			if lossless && r.rate > best.rate {
				best = r
			}
			if lossless && r.rate > 0.95*rate {
				return true
			}
		}
		return false
	}
	step := 1.5
	low, high := from, from
	for good(high) {
		low, high = high, high*step
	}
	if low == high { // even the first one is too much
		low = 0
	}
	for range 5 {
		if middle := (low + high) / 2; good(middle) {
			low = middle
		} else {
			high = middle
		}
	}
	return best
}

// A subscriber is the process that hears.
type subscriber struct {
	contender
	cmd     *exec.Cmd
	ask     io.WriteCloser
	from    *bufio.Reader
	args    []string
	count   int64  // of what it has heard
	profile string // a folder, or none
}

func startSubscriber(c contender, ttl int, profile string) *subscriber {
	s := &subscriber{contender: c, profile: profile}
	s.args = []string{fmt.Sprintf("239.255.%d.%d", rand.IntN(256), 1+rand.IntN(254)), strconv.Itoa(freePort()), strconv.Itoa(ttl)}
	s.cmd = s.start("subscribe")
	in, err := s.cmd.StdinPipe()
	load.Check(err)
	out, err := s.cmd.StdoutPipe()
	load.Check(err)
	s.ask, s.from = in, bufio.NewReader(out)
	load.Check(s.cmd.Start())
	if line, err := s.from.ReadString('\n'); line != "ready\n" {
		log.Fatalf("the subscriber of %s: %q, %v", s.name, line, err)
	}
	return s
}

func (s *subscriber) start(role string, more ...string) *exec.Cmd {
	args := s.command[1:]
	if s.publish != nil {
		args = []string{"-child", "-profile", s.profile, s.name}
	}
	args = append(slices.Clone(args), role)
	cmd := exec.Command(s.command[0], append(append(args, s.args...), more...)...)
	cmd.Stderr = os.Stderr
	return cmd
}

func (s *subscriber) stop() {
	s.ask.Close()
	if s.profile == "" {
		s.cmd.Process.Kill()
	}
	s.cmd.Wait()
}

// said is what the subscriber says of itself.
func (s *subscriber) said() (count, cpu int64, r result) {
	fmt.Fprintln(s.ask)
	line, err := s.from.ReadString('\n')
	load.Check(err)
	var mallocs, p50, p99 int64
	if _, err := fmt.Sscan(line, &count, &cpu, &mallocs, &p50, &p99); err != nil {
		log.Fatalf("the subscriber of %s: %q", s.name, line)
	}
	return count, cpu, result{p50: time.Duration(p50), p99: time.Duration(p99)}
}

// try publishes at a rate for a while, and tells whether all was heard.
func (s *subscriber) try(rate int, probe time.Duration) (r result, lossless bool) {
	n := max(200, int64(float64(rate)*probe.Seconds()))
	_, cpu, _ := s.said()
	out, err := s.start("publish", strconv.Itoa(rate), strconv.FormatInt(n, 10)).Output()
	load.Check(err)
	var elapsed, published, mallocs int64
	if _, err := fmt.Sscan(string(out), &elapsed, &published, &mallocs); err != nil {
		log.Fatalf("the publisher of %s: %q", s.name, out)
	}
	count, cpuNow, r := s.said()
	for still := 0; count < s.count+n && still < 25; still++ { // it comes no more
		time.Sleep(20 * time.Millisecond)
		before := count
		if count, cpuNow, r = s.said(); count > before {
			still = 0
		}
	}
	lossless = count == s.count+n
	s.count = count
	r.rate = float64(n) / time.Duration(elapsed).Seconds()
	r.published = float64(published) / float64(n)
	r.heard = float64(cpuNow-cpu) / float64(n)
	r.allocs = float64(mallocs) / float64(n)
	return r, lossless
}

func table(ttl int, chosen []contender, best, slow [][]result) {
	fmt.Printf("\nTTL %d\n%-8s %10s %8s %8s %9s %9s %9s %9s %9s %22s\n", ttl, "", "highest", "autobus", "autobus",
		"pub CPU", "sub CPU", "pub", "p50 at", "p99 at", "lowest and highest")
	fmt.Printf("%-8s %10s %8s %8s %9s %9s %9s %9s %9s %22s\n", "", "events/s", "is times", "paired",
		"ns/event", "ns/event", "allocs/ev", "1000/s", "1000/s", "of the rounds")
	for i, c := range chosen {
		rate := func(r result) float64 { return r.rate }
		mine := load.Median(best[i], rate)
		paired := make([]result, len(best[i]))
		for round := range paired {
			paired[round].rate = best[0][round].rate / best[i][round].rate
		}
		least := slices.MinFunc(best[i], func(a, b result) int { return int(a.rate - b.rate) })
		most := slices.MaxFunc(best[i], func(a, b result) int { return int(a.rate - b.rate) })
		fmt.Printf("%-8s %10.0f %8.2f %8.2f %9.0f %9.0f %9.3f %9v %9v %22s\n", c.name,
			mine, load.Median(best[0], rate)/mine, load.Median(paired, rate),
			load.Median(best[i], func(r result) float64 { return r.published }),
			load.Median(best[i], func(r result) float64 { return r.heard }),
			load.Median(best[i], func(r result) float64 { return r.allocs }),
			time.Duration(load.Median(slow[i], func(r result) float64 { return float64(r.p50) })).Round(time.Microsecond),
			time.Duration(load.Median(slow[i], func(r result) float64 { return float64(r.p99) })).Round(time.Microsecond),
			fmt.Sprintf("%.0f %.0f", least.rate, most.rate))
	}
}

// report has the table of all benchmarks show ours beside each other one.
func report(ttl int, chosen []contender, best, slow [][]result) {
	allocs := fmt.Sprintf("%.3f", load.Median(best[0], func(r result) float64 { return r.allocs }))
	load.Report("udp", fmt.Sprintf("TTL %d", ttl), load.Names(chosen, func(c contender) string { return c.name }), func(int) string { return allocs }, []load.Metric[result]{
		{What: "highest rate without loss", Unit: "events/s", More: true, From: best, Of: func(r result) float64 { return r.rate }},
		{What: "p50 at 1000/s", Unit: "us", From: slow, Of: func(r result) float64 { return float64(r.p50) / 1e3 }},
	})
}

func freePort() int {
	conn, err := net.ListenUDP("udp4", nil)
	load.Check(err)
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).Port
}
