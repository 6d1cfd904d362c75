package autobus

import (
	"flag"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// zoneNames lists the zones of the system's database, or of none a handful.
var zoneNames = sync.OnceValue(func() []string {
	names := []string{
		"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia",
		"Africa/Monrovia", "Africa/Casablanca", "Antarctica/Troll", "America/Sao_Paulo", "Asia/Kathmandu",
		"America/Nuuk", "Asia/Pyongyang",
	}
	fs.WalkDir(os.DirFS("/usr/share/zoneinfo"), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (name == "posix" || name == "right") {
			return fs.SkipDir
		}
		if _, err := time.LoadLocation(name); err == nil && !d.IsDir() && !slices.Contains(names, name) && name != "localtime" {
			names = append(names, name)
		}
		return nil
	})
	return names
})

const (
	year1970 = 0
	year2100 = 4102444800
)

// A clockFace is a slow oracle. It walks a zone's clock on the wall, step by
// step, and says when it shows what. It knows nothing of how Next finds that.
type clockFace struct {
	zone     *time.Location
	from, to int64
	step     int64 // divides all changes of the offset between from and to
}

// walk calls visit for every step: at t the wall shows shown, and afterwards
// it goes on to upto, or if the clock is put forward then, over the rest.
func (c clockFace) walk(visit func(t, shown, upto, over int64)) {
	shown := c.from + offset(c.from, c.zone)
	for t := c.from; t < c.to; t += c.step {
		next := t + c.step + offset(t+c.step, c.zone)
		visit(t, shown, shown+c.step, max(next, shown+c.step))
		shown = next
	}
}

// daily lists the runs of Every(1).Day().At(at): each day once.
func (c clockFace) daily(at int64) []time.Time {
	runs := slices.SortedFunc(maps.Values(c.byDay(at)), time.Time.Compare)
	return slices.CompactFunc(runs, time.Time.Equal)
}

// byDay returns the run of each day, counted from 1 January 1970.
func (c clockFace) byDay(at int64) map[int64]time.Time {
	runs := map[int64]time.Time{}
	c.walk(func(t, shown, upto, over int64) {
		// Times that are shown, and those that are jumped over, alike.
		for when := shown + mod(at-shown, daySecs); when < over; when += daySecs {
			d := (when - at) / daySecs
			if _, done := runs[d]; !done {
				runs[d] = time.Unix(t+when-shown, 0)
			}
		}
	})
	return runs
}

// day returns the last day that has begun by a time, unless the run of the day
// before is still to come.
func (c clockFace) day(at int64, now time.Time) (last int64) {
	c.to = min(c.to, now.Unix()-now.Unix()%60+2*daySecs)
	for d, midnight := range c.byDay(0) {
		if !midnight.After(now) {
			last = max(last, d)
		}
	}
	if !c.byDay(at)[last-1].Before(now) {
		last--
	}
	return last
}

// inUnit lists the runs of Every(1).Hour().At(at) or of minutes.
func (c clockFace) inUnit(unit, at int64) (runs []time.Time) {
	c.walk(func(t, shown, upto, _ int64) {
		for when := shown + mod(at-shown, unit); when < upto; when += unit {
			run := time.Unix(t+when-shown, 0)
			if len(runs) == 0 || run.Sub(runs[len(runs)-1]) >= time.Duration(unit)*time.Second {
				runs = append(runs, run)
			}
		}
	})
	return runs
}

// from returns the runs after t.
func after(runs []time.Time, t time.Time) []time.Time {
	i, _ := slices.BinarySearchFunc(runs, t, func(run, t time.Time) int {
		if run.After(t) {
			return 1
		}
		return -1
	})
	return runs[i:]
}

// changes lists when a zone's offset changes, to the second.
func changes(loc *time.Location, from, to int64) (list []int64) {
	const stride = 6 * 3600
	for t := from; t < to; t += stride {
		if offset(t, loc) != offset(t+stride, loc) {
			lo, hi := t, t+stride
			for hi-lo > 1 {
				if mid := (lo + hi) / 2; offset(mid, loc) == offset(lo, loc) {
					lo = mid
				} else {
					hi = mid
				}
			}
			list = append(list, hi)
		}
	}
	return list
}

