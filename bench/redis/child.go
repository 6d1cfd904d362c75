//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/autobus-go/autobus/bench/load"
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
	load.Check(err)
	n, err := strconv.Atoi(args[2])
	load.Check(err)
	paced := args[3] == "true"
	stop := func() {}
	if profile != "" && c.name == "autobus" {
		stop = load.Profile(profile, role+"-"+args[1]+".prof")
	}
	var s side
	if role == "publish" {
		s = publishes(c, addr, size, n, paced)
	} else {
		s = hears(c, addr, n, paced)
	}
	stop()
	load.Check(json.NewEncoder(os.Stdout).Encode(s))
	os.Exit(0) // whatever the contender still does
}

func publishes(c contender, addr string, size, n int, paced bool) side {
	p, err := c.publisher(addr, size)
	load.Check(err)
	load.Check(p.burst(1000)) // to warm up; these say so by their time
	if paced {
		tick := time.NewTicker(time.Millisecond)
		for range n {
			<-tick.C
			load.Check(p.one(time.Now().UnixNano()))
		}
		return side{Events: n, Elapsed: 1}
	}
	cpu, mallocs := load.Usage()
	begin := time.Now()
	load.Check(p.burst(n))
	s := side{Events: n, Elapsed: time.Since(begin)}
	cpuNow, mallocsNow := load.Usage()
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
			cpu, mallocs = load.Usage()
			begin = time.Now()
			return
		}
		if paced {
			took = append(took, time.Duration(time.Now().UnixNano()-at))
		}
		if s.Events++; s.Events == n {
			s.Elapsed = time.Since(begin)
			cpuNow, mallocsNow := load.Usage()
			s.CPU, s.Mallocs = cpuNow-cpu, mallocsNow-mallocs
			close(done)
		} else if s.Events%1024 == 0 {
			select {
			case progress <- struct{}{}:
			default:
			}
		}
	})
	load.Check(err)
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
