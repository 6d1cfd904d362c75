package autobus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A vector is a case of testdata/schedule.json, made by the Python schedule
// library: see the README beside the original.
type vector struct {
	ID         int
	Kind       string
	Group      string
	Now        time.Time
	TZ         string
	Chain      []link
	Expect     []struct{ At time.Time }
	Ideal      []time.Time
	Verdict    string
	Canceled   string
	JobSeconds float64 `json:"job_seconds"`
	Draws      []int64
	IdealError bool `json:"ideal_error"`

	Jobs  ordered
	First map[string]string
	Polls []struct {
		At   time.Time
		Ran  []string
		Next map[string]string
	}
	IdealRan [][]string `json:"ideal_ran"`
}

// A link is a call in a chain: the method and its arguments.
type link []any

// ordered is a JSON object that keeps the order of its fields.
type ordered []struct {
	name  string
	chain []link
}

func (o *ordered) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.Token()
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var chain []link
		if err := d.Decode(&chain); err != nil {
			return err
		}
		*o = append(*o, struct {
			name  string
			chain []link
		}{name.(string), chain})
	}
	return nil
}

func vectors(t *testing.T) []vector {
	b, err := os.ReadFile("testdata/schedule.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Cases []vector }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	return file.Cases
}

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// errCompiler stands for a chain that Go's compiler refuses.
var errCompiler = errors.New("not Go")

// recurrence says a chain in Go. Python's schedule takes the zone with at(),
// and strings, times of day and deltas for until().
func recurrence(t *testing.T, v vector, chain []link) (Recurrence, error) {
	home := zone(t, v.TZ)
	var r Recurrence
	for _, l := range chain {
		name, args := l[0].(string), l[1:]
		method := strings.ToUpper(name[:1]) + name[1:]
		switch name {
		case "every":
			n := 1.0
			if len(args) > 0 {
				n = args[0].(float64)
			}
			r = Every(n)
		case "to":
			r = r.To(args[0].(float64))
		case "until":
			until, err := untilTime(args[0], v.Now.In(home))
			if err != nil {
				return r, err
			}
			r = r.Until(until)
		case "at":
			clock, ok := args[0].(string)
			if !ok {
				return r, errCompiler
			}
			if r = r.At(clock); len(args) > 1 {
				name, ok := args[1].(string)
				if !ok {
					return r, errCompiler
				}
				loc, err := time.LoadLocation(name)
				if err != nil || name == "" {
					loc = nil
				}
				r = r.In(loc)
			}
		default:
			r = map[string]func(Recurrence) Recurrence{
				"Seconds": Recurrence.Seconds, "Minutes": Recurrence.Minutes, "Hours": Recurrence.Hours,
				"Days": Recurrence.Days, "Weeks": Recurrence.Weeks,
				"Second": Recurrence.Second, "Minute": Recurrence.Minute, "Hour": Recurrence.Hour,
				"Day": Recurrence.Day, "Week": Recurrence.Week,
				"Monday": Recurrence.Monday, "Tuesday": Recurrence.Tuesday, "Wednesday": Recurrence.Wednesday,
				"Thursday": Recurrence.Thursday, "Friday": Recurrence.Friday, "Saturday": Recurrence.Saturday,
				"Sunday": Recurrence.Sunday,
			}[method](r)
		}
	}
	if r.zone == nil {
		r = r.In(home)
	}
	if len(v.Draws) > 0 {
		draws := slices.Clone(v.Draws)
		r.opt().draw = func(from, to int64) int64 {
			d := draws[0]
			draws = draws[1:]
			return d
		}
	}
	return r, nil
}

func untilTime(arg any, now time.Time) (time.Time, error) {
	onDay := func(clock time.Time) time.Time {
		return time.Date(now.Year(), now.Month(), now.Day(), clock.Hour(), clock.Minute(), clock.Second(), 0, now.Location())
	}
	switch arg := arg.(type) {
	case string:
		for _, layout := range []string{"2006-1-2 15:04:05", "2006-1-2 15:04", "2006-1-2"} {
			if u, err := time.ParseInLocation(layout, arg, now.Location()); err == nil {
				return u, nil
			}
		}
		for _, layout := range []string{"15:04:05", "15:04"} {
			if u, err := time.Parse(layout, arg); err == nil {
				return onDay(u), nil
			}
		}
	case map[string]any:
		if s, ok := arg["datetime"]; ok {
			if u, err := time.Parse(time.RFC3339, s.(string)); err == nil {
				return u, nil
			}
			return time.ParseInLocation("2006-01-02T15:04:05", s.(string), now.Location())
		}
		if s, ok := arg["time"]; ok {
			u, err := time.Parse("15:04:05", s.(string))
			return onDay(u), err
		}
		return now.Add(time.Duration(arg["delta_s"].(float64) * float64(time.Second))), nil
	}
	return time.Time{}, errCompiler
}

// want is when the case says the job runs.
func (v vector) want() []time.Time {
	if v.Verdict != "same" {
		return v.Ideal
	}
	want := []time.Time{}
	for _, e := range v.Expect {
		want = append(want, e.At)
	}
	return want
}

func TestScheduleNext(t *testing.T) {
	ran := 0
	for _, v := range vectors(t) {
		if v.Kind != "due" && v.Kind != "range" {
			continue
		}
		ran++
		t.Run(fmt.Sprint(v.ID, "/", v.Group), func(t *testing.T) {
			r, err := recurrence(t, v, v.Chain)
			if err != nil {
				t.Fatal(err)
			}
			last := v.Now
			for _, want := range v.want() {
				next, ok := r.Next(last)
				if !ok || !next.Equal(want) {
					t.Fatalf("%v.Next(%v) = %v, %v; want %v", r, last.In(want.Location()), next.In(want.Location()), ok, want)
				}
				last = next.Add(time.Duration(v.JobSeconds * float64(time.Second)))
			}
			if v.Canceled != "" {
				if next, ok := r.Next(last); ok {
					t.Fatalf("%v.Next(%v) = %v; want none", r, last, next)
				}
			}
		})
	}
	if ran < 300 {
		t.Fatal("only", ran, "cases")
	}
}

// TestVectorsScheduler runs the same cases through a scheduler, under
// AfterCompletion and under the default rule where nothing runs late.
func TestScheduleScheduler(t *testing.T) {
	for _, v := range vectors(t) {
		if v.Kind != "due" && v.Kind != "range" {
			continue
		}
		for _, rule := range []string{"AfterCompletion", "default"} {
			if rule == "default" && (v.JobSeconds > 0 || v.ID == 441) {
				// 441 is a week after a run that a gap moved: "the next day is back
				// on its time" under the default rule.
				continue
			}
			t.Run(fmt.Sprint(v.ID, "/", v.Group, "/", rule), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { vectorScheduler(t, v, rule) })
			})
		}
	}
}

