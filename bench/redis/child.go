//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"time"
)

// child is one side of a run.
func child(role, addr string, args []string, profile string) {
	var c contender
	for _, each := range contenders {
		if each.name == args[0] {
			c = each
		}
	}
	size, err := strconv.Atoi(args[1])
	check(err)
	n, err := strconv.Atoi(args[2])
	check(err)
	paced := args[3] == "true"
	stop := func() {}
	if profile != "" && c.name == "autobus" {
		f, err := os.Create(filepath.Join(profile, role+"-"+args[1]+".prof"))
		check(err)
		check(pprof.StartCPUProfile(f))
		stop = func() {
			pprof.StopCPUProfile()
			f.Close()
		}
	}
	var s side
	if role == "publish" {
		s = publishes(c, addr, size, n, paced)
	} else {
		s = hears(c, addr, n, paced)
	}
	stop()
	check(json.NewEncoder(os.Stdout).Encode(s))
	os.Exit(0) // whatever the contender still does
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func publishes(c contender, addr string, size, n int, paced bool) side {
	p, err := c.publisher(addr, size)
	check(err)
	check(p.burst(1000)) // to warm up; these say so by their time
	if paced {
		tick := time.NewTicker(time.Millisecond)
		for range n {
			<-tick.C
			check(p.one(time.Now().UnixNano()))
		}
		return side{Events: n, Elapsed: 1}
	}
	cpu, mallocs := usage()
	begin := time.Now()
	check(p.burst(n))
	s := side{Events: n, Elapsed: time.Since(begin)}
	cpuNow, mallocsNow := usage()
	s.CPU, s.Mallocs = cpuNow-cpu, mallocsNow-mallocs
	return s
}

// hears counts events, from the 1001st on.
func hears(c contender, addr string, n int, paced bool) side {
	var s side
	var cpu time.Duration
	var mallocs uint64
	var begin time.Time
	var took []time.Duration
	seen := 0
	done := make(chan struct{})
	progress := make(chan struct{}, 1)
	err := c.subscribe(addr, func(at int64) {
		seen++
		switch {
		case seen < 1000:
			return
		case seen == 1000:
			cpu, mallocs = usage()
			begin = time.Now()
			return
		}
		if paced {
			took = append(took, time.Duration(time.Now().UnixNano()-at))
		}
		if s.Events++; s.Events == n {
			s.Elapsed = time.Since(begin)
			cpuNow, mallocsNow := usage()
			s.CPU, s.Mallocs = cpuNow-cpu, mallocsNow-mallocs
			close(done)
		} else if s.Events%1024 == 0 {
			select {
			case progress <- struct{}{}:
			default:
			}
		}
	})
	check(err)
	fmt.Println("ready")
	for patience := time.NewTimer(30 * time.Second); ; {
		select {
		case <-done:
		case <-progress:
			patience.Reset(10 * time.Second)
			continue
		case <-patience.C:
			s.Elapsed = time.Since(begin)
		}
		break
	}
	if paced && len(took) > 0 {
		slices.Sort(took)
		s.P50, s.P99 = took[len(took)/2], took[len(took)*99/100]
	}
	return s
}

// A payload is the event as the others publish it: the bytes that ours makes
// each time.
func newPayload(size int) []byte {
	head := fmt.Sprintf(`{"n":1000000,"at":%019d,"text":"`, 1)
	tail := `","type":"Bench"}`
	return append(append([]byte(head), bytes.Repeat([]byte{'x'}, size-len(head)-len(tail))...), tail...)
}

const atOffset = len(`{"n":1000000,"at":`)

// stamp writes a time into a payload; it has 19 digits until the year 2286.
func stamp(payload []byte, at int64) {
	copy(payload[atOffset:], strconv.FormatInt(at, 10))
}

// stamped returns the time in a payload.
func stamped(payload []byte) int64 {
	at := int64(0)
	for _, c := range payload[atOffset : atOffset+19] {
		at = 10*at + int64(c-'0')
	}
	return at
}
