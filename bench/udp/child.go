//go:build linux

package main

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/autobus-go/autobus/bench/load"
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
		load.Check(err)
	}
	to := netip.AddrPortFrom(netip.MustParseAddr(args[2]), uint16(n[0]))
	stop := func() {}
	if profile != "" && c.name == "autobus" {
		stop = load.Profile(profile, args[1]+".prof")
	}
	if args[1] == "publish" {
		p, err := c.publish(to, n[1])
		load.Check(err)
		paced(p, n[2], n[3])
	} else {
		answer(c, to, n[1])
	}
	stop()
	os.Exit(0) // whatever the contender still does
}

// paced publishes n events at a rate. Up to 2,000 a second each one has its
// time in it.
func paced(p publisher, rate, n int) {
	const warm = 100
	for range warm { // connects, and fills pools
		load.Check(p.publish(load.NoTime))
		load.Check(p.flush())
	}
	cpu, mallocs := load.Usage()
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
			at := load.NoTime
			if rate <= 2000 {
				at = time.Now().UnixNano()
			}
			load.Check(p.publish(at))
		}
	}
	load.Check(p.flush())
	elapsed := time.Since(begin)
	cpuNow, mallocsNow := load.Usage()
	fmt.Println(elapsed.Nanoseconds()*int64(n)/int64(n-warm), int64(cpuNow-cpu)*int64(n)/int64(n-warm), mallocsNow-mallocs)
}

// answer says for each line of the input what was heard.
func answer(c contender, to netip.AddrPort, ttl int) {
	var heard atomic.Int64
	var mu sync.Mutex // guards took
	var took []int64
	load.Check(c.hear(to, ttl, func(at int64) {
		if at != load.NoTime {
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
		cpu, mallocs := load.Usage()
		fmt.Println(heard.Load(), int64(cpu), mallocs, p50, p99)
	}
}

// size is the payload's: that of the JSON of Bench, which the others are given
// ready.
const size = 100