func vectorScheduler(t *testing.T, v vector, rule string) {
	ctx := t.Context()
	r, err := recurrence(t, v, v.Chain)
	if err != nil {
		t.Fatal(err)
	}
	if rule == "AfterCompletion" {
		r = r.AfterCompletion()
	}
	var s Scheduler
	s.RunPending(ctx, v.Now)
	j, err := s.Schedule(r, func(context.Context) error {
		time.Sleep(time.Duration(v.JobSeconds * float64(time.Second)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range v.want() {
		if next := j.Next(); !next.Equal(want) || !s.NextRun().Equal(want) {
			t.Fatalf("next %v (of all %v), want %v", next.In(want.Location()), s.NextRun(), want)
		}
		if n := s.RunPending(ctx, want.Add(-time.Microsecond)); n != 0 {
			t.Fatal("ran before", want)
		}
		if n := s.RunPending(ctx, want); n != 1 {
			t.Fatal("did not run at", want)
		}
	}
	if v.Canceled != "" && (!j.Next().IsZero() || len(s.Jobs()) != 0) {
		t.Fatal("goes on past Until")
	}
	if j.Skipped() != 0 {
		t.Fatal("skipped", j.Skipped())
	}
}

func TestScheduleError(t *testing.T) {
	for _, v := range vectors(t) {
		if v.Kind != "error" {
			continue
		}
		t.Run(fmt.Sprint(v.ID), func(t *testing.T) {
			r, err := recurrence(t, v, v.Chain)
			if err == nil {
				var s Scheduler
				s.RunPending(t.Context(), v.Now)
				_, err = s.Schedule(r, func(context.Context) error { return nil })
			}
			if (err != nil) != v.IdealError {
				t.Fatalf("%v: error %v, want one: %v", v.Chain, err, v.IdealError)
			}
			t.Log(err)
		})
	}
}

func TestSchedulePoll(t *testing.T) {
	for _, v := range vectors(t) {
		if v.Kind != "poll" || v.Group == "clock-back" { // TestClockBack
			continue
		}
		t.Run(fmt.Sprint(v.ID, "/", v.Group), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { vectorPoll(t, v) })
		})
	}
}

func vectorPoll(t *testing.T, v vector) {
	ctx := t.Context()
	home := zone(t, v.TZ)
	s := Scheduler{Logger: discard{}}
	s.RunPending(ctx, v.Now)
	var ran []string
	jobs := map[string]*Job{}
	add := func(name string, chain []link) {
		r, err := recurrence(t, v, chain)
		if err != nil {
			t.Fatal(err)
		}
		jobs[name], err = s.Schedule(r.AfterCompletion(), func(context.Context) error {
			if name == "n" { // The job that a job adds: its runs aren't listed.
				return nil
			}
			ran = append(ran, name)
			if v.Group == "exception" && name == "bad" {
				panic("boom")
			}
			if v.Group == "add" {
				_, err := s.Schedule(Every(1).Second().AfterCompletion(), func(context.Context) error { return nil })
				return err
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, j := range v.Jobs {
		add(j.name, j.chain)
	}
	next := func() map[string]string {
		m := map[string]string{}
		for name, j := range jobs {
			if n := j.Next(); !n.IsZero() {
				m[name] = n.In(home).Format("2006-01-02T15:04:05")
			}
		}
		return m
	}
	if v.Verdict == "same" && fmt.Sprint(next()) != fmt.Sprint(v.First) {
		t.Fatal("first", next(), "want", v.First)
	}
	for i, p := range v.Polls {
		ran = nil
		n := s.RunPending(ctx, p.At)
		want := p.Ran
		if v.Verdict != "same" {
			want = v.IdealRan[i]
		}
		if !slices.Equal(ran, want) || n < len(want) {
			t.Fatal("at", p.At, "ran", ran, "want", want)
		}
		delete(p.Next, "n")
		if v.Verdict == "same" && fmt.Sprint(next()) != fmt.Sprint(p.Next) {
			t.Fatal("next", next(), "want", p.Next)
		}
	}
}

type discard struct{}

func (discard) Debug(string, ...any) {}
func (discard) Info(string, ...any)  {}
func (discard) Warn(string, ...any)  {}
func (discard) Error(string, ...any) {}

// during runs a scheduler in a bubble's fake time while f does things.
func during(t *testing.T, s *Scheduler, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	synctest.Wait()
	f()
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// setClock puts the wall clock forward or back, and not the monotonic one.
func setClock(s *Scheduler, by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skew += by
}

// schedule adds a job that must be right.
func schedule(t testing.TB, s *Scheduler, r Recurrence, fn func(context.Context) error) *Job {
	t.Helper()
	j, err := s.Schedule(r, fn)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestNoDriftInAWeek(t *testing.T) {
	days := 7
	if raceEnabled {
		days = 1 // The race detector makes a week half a minute.
	}
	synctest.Test(t, func(t *testing.T) {
		var s Scheduler
		begin := time.Now()
		runs := 0
		schedule(t, &s, Every(0.25).Seconds(), func(context.Context) error {
			runs++
			if now := time.Now(); !now.Equal(begin.Add(time.Duration(runs) * 250 * time.Millisecond)) {
				t.Error("run", runs, "at", now)
			}
			return nil
		})
		during(t, &s, func() { time.Sleep(time.Duration(days)*24*time.Hour + time.Millisecond) })
		if runs != days*345_600 {
			t.Fatal(runs, "runs")
		}
	})
}

func TestBerlinTenYears(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	synctest.Test(t, func(t *testing.T) {
		s := Scheduler{nap: 24 * time.Hour} // Looking at the clock every 30 s takes 20 s.
		day := time.Date(2000, 1, 1, 0, 0, 0, 0, berlin)
		runs, gaps := 0, 0
		schedule(t, &s, Every(1).Day().At("02:30").In(berlin), func(context.Context) error {
			want := "02:30:00"
			if date := day.AddDate(0, 0, runs); date.Month() == time.March && date.Weekday() == time.Sunday && date.Day() > 24 {
				want = "03:30:00"
				gaps++
			}
			want = day.AddDate(0, 0, runs).Format("2006-01-02 ") + want
			if got := time.Now().In(berlin).Format("2006-01-02 15:04:05.999999999"); got != want {
				t.Error("ran at", got, "want", want)
			}
			runs++
			return nil
		})
		during(t, &s, func() { time.Sleep(time.Until(time.Date(2010, 1, 1, 0, 0, 0, 0, berlin))) })
		if runs != 3653 || gaps != 10 {
			t.Fatal(runs, "runs,", gaps, "in gaps")
		}
	})
}

// TestThousandJobs runs jobs of random kinds across changes of the clock, and
// asks the oracle when they should have run.
func TestThousandJobs(t *testing.T) {
	zones := []string{
		"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Chatham",
		"UTC", "America/St_Johns", "Africa/Cairo", "Asia/Beirut",
	}
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(5, 1000))
		// Berlin, Lord Howe and Beirut change on 26 March 2000, New York on 2 April.
		time.Sleep(time.Until(time.Date(2000, 3, 24, 12, 34, 56, 789, time.UTC)))
		start := time.Now()
		end := start.Add(10 * 24 * time.Hour)
		var s Scheduler
		runs := make([][]time.Time, 1000)
		for i := range runs {
			r := randomRecurrence(rnd, zone(t, zones[rnd.IntN(len(zones))]))
			schedule(t, &s, r, func(context.Context) error {
				runs[i] = append(runs[i], time.Now())
				return nil
			})
		}
		jobs := s.Jobs()
		during(t, &s, func() { time.Sleep(time.Until(end)) })
		n := 0
		for i, j := range jobs {
			want := slowRuns(j.r, start, end)
			if len(want) > 0 && want[len(want)-1].Equal(end) && len(runs[i]) == len(want)-1 {
				want = want[:len(want)-1] // It ended as that fell due.
			}
			if !slices.EqualFunc(runs[i], want, time.Time.Equal) {
				t.Fatalf("%v from %v:\n  ran %v\n want %v", j, start, runs[i], want)
			}
			n += len(want)
		}
		t.Log(n, "runs")
	})
}

// slowRuns is an oracle for every kind of recurrence but To.
func slowRuns(r Recurrence, start, end time.Time) (runs []time.Time) {
	c := clockFace{r.zone, start.Unix() - start.Unix()%60 - 2*daySecs, end.Unix() + 2*daySecs, 60}
	n := int64(r.n)
	at := int64(r.at / time.Second)
	shown := wall(start.In(r.zone))
	switch {
	case r.unit < day && !r.hasAt:
		for t := start.Add(r.length(r.n)); !t.After(end); t = t.Add(r.length(r.n)) {
			runs = append(runs, t)
		}
		return runs
	case r.unit < day:
		length := int64(unitSeconds[r.unit])
		least := start.Unix() + 1
		if n > 1 {
			least = start.Unix() - shown%length + at + n*length
		}
		for _, t := range c.inUnit(length, at) {
			if t.Unix() >= least {
				runs = append(runs, t)
				least = t.Unix() + n*length
			}
		}
	default:
		var nanos time.Duration
		if !r.hasAt {
			at, nanos = shown%daySecs, time.Duration(start.Nanosecond())
		}
		wanted := func(d int64) bool { return (d-shown/daySecs)%n == 0 && (n == 1 || d > shown/daySecs) }
		if r.onWeekday {
			wanted = func(d int64) bool { return time.Unix(d*daySecs, 0).UTC().Weekday() == time.Weekday(r.weekday) }
		}
		for _, t := range c.daily(at) {
			if t = t.Add(nanos); t.After(start) && wanted(wall(t.In(r.zone))/daySecs) {
				runs = append(runs, t)
			}
		}
	}
	for i, t := range runs {
		if t.After(end) {
			return runs[:i]
		}
	}
	return runs
}

// noting returns a function for a job that notes when it runs, by the clock
// that the scheduler sees, and what is read from the notes.
func noting(s *Scheduler, loc *time.Location) (fn func(context.Context) error, read func() string) {
	var mu sync.Mutex
	var notes []string
	fn = func(context.Context) error {
		s.mu.Lock()
		now, _ := s.look()
		s.mu.Unlock()
		mu.Lock()
		defer mu.Unlock()
		notes = append(notes, now.In(loc).Format("2 15:04:05"))
		return nil
	}
	read = func() string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		all := strings.Join(notes, ", ")
		notes = nil
		return all
	}
	return fn, read
}

func expect(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A bubble's time begins on 1 January 2000, 00:00 UTC.

func TestClockForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Scheduler
		fn, daily := noting(&s, time.UTC)
		schedule(t, &s, Every(1).Day().At("10:30").In(time.UTC), fn)
		fn, hourly := noting(&s, time.UTC)
		j := schedule(t, &s, Every(1).Hour().At(":15").In(time.UTC), fn)
		ticks := 0
		k := schedule(t, &s, Every(10).Minutes(), func(context.Context) error { ticks++; return nil })
		during(t, &s, func() {
			time.Sleep(10*time.Hour + 5*time.Second)
			expect(t, daily(), "")
			hourly()
			setClock(&s, 3*time.Hour) // As a clock that is set, or a suspended machine, does.
			time.Sleep(time.Hour - 5*time.Second)
			// One run for those at 10:15, 11:15 and 12:15, when the step is noticed.
			expect(t, daily(), "1 13:00:30")
			expect(t, hourly(), "1 13:00:30, 1 13:15:00")
			expect(t, j.Next().String(), "2000-01-01 14:15:00 +0000 UTC")
			if j.Skipped() != 2 {
				t.Error("skipped", j.Skipped())
			}
			time.Sleep(24 * time.Hour)
			expect(t, daily(), "2 10:30:00")
			if ticks != 35*6 || k.Skipped() != 0 {
				t.Error("the monotonic clock was taken for the wall clock:", ticks)
			}
		})
	})
}

func TestClockBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Scheduler
		add := func(r Recurrence) (*Job, func() string) {
			fn, read := noting(&s, time.UTC)
			return schedule(t, &s, r.In(time.UTC), fn), read
		}
		j, daily := add(Every(1).Day().At("10:30"))
		_, hourly := add(Every(1).Hour().At(":15"))
		_, threeDays := add(Every(3).Days().At("10:30"))
		_, plain := add(Every(1).Day())
		_, saturday := add(Every(1).Saturday().At("10:45"))
		_, tens := add(Every(10).Minutes())
		_, after := add(Every(4).Hours().At(":00").AfterCompletion())
		during(t, &s, func() {
			time.Sleep(11 * time.Hour)
			expect(t, daily(), "1 10:30:00")
			expect(t, saturday(), "1 10:45:00")
			expect(t, after(), "1 04:00:00, 1 08:00:00")
			hourly()
			tens()
			setClock(&s, -2*time.Hour)
			time.Sleep(2*time.Hour + time.Minute)
			// It is 11:01 again. No run has been repeated, but 10 minutes are 10 minutes.
			expect(t, daily()+saturday()+hourly()+after(), "")
			if n := len(strings.Split(tens(), ",")); n != 12 {
				t.Error(n, "runs every 10 minutes in two hours")
			}
			expect(t, j.Next().String(), "2000-01-02 10:30:00 +0000 UTC")
			time.Sleep(time.Hour)
			expect(t, hourly(), "1 11:15:00")
			expect(t, after(), "1 12:00:00")
			time.Sleep(24 * time.Hour)
			expect(t, daily(), "2 10:30:00")
			expect(t, plain(), "2 00:00:00")
			time.Sleep(48 * time.Hour)
			expect(t, threeDays(), "4 10:30:00") // Its third day is still the third.
		})
	})
}