// changesSince1970 is changes from 1970 to 2100, remembered.
func changesSince1970(loc *time.Location) []int64 {
	list, ok := changesByZone.Load(loc.String())
	if !ok {
		list, _ = changesByZone.LoadOrStore(loc.String(), changes(loc, year1970, year2100))
	}
	return list.([]int64)
}

var changesByZone sync.Map

// around is a clock for some days on either side of a change.
func around(loc *time.Location, change int64, days int64) clockFace {
	step := int64(60)
	if change%60 != 0 {
		step = 30
	}
	return clockFace{loc, change - change%60 - (days+2)*daySecs, change - change%60 + days*daySecs, step}
}

// clock formats a time of day, or what is left of it in a smaller unit.
func clock(u unit, at int64) string {
	t := time.Unix(at, 0).UTC()
	switch u {
	case minute:
		return t.Format(":05")
	case hour:
		return t.Format("04:05")
	}
	return t.Format("15:04:05")
}

var allZones = flag.Bool("zones", false, "check every change of every zone's clock, for minutes")

// TestDailyInEveryZone holds Every(1).Day().At against the oracle around the
// changes of each zone's clock from 1970 to 2100: a sample of them, but with
// -zones every one.
func TestDailyInEveryZone(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 1970))
	checked := 0
	for i, name := range zoneNames() {
		loc := zone(t, name)
		var list []int64
		switch {
		case *allZones || i < 13:
			list = changesSince1970(loc)
		case i%20 == 0:
			from := year1970 + rnd.Int64N(120*365*daySecs)
			list = changes(loc, from, from+5*366*daySecs)
		}
		for i, change := range list {
			if !*allZones && i%40 != 0 && len(list) > 20 {
				continue
			}
			// Any time, and one near the change.
			checkDaily(t, around(loc, change, 3), rnd.Int64N(daySecs))
			at := change + offset(change, loc) + rnd.Int64N(3*3600) - 3*3600/2
			checkDaily(t, around(loc, change, 3), mod(at, daySecs))
			checked++
		}
	}
	t.Log(checked, "changes checked")
	if len(zoneNames()) < 100 {
		missing(t, "the time zone database is a small one")
	}
}

// checkDaily holds Next, from any moment of the clock, against its oracle.
func checkDaily(t *testing.T, c clockFace, at int64) {
	t.Helper()
	r := Every(1).Day().At(clock(day, at)).In(c.zone)
	runs := c.daily(at)
	start := time.Unix(c.from+2*daySecs, 0)
	checkRuns(t, r, after(runs, start), start)

	// Each day's run shows the time, but where there is no such time that day.
	for _, run := range after(runs, start) {
		if mod(wall(run.In(c.zone)), daySecs) == at {
			continue
		}
		before := offset(run.Unix()-daySecs, c.zone)
		if gap := offset(run.Unix(), c.zone) - before; gap <= 0 || mod(run.Unix()+before, daySecs) != at {
			t.Fatalf("%v: a run at %v", r, run.In(c.zone))
		}
	}
}

// checkRuns asks for all runs, one after another and from moments between.
func checkRuns(t *testing.T, r Recurrence, runs []time.Time, start time.Time) {
	t.Helper()
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	for last := start; len(runs) > 0; last, runs = runs[0], runs[1:] {
		gap := runs[0].Sub(last)
		for _, from := range []time.Time{last, last.Add(1), last.Add(gap / 3), last.Add(gap / 2), runs[0].Add(-1)} {
			if next, ok := r.Next(from); !ok || !next.Equal(runs[0]) {
				t.Fatalf("%v.Next(%v) = %v, want %v", r, from.In(r.zone), next.In(r.zone), runs[0].In(r.zone))
			}
		}
	}
}

// TestHoursAndMinutesAt does the same for hours and minutes.
func TestHoursAndMinutesAt(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 2100))
	names := append([]string{"Australia/Lord_Howe", "Asia/Kathmandu", "America/Caracas", "Asia/Pyongyang", "Africa/Monrovia"}, zoneNames()...)
	for i, name := range names {
		if i > 60 {
			name = names[rnd.IntN(len(names))]
		}
		if i > 120 {
			break
		}
		loc := zone(t, name)
		list := changes(loc, year1970+3*daySecs, 60*365*daySecs)
		if len(list) == 0 {
			continue
		}
		c := around(loc, list[rnd.IntN(len(list))], 1)
		c.from += 2 * daySecs
		start := time.Unix(c.from+6*3600, 0)
		at := rnd.Int64N(3600)
		checkRuns(t, Every(1).Hour().At(clock(hour, at)).In(loc), after(c.inUnit(3600, at), start), start)
		c.from, c.to = c.from+22*3600, c.from+26*3600
		start = time.Unix(c.from+3600, 0)
		at %= 60
		checkRuns(t, Every(1).Minute().At(clock(minute, at)).In(loc), after(c.inUnit(60, at), start), start)
	}
}

