package autobus

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ErrCancelJob is returned by a scheduled function that is not to run again.
var ErrCancelJob = errors.New("autobus: cancel this job")

const (
	minPeriod = time.Microsecond       // a timer is no finer
	maxPeriod = 100 * 8766 * time.Hour // a hundred years, which nanoseconds in 64 bits hold from here
	maxWait   = 30 * time.Second       // how long a step of the wall clock may go unnoticed
	stopGrace = 10 * time.Second       // what Run leaves the running jobs, as Bus.Run does
	lateness  = time.Second            // how late a run due before Until may start after it
	runBatch  = 256                    // runs started under one hold of the scheduler's lock
	never     = math.MaxInt64          // when a job is due that waits for its own completion
	daySecs   = 24 * 60 * 60
	maxPast   = 4 // stretches of past runs that a job remembers
)

// A Recurrence says when something happens, over and over:
//
//	Every(10).Minutes()
//	Every(1).Day().At("10:30").In(berlin)
//	Every(1).Monday().At("09:00").Until(end)
//	Every(5).To(10).Seconds()
//
// It is a value: each method returns a new one, and one may be scheduled many
// times. A mistake is kept and comes out of [Recurrence.Err] and of Schedule;
// the first one counts.
//
// Seconds, minutes and hours are lengths of time. Whole days and weeks, the
// weekdays, and whatever has an At are times on the clock on the wall, in the
// zone that In names or else the local one: where the clock is put forward
// over such a time, the run comes later by as much, and the next is back on
// its time; where the clock is put back, a time that comes round twice counts
// the first time. Hours and minutes with an At are passed over where there is
// no such time, and keep a whole hour or minute between them. Days and weeks
// that don't come to whole days (Every(1.5).Days()) are lengths of 24-hour
// days.
//
// The zones come from the system's time zone database. On a device without
// one, import _ "time/tzdata" or build with -tags timetzdata, which adds
// about 450 KB to the program.
type Recurrence struct {
	n    float64        // how many units, the least of them if there is a To
	at   time.Duration  // since the start of the day, hour or minute, if hasAt
	zone *time.Location // nil: that of the time that Next is given
	more *options       // nil in most

	unit      unit
	hasAt     bool
	onWeekday bool // the unit is a week, and weekday the day of it
	weekday   uint8
	afterRun  bool // AfterCompletion
	fixed     bool // a length of time, which the monotonic clock measures, and no time on the wall
}

// options is what most recurrences go without. It is copied before a change.
type options struct {
	latest  float64 // 0: no To
	until   time.Time
	bounded bool // by until
	err     error
	draw    func(from, to int64) int64 // a test's source; nil: math/rand/v2
}

type unit uint8

const (
	noUnit unit = iota
	second
	minute
	hour
	day
	week
)

// By unit.
var (
	unitSeconds = [...]float64{second: 1, minute: 60, hour: 3600, day: daySecs, week: 7 * daySecs}
	unitNames   = [...]string{second: "second", minute: "minute", hour: "hour", day: "day", week: "week"}
)

// Every begins a [Recurrence]: Every(10).Minutes(), Every(0.25).Seconds().
// n is above zero. What it comes to with its unit is between a microsecond
// and a hundred years.
func Every[N ~int | ~float64](n N) Recurrence { return every(float64(n)) }

func every(n float64) Recurrence {
	r := Recurrence{n: n}
	if !(n > 0) {
		return r.fail("the number must be above zero")
	}
	return r
}

// Seconds, Minutes, Hours, Days and Weeks name the unit.
func (r Recurrence) Seconds() Recurrence { return r.in(second, "Seconds") }
func (r Recurrence) Minutes() Recurrence { return r.in(minute, "Minutes") }
func (r Recurrence) Hours() Recurrence   { return r.in(hour, "Hours") }
func (r Recurrence) Days() Recurrence    { return r.in(day, "Days") }
func (r Recurrence) Weeks() Recurrence   { return r.in(week, "Weeks") }

// Second, Minute, Hour, Day and Week read better after Every(1), and insist
// on it.
func (r Recurrence) Second() Recurrence { return r.one("Second").in(second, "Second") }
func (r Recurrence) Minute() Recurrence { return r.one("Minute").in(minute, "Minute") }
func (r Recurrence) Hour() Recurrence   { return r.one("Hour").in(hour, "Hour") }
func (r Recurrence) Day() Recurrence    { return r.one("Day").in(day, "Day") }
func (r Recurrence) Week() Recurrence   { return r.one("Week").in(week, "Week") }

// Monday and the others name a day of the week, after Every(1). Without an
// At, the time of day is that of the moment it is scheduled.
func (r Recurrence) Monday() Recurrence    { return r.on(time.Monday) }
func (r Recurrence) Tuesday() Recurrence   { return r.on(time.Tuesday) }
func (r Recurrence) Wednesday() Recurrence { return r.on(time.Wednesday) }
func (r Recurrence) Thursday() Recurrence  { return r.on(time.Thursday) }
func (r Recurrence) Friday() Recurrence    { return r.on(time.Friday) }
func (r Recurrence) Saturday() Recurrence  { return r.on(time.Saturday) }
func (r Recurrence) Sunday() Recurrence    { return r.on(time.Sunday) }

func (r Recurrence) one(name string) Recurrence {
	if r.n != 1 {
		return r.fail(name + " is for Every(1); otherwise say " + name + "s")
	}
	return r
}

func (r Recurrence) on(d time.Weekday) Recurrence {
	if r.n != 1 {
		return r.fail(d.String() + " is for Every(1)")
	}
	r = r.in(week, d.String())
	r.onWeekday, r.weekday, r.fixed = true, uint8(d), false
	return r
}

func (r Recurrence) in(u unit, name string) Recurrence {
	if r.unit != noUnit {
		return r.fail(name + " is a second unit")
	}
	days := r.n * unitSeconds[u] / daySecs
	r.unit, r.fixed = u, u < day || days != math.Trunc(days)
	return r.checkLength()
}