// TestClockWrongAtFirst is a device without a battery for its clock: it comes
// up in the past, or in the future, and is put right a little later.
func TestClockWrongAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Scheduler
		setClock(&s, 38*365*24*time.Hour)
		fn, daily := noting(&s, time.UTC)
		schedule(t, &s, Every(1).Day().At("10:30").In(time.UTC), fn)
		fn, plain := noting(&s, time.UTC)
		schedule(t, &s, Every(2).Days().In(time.UTC), fn)
		fn, tens := noting(&s, time.UTC)
		schedule(t, &s, Every(10).Seconds(), fn)
		during(t, &s, func() {
			time.Sleep(61 * time.Second)
			setClock(&s, -38*365*24*time.Hour)
			tens()
			time.Sleep(time.Minute)
			expect(t, tens(), "1 00:01:10, 1 00:01:20, 1 00:01:30, 1 00:01:40, 1 00:01:50, 1 00:02:00")
			time.Sleep(72 * time.Hour)
			expect(t, daily(), "1 10:30:00, 2 10:30:00, 3 10:30:00")
			expect(t, plain(), "3 00:01:10") // Two days from when that was noticed.
			setClock(&s, -30*365*24*time.Hour)
			time.Sleep(72 * time.Hour)
			expect(t, daily(), "11 10:30:00, 12 10:30:00, 13 10:30:00")
		})
		var past Scheduler
		fn, daily = noting(&past, time.UTC)
		setClock(&past, -30*365*24*time.Hour)
		schedule(t, &past, Every(1).Day().At("10:30").In(time.UTC), fn)
		during(t, &past, func() {
			time.Sleep(61 * time.Second)
			setClock(&past, 30*365*24*time.Hour)
			time.Sleep(24 * time.Hour)
			expect(t, daily(), "7 00:03:31, 7 10:30:00") // The 10,950 missed days have one run.
		})
	})
}

func TestZoneChange(t *testing.T) {
	old := time.Local
	defer func() { time.Local = old }()
	time.Local = zone(t, "Europe/Berlin")
	tokyo := zone(t, "Asia/Tokyo")
	synctest.Test(t, func(t *testing.T) {
		var s Scheduler
		fn, daily := noting(&s, time.UTC)
		schedule(t, &s, Every(1).Day().At("10:30"), fn)
		fn, elsewhere := noting(&s, time.UTC)
		schedule(t, &s, Every(1).Day().At("10:30").In(time.UTC), fn)
		s.RunPending(t.Context(), time.Now())
		time.Sleep(23 * time.Hour)
		s.RunPending(t.Context(), time.Now())
		expect(t, daily(), "1 23:00:00")
		time.Local = tokyo
		s.RunPending(t.Context(), time.Now())
		expect(t, s.NextRun().UTC().String(), "2000-01-02 01:30:00 +0000 UTC")
		time.Sleep(2*time.Hour + 30*time.Minute)
		s.RunPending(t.Context(), time.Now())
		expect(t, daily(), "2 01:30:00")
		expect(t, elsewhere(), "1 23:00:00")
	})
}

