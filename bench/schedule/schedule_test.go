// Package schedule puts the scheduler beside its peers: gocron v2, robfig/cron
// v3 and go-quartz, with time.AfterFunc as the floor.
//
//	go test -C bench -bench . ./schedule
//
// Add is a job more, with so many waiting; AddFirst one that is due before all
// of them. Due is the processor time of a run, out of so many jobs that wait,
// of which so many fall due each second. Memory is the heap of a job. Idle is
// the processor time of a second in which nothing is due.
package schedule

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/autobus-go/autobus"
	"github.com/go-co-op/gocron/v2"
	"github.com/reugn/go-quartz/quartz"
	"github.com/robfig/cron/v3"
)

// A scheduler is one of the peers, running.
type scheduler struct {
	name string
	most int // of what it can be given in reasonable time
	// begin starts one; add gives it a job and returns what takes that away.
	begin func(tb testing.TB) (add func(every time.Duration, fn func()) (remove func()), end func())
}

var schedulers = []scheduler{
	{"autobus", 1e6, func(tb testing.TB) (func(time.Duration, func()) func(), func()) {
		var s autobus.Scheduler
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		return func(every time.Duration, fn func()) func() {
				j, err := s.Schedule(autobus.Every(every.Seconds()).Seconds(), func(context.Context) error { fn(); return nil })
				if err != nil {
					tb.Fatal(err)
				}
				return j.Cancel
			}, func() {
				cancel()
				if err := <-ended; err != nil {
					tb.Error(err)
				}
			}
	}},
	{"AfterFunc", 1e6, func(tb testing.TB) (func(time.Duration, func()) func(), func()) {
		var ended atomic.Bool
		return func(every time.Duration, fn func()) func() {
			var t atomic.Pointer[time.Timer]
			t.Store(time.AfterFunc(every, func() {
				if fn(); !ended.Load() {
					t.Load().Reset(every)
				}
			}))
			return func() { t.Load().Stop() }
		}, func() { ended.Store(true) }
	}},
	{"gocron", 1e4, func(tb testing.TB) (func(time.Duration, func()) func(), func()) {
		s, err := gocron.NewScheduler()
		if err != nil {
			tb.Fatal(err)
		}
		s.Start()
		return func(every time.Duration, fn func()) func() {
			j, err := s.NewJob(gocron.DurationJob(every), gocron.NewTask(fn))
			if err != nil {
				tb.Fatal(err)
			}
			return func() { s.RemoveJob(j.ID()) }
		}, func() { s.Shutdown() }
	}},
	{"robfig", 1e4, func(tb testing.TB) (func(time.Duration, func()) func(), func()) {
		c := cron.New()
		c.Start()
		return func(every time.Duration, fn func()) func() {
			id := c.Schedule(cron.Every(every), cron.FuncJob(fn)) // in whole seconds
			return func() { c.Remove(id) }
		}, func() { <-c.Stop().Done() }
	}},
	{"quartz", 1e4, func(tb testing.TB) (func(time.Duration, func()) func(), func()) {
		s, err := quartz.NewStdScheduler()
		if err != nil {
			tb.Fatal(err)
		}
		s.Start(context.Background())
		n := 0
		return func(every time.Duration, fn func()) func() {
				n++
				key := quartz.NewJobKey(fmt.Sprint(n))
				if err := s.ScheduleJob(quartz.NewJobDetail(fnJob(fn), key), quartz.NewSimpleTrigger(every)); err != nil {
					tb.Fatal(err)
				}
				return func() { s.DeleteJob(key) }
			}, func() {
				s.Stop()
				s.Wait(context.Background())
			}
	}},
}

type fnJob func()

func (f fnJob) Execute(context.Context) error { f(); return nil }
func (f fnJob) Description() string           { return "" }

func nothing() {}

// waiting returns random times in which nothing falls due.
func waiting() func() time.Duration {
	r := rand.New(rand.NewPCG(1, 2))
	return func() time.Duration { return time.Hour + time.Duration(r.Int64N(int64(time.Hour))) }
}

// sooner returns times that are each before all others: the worst for a heap.
func sooner() func() time.Duration {
	every := 2 * time.Hour
	return func() time.Duration {
		every -= time.Microsecond
		return every
	}
}