// checkLength holds the period between its bounds, once there is a unit.
func (r Recurrence) checkLength() Recurrence {
	if r.unit == noUnit {
		return r
	}
	longest := r.n
	if r.ranges() {
		longest = r.more.latest
	}
	switch {
	case longest*unitSeconds[r.unit] > maxPeriod.Seconds():
		return r.fail("over a hundred years of " + unitNames[r.unit] + "s")
	case r.n*unitSeconds[r.unit] < minPeriod.Seconds():
		return r.fail("under a microsecond")
	}
	return r
}

// At names the time in the unit, which comes before it and is counted in
// whole numbers: "10:30" or "10:30:15" for days and weekdays; "30:15" (a
// minute and a second) or ":30" (a minute) for hours; ":15" (a second) for
// minutes. Always two digits. Of every 2 or more the first comes so many days,
// hours or minutes after the time in this one, even if that is still to come:
// Every(2).Days().At("10:30") begins the day after tomorrow, also before 10:30.
func (r Recurrence) At(clock string) Recurrence {
	at := "At(" + quoted(clock) + ")"
	var t int
	var ok bool
	switch {
	case r.unit == noUnit:
		return r.fail(at + " comes before its unit")
	case r.hasAt:
		return r.fail(at + " is a second At")
	case r.n != math.Trunc(r.n):
		return r.fail(at + " takes a whole number of " + unitNames[r.unit] + "s")
	case r.unit == day || r.onWeekday:
		if t, ok = parseClock(clock, 24, 60, 60); !ok {
			if t, ok = parseClock(clock, 24, 60); !ok {
				return r.fail(at + ": for days and weekdays it is HH:MM or HH:MM:SS, below 24:00")
			}
			t *= 60
		}
	case r.unit == hour:
		if t, ok = parseClock(clock, 60, 60); !ok {
			if t, ok = parseClock(strings.TrimPrefix(clock, ":"), 60); !ok || clock[0] != ':' {
				return r.fail(at + ": for hours it is MM:SS or :MM, below 60")
			}
			t *= 60
		}
	case r.unit == minute:
		if t, ok = parseClock(strings.TrimPrefix(clock, ":"), 60); !ok || clock[0] != ':' {
			return r.fail(at + ": for minutes it is :SS, below 60")
		}
	default:
		return r.fail(at + " is for days, weekdays, hours and minutes, not " + unitNames[r.unit] + "s")
	}
	r.hasAt, r.at, r.fixed = true, time.Duration(t)*time.Second, false
	return r
}

// parseClock reads numbers of two ASCII digits with colons between them, each
// below its limit, as one number.
func parseClock(s string, limits ...int) (t int, ok bool) {
	if len(s) != 3*len(limits)-1 {
		return 0, false
	}
	for i, limit := range limits {
		tens, ones := s[3*i]-'0', s[3*i+1]-'0'
		n := int(tens)*10 + int(ones)
		if tens > 9 || ones > 9 || n >= limit || i > 0 && s[3*i-1] != ':' {
			return 0, false
		}
		t = t*limit + n
	}
	return t, true
}

// In names the zone of the clock on the wall. It matters to whole days, weeks,
// weekdays and At; without it the zone is the local one.
func (r Recurrence) In(zone *time.Location) Recurrence {
	if zone == nil {
		return r.fail("In(nil): time.LoadLocation returns it with an error")
	}
	r.zone = zone
	return r
}

// To makes each interval a fresh draw between n and latest, both included.
// Both must be whole, and latest not below n: Every(5).To(10).Seconds(). Of
// weekdays, it is as many of them on: the next is the first.
func (r Recurrence) To(latest float64) Recurrence {
	to := "To(" + number(latest) + ")"
	switch {
	case r.n != math.Trunc(r.n) || latest != math.Trunc(latest):
		return r.fail(to + ": both numbers must be whole")
	case latest < r.n:
		return r.fail(to + " is below it")
	}
	r.opt().latest = latest
	return r.checkLength()
}

// Until ends the recurrence: t is the last moment that a run may fall due. One
// that falls due by then may begin up to a second after t, for a scheduler
// that is a little late; later than that it is left out and counted.
func (r Recurrence) Until(t time.Time) Recurrence {
	o := r.opt()
	o.until, o.bounded = t, true
	return r
}

// AfterCompletion counts each interval from the end of the run before it, as
// Python's schedule does. Otherwise runs keep a fixed rate, however long each
// takes.
func (r Recurrence) AfterCompletion() Recurrence {
	r.afterRun = true
	return r
}

// Err returns the first mistake in the recurrence, or nil.
func (r Recurrence) Err() error {
	switch {
	case r.more != nil && r.more.err != nil:
		return r.more.err
	case r.n == 0:
		return fail("a recurrence begins with Every", nil)
	case r.unit == noUnit:
		return r.fail("no unit: say Seconds, Minutes, Hours, Days, Weeks or a weekday").more.err
	}
	return nil
}

// opt returns the receiver's own copy of its options, to be changed.
func (r *Recurrence) opt() *options {
	var o options
	if r.more != nil {
		o = *r.more
	}
	r.more = &o
	return &o
}

func (r Recurrence) fail(text string) Recurrence {
	if o := r.opt(); o.err == nil {
		o.err = fail("Every("+number(r.n)+"): "+text, nil)
	}
	return r
}

// String says all of it in English: "every 2 days at 10:30 in Europe/Berlin".
func (r Recurrence) String() string {
	if err := r.Err(); err != nil {
		return "never (" + err.Error() + ")"
	}
	b := append(make([]byte, 0, 64), "every "...)
	name := unitNames[r.unit]
	if r.onWeekday {
		name = time.Weekday(r.weekday).String()
	}
	switch {
	case r.ranges():
		b = append(b, number(r.n)+" to "+number(r.more.latest)+" "+name+"s"...)
	case r.n == 1:
		b = append(b, name...)
	default:
		b = append(b, number(r.n)+" "+name+"s"...)
	}
	if r.hasAt {
		b = append(b, " at "...)
		clock := time.Unix(int64(r.at/time.Second), 0).UTC().Format(time.TimeOnly)
		switch seconds := clock[len("10:30"):]; {
		case r.unit == minute:
			clock = seconds
		case r.unit == hour && seconds == ":00":
			clock = clock[len("10") : len(clock)-len(seconds)]
		case r.unit == hour:
			clock = clock[len("10:"):]
		case seconds == ":00":
			clock = clock[:len("10:30")]
		}
		b = append(b, clock...)
	}
	if r.zone != nil {
		b = append(b, " in "+r.zone.String()...)
	}
	if r.more != nil && r.more.bounded {
		b = r.more.until.AppendFormat(append(b, " until "...), time.RFC3339Nano)
	}
	if r.afterRun {
		b = append(b, ", after completion"...)
	}
	return string(b)
}