// TestFortyYears asks what a job costs that slept for so long: nothing.
func TestFortyYears(t *testing.T) {
	var s Scheduler
	now := time.Date(2024, 1, 15, 10, 20, 30, 0, time.UTC)
	s.RunPending(t.Context(), now)
	for _, r := range []Recurrence{
		Every(1e-6).Seconds(), Every(1).Second(), Every(1).Minute().At(":30"), Every(1).Hour().At(":30"), Every(1).Day(),
		Every(7).Days().At("12:00"), Every(1).Monday(), Every(1).To(2).Seconds(), Every(1).To(2).Minutes().At(":00"),
	} {
		schedule(t, &s, r.In(zone(t, "America/New_York")), func(context.Context) error { return nil })
	}
	later := now.AddDate(40, 0, 0)
	begin := time.Now()
	if n := s.RunPending(t.Context(), later); n != 9 {
		t.Error(n, "runs")
	}
	if took := time.Since(begin); took > time.Second {
		t.Error("took", took)
	}
	for _, j := range s.Jobs() {
		if next := j.Next(); !next.After(later) || j.Skipped() == 0 {
			t.Error(j, "next", next, "skipped", j.Skipped())
		}
	}
	if n := s.Jobs()[4].Skipped(); n != 40*365+10-1 {
		t.Error("every day: skipped", n)
	}
}

func TestJobOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Scheduler
		note, slow := noting(&s, time.UTC)
		j := schedule(t, &s, Every(10).Seconds(), func(ctx context.Context) error {
			note(ctx)
			time.Sleep(25 * time.Second)
			return nil
		})
		fn, fast := noting(&s, time.UTC)
		schedule(t, &s, Every(20).Seconds(), fn)
		stuck := schedule(t, &s, Every(1).Second(), func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		})
		gone := schedule(t, &s, Every(1).Minute(), func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		time.Sleep(65 * time.Second)
		expect(t, slow(), "1 00:00:10, 1 00:00:40")
		expect(t, fast(), "1 00:00:20, 1 00:00:40, 1 00:01:00")
		if j.Skipped() != 4 || stuck.Skipped() != 64 || s.stats.skipped != 68 {
			t.Error("skipped", j.Skipped(), stuck.Skipped(), s.stats.skipped)
		}

		if err := s.Run(ctx); err == nil || err.Error() != "autobus: the scheduler is running already" {
			t.Error(err)
		}
		stuck.Tag("stuck", "here")
		gone.Cancel()
		at := time.Now()
		cancel()
		err := <-ended
		if took := time.Since(at); took != stopGrace {
			t.Error("Run waited for", took)
		}
		if err == nil || err.Error() != "autobus: the scheduler stopped with jobs still running: every second [stuck here], every minute: context deadline exceeded" {
			t.Error(err)
		}
		if running := s.stop(t.Context()); running != "" {
			t.Error(running)
		}
		synctest.Wait()

		// Once more: what was stuck has ended with its context.
		ctx, cancel = context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		stuck.Cancel()
		j.Cancel()
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
		expect(t, fast(), "1 00:01:20, 1 00:01:40")
	})
}

// TestSchedulerNamesTheOldest stops a scheduler while more jobs are stuck than
// its error names.
func TestSchedulerNamesTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Scheduler
		for i := range 12 { // the youngest falls due first
			if _, err := s.Schedule(Every(13-i).Seconds(), func(ctx context.Context) error {
				<-ctx.Done()
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var oldest []string
		for n := 13; n > 3; n-- {
			oldest = append(oldest, "every "+strconv.Itoa(n)+" seconds")
		}
		want := "autobus: the scheduler stopped with jobs still running: " + strings.Join(oldest, ", ") + " and 2 more: context deadline exceeded"
		if err := s.Run(ctx); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	})
}

// TestSchedulerWaits ends Run while jobs are running that take a little longer.
func TestSchedulerWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Scheduler
		var done atomic.Int64
		for range 3 {
			schedule(t, &s, Every(1).Minute(), func(ctx context.Context) error {
				time.Sleep(5 * time.Second)
				done.Add(1)
				return ctx.Err()
			})
			time.Sleep(time.Millisecond)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 61*time.Second)
		defer cancel()
		if err := s.Run(ctx); err != nil || done.Load() != 3 {
			t.Error(err, done.Load())
		}
		if s.stats.failed != 0 || s.runs.Load() != 3 {
			t.Error(s.stats)
		}
	})
}

func TestScheduleManyAtOnce(t *testing.T) {
	var s Scheduler
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	var ran atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			var jobs []*Job
			for i := range 100 {
				r := Every(float64(1+i%7) / 1e4).Seconds()
				if i%3 == 0 {
					r = Every(1).Day().At("10:30")
				}
				j, err := s.Schedule(r, func(context.Context) error {
					if ran.Add(1)%5 == 0 {
						return ErrCancelJob
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				jobs = append(jobs, j.Tag("all", "goroutine "+strconv.Itoa(g)))
				s.NextRun()
				if i%10 == 9 {
					jobs[i/2].Cancel()
					jobs[i/2].Cancel()
					s.Jobs("all")
				}
			}
			for ran.Load() < 100 {
				runtime.Gosched()
			}
			s.CancelTagged("all", "goroutine "+strconv.Itoa(g))
			for _, j := range jobs {
				if !j.Next().IsZero() {
					t.Error("cancelled, but next at", j.Next())
				}
			}
		})
	}
	wg.Wait()
	if n := len(s.Jobs()); n != 0 || !s.NextRun().IsZero() {
		t.Error(n, "jobs are left")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if s.active.Load() != 0 {
		t.Error(s.active.Load(), "runs go on")
	}
}

// logged keeps what is logged.
type logged struct {
	discard
	mu    sync.Mutex
	lines []string
}

func (l *logged) Error(msg string, args ...any) {
	line := msg
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == "stack" {
			if !strings.Contains(fmt.Sprint(args[i+1]), "every_test.go") {
				line += " without its stack"
			}
			continue
		}
		line += fmt.Sprintf(" %v=%v", args[i], args[i+1])
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
}

func TestJobFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l logged
		s := Scheduler{Logger: &l}
		var runs atomic.Int64
		does := map[string]func() error{
			"error":  func() error { return errors.New("no luck") },
			"panic":  func() error { panic("boom") },
			"index":  func() error { var none []int; return fmt.Errorf("%d", none[len(none)+9]) },
			"goexit": func() error { runtime.Goexit(); return nil },
		}
		for _, name := range slices.Sorted(maps.Keys(does)) {
			schedule(t, &s, Every(1).Minute(), func(context.Context) error {
				runs.Add(1)
				return does[name]()
			}).Tag(name)
			time.Sleep(time.Millisecond)
		}
		last := schedule(t, &s, Every(1).Minute(), func(context.Context) error {
			runs.Add(1)
			return fmt.Errorf("done: %w", ErrCancelJob)
		})
		var self *Job
		self = schedule(t, &s, Every(1).Minute(), func(context.Context) error {
			runs.Add(1)
			self.Cancel()
			return nil
		})
		during(t, &s, func() { time.Sleep(2*time.Minute + time.Second) })
		if runs := runs.Load(); runs != 2*4+2 {
			t.Error(runs, "runs")
		}
		if !last.Next().IsZero() || !self.Next().IsZero() || len(s.Jobs()) != 4 {
			t.Error("cancelled jobs go on")
		}
		if s.stats.failed != 8 || s.runs.Load() != 10 {
			t.Error(s.stats)
		}
		expect(t, strings.Join(l.lines[4:], "\n"), `autobus: a scheduled job failed job=every minute [error] error=no luck
autobus: a scheduled job failed job=every minute [goexit] error=it called runtime.Goexit
autobus: a scheduled job panicked job=every minute [index] panic=runtime error: index out of range [9] with length 0
autobus: a scheduled job panicked job=every minute [panic] panic=boom`)
	})
}

func TestJobTagsAndRunAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		var s Scheduler
		var ran []string
		add := func(name string, r Recurrence, tags ...string) *Job {
			return schedule(t, &s, r, func(context.Context) error {
				ran = append(ran, name)
				time.Sleep(time.Second)
				return nil
			}).Tag(tags...)
		}
		a := add("a", Every(3).Hours(), "x")
		b := add("b", Every(1).Hour().AfterCompletion(), "x", "y", "x")
		add("c", Every(2).Hours(), "y")
		names := func(jobs []*Job) string {
			var all []string
			for _, j := range jobs {
				all = append(all, j.String())
			}
			return strings.Join(all, "; ")
		}
		expect(t, names(s.Jobs()), "every 3 hours [x]; every hour, after completion [x y]; every 2 hours [y]")
		expect(t, names(s.Jobs("x", "y")), "every hour, after completion [x y]")
		expect(t, names(s.Jobs("z")), "")
		expect(t, fmt.Sprint(b.Tags()), "[x y]")

		if !a.Last().IsZero() {
			t.Error("has run", a.Last())
		}
		time.Sleep(time.Minute)
		if n := s.RunAll(ctx); n != 3 || fmt.Sprint(ran) != "[a b c]" {
			t.Error(n, ran)
		}
		// Only what counts from completion has a new time.
		expect(t, a.Last().UTC().String()+" "+a.Next().UTC().String(), "2000-01-01 00:01:00 +0000 UTC 2000-01-01 03:00:00 +0000 UTC")
		expect(t, b.Next().UTC().String(), "2000-01-01 01:01:02 +0000 UTC")

		// Some of what is due is left out: for a context, and for another job.
		time.Sleep(4 * time.Hour)
		ctx, cancel := context.WithCancel(ctx)
		stops := schedule(t, &s, Every(1).Second(), func(context.Context) error { cancel(); b.Cancel(); return nil })
		time.Sleep(4 * time.Hour)
		ran = nil
		if n := s.RunPending(ctx, time.Now()); n != 4 { // b, c, a and then stops
			t.Error(n, ran)
		}
		if n := s.RunPending(ctx, time.Now().Add(time.Hour)); n != 0 || a.Skipped() != 2 {
			t.Error(n, a.Skipped())
		}
		if n := s.RunAll(ctx); n != 0 {
			t.Error(n)
		}
		stops.Cancel()
		if n := s.CancelTagged("x"); n != 1 || names(s.Jobs()) != "every 2 hours [y]" {
			t.Error(n, names(s.Jobs()))
		}
		if n := s.CancelTagged(); n != 1 || len(s.Jobs()) != 0 {
			t.Error(n)
		}
	})
}

// TestCancelDue cancels a job that is due, from one that is due before it.
func TestJobCancelDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Scheduler
		var second *Job
		schedule(t, &s, Every(1).Minute(), func(context.Context) error { second.Cancel(); return nil })
		second = schedule(t, &s, Every(1).Minute(), func(context.Context) error { t.Error("has run"); return nil })
		time.Sleep(time.Minute)
		if n := s.RunPending(t.Context(), time.Now()); n != 1 {
			t.Error(n, "runs")
		}
	})
}

func TestJobUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Scheduler
		begin := time.Now()
		runs := 0
		j := schedule(t, &s, Every(1).Minute().Until(begin.Add(3*time.Minute)), func(context.Context) error { runs++; return nil })
		none := schedule(t, &s, Every(1).Hour().Until(begin.Add(time.Minute)), func(context.Context) error { t.Error("ran"); return nil })
		if !none.Next().IsZero() || len(s.Jobs()) != 1 {
			t.Error("a job that never runs is kept")
		}
		during(t, &s, func() { time.Sleep(time.Hour) })
		if runs != 3 || !j.Next().IsZero() || !j.Last().Equal(begin.Add(3*time.Minute)) || len(s.Jobs()) != 0 {
			t.Error(runs, "runs, next", j.Next())
		}
	})
}

func TestRecurrenceMistakes(t *testing.T) {
	for _, c := range []struct {
		r    Recurrence
		want string
	}{
		{Recurrence{}, "a recurrence begins with Every"},
		{Every(5), "Every(5): no unit: say Seconds, Minutes, Hours, Days, Weeks or a weekday"},
		{Every(0).Minutes(), "Every(0): the number must be above zero"},
		{Every(-1.5).Minutes(), "Every(-1.5): the number must be above zero"},
		{Every(math.NaN()).Minutes(), "Every(NaN): the number must be above zero"},
		{Every(math.Inf(1)).Minutes(), "Every(+Inf): over a hundred years of minutes"},
		{Every(1e15).Weeks(), "Every(1e+15): over a hundred years of weeks"},
		{Every(1e-7).Seconds(), "Every(0.0000001): under a microsecond"},
		{Every(2).Minute(), "Every(2): Minute is for Every(1); otherwise say Minutes"},
		{Every(0.5).Monday(), "Every(0.5): Monday is for Every(1)"},
		{Every(1).Second().Minutes(), "Every(1): Minutes is a second unit"},
		{Every(1).Monday().Friday(), "Every(1): Friday is a second unit"},
		{Every(1).At("10:30").Day(), `Every(1): At("10:30") comes before its unit`},
		{Every(1).Second().At(":30"), `Every(1): At(":30") is for days, weekdays, hours and minutes, not seconds`},
		{Every(2).Weeks().At("10:30"), `Every(2): At("10:30") is for days, weekdays, hours and minutes, not weeks`},
		{Every(1.5).Days().At("10:30"), `Every(1.5): At("10:30") takes a whole number of days`},
		{Every(1).Day().At("10:30").At("12:30"), `Every(1): At("12:30") is a second At`},
		{Every(1).Day().At("24:00"), `Every(1): At("24:00"): for days and weekdays it is HH:MM or HH:MM:SS, below 24:00`},
		{Every(1).Sunday().At("١٠:٣٠"), `Every(1): At("١٠:٣٠"): for days and weekdays it is HH:MM or HH:MM:SS, below 24:00`},
		{Every(1).Hour().At("30"), `Every(1): At("30"): for hours it is MM:SS or :MM, below 60`},
		{Every(1).Hour().At(""), `Every(1): At(""): for hours it is MM:SS or :MM, below 60`},
		{Every(1).Minute().At("30"), `Every(1): At("30"): for minutes it is :SS, below 60`},
		{Every(1).Minute().At(""), `Every(1): At(""): for minutes it is :SS, below 60`},
		{Every(5).To(4).Seconds(), "Every(5): To(4) is below it"},
		{Every(5).Seconds().To(math.NaN()), "Every(5): To(NaN): both numbers must be whole"},
		{Every(0.5).To(2).Seconds(), "Every(0.5): To(2): both numbers must be whole"},
		{Every(1).To(2.5).Seconds(), "Every(1): To(2.5): both numbers must be whole"},
		{Every(1).Week().To(1e9), "Every(1): over a hundred years of weeks"},
		{Every(1).Day().In(nil), "Every(1): In(nil): time.LoadLocation returns it with an error"},
		{Every(0).Seconds().Minutes().At("x").To(-1), "Every(0): the number must be above zero"}, // The first counts.
	} {
		err := c.r.Err()
		if err == nil || err.Error() != "autobus: "+c.want {
			t.Errorf("got  %v\nwant autobus: %s", err, c.want)
			continue
		}
		var s Scheduler
		if _, err2 := s.Schedule(c.r, func(context.Context) error { return nil }); err2 == nil || err2.Error() != err.Error() {
			t.Error("Schedule:", err2)
		}
		if next, ok := c.r.Next(time.Now()); ok {
			t.Error("Next:", next)
		}
		expect(t, c.r.String(), "never ("+err.Error()+")")
	}

	var s Scheduler
	_, err := s.Schedule(Every(1).Hour(), nil)
	expect(t, fmt.Sprint(err), "autobus: every hour: no function")
	_, err = s.Schedule(Every(1).Hour().Until(time.Unix(0, 0).UTC()), func(context.Context) error { return nil })
	expect(t, fmt.Sprint(err), "autobus: every hour until 1970-01-01T00:00:00Z: that is over")
}

