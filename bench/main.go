//go:build unix

// Bench measures this package beside its peers, everything that this machine
// can, and prints one table: from the repository, go run -C bench .
//
// Each part is a program or a benchmark of its own, which alternates ours and
// the peers' and prints more than the table has.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/autobus-go/autobus/bench/row"
)

// A part is measured by a command in this folder.
type part struct {
	name, about string
	command     []string
	quick       []string // arguments that make it shorter
	metrics     []metric // of a benchmark of package testing; a program reports rows by itself
}

// A metric is a column of go test -bench.
type metric struct {
	unit, name string
	peer       string // if not empty: it is already how many times better ours is than this peer, or, with inverse, worse
	inverse    bool
}

var parts = []part{
	{"udp", "multicast: LCM, Python autobus, bare loops in C and Go", []string{"go", "run", "./udp"}, []string{"-rounds=3", "-probe=300ms"}, nil},
	{"redis", "Redis pub/sub: go-redis, rueidis, redigo, a bare loop", []string{"go", "run", "./redis"}, []string{"-rounds=3", "-paced=2000"}, nil},
	{"json", "the codec: encoding/json, goccy, sonic, easyjson, jx, fastjson, msgp", []string{"go", "run", "./json"}, nil, nil},
	{"fernet", "sealing and opening: fernet-go, the parts of the standard library, Python's cryptography",
		[]string{"go", "test", "-run=^$", "-bench=Ratio", "-count=5", "./fernet"}, []string{"-count=1"},
		[]metric{{"x-parts", "", "the parts", true}, {"x-fernet-go", "", "fernet-go", false}}},
	{"schedule", "the scheduler: time.AfterFunc, gocron, robfig/cron, go-quartz",
		[]string{"go", "test", "-run=^$", "-bench=Add|Due|Memory|Idle", "-count=3", "-timeout=60m", "./schedule"}, []string{"-count=1"},
		[]metric{{"ns/op", "time", "", false}, {"cpu-ns/run", "CPU", "", false}, {"B/job", "memory", "", false}, {"cpu-us/s", "CPU", "", false}}},
	{"size", "a small program: bare calls, redigo", []string{"go", "run", "./size"}, nil, nil},
}

func main() {
	log.SetFlags(0)
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	only := flag.String("only", strings.Join(names, ","), "the parts to measure")
	quick := flag.Bool("quick", false, "fewer rounds")
	svg := flag.String("svg", "", "a file for a plot of the throughput, as in throughput.svg")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: go run -C bench . [-only PART,PART] [-svg FILE]")
		for _, p := range parts {
			fmt.Fprintf(flag.CommandLine.Output(), "  %-9s %s\n", p.name, p.about)
		}
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("%q: want only flags; see -help", flag.Arg(0))
	}
	chosen := strings.Split(*only, ",")
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			log.Fatalf("-only %s: there is no part %q, only %s", *only, name, strings.Join(names, ", "))
		}
	}

	var rows []row.Row
	failed := false
	for _, p := range parts {
		if !slices.Contains(chosen, p.name) {
			continue
		}
		fmt.Printf("== %s: %s\n", p.name, p.about)
		begin := time.Now()
		if *quick {
			p.command = slices.Concat(p.command, p.quick)
		}
		more, err := p.run()
		if err != nil {
			log.Printf("%s: %v", p.name, err)
			failed = true
		}
		rows = append(rows, more...)
		fmt.Printf("== %s: %v\n\n", p.name, time.Since(begin).Round(time.Second))
	}
	table(rows)
	if *svg != "" {
		if err := os.WriteFile(*svg, plot(rows), 0o666); err != nil {
			log.Fatal(err)
		}
	}
	if failed {
		os.Exit(1)
	}
}