func number(n float64) string {
	if math.Abs(n) < 1e15 {
		return strconv.FormatFloat(n, 'f', -1, 64)
	}
	return strconv.FormatFloat(n, 'g', -1, 64)
}

// Next returns the first run after a time, which is when the recurrence was
// scheduled or the run before it; false if there is none, for Until or for a
// mistake. What it returns is always after its argument, and never earlier
// for a later argument, but for three: a To draws afresh each time, and
// weekdays, days and weeks without an At take the time of day from their
// argument.
func (r Recurrence) Next(after time.Time) (time.Time, bool) {
	if r.Err() != nil {
		return time.Time{}, false
	}
	if r.zone != nil {
		after = after.In(r.zone)
	}
	next := r.next(after, after)
	if !next.After(after) || r.over(next) {
		return time.Time{}, false
	}
	return next, true
}

// over reports whether t is past Until.
func (r *Recurrence) over(t time.Time) bool {
	return r.more != nil && r.more.bounded && t.After(r.more.until)
}

// next returns the first run after a time, of those scheduled at anchor. Both
// are in the recurrence's zone.
func (r *Recurrence) next(anchor, after time.Time) time.Time {
	n := r.draw()
	switch {
	case r.fixed:
		return after.Add(r.length(n))
	case r.unit < day:
		return r.nextInUnit(int64(n), after)
	case r.hasAt:
		return r.nextOnDay(int64(n), r.at, after)
	case r.onWeekday:
		return r.nextOnDay(int64(n), timeOfDay(anchor), after)
	}
	first := dayOf(anchor)
	if r.ranges() {
		first = dayOf(after)
	}
	return nextAfterDays(int64(n*unitSeconds[r.unit]/daySecs), first, timeOfDay(anchor), after)
}

// ranges reports whether there is a To.
func (r *Recurrence) ranges() bool { return r.more != nil && r.more.latest > 0 }

// draw returns how many units it is to the next run.
func (r *Recurrence) draw() float64 {
	if !r.ranges() {
		return r.n
	}
	from, to := int64(r.n), int64(r.more.latest)
	if r.more.draw != nil {
		return float64(r.more.draw(from, to))
	}
	return float64(from + rand.Int64N(to-from+1))
}

// length returns n units, of which a day has 24 hours.
func (r *Recurrence) length(n float64) time.Duration {
	return time.Duration(math.Round(n * unitSeconds[r.unit] * float64(time.Second)))
}

// nextInUnit does hours and minutes with an At. The moments when the clock on
// the wall is at it lie a unit apart, but where the zone's offset changes by
// part of a unit. There one that comes too soon after another is passed over.
func (r *Recurrence) nextInUnit(n int64, after time.Time) time.Time {
	length := int64(unitSeconds[r.unit])
	at := int64(r.at / time.Second)
	in := after.Location()
	t := after.Unix() + 1
	if n > 1 {
		// Counted from the time in this unit, be it over or still to come.
		t = after.Unix() - mod(wall(after), length) + at + n*length
	}
	for {
		t = nextWall(t, at, length, in)
		if nextWall(t-length+1, at, length, in) == t {
			return time.Unix(t, 0).In(in)
		}
		t++
	}
}

// nextWall returns the first moment, from t on, when the clock on the wall is
// at it in a unit of that length.
func nextWall(t, at, length int64, in *time.Location) int64 {
	for {
		now := offset(t, in)
		next := t + mod(at-t-now, length)
		then := offset(next, in)
		if then == now {
			return next
		}
		// The offset changes before that, and the first moment under the new
		// one may come sooner.
		if next = t + mod(at-t-then, length); offset(next, in) == then {
			return next
		}
		t = next + 1
	}
}

// nextOnDay does days with an At, and weekdays.
func (r *Recurrence) nextOnDay(n int64, at time.Duration, after time.Time) time.Time {
	in := after.Location()
	today := dayOf(after)
	if n > 1 && !r.onWeekday {
		if !onDay(today+1, 0, in).After(after) {
			today++ // The clock was put back over midnight: tomorrow began before.
		} else if !onDay(today-1, at, in).Before(after) {
			today-- // A gap has moved yesterday's time to today.
		}
		return onDay(today+n, at, in)
	}
	today-- // A gap may have moved yesterday's run to today.
	step := int64(1)
	if r.onWeekday {
		step = 7
		today += mod(int64(r.weekday)-int64(time.Thursday)-today, 7) // Day 0, 1 January 1970, was a Thursday.
	}
	for range 3 {
		if onDay(today, at, in).After(after) {
			break
		}
		today += step
	}
	return onDay(today+(n-1)*step, at, in)
}

// nextAfterDays does days and weeks without an At: every so many days after
// the first.
func nextAfterDays(days, first int64, at time.Duration, after time.Time) time.Time {
	in := after.Location()
	periods := max(1, (dayOf(after)-first)/days-1)
	next := onDay(first+periods*days, at, in)
	for range 3 {
		if next.After(after) {
			break
		}
		periods++
		next = onDay(first+periods*days, at, in)
	}
	return next
}

// onDay returns when the clock on the wall shows a time of a day for the
// first time, or would if it weren't put forward over it. A day is counted
// from 1 January 1970. (time.Date says of these two that its choice is not
// guaranteed.)
func onDay(d int64, at time.Duration, in *time.Location) time.Time {
	t := d*daySecs + int64(at/time.Second)
	// No zone is a day from UTC, and none in the database has changed its
	// offset twice in two days since 1970.
	before, later := offset(t-daySecs, in), offset(t+daySecs, in)
	if before != later && offset(t-before, in) != before && offset(t-later, in) == later {
		t -= later
	} else {
		t -= before
	}
	return time.Unix(t, int64(at%time.Second)).In(in)
}