func TestRecurrenceString(t *testing.T) {
	end := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		r    Recurrence
		want string
	}{
		{Every(10).Minutes(), "every 10 minutes"},
		{Every(1).Second(), "every second"},
		{Every(0.25).Seconds(), "every 0.25 seconds"},
		{Every(1).Weeks(), "every week"},
		{Every(1).Day().At("09:05"), "every day at 09:05"},
		{Every(2).Days().At("09:05:07").In(time.UTC), "every 2 days at 09:05:07 in UTC"},
		{Every(1).Monday().At("00:00"), "every Monday at 00:00"},
		{Every(1).Hour().At(":05"), "every hour at :05"},
		{Every(2).Hours().At("05:00"), "every 2 hours at :05"},
		{Every(2).Hours().At("05:09"), "every 2 hours at 05:09"},
		{Every(1).Minute().At(":00"), "every minute at :00"},
		{Every(3).Minutes().At(":59"), "every 3 minutes at :59"},
		{Every(5).To(10).Seconds(), "every 5 to 10 seconds"},
		{Every(1).Friday().To(3).At("12:00"), "every 1 to 3 Fridays at 12:00"},
		{Every(5).Seconds().Until(end).AfterCompletion(), "every 5 seconds until 2030-01-02T03:04:05Z, after completion"},
		{Every(1000000).Seconds(), "every 1000000 seconds"},
	} {
		expect(t, c.r.String(), c.want)
	}
}

// TestAt tries every string near a time.
func TestRecurrenceAt(t *testing.T) {
	for _, u := range []struct {
		r       Recurrence
		pattern string
	}{
		{Every(1).Day(), `^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$`},
		{Every(1).Monday(), `^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$`},
		{Every(1).Hour(), `^([0-5]\d)?:[0-5]\d$`},
		{Every(1).Minute(), `^:[0-5]\d$`},
	} {
		pattern := regexp.MustCompile(u.pattern)
		rnd := rand.New(rand.NewPCG(5, 12))
		for _, right := range []string{"12:34", "12:34:56", ":34", "23:59", "00:00", "59:59"} {
			for range 3000 {
				b := []byte(right)
				for range rnd.IntN(3) {
					switch i := rnd.IntN(len(b)); rnd.IntN(3) {
					case 0:
						b[i] = "0123456789: -+\x00\xff"[rnd.IntN(16)]
					case 1:
						b = slices.Insert(b, i, "0123456789: \n"[rnd.IntN(13)])
					case 2:
						if b = slices.Delete(b, i, i+1); len(b) == 0 {
							b = []byte(":")
						}
					}
				}
				if got, want := u.r.At(string(b)).Err() == nil, pattern.Match(b); got != want {
					t.Fatalf("%v.At(%q): right: %v, want %v", u.r, b, got, want)
				}
			}
		}
	}
}

// TestTo draws from both ends and between.
func TestRecurrenceTo(t *testing.T) {
	seen := map[time.Duration]int{}
	now := time.Now()
	for range 2000 {
		next, ok := Every(2).To(5).Seconds().Next(now)
		if !ok {
			t.Fatal("none")
		}
		seen[next.Sub(now)]++
	}
	if len(seen) != 4 || seen[2*time.Second] < 300 || seen[5*time.Second] < 300 {
		t.Error(seen)
	}
}

// TestOverMidnight is about changes of the clock over midnight.
func TestOverMidnight(t *testing.T) {
	for _, c := range []struct {
		r          Recurrence
		zone       string
		from, want string
	}{
		// From 23:00 to 00:00: the run of Saturday comes on Sunday.
		{Every(1).Day().At("23:30"), "America/Nuuk", "2025-03-29 22:30:00 -02", "2025-03-30 00:30:00 -01"},
		{Every(1).Day().At("23:30"), "America/Nuuk", "2025-03-30 00:10:00 -01", "2025-03-30 00:30:00 -01"},
		{Every(1).Day().At("23:30"), "America/Nuuk", "2025-03-30 00:30:00 -01", "2025-03-30 23:30:00 -01"},
		{Every(1).Saturday().At("23:30"), "America/Nuuk", "2025-03-30 00:10:00 -01", "2025-03-30 00:30:00 -01"},
		{Every(1).Saturday().At("23:30"), "America/Nuuk", "2025-03-30 00:30:00 -01", "2025-04-05 23:30:00 -01"},
		{Every(1).Day().At("23:45"), "Asia/Pyongyang", "2018-05-05 00:10:00 +09", "2018-05-05 00:15:00 +09"},
		// From 00:01 back to 23:01: Sunday began an hour before.
		{Every(1).Day().At("00:00:30"), "America/St_Johns", "2010-11-06 23:30:00 -0330", "2010-11-08 00:00:30 -0330"},
		{Every(1).Day().At("23:30"), "America/St_Johns", "2010-11-06 23:15:00 -0330", "2010-11-07 23:30:00 -0330"},
		{Every(2).Days().At("12:00"), "America/St_Johns", "2010-11-06 23:15:00 -0230", "2010-11-08 12:00:00 -0330"},
		{Every(2).Days().At("12:00"), "America/St_Johns", "2010-11-07 00:00:30 -0230", "2010-11-09 12:00:00 -0330"},
		{Every(2).Days().At("12:00"), "America/St_Johns", "2010-11-06 23:15:00 -0330", "2010-11-09 12:00:00 -0330"},
		// Apia left out 30 December 2011.
		{Every(1).Day().At("10:00"), "Pacific/Apia", "2011-12-29 10:00:00 -10", "2011-12-31 10:00:00 +14"},
		{Every(1).Day().At("10:00"), "Pacific/Apia", "2011-12-31 10:00:00 +14", "2012-01-01 10:00:00 +14"},
		{Every(1).Friday().At("10:00"), "Pacific/Apia", "2011-12-29 10:00:00 -10", "2011-12-31 10:00:00 +14"},
		// The offset changed by 44:30.
		{Every(1).Hour().At(":30"), "Africa/Monrovia", "1972-01-06 23:30:00 -004430", "1972-01-07 01:30:00 +00"},
	} {
		loc := zone(t, c.zone)
		from, err := time.Parse("2006-01-02 15:04:05 -07", c.from)
		for _, layout := range []string{"2006-01-02 15:04:05 -0700", "2006-01-02 15:04:05 -070000"} {
			if err != nil {
				from, err = time.Parse(layout, c.from)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		next, _ := c.r.In(loc).Next(from)
		layout := "2006-01-02 15:04:05 -07"
		if _, offset := next.Zone(); offset%3600 != 0 {
			layout += "00"
		}
		if got := next.Format(layout); got != c.want {
			t.Errorf("%v in %s: Next(%s) = %s, want %s", c.r, c.zone, c.from, got, c.want)
		}
	}
}

// A job that counts from its completion waits for that, and not to be due, also
// where a test says that it is long ago.
func TestAfterCompletionLongAgo(t *testing.T) {
	var s Scheduler
	at := time.Date(2024, 1, 15, 10, 0, 0, 0, time.UTC)
	s.RunPending(t.Context(), at)
	ran := 0
	if _, err := s.Schedule(Every(1).Minute().AfterCompletion(), func(context.Context) error { ran++; return nil }); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		at = at.Add(time.Minute)
		s.RunPending(t.Context(), at)
	}
	if ran != 3 {
		t.Errorf("%d runs", ran)
	}
}

// A gap that moves a run over midnight doesn't move those that follow.
func TestEveryOtherDayOverMidnight(t *testing.T) {
	nuuk, err := time.LoadLocation("America/Nuuk")
	if err != nil {
		missing(t, "there is no time zone database")
	}
	r := Every(2).Days().At("23:30").In(nuuk)
	at := time.Date(2024, 3, 28, 23, 30, 0, 0, nuuk) // the gap is on 30 March, from 23:00
	var got []string
	for range 4 {
		at, _ = r.Next(at)
		got = append(got, at.In(nuuk).Format("2 15:04"))
	}
	if want := []string{"31 00:30", "1 23:30", "3 23:30", "5 23:30"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Weekdays with a To come a drawn number of times after, wherever in the week
// that is.
func TestRecurrenceToWeekdays(t *testing.T) {
	for _, c := range []struct {
		draw int64
		from string
		want string
	}{
		{1, "2024-01-17 10:20:30", "2024-01-19 09:00:00"}, // from a Wednesday
		{2, "2024-01-17 10:20:30", "2024-01-26 09:00:00"},
		{3, "2024-01-17 10:20:30", "2024-02-02 09:00:00"},
		{1, "2024-01-19 08:00:00", "2024-01-19 09:00:00"}, // from a Friday
		{2, "2024-01-19 08:00:00", "2024-01-26 09:00:00"},
		{1, "2024-01-19 09:00:00", "2024-01-26 09:00:00"},
		{3, "2024-01-19 09:00:00", "2024-02-09 09:00:00"},
		{3, "2024-01-19 23:00:00", "2024-02-09 09:00:00"},
	} {
		r := Every(1).To(3).Friday().At("09:00").In(time.UTC)
		r.opt().draw = func(from, to int64) int64 { return c.draw }
		from, err := time.Parse(time.DateTime, c.from)
		if err != nil {
			t.Fatal(err)
		}
		next, _ := r.Next(from)
		if got := next.Format(time.DateTime); got != c.want {
			t.Errorf("%v, %d drawn: Next(%s) = %s, want %s", r, c.draw, c.from, got, c.want)
		}
	}
}

// TestSchedulerWaitsForRunAll ends Run while RunAll and RunPending go on.
func TestSchedulerWaitsForRunAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Scheduler
		var done atomic.Int64
		brief := schedule(t, &s, Every(1).Minute(), func(context.Context) error {
			time.Sleep(5 * time.Second)
			done.Add(1)
			return nil
		})
		for i, run := range []func(){
			func() { s.RunAll(t.Context()) },
			func() { s.RunPending(t.Context(), time.Now()) },
		} {
			time.Sleep(time.Minute)
			var wg sync.WaitGroup
			wg.Go(run)
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := s.Run(ctx); err != nil || done.Load() != int64(1+i) {
				t.Error(err, done.Load())
			}
			cancel()
			wg.Wait()
		}
		brief.Cancel()

		// One that is stuck is named, and its context is RunAll's.
		ctx, cancel := context.WithCancel(t.Context())
		schedule(t, &s, Every(1).Hour(), func(ctx context.Context) error { <-ctx.Done(); return nil })
		ended := make(chan int)
		go func() { ended <- s.RunAll(ctx) }()
		synctest.Wait()
		over, cancelOver := context.WithCancel(t.Context())
		cancelOver()
		err := s.Run(over)
		if err == nil || err.Error() != "autobus: the scheduler stopped with jobs still running: every hour: context deadline exceeded" || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		cancel()
		if n := <-ended; n != 1 {
			t.Error(n)
		}
	})
}