// draw makes a recurrence of any kind, without a mistake.
func randomRecurrence(rnd *rand.Rand, loc *time.Location) Recurrence {
	n := 1 + rnd.IntN(3)*rnd.IntN(20)
	at := rnd.Int64N(daySecs)
	var r Recurrence
	switch rnd.IntN(8) {
	case 0:
		r = Every(20 + 3000*rnd.Float64()).Seconds()
	case 1:
		r = Every(2 + 90*rnd.Float64()).Minutes()
	case 2:
		r = Every(0.1 + 5*rnd.Float64()).Hours()
	case 3:
		r = Every(n + 5*rnd.IntN(5)).Minutes().At(clock(minute, at))
	case 4:
		r = Every(n).Hours().At(clock(hour, at))
	case 5:
		r = Every(1 + rnd.IntN(3)).Days()
	case 6:
		r = Every(1 + rnd.IntN(3)).Days().At(clock(day, at))
	case 7:
		r = Every(1).in(week, "")
		r.onWeekday, r.weekday = true, uint8(rnd.IntN(7))
		if rnd.IntN(2) == 0 {
			r = r.At(clock(day, at))
		}
	}
	return r.In(loc)
}

// FuzzNext holds Next to its laws, for any recurrence, zone and time.
func FuzzNext(f *testing.F) {
	for kind := range 128 {
		f.Add(uint8(128+kind), float64(1+kind%3), int64(9000), uint16(kind), int64(kind)<<21+29, int64(40000), int64(0))
	}
	f.Add(uint8(5), 1.0, int64(9000), uint16(1), int64(1679792400), int64(100), int64(0))
	f.Add(uint8(4), 3.0, int64(1800), uint16(1), int64(1698532800), int64(7200), int64(0))
	f.Add(uint8(4), 1.0, int64(1800), uint16(3), int64(1696084800), int64(1800), int64(0))
	f.Add(uint8(5), 2.0, int64(85500), uint16(4), int64(562130000), int64(3600), int64(0))
	f.Add(uint8(5), 1.0, int64(36000), uint16(5), int64(1325203200), int64(86400), int64(0))
	f.Add(uint8(12), 1.0, int64(9000), uint16(1), int64(1679792400), int64(100), int64(0))
	f.Add(uint8(1), 0.25, int64(0), uint16(0), int64(-62135596800), int64(1), int64(5))
	f.Add(uint8(6), 36525.0, int64(0), uint16(2), int64(math.MaxInt64), int64(1), int64(5))
	f.Add(uint8(9), 1.0, int64(1), uint16(2), int64(math.MinInt64), int64(1), int64(5))
	f.Add(uint8(3), math.NaN(), int64(1), uint16(2), int64(0), int64(math.MaxInt64), int64(-5))
	f.Fuzz(checkNext)
}

// TestNextLaws holds more that is near a change of the clock to the same laws
// than a fuzzer finds at random.
func TestNextLaws(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 10))
	n := 1000
	if raceEnabled {
		n = 200
	}
	for range n {
		kind, zone := uint8(128+rnd.IntN(128)), uint16(rnd.IntN(13))
		if rnd.IntN(2) == 0 { // days with an At in St. John's and in Nuuk, which change over midnight
			kind, zone = 128+8+uint8(day), [...]uint16{4, 11}[rnd.IntN(2)]
		}
		checkNext(t, kind, float64(1+rnd.IntN(6)), rnd.Int64(), zone, rnd.Int64(), rnd.Int64(), 0)
	}
}