// wall returns what the clock on the wall shows, in seconds; dayOf its day,
// and timeOfDay the rest.
func wall(t time.Time) int64 {
	_, offset := t.Zone()
	return t.Unix() + int64(offset)
}

func dayOf(t time.Time) int64 { return (wall(t) - mod(wall(t), daySecs)) / daySecs }

func timeOfDay(t time.Time) time.Duration {
	return time.Duration(mod(wall(t), daySecs))*time.Second + time.Duration(t.Nanosecond())
}

// offset returns how far east of UTC a zone's clocks are at a moment.
func offset(t int64, in *time.Location) int64 {
	_, offset := time.Unix(t, 0).In(in).Zone()
	return int64(offset)
}

// mod is the remainder that is never negative.
func mod(a, b int64) int64 { return ((a % b) + b) % b }

// A Scheduler runs functions at the times that a [Recurrence] gives. Every
// [Bus] has one inside; the zero value is ready to be used alone, by
// [Scheduler.Run] or, for a program with a loop of its own, by
// [Scheduler.RunPending]. Its methods, and those of its jobs, may be called
// from any goroutine and from inside a job.
//
// Lengths of time keep a fixed rate on the monotonic clock: they neither drift
// nor notice that the wall clock is set. On most systems that clock stands
// still while the machine is suspended. Times on the wall follow the wall
// clock: a step of it is met within 30 seconds, and a time that has had its run
// has no second one, however often the clock is set back. If runs were missed
// there is one run at once, and the next one is in the future. Days, weeks and
// weekdays without an At start over where the clock is set back to before they
// were scheduled.
//
// The local zone is [time.Local]. Go reads it from the system, as from
// /etc/localtime, just once: where that changes, the program must be started
// anew. A program that assigns to time.Local itself is followed.
//
// A job never overlaps itself: a run that falls due while the one before goes
// on is left out and counted. A job that fails or panics is logged and goes
// on; one that returns [ErrCancelJob] has ended.
type Scheduler struct {
	Logger Logger // nil: warnings and errors to standard error; set it before use

	mu    sync.Mutex        // guards what follows, and all that changes in a Job
	timed queue             // jobs that are a length of time, by the monotonic clock
	dated queue             // jobs at times on the wall, by the wall clock
	ghost map[*Job]struct{} // ended in their run, which goes on
	born  uint64            // how many jobs there have been
	stats schedulerStats
	log   Logger // of the last start

	epoch time.Time      // where the monotonic clock counts from
	seen  int64          // the wall clock when last read
	local *time.Location // time.Local then
	skew  time.Duration  // by which a test puts the wall clock forward

	told     time.Time // what RunPending said the time was, if it was another
	toldMono int64     // and by the monotonic clock
	began    time.Time // the system's time when a run began, at the time told

	jobs    context.Context // what runs are given; nil: not started
	abandon context.CancelFunc
	ending  bool
	timer   *time.Timer   // calls tick
	until   int64         // when, by the monotonic clock
	nap     time.Duration // a test's maxWait

	active atomic.Int64  // runs that tick has started, ticks to come, RunAlls and RunPendings
	idle   chan struct{} // holds one when there may be none; made under mu, and kept
	runs   atomic.Uint64 // that have begun
	ghosts atomic.Int64  // how many there are in ghost, or may be
}

// schedulerStats counts what a scheduler has met since it was made.
type schedulerStats struct {
	failed  uint64 // with an error or a panic
	skipped uint64 // see [Job.Skipped]
}

// A Job is a function and when it runs.
type Job struct {
	// What each run needs comes first, in few lines of the processor's cache.
	s     *Scheduler
	fn    func(context.Context) error
	r     Recurrence
	state atomic.Int32 // of its run; leaves runIdle under the lock
	index int32        // in its queue; -1: ended
	last  atomic.Int64 // when its last run began, by the wall clock; 0: none has

	age     uint64 // how many jobs there were before
	skipped uint64
	tags    []string

	// Of a job at times on the wall, by its clock:
	from  int64             // when it was scheduled: without an At, it counts from there
	since int64             // the times after this up to base have had their run
	base  int64             // what its next time was found from
	past  *[maxPast]stretch // so have these, before the clock was set; nil in most
}

// A stretch is of times after one up to another.
type stretch struct{ after, upto int64 }

// The states of a job's run.
const (
	runIdle    = iota
	runBegun   // but its function not yet called
	runRevoked // before that could be
	runCalled
)

// Run runs jobs as they fall due, each in a goroutine of its own, until ctx
// ends. Then it waits up to 10 seconds for those that are running, also for
// those that RunAll or RunPending runs. Past that it cancels the contexts that
// it gave them, and its error names them. It is an error to call Run while it
// runs; afterwards it may be called again.
func (s *Scheduler) Run(ctx context.Context) error {
	if err := s.start(context.WithoutCancel(ctx), s.Logger); err != nil {
		return err
	}
	<-ctx.Done()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	if running := s.stop(grace); running != "" {
		return fail("the scheduler stopped with jobs still running: "+running, grace.Err())
	}
	return nil
}