// TestJobRevoked leaves out jobs that are due, for a Cancel and for a context:
// they haven't run.
func TestJobRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Bus
		s := &b.scheduler
		ctx, cancel := context.WithCancel(t.Context())
		var second *Job
		first := schedule(t, s, Every(1).Minute(), func(context.Context) error { return nil })
		schedule(t, s, Every(1).Minute(), func(context.Context) error {
			time.Sleep(5 * time.Second)
			second.Cancel()
			return nil
		})
		second = schedule(t, s, Every(1).Minute(), func(context.Context) error { t.Error("has run"); return nil })
		third := schedule(t, s, Every(1).Minute(), func(context.Context) error { cancel(); return nil })
		fourth := schedule(t, s, Every(1).Minute(), func(context.Context) error { t.Error("has run"); return nil })
		begin := time.Now()
		if n := s.RunAll(ctx); n != 3 || b.Stats().JobRuns != 3 || b.Stats().JobsMissed != 1 {
			t.Error(n, b.Stats())
		}
		if !second.Last().IsZero() || !fourth.Last().IsZero() || second.Skipped() != 0 || fourth.Skipped() != 1 {
			t.Error("left out, but ran at", second.Last(), fourth.Last())
		}
		// Each began when the one before had ended.
		if !first.Last().Equal(begin) || !third.Last().Equal(begin.Add(5*time.Second)) {
			t.Error("ran at", first.Last(), third.Last())
		}
	})
}

// TestJobGoexit ends the goroutine of RunPending, as a test's FailNow does. The
// jobs that were to follow run the next time.
func TestJobGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Scheduler{Logger: discard{}}
		runs := map[string]int{}
		var jobs []*Job
		for _, name := range []string{"before", "exits", "after", "later"} {
			r := Every(1).Minute()
			if name == "later" {
				r = r.AfterCompletion()
			}
			jobs = append(jobs, schedule(t, &s, r, func(context.Context) error {
				if runs[name]++; name == "exits" && runs[name] == 1 {
					runtime.Goexit()
				}
				return nil
			}))
		}
		time.Sleep(time.Minute)
		var wg sync.WaitGroup
		wg.Go(func() {
			s.RunPending(t.Context(), time.Now())
			t.Error("RunPending returned")
		})
		wg.Wait()
		expect(t, fmt.Sprint(runs), "map[before:1 exits:1]")
		time.Sleep(time.Minute)
		if n := s.RunPending(t.Context(), time.Now()); n != 4 {
			t.Error(n, "runs")
		}
		expect(t, fmt.Sprint(runs), "map[after:1 before:2 exits:2 later:1]")
		expect(t, fmt.Sprint(jobs[0].Skipped(), jobs[1].Skipped(), jobs[2].Skipped(), jobs[3].Skipped()), "0 0 1 1")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
}

// TestJobLetGo ends jobs in their run, in every way: nothing keeps them.
func TestJobLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Scheduler{Logger: discard{}}
		for _, r := range []Recurrence{Every(1).Minute(), Every(1).Minute().AfterCompletion(), Every(1).Minute().At(":00")} {
			for _, how := range []func(*Job) error{
				func(j *Job) error { j.Cancel(); return nil },
				func(j *Job) error { j.Cancel(); return ErrCancelJob },
				func(j *Job) error { j.Cancel(); panic("and so on") },
				func(*Job) error { s.CancelTagged("mine"); return ErrCancelJob },
				func(*Job) error { return ErrCancelJob },
			} {
				var j *Job
				j = schedule(t, &s, r, func(context.Context) error { time.Sleep(time.Second); return how(j) })
			}
			schedule(t, &s, r.Until(time.Now().Add(time.Minute)), func(context.Context) error { time.Sleep(time.Second); return nil }).Tag("mine")
		}
		during(t, &s, func() { time.Sleep(62 * time.Second) })
		s.RunAll(t.Context())
		if len(s.ghost) != 0 || len(s.Jobs()) != 0 {
			t.Error("kept:", len(s.ghost), s.Jobs())
		}
	})
}