func BenchmarkAdd(b *testing.B)      { benchmarkAdd(b, waiting) }
func BenchmarkAddFirst(b *testing.B) { benchmarkAdd(b, sooner) }

func benchmarkAdd(b *testing.B, times func() func() time.Duration) {
	for _, pending := range []int{1e4, 1e5, 1e6} {
		for _, s := range schedulers {
			if pending > s.most {
				continue
			}
			b.Run(fmt.Sprintf("%s/%dk", s.name, pending/1000), func(b *testing.B) {
				add, end := s.begin(b)
				defer end()
				every := times()
				for range pending {
					add(every(), nothing)
				}
				runtime.GC()
				var more [1000]func()
				i := 0
				b.ReportAllocs()
				for b.Loop() {
					more[i] = add(every(), nothing)
					if i++; i == len(more) {
						b.StopTimer()
						for _, remove := range more {
							remove()
						}
						i = 0
						b.StartTimer()
					}
				}
			})
		}
	}
}

func BenchmarkDue(b *testing.B) {
	for _, load := range []struct {
		pending int
		every   time.Duration
	}{{1e3, time.Second}, {1e5, time.Second}, {1e5, 10 * time.Second}} {
		for _, s := range schedulers {
			if load.pending > s.most {
				continue
			}
			each := int(load.every / time.Second)
			b.Run(fmt.Sprintf("%s/%dk/%dk-a-second", s.name, load.pending/1000, load.pending/1000/each), func(b *testing.B) {
				add, end := s.begin(b)
				defer end()
				var runs atomic.Int64
				r := rand.New(rand.NewPCG(1, 2))
				var removes []func()
				defer func() {
					for _, remove := range removes {
						remove()
					}
				}()
				for range load.pending {
					removes = append(removes, add(load.every/2+time.Duration(r.Int64N(int64(load.every))), func() { runs.Add(1) }))
				}
				time.Sleep(3 * load.every / 2) // until they come evenly, more or less
				runtime.GC()
				begin, before := cpu(), runs.Load()
				n := 0
				for b.Loop() {
					time.Sleep(3 * time.Second)
					n++
				}
				ran := float64(runs.Load() - before)
				b.ReportMetric(float64(cpu()-begin)/ran, "cpu-ns/run")
				b.ReportMetric(ran/float64(3*n), "runs/s")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func BenchmarkMemory(b *testing.B) {
	for _, pending := range []int{1e4, 1e5, 1e6} {
		for _, s := range schedulers {
			if pending > s.most {
				continue
			}
			b.Run(fmt.Sprintf("%s/%dk", s.name, pending/1000), func(b *testing.B) {
				most := int64(0) // of several: what was there before may go meanwhile
				for b.Loop() {
					for range 3 {
						add, end := s.begin(b)
						every := waiting()
						before := heap()
						for range pending {
							add(every(), nothing)
						}
						most = max(most, heap()-before)
						end()
					}
				}
				b.ReportMetric(float64(most)/float64(pending), "B/job")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func BenchmarkIdle(b *testing.B) {
	for _, s := range schedulers {
		b.Run(s.name, func(b *testing.B) {
			add, end := s.begin(b)
			defer end()
			every := waiting()
			for range 1000 {
				add(every(), nothing)
			}
			runtime.GC()
			time.Sleep(time.Second)
			begin := cpu()
			n := 0
			for b.Loop() {
				time.Sleep(10 * time.Second)
				n++
			}
			b.ReportMetric(float64(cpu()-begin)/1e3/float64(10*n), "cpu-us/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// cpu is the processor time of this process, in nanoseconds.
func cpu() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// heap is the memory in use, once that no longer shrinks: timers that were
// stopped before go bit by bit.
func heap() int64 {
	var m runtime.MemStats
	for last, still := int64(0), 0; ; last = int64(m.HeapAlloc) {
		runtime.GC()
		runtime.ReadMemStats(&m)
		if last > 0 && int64(m.HeapAlloc) > last-last/1000 {
			still++
		} else {
			still = 0
		}
		if still == 5 {
			return int64(m.HeapAlloc)
		}
	}
}