// Schedule adds a job, whose first run is at the first time that r has after
// now. It may be called before, during and after Run. Errors: that of
// [Recurrence.Err], an Until in the past, a nil fn. A job whose Until is
// before its first run has ended when Schedule returns it.
func (s *Scheduler) Schedule(r Recurrence, fn func(context.Context) error) (*Job, error) {
	if err := r.Err(); err != nil {
		return nil, err
	}
	if fn == nil {
		return nil, fail(r.String()+": no function", nil)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, mono := s.look()
	if r.over(now) {
		return nil, fail(r.String()+": that is over", nil)
	}
	j := &Job{s: s, fn: fn, r: r, age: s.born, index: -1}
	j.startOver(nanos(now))
	s.born++
	s.plan(j, now, mono)
	return j, nil
}

// RunPending runs the jobs that are due at now, one after another in the order
// of their times, and then of their age. It returns how many there were. When
// ctx ends it leaves out the rest; jobs that are running already it leaves out
// too. If now is a second or more from the system's time, the scheduler takes it
// for the time until the next RunPending or Run, and its clock stands but for
// what the runs take: so a test says what time it is.
func (s *Scheduler) RunPending(ctx context.Context, now time.Time) int {
	s.mu.Lock()
	now, mono := s.tell(now)
	var due []*Job
	for j := s.due(now, mono); j != nil; j = s.due(now, mono) {
		due = append(due, j)
	}
	s.enter()
	s.mu.Unlock()
	return s.runEach(ctx, due)
}

// RunAll runs every job that isn't running, one after another, whenever it is
// due, and returns how many there were. When ctx ends it leaves out the rest.
// It changes no plans but those of jobs that count AfterCompletion.
func (s *Scheduler) RunAll(ctx context.Context) int {
	jobs := s.Jobs()
	s.mu.Lock()
	all := jobs[:0]
	for _, j := range jobs {
		if j.begin() {
			all = append(all, j)
		}
	}
	s.enter()
	s.mu.Unlock()
	return s.runEach(ctx, all)
}

// Jobs returns the jobs that have all of these tags, by age: without tags,
// every job. One that has ended is no longer among them.
func (s *Scheduler) Jobs(tags ...string) []*Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	var jobs []*Job
	for _, q := range []queue{s.timed, s.dated} {
		for _, e := range q {
			if !slices.ContainsFunc(tags, func(tag string) bool { return !slices.Contains(e.job.tags, tag) }) {
				jobs = append(jobs, e.job)
			}
		}
	}
	slices.SortFunc(jobs, func(a, b *Job) int { return cmp.Compare(a.age, b.age) })
	return jobs
}

// CancelTagged cancels the jobs that [Scheduler.Jobs] returns for these tags,
// and returns how many there were.
func (s *Scheduler) CancelTagged(tags ...string) int {
	jobs := s.Jobs(tags...)
	for _, j := range jobs {
		j.Cancel()
	}
	return len(jobs)
}

// NextRun returns when the next run of any job is due, by the wall clock as
// it goes now; the zero Time if there is none.
func (s *Scheduler) NextRun() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, mono := s.look()
	wait := s.wait(now, mono)
	if wait == never {
		return time.Time{}
	}
	return now.Round(0).Add(time.Duration(wait))
}

// Cancel ends the job: no run begins after it. One that is going on is not
// interrupted.
func (j *Job) Cancel() {
	j.s.mu.Lock()
	defer j.s.mu.Unlock()
	first := j.index == 0
	j.s.drop(j)
	j.state.CompareAndSwap(runBegun, runRevoked)
	if first && j.s.started() {
		j.s.arm(j.s.look())
	}
}

// Tag adds tags, for [Scheduler.Jobs] and [Scheduler.CancelTagged] to find
// the job by. It returns the job.
func (j *Job) Tag(tags ...string) *Job {
	j.s.mu.Lock()
	defer j.s.mu.Unlock()
	for _, tag := range tags {
		if !slices.Contains(j.tags, tag) {
			j.tags = append(j.tags, tag)
		}
	}
	return j
}

// Tags returns the job's tags in the order they were added.
func (j *Job) Tags() []string {
	j.s.mu.Lock()
	defer j.s.mu.Unlock()
	return slices.Clone(j.tags)
}

// Next returns when the next run is due, by the wall clock as it goes now;
// the zero Time if the job has ended or counts from the completion of a run
// that is going on.
func (j *Job) Next() time.Time {
	s := j.s
	s.mu.Lock()
	defer s.mu.Unlock()
	now, mono := s.look()
	if j.index < 0 || s.when(j) == never {
		return time.Time{}
	}
	if j.r.fixed {
		return s.zoned(j, now.Round(0).Add(time.Duration(s.when(j)-mono)))
	}
	return s.date(j, s.when(j))
}

// Last returns when the last run began, by the wall clock; the zero Time if
// none has.
func (j *Job) Last() time.Time {
	j.s.mu.Lock()
	defer j.s.mu.Unlock()
	last := j.last.Load()
	if last == 0 {
		return time.Time{}
	}
	return j.s.date(j, last)
}

// Skipped returns how many times have had no run of their own: because the
// run before went on, or because the scheduler, or the whole machine, slept
// until the next had come.
func (j *Job) Skipped() uint64 {
	j.s.mu.Lock()
	defer j.s.mu.Unlock()
	return j.skipped
}

// String says when the job runs, and its tags in brackets.
func (j *Job) String() string {
	j.s.mu.Lock()
	defer j.s.mu.Unlock()
	return j.name()
}

func (j *Job) name() string {
	if len(j.tags) == 0 {
		return j.r.String()
	}
	return j.r.String() + " [" + strings.Join(j.tags, " ") + "]"
}

// start begins to run jobs, with contexts made from ctx.
func (s *Scheduler) start(ctx context.Context, log Logger) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs != nil {
		return fail("the scheduler is running already", nil)
	}
	s.jobs, s.abandon = context.WithCancel(ctx)
	s.ending, s.told, s.log = false, time.Time{}, log
	s.enter()
	s.timer = time.AfterFunc(maxWait, s.tick)
	s.arm(s.look())
	return nil
}

// stop starts no more jobs, and waits for those that are running. If ctx ends
// first, it cancels their contexts and returns their names. Before start, and
// a second time, it does nothing.
func (s *Scheduler) stop(ctx context.Context) (running string) {
	s.mu.Lock()
	jobs := s.jobs
	if jobs == nil {
		s.mu.Unlock()
		return ""
	}
	s.ending = true
	s.disarm()
	s.mu.Unlock()

	late := false
	for !late && s.active.Load() > 0 {
		select {
		case <-s.idle:
		case <-ctx.Done():
			late = true
		}
	}
	s.mayBeIdle() // Another stop may be waiting.
	s.mu.Lock()
	defer s.mu.Unlock()
	if late && s.active.Load() > 0 {
		running = s.runningNames()
	}
	if s.jobs == jobs {
		s.abandon()
		s.jobs = nil
	}
	return running
}

// enter counts one more that runs jobs. It calls left when it has.
func (s *Scheduler) enter() {
	if s.idle == nil {
		s.idle = make(chan struct{}, 1)
	}
	s.active.Add(1)
	s.began = time.Now()
}

func (s *Scheduler) started() bool { return s.jobs != nil && !s.ending }