// run runs a part's command, shows what it prints, and returns its rows.
func (p part) run() (rows []row.Row, err error) {
	dir, err := os.MkdirTemp("", "autobus-bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "rows")
	cmd := exec.Command(p.command[0], p.command[1:]...)
	cmd.Env = append(os.Environ(), row.Env+"="+file)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var results benchmarks
	in := bufio.NewScanner(io.TeeReader(out, os.Stdout))
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		results.add(in.Text())
	}
	if err := errors.Join(in.Err(), cmd.Wait()); err != nil {
		return nil, err
	}
	if p.metrics != nil {
		return p.compare(results), nil
	}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("it has reported nothing")
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	for d := json.NewDecoder(f); ; {
		var r row.Row
		if err := d.Decode(&r); err == io.EOF {
			return rows, nil
		} else if err != nil {
			return rows, err
		}
		rows = append(rows, r)
	}
}

// A benchmark is the results of one, by unit.
type benchmark struct {
	name   string
	values map[string][]float64
}

type benchmarks []benchmark

// add takes a line such as "BenchmarkAdd/autobus/10k-2  100  351 ns/op".
func (all *benchmarks) add(line string) {
	f := strings.Fields(line)
	if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
		return
	}
	name := strings.TrimSuffix(strings.TrimPrefix(f[0], "Benchmark"), "-"+strconv.Itoa(runtime.GOMAXPROCS(0)))
	i := slices.IndexFunc(*all, func(b benchmark) bool { return b.name == name })
	if i < 0 {
		i = len(*all)
		*all = append(*all, benchmark{name, make(map[string][]float64)})
	}
	for j := 2; j+1 < len(f); j += 2 {
		if v, err := strconv.ParseFloat(f[j], 64); err == nil {
			(*all)[i].values[f[j+1]] = append((*all)[i].values[f[j+1]], v)
		}
	}
}

const ours = "autobus"

// compare sets our benchmarks beside those of the same name but for the
// contender.
func (p part) compare(all benchmarks) (rows []row.Row) {
	for _, b := range all {
		for _, m := range p.metrics {
			if m.peer != "" && len(b.values[m.unit]) > 0 {
				times := row.Median(b.values[m.unit])
				if m.inverse {
					times = 1 / times
				}
				rows = append(rows, row.Row{Part: p.name, What: b.name, Ours: times, Theirs: 1, Peer: m.peer, Unit: "times", More: true})
			}
		}
		path := strings.Split(b.name, "/")
		at := slices.Index(path, ours)
		if at < 0 {
			continue
		}
		for _, other := range all {
			names := strings.Split(other.name, "/")
			if other.name == b.name || len(names) != len(path) {
				continue
			}
			peer := names[at]
			names[at] = ours
			if !slices.Equal(names, path) {
				continue
			}
			what := strings.Join(slices.Delete(slices.Clone(path), at, at+1), " ")
			for _, m := range p.metrics {
				if row.Median(b.values[m.unit]) > 0 && row.Median(other.values[m.unit]) > 0 {
					r := row.Row{Part: p.name, What: what + ", " + m.name, Peer: peer, Unit: m.unit,
						Ours: row.Median(b.values[m.unit]), Theirs: row.Median(other.values[m.unit])}
					if a, o := b.values["allocs/op"], other.values["allocs/op"]; len(a) > 0 && len(o) > 0 {
						r.Allocs = fmt.Sprintf("%.0f, %.0f", row.Median(a), row.Median(o))
					}
					rows = append(rows, r)
				}
			}
		}
	}
	return rows
}

func table(rows []row.Row) {
	fmt.Printf("%s, %s/%s, %d cores; medians; a ratio over 1 is to our advantage\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	fmt.Printf("%-9s %-40s %12s %-22s %12s %-10s %6s  %s\n", "", "", "autobus", "peer", "peer's", "unit", "ratio", "allocations")
	for _, r := range rows {
		fmt.Printf("%-9s %-40s %12s %-22s %12s %-10s %6.2f  %s\n", r.Part, r.What, number(r.Ours), r.Peer, number(r.Theirs), r.Unit, r.Times(), r.Allocs)
	}
}

// number writes v with three digits or more.
func number(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}
