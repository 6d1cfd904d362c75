//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// child is one side of a run in Go; its arguments are those of the C programs
// in peers/bench.h, after the contender's name.
func child(args []string, profile string) {
	var c contender
	for _, each := range contenders("") {
		if each.name == args[0] {
			c = each
		}
	}
	var n [4]int // port, ttl, rate, number
	for i, text := range args[3:] {
		var err error
		n[i], err = strconv.Atoi(text)
		check(err)
	}
	to := netip.AddrPortFrom(netip.MustParseAddr(args[2]), uint16(n[0]))
	stop := func() {}
	if profile != "" && c.name == "autobus" {
		f, err := os.Create(filepath.Join(profile, args[1]+".prof"))
		check(err)
		check(pprof.StartCPUProfile(f))
		stop = func() {
			pprof.StopCPUProfile()
			f.Close()
		}
	}
	if args[1] == "publish" {
		p, err := c.publish(to, n[1])
		check(err)
		paced(p, n[2], n[3])
	} else {
		answer(c, to, n[1])
	}
	stop()
	os.Exit(0) // whatever the contender still does
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// paced publishes n events at a rate. Up to 2,000 a second each one has its
// time in it.
func paced(p publisher, rate, n int) {
	const warm = 100
	for range warm { // connects, and fills pools
		check(p.publish(noTime))
		check(p.flush())
	}
	cpu, mallocs := usage()
	begin := time.Now()
	for sent := 0; sent < n-warm; {
		elapsed := time.Since(begin)
		due := min(n-warm, int(elapsed.Seconds()*float64(rate))+1)
		if sent >= due {
			if rate <= 2000 {
				time.Sleep(time.Duration(float64(sent)/float64(rate)*1e9) - elapsed)
			} else {
				t := syscall.NsecToTimespec(50_000) // package time sleeps for up to a millisecond more
				_ = syscall.Nanosleep(&t, nil)
			}
			continue
		}
		for ; sent < due; sent++ {
			at := noTime
			if rate <= 2000 {
				at = time.Now().UnixNano()
			}
			check(p.publish(at))
		}
	}
	check(p.flush())
	elapsed := time.Since(begin)
	cpuNow, mallocsNow := usage()
	fmt.Println(elapsed.Nanoseconds()*int64(n)/int64(n-warm), int64(cpuNow-cpu)*int64(n)/int64(n-warm), mallocsNow-mallocs)
}

// answer says for each line of the input what was heard.
func answer(c contender, to netip.AddrPort, ttl int) {
	var heard atomic.Int64
	var mu sync.Mutex // guards took
	var took []int64
	check(c.hear(to, ttl, func(at int64) {
		if at != noTime {
			mu.Lock()
			took = append(took, time.Now().UnixNano()-at)
			mu.Unlock()
		}
		heard.Add(1)
	}))
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var p50, p99 int64
		mu.Lock()
		if slices.Sort(took); len(took) > 0 {
			p50, p99 = took[len(took)/2], took[len(took)*99/100]
		}
		mu.Unlock()
		cpu, mallocs := usage()
		fmt.Println(heard.Load(), int64(cpu), mallocs, p50, p99)
	}
}

// size is the payload's: that of the JSON of Bench, which the others are given
// ready.
const size = 100

// noTime stands where there is no time to tell.
const noTime int64 = 1000000000000000000

func newPayload() []byte {
	head := fmt.Sprintf(`{"n":1000000,"at":%019d,"text":"`, noTime)
	tail := `","type":"Bench"}`
	return append(append([]byte(head), bytes.Repeat([]byte{'x'}, size-len(head)-len(tail))...), tail...)
}

const atOffset = len(`{"n":1000000,"at":`)

// stamp writes a time into a payload; it has 19 digits until the year 2286.
func stamp(payload []byte, at int64) { strconv.AppendInt(payload[:atOffset], at, 10) }

// stamped returns the time in a payload.
func stamped(payload []byte) (at int64) {
	for _, c := range payload[atOffset : atOffset+19] {
		at = 10*at + int64(c-'0')
	}
	return at
}

// usage is what the process has used so far.
func usage() (cpu time.Duration, mallocs uint64) {
	var u syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), m.Mallocs
}