// checkNext makes a recurrence, a zone and a time of its arguments.
func checkNext(t *testing.T, kind uint8, n float64, at int64, zoneIndex uint16, sec, later, until int64) {
	names := zoneNames()
	loc := zone(t, names[int(zoneIndex)%len(names)])
	switch list := changesSince1970(loc); {
	case kind < 64:
		// As it is, mostly far from this age.
	case kind < 128 || len(list) == 0:
		sec = mod(sec, year2100)
	default:
		// Near a change of the clock, and often at a time near it too.
		change := list[mod(sec, int64(len(list)))]
		sec = change + mod(sec>>20, 60*3600) - 40*3600
		if at&1 == 0 {
			at = change + offset(change, loc) + mod(at>>1, 4*3600) - 2*3600
		}
	}
	r := Every(n).In(loc)
	u := unit(kind % 8)
	switch {
	case u <= week:
		r = r.in(u, "")
	case kind%8 == 6:
		r = r.on(time.Weekday(kind / 16 % 7))
	default:
		r = r.To(n+float64(at%100)).in(hour, "")
		at = 0
	}
	if kind&8 != 0 {
		r = r.At(clock(r.unit, mod(at, daySecs)))
	}
	if until > 0 && until < 1<<40 {
		r = r.Until(time.Unix(sec, 0).Add(time.Duration(until) * time.Second))
	}
	if r.Err() != nil {
		if _, ok := r.Next(time.Unix(sec, 0)); ok {
			t.Fatal("a next run in spite of", r.Err())
		}
		_ = r.String()
		return
	}

	// Next is after its argument, or isn't.
	from := time.Unix(sec, mod(at, 1e9))
	next, ok := r.Next(from)
	if !ok {
		if next != (time.Time{}) {
			t.Fatal("false with", next)
		}
		if r.more == nil && sec > -1<<50 && sec < 1<<50 {
			t.Fatalf("%v.Next(%v): none", r, from)
		}
		return
	}
	if !next.After(from) {
		t.Fatalf("%v.Next(%v) = %v", r, from, next)
	}
	if r.over(next) {
		t.Fatalf("%v.Next(%v) = %v, over its end", r, from, next)
	}
	if r.ranges() {
		return
	}
	sane := sec > year1970 && sec < year2100
	// It is less than two of its periods away, and a day for the clock.
	if away := next.Sub(from); sane && away > 2*r.length(r.n)+25*time.Hour {
		t.Fatalf("%v.Next(%v) = %v: %v away", r, from, next, away)
	}

	// It is never earlier for a later argument.
	second := from.Add(time.Duration(mod(later, 1<<(4+uint(later&15)))) * time.Second)
	next2, ok2 := r.Next(second)
	if sane && ok && ok2 && next2.Before(next) && (r.hasAt || r.fixed) {
		t.Fatalf("%v: Next(%v) = %v is after Next(%v) = %v", r, from.In(loc), next, second.In(loc), next2)
	}
	// It is what the oracle says.
	if !sane || r.n > 6 || !r.hasAt {
		return
	}
	second = time.Unix(sec, 0).Add(time.Duration(mod(later, daySecs)) * time.Second)
	next2, ok2 = r.Next(second)
	units, at := int64(r.n), int64(r.at/time.Second)
	c := clockFace{loc, sec - sec%60 - 3*daySecs, sec - sec%60 + (3+units)*daySecs, 60}
	if r.onWeekday {
		c.to += 7 * daySecs
	}
	if list := changes(loc, c.from, c.to); len(list) > 0 && list[0]%60 != 0 {
		c.step = 30
	}
	var want time.Time
	switch {
	case r.onWeekday:
		for d, run := range c.byDay(at) {
			if time.Unix(d*daySecs, 0).UTC().Weekday() == time.Weekday(r.weekday) && run.After(second) && (want.IsZero() || run.Before(want)) {
				want = run
			}
		}
	case r.unit == day && units == 1:
		want = after(c.daily(at), second)[0]
	case r.unit == day:
		want = c.byDay(at)[c.day(at, second)+units]
	default:
		// Of n > 1, the nth unit after this one.
		length := int64(unitSeconds[r.unit])
		least := second.Unix()
		c.from, c.to = least-least%60-4*3600, least-least%60+(4+units)*3600
		if units > 1 {
			least += -mod(wall(second.In(loc)), length) + at + units*length - 1
		}
		want = after(c.inUnit(length, at), time.Unix(least, 0))[0]
	}
	if !r.over(want) != ok2 || ok2 && !next2.Equal(want) {
		t.Fatalf("%v.Next(%v) = %v, want %v", r, second.In(loc), next2.In(loc), want.In(loc))
	}
}
