//go:build unix

// Redis measures this package's Redis transport beside go-redis, rueidis,
// redigo and a hand-written loop, in one run: from bench/, go run ./redis.
//
// It starts a redis-server, and for each contender in turn, again and again so
// that drift hits all of them, a process that subscribes and one that
// publishes. Ours publishes a typed event from one goroutine and decodes it
// into a typed handler, JSON included; the others are given ready payloads,
// and hand theirs to nobody.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
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

const channel = "autobus::Bench"

func main() {
	log.SetFlags(0)
	rounds := flag.Int("rounds", 5, "how often each contender runs")
	events := flag.Int("events", 300_000, "events of 100 bytes in a run; a third of them of 1 KiB")
	paced := flag.Int("paced", 3000, "events, 1000 a second, in a run for latency")
	only := flag.String("only", "", "contenders, as in autobus,raw; default: all")
	sizes := flag.String("sizes", "100,1024", "bytes of an event")
	role := flag.String("role", "", "for the processes that this one starts")
	addr := flag.String("addr", "", "a server that runs already")
	profile := flag.String("profile", "", "a folder for CPU profiles of autobus's two sides")
	flag.Parse()
	if *role != "" {
		child(*role, *addr, flag.Args(), *profile)
		return
	}
	if *addr == "" {
		server, stop := startServer()
		defer stop()
		*addr = server
	}
	var chosen []contender
	for _, c := range contenders {
		if *only == "" || slices.Contains(strings.Split(*only, ","), c.name) {
			chosen = append(chosen, c)
		}
	}
	fmt.Printf("%s, %s/%s, %d cores, redis-server %s; medians of %d runs\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), serverVersion(*addr), *rounds)
	for text := range strings.SplitSeq(*sizes, ",") {
		size, err := strconv.Atoi(text)
		load.Check(err)
		n := *events
		if size > 100 {
			n /= 3
		}
		results := make([][]result, len(chosen))
		for range *rounds {
			for i, c := range chosen {
				results[i] = append(results[i], run(*addr, c.name, size, n, false, *profile))
			}
		}
		latencies := make([][]result, len(chosen))
		for range min(*rounds, 3) {
			for i, c := range chosen {
				latencies[i] = append(latencies[i], run(*addr, c.name, size, *paced, true, ""))
			}
		}
		table(size, n, chosen, results, latencies)
		report(size, chosen, results, latencies)
	}
}

// report has the table of all benchmarks show ours beside each other one.
func report(size int, chosen []contender, results, latencies [][]result) {
	allocs := func(i int) string {
		each := func(r result) float64 { return r.Published.allocs() }
		return fmt.Sprintf("%.2f, %.2f", load.Median(results[0], each), load.Median(results[i], each))
	}
	load.Report("redis", fmt.Sprintf("%d B", size), load.Names(chosen, func(c contender) string { return c.name }), allocs, []load.Metric[result]{
		{What: "publish and hear", Unit: "events/s", More: true, From: results, Of: func(r result) float64 { return r.Heard.rate() }},
		{What: "publisher's CPU", Unit: "ns/event", From: results, Of: func(r result) float64 { return r.Published.cpu() }},
		{What: "subscriber's CPU", Unit: "ns/event", From: results, Of: func(r result) float64 { return r.Heard.cpu() }},
		{What: "p50 at 1000/s", Unit: "us", From: latencies, Of: func(r result) float64 { return float64(r.Heard.P50) / 1e3 }},
		{What: "p99 at 1000/s", Unit: "us", From: latencies, Of: func(r result) float64 { return float64(r.Heard.P99) / 1e3 }},
	})
}

// A result is what one run of a contender took.
type result struct {
	Published, Heard side
}

// A side is a process of a run.
type side struct {
	Events   int
	Elapsed  time.Duration
	CPU      time.Duration
	Mallocs  uint64
	P50, P99 time.Duration
}

func (s side) rate() float64   { return float64(s.Events) / s.Elapsed.Seconds() }
func (s side) cpu() float64    { return float64(s.CPU) / float64(s.Events) }
func (s side) allocs() float64 { return float64(s.Mallocs) / float64(s.Events) }

func table(size, n int, chosen []contender, results, latencies [][]result) {
	fmt.Printf("\n%d-byte events, %d a run\n", size, n)
	fmt.Printf("%-22s %11s %6s %11s %6s %8s %8s %9s %9s %9s %9s\n", "", "published", "of raw", "heard", "of raw",
		"pub CPU", "sub CPU", "pub", "sub", "p50 at", "p99 at")
	fmt.Printf("%-22s %11s %6s %11s %6s %8s %8s %9s %9s %9s %9s\n", "", "events/s", "", "events/s", "",
		"ns/event", "ns/event", "allocs/ev", "allocs/ev", "1000/s", "1000/s")
	rawPublished, rawHeard := 0.0, 0.0
	for i, c := range chosen {
		if c.name == "raw" {
			rawPublished = load.Median(results[i], func(r result) float64 { return r.Published.rate() })
			rawHeard = load.Median(results[i], func(r result) float64 { return r.Heard.rate() })
		}
	}
	for i, c := range chosen {
		all := results[i]
		published := load.Median(all, func(r result) float64 { return r.Published.rate() })
		heard := load.Median(all, func(r result) float64 { return r.Heard.rate() })
		fmt.Printf("%-22s %11.0f %6.2f %11.0f %6.2f %8.0f %8.0f %9.2f %9.2f %9v %9v\n", c.name,
			published, published/rawPublished, heard, heard/rawHeard,
			load.Median(all, func(r result) float64 { return r.Published.cpu() }),
			load.Median(all, func(r result) float64 { return r.Heard.cpu() }),
			load.Median(all, func(r result) float64 { return r.Published.allocs() }),
			load.Median(all, func(r result) float64 { return r.Heard.allocs() }),
			time.Duration(load.Median(latencies[i], func(r result) float64 { return float64(r.Heard.P50) })).Round(time.Microsecond),
			time.Duration(load.Median(latencies[i], func(r result) float64 { return float64(r.Heard.P99) })).Round(time.Microsecond))
		for _, r := range all {
			if r.Heard.Events != r.Published.Events {
				fmt.Printf("\t%s: only %d of %d events were heard\n", c.name, r.Heard.Events, r.Published.Events)
			}
		}
	}
}

// run has two processes publish and hear n events.
func run(addr, name string, size, n int, paced bool, profile string) (r result) {
	args := []string{name, strconv.Itoa(size), strconv.Itoa(n), strconv.FormatBool(paced)}
	heard, hears := startChild("subscribe", addr, profile, args)
	if line, err := heard.ReadString('\n'); line != "ready\n" {
		log.Fatalf("the subscriber of %s: %q, %v", name, line, err)
	}
	published, publishes := startChild("publish", addr, profile, args)
	for _, c := range []struct {
		from *bufio.Reader
		cmd  *exec.Cmd
		into *side
	}{{published, publishes, &r.Published}, {heard, hears, &r.Heard}} {
		text, err := io.ReadAll(c.from)
		if err == nil {
			err = json.Unmarshal(text, c.into)
		}
		if wait := c.cmd.Wait(); wait != nil {
			err = wait
		}
		if err != nil {
			log.Fatalf("%s: %v %s", name, err, text)
		}
	}
	return r
}

func startChild(role, addr, profile string, args []string) (*bufio.Reader, *exec.Cmd) {
	self, err := os.Executable()
	if err != nil {
		log.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"-role", role, "-addr", addr, "-profile", profile}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		log.Fatal(err)
	}
	return bufio.NewReader(out), cmd
}

// startServer starts a redis-server that keeps nothing.
func startServer() (addr string, stop func()) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	addr = l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	l.Close()
	dir, err := os.MkdirTemp("", "autobus-bench")
	if err != nil {
		log.Fatal(err)
	}
	cmd := exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", dir,
		"--logfile", filepath.Join(dir, "log"), "--client-output-buffer-limit", "pubsub", "0", "0", "0")
	if err := cmd.Start(); err != nil {
		log.Fatal(err)
	}
	for range 500 {
		if serverVersion(addr) != "" {
			return addr, func() {
				cmd.Process.Kill()
				cmd.Wait()
				os.RemoveAll(dir)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	log.Fatal("redis-server doesn't answer")
	return
}

func serverVersion(addr string) string {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return ""
	}
	defer conn.Close()
	fmt.Fprint(conn, "INFO server\r\n")
	for r := bufio.NewReader(conn); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return ""
		}
		if version, ok := strings.CutPrefix(line, "redis_version:"); ok {
			return strings.TrimSpace(version)
		}
	}
}
