//go:build unix

// Package load is what the programs below bench/ have the buses carry, and how
// they measure that.
package load

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/autobus-go/autobus"
	"github.com/autobus-go/autobus/bench/row"
)

// Bench is the event.
type Bench struct {
	N    int
	At   int64 // when it was published, or NoTime: always 19 digits
	Text string
}

// NoTime stands where there is no time to tell.
const NoTime int64 = 1000000000000000000

// New returns an event whose JSON has size bytes.
func New(size int) Bench {
	b := Bench{N: 1000000, At: NoTime}
	empty, err := autobus.Marshal(b)
	Check(err)
	b.Text = strings.Repeat("x", size-len(empty))
	return b
}

func (Bench) Type() string { return "Bench" }

func (b Bench) Marshal(e *autobus.Encoder) {
	e.Key("n").Int(b.N)
	e.Key("at").Int64(b.At)
	e.Key("text").String(b.Text)
}

func (b *Bench) Unmarshal(d *autobus.Decoder) error {
	for key := range d.Fields() {
		switch key {
		case "n":
			b.N = d.Int()
		case "at":
			b.At = d.Int64()
		case "text":
			b.Text = d.String()
		}
	}
	return d.Err()
}

// Payload is the event as the others publish it: the bytes that ours makes each
// time, but that the type stands last.
func Payload(size int) []byte {
	head := fmt.Sprintf(`{"n":1000000,"at":%d,"text":"`, NoTime)
	tail := `","type":"Bench"}`
	return append(append([]byte(head), bytes.Repeat([]byte{'x'}, size-len(head)-len(tail))...), tail...)
}

const atOffset = len(`{"n":1000000,"at":`)

// Stamp writes a time into a payload; it has 19 digits until the year 2286.
func Stamp(payload []byte, at int64) { strconv.AppendInt(payload[:atOffset], at, 10) }

// Stamped returns the time in a payload.
func Stamped(payload []byte) (at int64) {
	for _, c := range payload[atOffset : atOffset+19] {
		at = 10*at + int64(c-'0')
	}
	return at
}

// Sent tells whether a bus has sent all that it was given.
func Sent(b *autobus.Bus) error {
	if err := b.Flush(context.Background()); err != nil {
		return err
	}
	if s := b.Stats(); s.Unsent > 0 || s.Sent != s.Published {
		return fmt.Errorf("%+v", s)
	}
	return nil
}

// Usage is what the process has used so far.
func Usage() (cpu time.Duration, mallocs uint64) {
	var u syscall.Rusage
	Check(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), m.Mallocs
}

// Profile writes a CPU profile to a file until it is stopped.
func Profile(folder, name string) (stop func()) {
	f, err := os.Create(filepath.Join(folder, name))
	Check(err)
	Check(pprof.StartCPUProfile(f))
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}
}

// A Metric is what is compared of runs of which a result is an R.
type Metric[R any] struct {
	What, Unit string
	More       bool  // is better
	From       [][]R // by contender, ours first
	Of         func(R) float64
}

// Report has the table of all benchmarks show ours beside each other contender.
func Report[R any](part, prefix string, names []string, allocs func(contender int) string, metrics []Metric[R]) {
	if names[0] != "autobus" {
		return
	}
	for _, m := range metrics {
		for i := 1; i < len(names); i++ {
			row.Add(row.Row{
				Part: part, What: prefix + ": " + m.What, Unit: m.Unit, More: m.More,
				Ours: Median(m.From[0], m.Of), Peer: names[i], Theirs: Median(m.From[i], m.Of),
				Allocs: allocs(i),
			})
		}
	}
}

// Names is what contenders are called.
func Names[C any](contenders []C, name func(C) string) []string {
	names := make([]string, len(contenders))
	for i, c := range contenders {
		names[i] = name(c)
	}
	return names
}

// Median is that of one figure of each run.
func Median[R any](all []R, of func(R) float64) float64 {
	values := make([]float64, len(all))
	for i, r := range all {
		values[i] = of(r)
	}
	return row.Median(values)
}

// Check ends the program on an error.
func Check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
