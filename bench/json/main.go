//go:build unix

// Json measures this package's codec beside encoding/json, goccy/go-json,
// sonic, easyjson, jx and fastjson, in one run: from bench/, go run ./json.
// msgp, which isn't JSON, tells how near all of them are to a binary format.
//
// All write the same payload, the event's type included, into a buffer that
// they reuse. All read the same payload into a zeroed struct whose strings don't
// share memory with it: autobus and sonic cut them out of one copy of the
// payload, the others copy each; no option is set that leaves them in the input.
//
// What they check differs. Bytes that aren't UTF-8 are refused by autobus, and
// replaced by goccy and encoding/json (by easyjson when it writes); sonic as it
// comes, jx and fastjson let them through. Control characters in a string, which
// JSON forbids, are read by sonic, easyjson and fastjson.
//
// The contenders take turns, so that what else the machine does meets all
// alike. A time is processor time, the garbage collector's included, and the
// median of the turns; "x ours" is the median of what a contender took in each
// turn by what autobus took in that turn: over 1, autobus is faster.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/autobus-go/autobus/bench/json/event"
	"github.com/autobus-go/autobus/bench/row"
)

func main() {
	log.SetFlags(0)
	rounds := flag.Int("rounds", 41, "turns of each")
	turn := flag.Duration("turn", 10*time.Millisecond, "how long a turn is")
	only := flag.String("only", "", "peers, as in sonic,jx; default: all")
	flag.Parse()

	ascii := strings.Repeat("the boiler is hot again. ", 41)[:1024]
	utf8 := strings.Repeat("котёл снова горячий 🔥 ", 26)
	reading := &event.Reading{Kind: "Reading", ID: 1234567, Name: "boiler room", On: true, Value: 21.375, Tags: []string{"north", "cellar", "hot"}}
	var cases []*scene
	cases = append(cases, readings("5 fields", reading)...)
	cases = append(cases, notes("1 KiB ASCII", &event.Note{Kind: "Note", Text: ascii}, false)...)
	cases = append(cases, notes("1 KiB UTF-8", &event.Note{Kind: "Note", Text: utf8}, false)...)
	cases = append(cases, notes(`the same as \u`, &event.Note{Kind: "Note", Text: utf8}, true)...)

	fmt.Printf("%s, %s/%s, %d cores; medians of %d turns of %v\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), *rounds, *turn)
	fmt.Printf("%-24s %-16s %9s %7s %7s %7s\n", "", "", "ns", "x ours", "allocs", "bytes")
	for _, c := range cases {
		c.keep(*only)
		c.measure(*rounds, *turn)
		c.print()
	}
}

// A scene is one thing that all contenders do.
type scene struct {
	name  string
	sides []side
}

// A side is how one contender does it, and what that took in each turn.
type side struct {
	name  string
	size  int // of the text
	run   func()
	times []float64
}

func readings(name string, v *event.Reading) []*scene {
	into := new(event.Reading)
	return scenes(name, v, into, false, contenders(v, into, jxWriteReading, jxReadReading, fastWriteReading, fastReadReading))
}

func notes(name string, v *event.Note, escaped bool) []*scene {
	into := new(event.Note)
	return scenes(name, v, into, escaped, contenders(v, into, jxWriteNote, jxReadNote, fastWriteNote, fastReadNote))
}

// scenes makes sure that all contenders do what they should, and returns what to
// measure: encoding and decoding, or decoding alone of a text with escapes.
func scenes[T any](name string, v, into *T, escaped bool, all []contender) []*scene {
	encode, decode := &scene{name: "encode " + name}, &scene{name: "decode " + name}
	text := slices.Clone(all[0].encode())
	if escaped {
		text = escape(text)
	}
	for _, c := range all {
		encoded := c.encode()
		data := text
		if c.name == msgpName {
			data = slices.Clone(encoded)
		} else {
			var back T
			if err := json.Unmarshal(encoded, &back); err != nil || !reflect.DeepEqual(&back, v) {
				log.Fatalf("%s encodes %s as %s", c.name, name, encoded)
			}
		}
		encode.sides = append(encode.sides, side{name: c.name, size: len(encoded), run: func() { c.encode() }})
		read := func(data []byte) {
			*into = *new(T)
			if err := c.decode(data); err != nil {
				log.Fatalf("%s: %v", c.name, err)
			}
		}
		once := slices.Clone(data)
		read(once)
		clear(once) // which no string may share
		if !reflect.DeepEqual(into, v) {
			log.Fatalf("%s decodes %s as %v", c.name, data, into)
		}
		decode.sides = append(decode.sides, side{name: c.name, size: len(data), run: func() { read(data) }})
	}
	if escaped {
		return []*scene{decode}
	}
	return []*scene{encode, decode}
}

// escape escapes what isn't ASCII, as Python's json.dumps does.
func escape(text []byte) (escaped []byte) {
	for _, r := range string(text) {
		if r < 0x80 {
			escaped = append(escaped, byte(r))
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			escaped = fmt.Appendf(escaped, `\u%04x`, unit)
		}
	}
	return escaped
}

// keep leaves out the peers that aren't chosen.
func (s *scene) keep(only string) {
	if only != "" {
		s.sides = slices.DeleteFunc(s.sides, func(c side) bool {
			return c.name != "autobus" && !slices.Contains(strings.Split(only, ","), c.name)
		})
	}
}

func (s *scene) measure(rounds int, turn time.Duration) {
	times := make([]int, len(s.sides)) // a turn is so many times
	for i, c := range s.sides {
		begin := time.Now()
		for time.Since(begin) < turn {
			for range 100 {
				c.run()
			}
			times[i] += 100
		}
	}
	for range rounds {
		for i := range s.sides {
			c := &s.sides[i]
			runtime.GC() // so that none pays for the garbage of the one before
			begin := cpu()
			for range times[i] {
				c.run()
			}
			c.times = append(c.times, float64(cpu()-begin)/float64(times[i]))
		}
	}
}

func (s *scene) print() {
	ours := "" // allocations
	for i, c := range s.sides {
		name := ""
		if i == 0 {
			name = s.name
		}
		ratios := make([]float64, len(c.times))
		for j := range ratios {
			ratios[j] = c.times[j] / s.sides[0].times[j]
		}
		allocs := strconv.FormatFloat(testing.AllocsPerRun(100, c.run), 'f', -1, 64)
		fmt.Printf("%-24s %-16s %9.1f %7.2f %7s %7d\n", name, c.name, row.Median(c.times), row.Median(ratios), allocs, c.size)
		if i == 0 {
			ours = allocs
		} else {
			row.Add(row.Row{Part: "json", What: s.name, Ours: row.Median(s.sides[0].times), Peer: c.name, Theirs: row.Median(c.times), Unit: "ns", Allocs: ours + ", " + allocs})
		}
	}
	fmt.Println()
}

// cpu is the processor time of this process, the garbage collector's included.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		log.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