// arm sets the timer to when there is something to do.
func (s *Scheduler) arm(now time.Time, mono int64) {
	wait := s.wait(now, mono)
	if len(s.dated) > 0 {
		wait = min(wait, int64(cmp.Or(s.nap, maxWait)))
	}
	if wait == never {
		s.disarm()
		s.until = never
		return
	}
	if !s.timer.Reset(time.Duration(wait)) {
		s.active.Add(1)
	}
	s.until = mono + wait
}

func (s *Scheduler) disarm() {
	if s.timer.Stop() {
		s.active.Add(-1)
	}
}

// tick starts what is due, and arms the timer for what will be. The last of
// the jobs it runs itself: where one is due at a time, that costs no more than
// a timer of its own.
func (s *Scheduler) tick() {
	defer s.left()
	var last *Job
	var at int64
	s.mu.Lock()
	jobs := s.jobs
	for done := false; !done && !s.ending; {
		now, mono := s.look()
		for range runBatch {
			j := s.due(now, mono)
			if j == nil {
				s.arm(now, mono)
				done = true
				break
			}
			if last != nil {
				s.active.Add(1)
				go s.runActive(jobs, last, at)
			}
			last, at = j, nanos(now)
		}
		if !done {
			s.mu.Unlock() // Others may want it too.
			s.mu.Lock()
		}
	}
	s.mu.Unlock()
	if last != nil {
		s.run(jobs, last, at)
	}
}

// wait returns how long there is nothing to do, or never.
func (s *Scheduler) wait(now time.Time, mono int64) int64 {
	wait := int64(never)
	if len(s.timed) > 0 && s.timed[0].when < never {
		wait = s.timed[0].when - mono
	}
	if len(s.dated) > 0 && s.dated[0].when < never {
		wait = min(wait, s.dated[0].when-nanos(now))
	}
	return wait
}

// due returns the next job to be run, having planned the run after it; nil if
// none is due.
func (s *Scheduler) due(now time.Time, mono int64) *Job {
	for {
		// How late the first of each queue is.
		timed, dated := int64(-1), int64(-1)
		if len(s.timed) > 0 && s.timed[0].when < never {
			timed = mono - s.timed[0].when
		}
		if len(s.dated) > 0 && s.dated[0].when < never {
			dated = nanos(now) - s.dated[0].when
		}
		if timed < 0 && dated < 0 {
			return nil
		}
		late, first := dated, &s.dated
		if timed > dated || timed == dated && s.timed[0].job.age < s.dated[0].job.age {
			late, first = timed, &s.timed
		}
		j := (*first)[0].job
		if j.r.over(now) && late > int64(lateness) {
			s.skip(j, 1)
			s.drop(j)
			continue
		}
		begun := j.begin()
		if !begun {
			s.skip(j, 1)
		}
		s.advance(j, now, mono)
		if begun {
			return j
		}
	}
}

// begin marks a job as running, unless it is.
func (j *Job) begin() bool {
	return j.index >= 0 && j.state.CompareAndSwap(runIdle, runBegun)
}

func (s *Scheduler) skip(j *Job, n int64) {
	j.skipped += uint64(n)
	s.stats.skipped += uint64(n)
}

// plan finds a job's first time from now, or from the end of its run.
func (s *Scheduler) plan(j *Job, now time.Time, mono int64) {
	if j.r.fixed {
		length := j.r.length(j.r.draw())
		s.set(j, mono+int64(length), now.Add(length), now, mono)
		return
	}
	switch n := nanos(now); {
	case !j.r.hasAt:
		j.startOver(n)
	case n >= j.base:
		j.base = n // What fell due in its run is left out.
	default:
		j.rebase(n)
	}
	s.follow(j, now, mono)
}

// advance plans the run after the one that is due.
func (s *Scheduler) advance(j *Job, now time.Time, mono int64) {
	when := s.when(j)
	if !j.r.fixed {
		j.base = when
	}
	switch {
	case j.r.afterRun:
		s.move(j, never)
	case j.r.fixed:
		length := int64(j.r.length(j.r.draw()))
		next := when + length
		if next <= mono {
			missed := (mono - when) / length
			if next += missed * length; j.r.ranges() {
				missed, next = 1, mono+int64(j.r.length(j.r.draw()))
			}
			s.skip(j, missed)
		}
		s.set(j, next, now.Add(time.Duration(next-mono)), now, mono)
	default:
		next := s.following(j)
		if !next.After(now) {
			s.skip(j, j.r.missed(s.date(j, j.from), s.date(j, when), s.zoned(j, now)))
			j.rebase(nanos(now))
			next = s.following(j)
		}
		s.set(j, nanos(next), next, now, mono)
	}
}

// missed returns how many times there are after due until now, of those on the
// wall that are scheduled at anchor. There is one at least.
func (r *Recurrence) missed(anchor, due, now time.Time) int64 {
	if r.ranges() {
		return 1
	}
	length := int64(r.n * unitSeconds[r.unit])
	if r.unit < day {
		return max(1, (now.Unix()-due.Unix())/length)
	}
	at := r.at
	if !r.hasAt {
		at = timeOfDay(anchor)
	}
	// A gap may have moved it from that time, and from that day.
	shown := wall(due) - int64(at/time.Second)
	first := (shown - mod(shown, daySecs)) / daySecs
	n := 1 + (dayOf(now)-first)*daySecs/length
	for n > 1 && onDay(first+n*length/daySecs, at, now.Location()).After(now) {
		n--
	}
	return n
}

// following returns a job's first time on the wall after its base, leaving
// out those that have had their run.
func (s *Scheduler) following(j *Job) time.Time {
	anchor := s.date(j, j.from)
	next := j.r.next(anchor, s.date(j, j.base))
	if j.past == nil {
		return next
	}
	for range j.past {
		n := nanos(next)
		i := slices.IndexFunc(j.past[:], func(p stretch) bool { return p.after < n && n <= p.upto })
		if i < 0 {
			break
		}
		next = j.r.next(anchor, s.date(j, j.past[i].upto))
	}
	return next
}

// follow plans the run after a job's base.
func (s *Scheduler) follow(j *Job, now time.Time, mono int64) {
	next := s.following(j)
	s.set(j, nanos(next), next, now, mono)
}