// TestJobMissed counts what a job missed across changes of the clock, one by
// one.
func TestJobMissed(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 3000 {
		loc := zone(t, zoneNames()[rnd.IntN(13)])
		if loc.String() == "Pacific/Apia" {
			continue // It left out 30 December 2011, which is counted.
		}
		start := time.Date(2024, 3, 1, 0, 0, 0, 0, time.UTC)
		if list := changesSince1970(loc); len(list) > 0 {
			start = time.Unix(list[rnd.IntN(len(list))], 0).Add(-4 * 24 * time.Hour)
		}
		start = start.Add(time.Duration(rnd.Int64N(int64(4 * 24 * time.Hour))))
		at := fmt.Sprintf("%02d:%02d", (22+rnd.IntN(6))%24, rnd.IntN(60)) // Often in a gap.
		r := [...]Recurrence{
			Every(1).Day().At(at), Every(2).Days().At(at), Every(1).Day(), Every(3).Days(), Every(1).Sunday(), Every(1).Sunday().At(at), Every(1).Week(),
		}[rnd.IntN(7)].In(loc)
		now := start.Add(time.Duration(rnd.Int64N(int64(30 * 24 * time.Hour))))
		want := 0
		for next := r.next(start.In(loc), start.In(loc)); !next.After(now); next = r.next(start.In(loc), next) {
			want++
		}
		var s Scheduler
		s.RunPending(t.Context(), start)
		j := schedule(t, &s, r, func(context.Context) error { return nil })
		n := s.RunPending(t.Context(), now)
		if n != min(want, 1) || int(j.Skipped())+n != want {
			t.Fatalf("%v from %v to %v: %d runs, skipped %d, of %d", r, start.In(loc), now.In(loc), n, j.Skipped(), want)
		}
	}
}

// TestClockManySteps sets the clock forward and back, over and over. No time
// has a second run, and as long as there have been few steps, none that the
// clock comes to goes without.
func TestClockManySteps(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 8))
	epoch := time.Date(2024, 3, 25, 12, 34, 56, 0, time.UTC) // In a week the clocks of Berlin change.
	berlin := zone(t, "Europe/Berlin")
	for round := range 3000 {
		r := [...]Recurrence{
			Every(1).Hour().At(":15"), Every(1).Day().At("02:30"), Every(1).Day(), Every(1).Minute().At(":30"),
			Every(1).Sunday().At("10:00"), Every(3).Days().At("10:00"), Every(2).Hours().At(":10"),
		}[round%7].In(berlin)
		period := r.length(r.n)
		steps := 1 + rnd.IntN(maxPast)
		if round%2 == 0 {
			steps = 50
		}
		var s Scheduler
		now := epoch
		s.RunPending(t.Context(), now)
		j := schedule(t, &s, r, idle)
		ran := map[int64]bool{}
		comeTo := func(to time.Time) {
			now = to
			s.mu.Lock()
			defer s.mu.Unlock()
			local, mono := s.tell(now)
			for {
				when := s.when(j)
				if s.due(local, mono) == nil {
					return
				}
				if ran[when] {
					t.Fatalf("%v: %v has a second run, at %v", r, time.Unix(0, when).In(berlin), now.In(berlin))
				}
				ran[when] = true
				j.state.Store(runIdle)
			}
		}
		for range steps {
			for range rnd.IntN(5) {
				last := now
				comeTo(now.Add(time.Duration(rnd.Int64N(int64(period)))))
				next, _ := r.Next(last)
				if r.hasAt && r.n == 1 && steps <= maxPast && !next.After(now) && !ran[nanos(next)] {
					t.Fatalf("%v: %v has no run from %v to %v", r, next, last.In(berlin), now.In(berlin))
				}
			}
			set := now.Add(time.Duration(rnd.Int64N(int64(20*period))) - 10*period)
			if !r.hasAt && set.Before(epoch) {
				set = epoch
			}
			comeTo(set)
		}
		if len(ran) < 5 && steps == 50 {
			t.Errorf("%v: only %d runs", r, len(ran))
		}
	}
}

func idle(context.Context) error { return nil }

// TestClockYearsAhead comes back from ten years ahead: there is no run left
// out until the clock gets there.
func TestClockYearsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Scheduler
		fn, daily := noting(&s, time.UTC)
		schedule(t, &s, Every(1).Day().At("10:30").In(time.UTC), fn)
		during(t, &s, func() {
			time.Sleep(35 * time.Hour)
			setClock(&s, 10*365*24*time.Hour)
			time.Sleep(48 * time.Hour)
			daily()
			setClock(&s, -10*365*24*time.Hour)
			time.Sleep(72 * time.Hour)
			expect(t, daily(), "5 10:30:00, 6 10:30:00, 7 10:30:00")
		})
	})
}

// TestJobUntilLate is about a run that falls due by Until, and begins after it.
func TestJobUntilLate(t *testing.T) {
	for _, c := range []struct {
		late time.Duration
		runs int
	}{{0, 1}, {time.Second, 1}, {time.Second + 1, 0}, {time.Hour, 0}} {
		at := time.Date(2024, 1, 15, 10, 0, 0, 0, time.UTC)
		var s Scheduler
		s.RunPending(t.Context(), at)
		end := at.Add(time.Minute)
		for _, r := range []Recurrence{Every(1).Minute(), Every(1).Minute().At(":00")} {
			schedule(t, &s, r.Until(end), idle)
		}
		jobs := s.Jobs()
		if n := s.RunPending(t.Context(), end.Add(c.late)); n != 2*c.runs || len(s.Jobs()) != 0 {
			t.Errorf("%v late: %d runs, %v", c.late, n, s.Jobs())
		}
		for _, j := range jobs {
			if j.Skipped() != uint64(1-c.runs) {
				t.Errorf("%v late: %v: skipped %d", c.late, j, j.Skipped())
			}
		}
	}
}

// TestClockStands tells the scheduler a time: its clock stands at that, but for
// what runs take, if it is a second or more from the system's.
func TestClockStands(t *testing.T) {
	for _, c := range []struct {
		off    time.Duration
		stands bool
	}{{0, false}, {time.Second - 1, false}, {1 - time.Second, false}, {time.Second, true}, {-time.Second, true}} {
		synctest.Test(t, func(t *testing.T) {
			var s Scheduler
			begin := time.Now().Add(c.off)
			s.RunPending(t.Context(), begin)
			time.Sleep(10 * time.Second)
			want := begin.Add(time.Minute)
			if !c.stands {
				want = time.Now().Add(time.Minute)
			}
			first := schedule(t, &s, Every(1).Minute(), func(context.Context) error { time.Sleep(3 * time.Second); return nil })
			if !first.Next().Equal(want) {
				t.Errorf("off by %v: next %v, want %v", c.off, first.Next(), want)
			}
			s.RunAll(t.Context())
			want = time.Now().Add(time.Minute)
			if c.stands {
				want = begin.Add(3*time.Second + time.Minute)
			}
			if last := schedule(t, &s, Every(1).Minute(), idle); !last.Next().Equal(want) {
				t.Errorf("off by %v, after a run: next %v, want %v", c.off, last.Next(), want)
			}
		})
	}
}

// TestScheduleWakes adds and cancels jobs while Run waits for another: the new
// one is on time, and once they are gone nothing is waited for.
func TestScheduleWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Scheduler
		long := schedule(t, &s, Every(1).Hour(), idle)
		during(t, &s, func() {
			fn, read := noting(&s, time.UTC)
			brief := schedule(t, &s, Every(10).Seconds(), fn)
			time.Sleep(21 * time.Second)
			expect(t, read(), "1 00:00:10, 1 00:00:20")
			brief.Cancel()
			fn, read = noting(&s, time.UTC)
			atHalf := schedule(t, &s, Every(1).Minute().At(":30").In(time.UTC), fn)
			time.Sleep(10 * time.Second)
			expect(t, read(), "1 00:00:30")
			atHalf.Cancel()
			long.Cancel()
			if n := s.active.Load(); n != 0 {
				t.Error("waits for", n)
			}
		})
	})
}