// startOver has a job at times on the wall count from a moment.
func (j *Job) startOver(n int64) {
	j.from, j.since, j.base, j.past = n, n, n, nil
}

// rebase has a job's next time found from a moment other than that up to which
// all have had their run. If that moment is among times that have, it is from
// the last of them, so that every n days stays so.
func (j *Job) rebase(n int64) {
	ran := stretch{j.since, j.base}
	if ran.after <= n && n <= ran.upto {
		return
	}
	if ran.after < ran.upto {
		j.remember(ran)
	}
	if j.past != nil {
		for _, p := range j.past {
			if p.after <= n && n < p.upto {
				n = p.upto
			}
		}
	}
	j.since, j.base = n, n
}

// remember keeps a stretch of times that have had their run. Where there is no
// room for one more, the two with the least between them become one: that
// leaves out a time that was missed rather than repeat one that was not.
func (j *Job) remember(ran stretch) {
	if j.past == nil {
		j.past = new([maxPast]stretch)
	}
	var all []stretch
	for _, p := range j.past {
		if p.after < p.upto {
			all = append(all, p)
		}
	}
	all = append(all, ran)
	for i := len(all) - 1; i > 0 && ran.after < all[i-1].after; i-- { // past is in order
		all[i-1], all[i] = ran, all[i-1]
	}
	join := func(i int) {
		all[i].upto = max(all[i].upto, all[i+1].upto)
		all = append(all[:i+1], all[i+2:]...)
	}
	near := 0
	for i := 0; i+1 < len(all); {
		switch gap := all[i+1].after - all[i].upto; {
		case gap <= 0:
			join(i)
			continue
		case gap < all[near+1].after-all[near].upto:
			near = i
		}
		i++
	}
	if len(all) > maxPast {
		join(near)
	}
	*j.past = [maxPast]stretch{}
	copy(j.past[:], all)
}

// set has the job run when a clock says so, which is at that date. If it is
// past Until the job has ended.
func (s *Scheduler) set(j *Job, when int64, date, now time.Time, mono int64) {
	if j.r.over(date) || when >= never {
		s.drop(j)
		return
	}
	wait := when - mono
	if !j.r.fixed {
		wait = min(when-nanos(now), int64(maxWait))
	}
	s.move(j, when)
	if s.started() && mono+wait < s.until {
		s.arm(now, mono)
	}
}

// look reads both clocks.
func (s *Scheduler) look() (now time.Time, mono int64) {
	if !s.told.IsZero() {
		return s.told, s.toldMono
	}
	now = time.Now()
	if s.epoch.IsZero() {
		s.epoch = now
	}
	mono = int64(now.Sub(s.epoch))
	if s.skew != 0 {
		now = now.Round(0).Add(s.skew)
	}
	s.notice(now, mono)
	return now, mono
}

// tell stops the clocks at now, if that isn't the time, or else has them go.
func (s *Scheduler) tell(now time.Time) (local time.Time, mono int64) {
	system := time.Now()
	if s.epoch.IsZero() {
		s.epoch = system
	}
	now, mono = now.In(time.Local), int64(now.Sub(s.epoch))
	s.told = time.Time{}
	if !s.started() && now.Sub(system).Abs() >= time.Second {
		s.told, s.toldMono = now.Round(0), mono
	}
	s.notice(now, mono)
	return now, mono
}

// pass puts clocks that stand forward by what a run has taken, but for less
// than a millisecond.
func (s *Scheduler) pass() {
	if s.told.IsZero() {
		return
	}
	took := time.Since(s.began).Truncate(time.Millisecond)
	s.told, s.toldMono = s.told.Add(took), s.toldMono+int64(took)
	s.began = s.began.Add(took)
}

// notice plans anew what a wall clock put back, or a change of the local
// zone, makes wrong. One put forward only makes jobs late.
func (s *Scheduler) notice(now time.Time, mono int64) {
	n := nanos(now)
	back, moved := n < s.seen, s.local != nil && s.local != now.Location()
	s.seen, s.local = n, now.Location()
	if !back && !moved {
		return
	}
	var wrong []*Job
	for _, e := range s.dated {
		if e.when < never && (e.job.base > n || moved && e.job.r.zone == nil) {
			wrong = append(wrong, e.job)
		}
	}
	for _, j := range wrong {
		if n < j.from && !j.r.hasAt {
			j.startOver(n) // The clock was wrong when the job was scheduled.
		} else {
			j.rebase(n)
		}
		s.follow(j, now, mono)
	}
}

// zoned returns t in the job's zone.
func (s *Scheduler) zoned(j *Job, t time.Time) time.Time {
	if j.r.zone != nil {
		return t.In(j.r.zone)
	}
	return t.In(s.local)
}

// date returns the time n, of those that nanos returns, in the job's zone.
func (s *Scheduler) date(j *Job, n int64) time.Time { return s.zoned(j, time.Unix(0, n)) }

// nanos is UnixNano without its overflow.
func nanos(t time.Time) int64 {
	const most = math.MaxInt64 / int64(time.Second)
	switch sec := t.Unix(); {
	case sec >= most:
		return never
	case sec <= -most:
		return -never
	}
	return t.UnixNano()
}

// runEach runs jobs that have begun, one after another.
func (s *Scheduler) runEach(ctx context.Context, jobs []*Job) (n int) {
	defer s.left()
	defer func() {
		for _, j := range jobs { // One of them called runtime.Goexit, which ends the caller too.
			s.revoke(j)
			s.run(ctx, j, 0)
		}
		s.mu.Lock()
		s.pass()
		s.mu.Unlock()
	}()
	for len(jobs) > 0 {
		j := jobs[0]
		jobs = jobs[1:]
		if ctx.Err() != nil {
			s.revoke(j)
		}
		s.mu.Lock()
		s.pass()
		now, _ := s.look()
		s.mu.Unlock()
		if s.run(ctx, j, nanos(now)) {
			n++
		}
	}
	return n
}

// revoke takes back that a job has begun, and counts that.
func (s *Scheduler) revoke(j *Job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j.state.CompareAndSwap(runBegun, runRevoked) {
		s.skip(j, 1)
	}
}

// runActive is run for tick, which counts it.
func (s *Scheduler) runActive(ctx context.Context, j *Job, now int64) {
	defer s.left()
	s.run(ctx, j, now)
}

func (s *Scheduler) left() {
	if s.active.Add(-1) == 0 {
		s.mayBeIdle()
	}
}

func (s *Scheduler) mayBeIdle() {
	select {
	case s.idle <- struct{}{}:
	default:
	}
}

// run calls a begun job's function, unless that was revoked.
func (s *Scheduler) run(ctx context.Context, j *Job, now int64) (ran bool) {
	var err error
	returned := true
	defer func() {
		var p any
		if !returned {
			if p = recover(); p == nil {
				err = errors.New("it called runtime.Goexit")
			}
		}
		s.finished(j, err, p)
	}()
	if j.state.CompareAndSwap(runBegun, runCalled) {
		j.last.Store(now)
		s.runs.Add(1)
		ran, returned = true, false
		err = j.fn(ctx)
		returned = true
	}
	return ran
}

// finished ends a run, that failed with err or panicked with p: the job may
// run again.
func (s *Scheduler) finished(j *Job, err error, p any) {
	if err == nil && p == nil && !j.r.afterRun {
		j.state.Store(runIdle)
		if s.ghosts.Load() > 0 { // See drop.
			s.mu.Lock()
			s.lay(j)
			s.mu.Unlock()
		}
		return
	}
	done := errors.Is(err, ErrCancelJob)
	failed := !done && (err != nil || p != nil)
	s.mu.Lock()
	j.state.Store(runIdle)
	s.lay(j)
	switch {
	case done:
		s.drop(j)
	case j.index >= 0 && j.r.afterRun:
		s.pass()
		now, mono := s.look()
		s.plan(j, now, mono)
	}
	if failed {
		s.stats.failed++
	}
	s.mu.Unlock()
	if !failed {
		return
	}
	name := j.String()
	if p == nil {
		s.logger().Error("autobus: a scheduled job failed", "job", name, "error", err)
		return
	}
	s.logger().Error("autobus: a scheduled job panicked", "job", name, "panic", p, "stack", stackText())
}

func (s *Scheduler) logger() Logger {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.log != nil:
		return s.log
	case s.Logger != nil:
		return s.Logger
	}
	return stderrLogger{}
}

// runningNames lists the jobs that are running, by age, and names the oldest.
func (s *Scheduler) runningNames() string {
	const most = 10
	running := 0
	oldest := make([]*Job, 0, most+1)
	add := func(j *Job) {
		if j.state.Load() != runCalled {
			return
		}
		running++
		oldest = append(oldest, j)
		for i := len(oldest) - 1; i > 0 && j.age < oldest[i-1].age; i-- {
			oldest[i-1], oldest[i] = j, oldest[i-1]
		}
		oldest = oldest[:min(len(oldest), most)]
	}
	for _, q := range []queue{s.timed, s.dated} {
		for _, e := range q {
			add(e.job)
		}
	}
	for j := range s.ghost {
		add(j)
	}
	names := make([]string, len(oldest))
	for i, j := range oldest {
		names[i] = j.name()
	}
	list := strings.Join(names, ", ")
	if more := running - len(oldest); more > 0 {
		list += " and " + strconv.Itoa(more) + " more"
	}
	return list
}

// A queue is a heap of jobs, each with four below it, the next to run on top.
// The jobs know their place in it.
type queue []entry

type entry struct {
	when int64 // by the queue's clock; never: not before its run has ended
	job  *Job
}

func (a entry) before(b entry) bool {
	return a.when < b.when || a.when == b.when && a.job.age < b.job.age
}

func (q queue) put(i int, e entry) {
	q[i] = e
	e.job.index = int32(i)
}

// up and down put e where it belongs, from a place i that is free.
func (q queue) up(i int, e entry) {
	for i > 0 {
		above := (i - 1) / 4
		if !e.before(q[above]) {
			break
		}
		q.put(i, q[above])
		i = above
	}
	q.put(i, e)
}

func (q queue) down(i int, e entry) {
	for {
		first := 4*i + 1
		if first >= len(q) {
			break
		}
		least := first
		for k := first + 1; k < min(first+4, len(q)); k++ {
			if q[k].before(q[least]) {
				least = k
			}
		}
		if !q[least].before(e) {
			break
		}
		q.put(i, q[least])
		i = least
	}
	q.put(i, e)
}

func (q queue) fix(i int, e entry) {
	if i > 0 && e.before(q[(i-1)/4]) {
		q.up(i, e)
	} else {
		q.down(i, e)
	}
}

func (s *Scheduler) queueOf(j *Job) *queue {
	if j.r.fixed {
		return &s.timed
	}
	return &s.dated
}

func (s *Scheduler) when(j *Job) int64 { return (*s.queueOf(j))[j.index].when }

// move puts a job into its queue, or elsewhere in it.
func (s *Scheduler) move(j *Job, when int64) {
	q := s.queueOf(j)
	e := entry{when, j}
	if j.index < 0 {
		*q = append(*q, e)
		q.up(len(*q)-1, e)
		return
	}
	q.fix(int(j.index), e)
}

// drop ends a job.
func (s *Scheduler) drop(j *Job) {
	if j.index < 0 {
		return
	}
	q := s.queueOf(j)
	i, last := int(j.index), len(*q)-1
	e := (*q)[last]
	(*q)[last] = entry{}
	*q = (*q)[:last]
	if i < last {
		q.fix(i, e)
	}
	j.index = -1
	// Either a run that ends sees that there is a ghost, or this sees its end.
	s.ghosts.Add(1)
	if j.state.Load() == runIdle {
		s.ghosts.Add(-1)
		return
	}
	if s.ghost == nil {
		s.ghost = make(map[*Job]struct{})
	}
	s.ghost[j] = struct{}{}
}

// lay lets go of a job that has ended, and whose run has.
func (s *Scheduler) lay(j *Job) {
	if _, ok := s.ghost[j]; !ok {
		return
	}
	s.ghosts.Add(-1)
	if delete(s.ghost, j); len(s.ghost) == 0 {
		s.ghost = nil // A map keeps the room it once needed.
	}
}
