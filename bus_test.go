package autobus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// tick is an event with a number, for counting.
type tick struct{ By, N int }

func (tick) Type() string { return "Tick" }

func (t tick) Marshal(e *Encoder) {
	e.Key("by").Int(t.By)
	e.Key("n").Int(t.N)
}

func (t *tick) Unmarshal(d *Decoder) error {
	for key := range d.Fields() {
		switch key {
		case "by":
			t.By = d.Int()
		case "n":
			t.N = d.Int()
		}
	}
	return nil // on purpose without d.Err(): the bus looks itself
}

func (t *tick) Validate() error {
	if t.N < 0 {
		return errors.New("n is negative")
	}
	return nil
}

var background = context.Background()

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// soon returns a context that ends when patience does.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(background, patience)
	t.Cleanup(cancel)
	return ctx
}

// await receives from c, or fails the test.
func await[T any](t testing.TB, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("nothing came; goroutines:\n%s", stacks())
	}
	return v
}

// memBus returns a bus of the test's own, not started, which logs to the test.
func memBus(t testing.TB) *Bus {
	return &Bus{URL: "mem://" + t.Name(), Logger: testLogger(t, slog.LevelError+1)}
}

func testLogger(t testing.TB, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))
}

// start starts b, and stops it when the test ends.
func start(t testing.TB, b *Bus) {
	t.Helper()
	if err := b.Start(soon(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(background, patience)
		defer cancel()
		if err := b.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
}

func publish(t testing.TB, b *Bus, e Event) {
	t.Helper()
	for {
		err := b.Publish(e)
		if err == nil {
			return
		}
		if !errors.Is(err, ErrBacklog) {
			t.Fatal(err)
		}
		if err := b.Flush(soon(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// Events of one publisher are handled in order, however many there are.
func TestOrder(t *testing.T) {
	for _, publishers := range []int{1, 2, 8} {
		t.Run(fmt.Sprint(publishers), func(t *testing.T) {
			b := memBus(t)
			const each = 5000
			next := make([]int, publishers)
			left := publishers * each
			done := make(chan struct{})
			SubscribeOn(b, func(_ context.Context, e tick) error {
				if e.N != next[e.By] {
					t.Errorf("publisher %d: event %d where %d is due", e.By, e.N, next[e.By])
				}
				next[e.By] = e.N + 1
				if left--; left == 0 {
					close(done)
				}
				return nil
			})
			start(t, b)
			var wg sync.WaitGroup
			for by := range publishers {
				wg.Go(func() {
					for n := range each {
						publish(t, b, tick{by, n})
					}
				})
			}
			wg.Wait()
			await(t, done)
			if s := b.Stats(); s.Published != uint64(publishers*each) || s.Handled > s.Published || s.DroppedOverflow != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestConcurrency(t *testing.T) {
	b := memBus(t)
	var now atomic.Int32
	together := make(chan struct{})
	SubscribeOn(b, func(context.Context, tick) error {
		if now.Add(1) == 3 {
			close(together)
		}
		<-together
		return nil
	}, Concurrency(3))
	start(t, b)
	for n := range 3 {
		publish(t, b, tick{N: n})
	}
	await(t, together)
}

func TestStuckHandlerDelaysNobody(t *testing.T) {
	b := memBus(t)
	stuck, release := make(chan struct{}), make(chan struct{})
	SubscribeOn(b, func(context.Context, tick) error {
		close(stuck)
		<-release
		return nil
	}, Queue(1, DropNewest))
	var got int
	done := make(chan struct{})
	SubscribeOn(b, func(_ context.Context, e tick) error {
		if got++; got == 10000 {
			close(done)
		}
		return nil
	})
	start(t, b)
	publish(t, b, tick{})
	await(t, stuck)
	for n := range 9999 {
		publish(t, b, tick{N: n})
	}
	await(t, done)
	close(release)
}

// A handler may do all of these, and its misfortunes are its own.
func TestHandlers(t *testing.T) {
	b := memBus(t)
	var log bytes.Buffer
	b.Logger = slog.New(slog.NewTextHandler(&log, nil))
	late := make(chan int, 1)
	unsubscribed := make(chan struct{})
	var self atomic.Pointer[Subscription]
	var calls atomic.Int32
	self.Store(SubscribeOn(b, func(_ context.Context, e tick) error {
		calls.Add(1)
		SubscribeOn(b, func(_ context.Context, e reading) error { late <- e.ID; return nil })
		self.Load().Unsubscribe()
		close(unsubscribed)
		return b.Publish(reading{ID: 42})
	}))
	var others sync.WaitGroup
	others.Add(4)
	var n int
	SubscribeOn(b, func(ctx context.Context, e tick) error {
		defer others.Done()
		switch n++; n {
		case 1:
			panic("at the disco")
		case 2:
			return errors.New("out of cheese")
		case 3:
			runtime.Goexit()
		default:
			if err := b.Stop(ctx); err == nil || !strings.Contains(err.Error(), "from a handler") {
				t.Errorf("Stop from a handler: %v", err)
			}
		}
		return nil
	})
	start(t, b)
	publish(t, b, tick{})
	await(t, unsubscribed)
	if id := await(t, late); id != 42 {
		t.Errorf("got %d", id)
	}
	for range 3 {
		publish(t, b, tick{})
	}
	others.Wait()
	if err := b.Stop(soon(t)); err != nil {
		t.Fatal(err)
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("called %d times after Unsubscribe", n-1)
	}
	if s := b.Stats(); s.Failed != 3 || s.Handled != 3 {
		t.Errorf("%+v", s)
	}
	for _, want := range []string{"a handler panicked", "at the disco", "bus_test.go", "a handler failed", "out of cheese", "type=Tick"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, &log)
		}
	}
}

func TestUnsubscribe(t *testing.T) {
	b := memBus(t)
	entered, release := make(chan struct{}), make(chan struct{})
	var calls atomic.Int32
	sub := SubscribeOn(b, func(context.Context, tick) error {
		if calls.Add(1) == 1 {
			close(entered)
		}
		<-release
		return nil
	})
	start(t, b)
	for range 5 {
		publish(t, b, tick{})
	}
	await(t, entered)
	if err := b.Flush(soon(t)); err != nil {
		t.Fatal(err)
	}
	sub.Unsubscribe()
	sub.Unsubscribe()
	close(release)
	publish(t, b, tick{})
	if err := b.Stop(soon(t)); err != nil {
		t.Fatal(err)
	}
	if s := b.Stats(); calls.Load() != 1 || s.DroppedAbandoned != 4 || s.Received != 5 || s.Delivered != 1 || s.Handled != 1 {
		t.Errorf("%d calls; %+v", calls.Load(), s)
	}
}

func TestStopDrains(t *testing.T) {
	b := memBus(t)
	handled := 0
	SubscribeOn(b, func(_ context.Context, e tick) error {
		if handled++; e.N == 99 { // what a handler publishes last goes out too
			return b.Publish(reading{})
		}
		return nil
	})
	start(t, b)
	for n := range 100 {
		publish(t, b, tick{N: n})
	}
	if err := b.Stop(soon(t)); err != nil {
		t.Fatal(err)
	}
	if s := b.Stats(); handled != 100 || s.Sent != 101 || s.Backlog != 0 {
		t.Errorf("handled %d; %+v", handled, s)
	}
	if err := b.Publish(tick{}); err != ErrStopped {
		t.Errorf("Publish after Stop: %v", err)
	}
	if err := b.Flush(background); err != nil {
		t.Errorf("Flush after Stop: %v", err)
	}
}

// When Stop's context ends first, it says what it abandoned.
func TestStopAbandons(t *testing.T) {
	b := memBus(t)
	entered := make(chan struct{}, 1)
	left := make(chan struct{})
	SubscribeOn(b, func(ctx context.Context, _ tick) error {
		entered <- struct{}{}
		<-ctx.Done()
		<-left // and it takes its time even then
		return ctx.Err()
	})
	start(t, b)
	for range 4 {
		publish(t, b, tick{})
	}
	await(t, entered)
	if err := b.Flush(soon(t)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(background)
	cancel()
	err := b.Stop(ctx)
	if !errors.Is(err, context.Canceled) || err.Error() != "autobus: Stop: abandoned 3 received events, 1 running handler: context canceled" {
		t.Errorf("got %v", err)
	}
	if s := b.Stats(); s.DroppedAbandoned != 3 {
		t.Errorf("%+v", s)
	}
	start(t, b) // and it can be started again, with that handler still in its place
	publish(t, b, tick{})
	close(left)
	await(t, entered)
	ctx, cancel = context.WithCancel(background)
	cancel()
	b.Stop(ctx) // lets the second handler go
}

func TestStartStop100Times(t *testing.T) {
	for _, url := range []string{"mem://again", "udp://239.255.77.77:47077?interface=" + loopbackName(t)} {
		b := &Bus{URL: url, Logger: testLogger(t, slog.LevelError)}
		got := make(chan int, 1)
		SubscribeOn(b, func(_ context.Context, e tick) error { got <- e.N; return nil })
		cycle := func(n int) {
			if err := b.Start(soon(t)); err != nil {
				t.Fatal(err)
			}
			publish(t, b, tick{N: n})
			if await(t, got) != n {
				t.Fatal("an event of an earlier start")
			}
			if err := b.Stop(soon(t)); err != nil {
				t.Fatal(err)
			}
		}
		cycle(0) // what the first start makes for good
		goroutines, files := runtime.NumGoroutine(), openFiles(t)
		for n := range 100 {
			cycle(n + 1)
		}
		if !goroutinesEnd(goroutines) {
			t.Errorf("%s: %d goroutines before, and now:\n%s", url, goroutines, stacks())
		}
		if now := openFiles(t); now > files {
			t.Errorf("%s: %d files are open, %d before", url, now, files)
		}
	}
}

// openFiles counts this process's descriptors, where the system shows them.
func openFiles(t testing.TB) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(list)
}

// Publish racing Stop either sends or says ErrStopped.
func TestPublishRacesStop(t *testing.T) {
	for range 20 {
		b := memBus(t)
		var got atomic.Uint64
		SubscribeOn(b, func(context.Context, tick) error { got.Add(1); return nil })
		if err := b.Start(soon(t)); err != nil {
			t.Fatal(err)
		}
		var taken atomic.Uint64
		var wg sync.WaitGroup
		begun := make(chan struct{}, 1)
		for range 4 {
			wg.Go(func() {
				for {
					switch err := b.Publish(tick{}); {
					case err == nil:
						taken.Add(1)
						select {
						case begun <- struct{}{}:
						default:
						}
					case errors.Is(err, ErrStopped):
						return
					case !errors.Is(err, ErrBacklog):
						t.Error(err)
						return
					}
				}
			})
		}
		await(t, begun)
		if err := b.Stop(soon(t)); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if s := b.Stats(); s.Published != taken.Load() || s.Sent != taken.Load() || s.Delivered != s.Handled+s.DroppedAbandoned || s.Handled != got.Load() {
			t.Errorf("%d taken, %d handled: %+v", taken.Load(), got.Load(), s)
		}
	}
}

func TestPublishBeforeStart(t *testing.T) {
	b := memBus(t)
	for n := range 3 {
		publish(t, b, tick{N: n})
	}
	b.Namespace = "later" // the fields count as they are at Start
	got := make(chan int, 3)
	SubscribeOn(b, func(_ context.Context, e tick) error { got <- e.N; return nil })
	ctx, cancel := context.WithCancel(background)
	cancel()
	if err := b.Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Flush before Start: %v", err)
	}
	if err := b.Stop(background); err != nil {
		t.Errorf("Stop before Start: %v", err)
	}
	start(t, b)
	for n := range 3 {
		if v := await(t, got); v != n {
			t.Errorf("got %d, want %d", v, n)
		}
	}
}

// Each policy drops exactly what it says, and counts it.
func TestOverflow(t *testing.T) {
	for _, test := range []struct {
		when    Overflow
		want    []int
		dropped uint64
	}{
		{DropNewest, []int{0, 1, 2, 3}, 6},
		{DropOldest, []int{0, 7, 8, 9}, 6},
		{Block, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := memBus(t)
			var got []int
			release := make(chan struct{})
			SubscribeOn(b, func(_ context.Context, e tick) error {
				<-release
				got = append(got, e.N)
				return nil
			}, Queue(3, test.when))
			start(t, b)
			for n := range 10 {
				publish(t, b, tick{N: n})
				synctest.Wait() // the first one is with the handler, the next three in the queue
			}
			close(release)
			if err := b.Stop(soon(t)); err != nil {
				t.Fatal(err)
			}
			if s := b.Stats(); !slices.Equal(got, test.want) || s.DroppedOverflow != test.dropped {
				t.Errorf("policy %d: got %v, want %v; %+v", test.when, got, test.want, s)
			}
		})
	}
}

// A queue holds 16 MiB, and one event however large.
func TestQueueBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memBus(t)
		b.Backlog = 100 << 20
		release := make(chan struct{})
		b.SubscribeRaw("Big", func(context.Context, Raw) error { <-release; return nil })
		start(t, b)
		big := Raw{Name: "Big", JSON: []byte(`{"s":"` + strings.Repeat("x", 6<<20) + `"}`)}
		for range 4 { // one with the handler, two in the queue
			publish(t, b, big)
			synctest.Wait()
		}
		if s := b.Stats(); s.Received != 4 || s.DroppedOverflow != 1 {
			t.Errorf("%+v", s)
		}
		close(release)
		synctest.Wait()
		if s := b.Stats(); s.Handled != 3 {
			t.Errorf("%+v", s)
		}
	})
}

// Names that others chose count too, and so does an empty message's place.
func TestQueueCountsNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memBus(t)
		release := make(chan struct{})
		b.SubscribeRaw("*", func(context.Context, Raw) error { <-release; return nil }, Queue(1<<30, DropNewest))
		start(t, b)
		b.receive(background, []byte("autobus::E"), []byte(`{"type":"E"}`))
		synctest.Wait() // that one is with the handler
		name := strings.Repeat("x", 64000)
		for n := range 1000 {
			b.receive(background, fmt.Appendf(nil, "autobus::%s%d", name, n), nil)
		}
		if s := b.Stats(); s.DroppedOverflow < 700 {
			t.Errorf("%+v", s)
		}
		for range 1 << 19 {
			b.receive(background, []byte("autobus::E"), nil)
		}
		if s := b.Stats(); s.DroppedOverflow < 1<<18 {
			t.Errorf("%+v", s)
		}
		close(release)
	})
}

// "*" stands for all types, and is none, whatever the network says.
func TestStarIsNoType(t *testing.T) {
	b := memBus(t)
	b.SubscribeRaw("*", func(_ context.Context, e Raw) error { t.Errorf("got %q", e.Name); return nil })
	start(t, b)
	b.receive(background, []byte("autobus::*"), []byte(`{"type":"*"}`))
	if s := b.Stats(); s.Received != 0 {
		t.Errorf("%+v", s)
	}
}

// Unsubscribe ends a wait for room, and counts what waited.
func TestUnsubscribeWhileBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memBus(t)
		release := make(chan struct{})
		sub := SubscribeOn(b, func(context.Context, tick) error { <-release; return nil }, Queue(1, Block))
		start(t, b)
		for range 3 { // one with the handler, one in the queue, one waits
			publish(t, b, tick{})
			synctest.Wait()
		}
		sub.Unsubscribe()
		synctest.Wait()
		close(release)
		synctest.Wait()
		if s := b.Stats(); s.Received != 3 || s.Delivered != 1 || s.Handled != 1 || s.DroppedAbandoned != 2 {
			t.Errorf("%+v", s)
		}
	})
}

// Stop ends a wait for room, in its own queue and in another bus's.
func TestStopWhileBlocked(t *testing.T) {
	for _, stopSender := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			from, to := memBus(t), memBus(t)
			release := make(chan struct{})
			SubscribeOn(to, func(context.Context, tick) error { <-release; return nil }, Queue(1, Block))
			start(t, from)
			start(t, to)
			for range 4 {
				publish(t, from, tick{})
			}
			synctest.Wait()
			ctx, cancel := context.WithTimeout(background, time.Second)
			defer cancel()
			b := to
			if stopSender {
				b = from
			}
			if err := b.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("sender %v: %v", stopSender, err)
			}
			close(release)
		})
	}
}

func TestTwoBuses(t *testing.T) {
	name := "mem://" + t.Name()
	a, b, other := &Bus{URL: name}, &Bus{URL: name}, &Bus{URL: name, Namespace: "x"}
	got := make(chan string, 10)
	for _, x := range []struct {
		name string
		bus  *Bus
	}{{"a", a}, {"b", b}, {"other", other}} {
		SubscribeOn(x.bus, func(_ context.Context, e tick) error { got <- fmt.Sprint(x.name, e.N); return nil })
		x.bus.SubscribeRaw("*", func(_ context.Context, e Raw) error { got <- x.name + string(e.JSON); return nil })
		start(t, x.bus)
	}
	publish(t, a, tick{N: 1})
	var all []string
	for range 4 {
		all = append(all, await(t, got))
	}
	publish(t, other, tick{N: 2})
	for range 2 {
		all = append(all, await(t, got))
	}
	slices.Sort(all)
	want := []string{"a1", `a{"type":"Tick","by":0,"n":1}`, "b1", `b{"type":"Tick","by":0,"n":1}`, "other2", `other{"type":"Tick","by":0,"n":2}`}
	if !slices.Equal(all, want) {
		t.Errorf("got %q", all)
	}
	for _, x := range []*Bus{a, b, other} {
		if err := x.Stop(soon(t)); err != nil {
			t.Error(err)
		}
	}
	if len(got) > 0 {
		t.Errorf("and %q", <-got)
	}
}

// A namespace may hold a ':', and "*" doesn't reach into it.
func TestNamespaceWithColon(t *testing.T) {
	outer, inner := memBus(t), memBus(t)
	outer.Namespace, inner.Namespace = "a", "a:b"
	got := make(chan string, 2)
	outer.SubscribeRaw("*", func(context.Context, Raw) error { got <- "outer"; return nil })
	inner.SubscribeRaw("*", func(context.Context, Raw) error { got <- "inner"; return nil })
	start(t, outer)
	start(t, inner)
	publish(t, inner, tick{})
	if from := await(t, got); from != "inner" {
		t.Error(from)
	}
}

// What can't be decoded is counted by its cause, logged once a second, and
// none of its text with it.
func TestDiscards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memBus(t)
		var log bytes.Buffer
		b.Logger = slog.New(slog.NewTextHandler(&log, nil))
		handled := 0
		SubscribeOn(b, func(context.Context, tick) error { handled++; return nil })
		b.SubscribeRaw("Tick", func(context.Context, Raw) error { return nil })
		start(t, b)
		send := func(payload string) {
			b.receive(background, []byte("autobus::Tick"), []byte(payload))
			synctest.Wait()
		}
		for range 10 {
			send(`{"type":"Tick","secret":tru}`)
			send(`{"type":"Tick","n":"secret"}`) // fine for the raw one
			send(`{"type":"secret","n":1}`)
			send(`{"n":1}`)
			send(`{"type":"Tick","n":-1,"secret":1}`)
			send(`{"n":1,"type":"Tick"}`)
			send(`["secret"]`)
		}
		s := b.Stats()
		if handled != 10 || s.DroppedMalformed != 50 || s.DroppedType != 40 || s.DroppedInvalid != 10 || s.Handled != 40 || s.Received != 70 {
			t.Errorf("handled %d; %+v", handled, s)
		}
		if n := strings.Count(log.String(), "\n"); n != 3 || strings.Contains(log.String(), "secret") {
			t.Errorf("%d lines:\n%s", n, &log)
		}
		time.Sleep(time.Second) // of the bubble's own time
		send(`{`)
		if n := strings.Count(log.String(), "\n"); n != 4 {
			t.Errorf("%d lines after a second:\n%s", n, &log)
		}
		b.receive(background, []byte("autobus::Tick"), make([]byte, maxMessage+1))
		if s := b.Stats(); s.DroppedOversized != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// Every mistake has an error that names it.
func TestMistakes(t *testing.T) {
	started := memBus(t)
	start(t, started)
	small := &Bus{Transport: &fakeTransport{limit: 20}}
	start(t, small)
	full := &Bus{Backlog: 56}
	publish(t, full, tick{})
	for _, test := range []struct {
		err  error
		want string
	}{
		{started.Start(background), "autobus: Start: the bus is started already"},
		{(&Bus{URL: "host:5000"}).Start(background), "autobus: the URL has no scheme: want udp://group:port, redis://host:port or mem://name"},
		{(&Bus{URL: "carrier-pigeon://coop"}).Start(background), `autobus: URL scheme "carrier-pigeon" is unknown: want udp://group:port, redis://host:port or mem://name`},
		{(&Bus{URL: "mem://"}).Start(background), `autobus: URL "mem://": want mem://name, with any name`},
		{(&Bus{Namespace: "\xff"}).Start(background), `autobus: the namespace "\xff" isn't valid UTF-8`},
		{(&Bus{Backlog: -1}).Start(background), "autobus: Backlog is -1, want a number of bytes, or 0 for 8 MiB"},
		{small.Publish(tick{}), "autobus: event Tick takes 28 bytes, and the transport at most 20: message too large"},
		{full.Publish(tick{N: 10}), "autobus: event Tick has 29 bytes, and 28 of at most 56 are unsent: backlog full"},
		{full.Publish(Raw{"Tick", []byte(`{"s":"0123456789012345678901234567890123456789"}`)}), "autobus: event Tick has 62 bytes, and the whole backlog 56: message too large"},
		{started.Publish(nil), "autobus: the event is nil"},
		{started.Publish(Raw{}), `autobus: event type "" is empty`},
		{started.Publish(Raw{Name: "a:b"}), `autobus: event type "a:b" has a ':', which ends a namespace`},
		{started.Publish(Raw{Name: "*"}), `autobus: event type "*" stands for all types`},
		{started.Publish(Raw{Name: "\xff"}), `autobus: event type "\xff" isn't valid UTF-8`},
		{started.Publish(Raw{Name: "A", JSON: []byte(`{"type":"B"}`)}), `autobus: event A: field "type" at byte 8: want "A", the event's type, have "B"`},
	} {
		if test.err == nil || test.err.Error() != test.want {
			t.Errorf("got %v\nwant %s", test.err, test.want)
		}
	}
	if err := small.Publish(tick{}); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	for want, f := range map[string]func(){
		`autobus: Subscribe: event type "" is empty`:                                 func() { started.SubscribeRaw("", func(context.Context, Raw) error { return nil }) },
		`autobus: Subscribe: event type "a:b" has a ':', which ends a namespace`:     func() { started.SubscribeRaw("a:b", func(context.Context, Raw) error { return nil }) },
		"autobus: Subscribe: the handler is nil":                                     func() { SubscribeOn[tick](started, nil) },
		"autobus: Concurrency(0): want at least 1":                                   func() { Concurrency(0) },
		"autobus: Queue(0, …): want at least 1, and DropNewest, DropOldest or Block": func() { Queue(0, Block) },
	} {
		func() {
			defer func() {
				if p := recover(); p != want {
					t.Errorf("panic %v, want %s", p, want)
				}
			}()
			f()
		}()
	}
}

// fakeTransport does what a test tells it.
type fakeTransport struct {
	limit      int
	start      func(ctx context.Context) error
	subscribed func()
	send       func(ctx context.Context, messages []Message) (int, error)
	mu         sync.Mutex
	called     []string
	receive    func(context.Context, []byte, []byte)
}

func (f *fakeTransport) note(call string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.called = append(f.called, call)
}

func (f *fakeTransport) Start(ctx context.Context, receive func(context.Context, []byte, []byte), _ Logger) error {
	f.note("Start")
	f.receive = receive
	if f.start != nil {
		return f.start(ctx)
	}
	return nil
}
func (f *fakeTransport) Subscribe(channel string) {
	f.note("Subscribe " + channel)
	if f.subscribed != nil {
		f.subscribed()
	}
}
func (f *fakeTransport) Unsubscribe(channel string) { f.note("Unsubscribe " + channel) }
func (f *fakeTransport) Size(_ string, payload []byte) (int, int) {
	if f.limit == 0 {
		return len(payload), maxMessage
	}
	return len(payload), f.limit
}
func (f *fakeTransport) Send(ctx context.Context, messages []Message) (int, error) {
	if f.send != nil {
		return f.send(ctx, messages)
	}
	return 0, nil
}
func (f *fakeTransport) Flush(context.Context) error { f.note("Flush"); return nil }
func (f *fakeTransport) Close() error                { f.note("Close"); return nil }
func (f *fakeTransport) AddStats(s *Stats)           { s.Lost += 7 }

// The transport hears of each channel once, in the order the user said.
func TestTransportCalls(t *testing.T) {
	f := &fakeTransport{}
	b := &Bus{Transport: f}
	ignore := func(context.Context, Raw) error { return nil }
	first := b.SubscribeRaw("A", ignore)
	second := b.SubscribeRaw("A", ignore)
	start(t, b)
	first.Unsubscribe()
	second.Unsubscribe()
	b.SubscribeRaw("*", ignore)
	if err := b.Stop(soon(t)); err != nil {
		t.Fatal(err)
	}
	f.receive(background, []byte("autobus::A"), []byte(`{}`)) // too late, and harmless
	start(t, b)
	if err := b.Stop(soon(t)); err != nil {
		t.Fatal(err)
	}
	want := []string{"Subscribe autobus::A", "Start", "Unsubscribe autobus::A", "Subscribe autobus::*", "Flush", "Flush", "Close",
		"Subscribe autobus::*", "Start", "Flush", "Flush", "Close"}
	if !slices.Equal(f.called, want) {
		t.Errorf("got %q\nwant %q", f.called, want)
	}
	if s := b.Stats(); s.Lost != 14 || s.Received != 0 {
		t.Errorf("%+v", s)
	}
}

func TestStartFails(t *testing.T) {
	f := &fakeTransport{start: func(context.Context) error { return errors.New("no carrier") }}
	b := &Bus{Transport: f}
	publish(t, b, tick{})
	if err := b.Start(background); err == nil || err.Error() != "no carrier" {
		t.Error(err)
	}
	publish(t, b, tick{}) // held still
	f.start = nil
	start(t, b)
	if err := b.Flush(soon(t)); err != nil {
		t.Error(err)
	}
	if s := b.Stats(); s.Sent != 2 {
		t.Errorf("%+v", s)
	}
}

// Stop ends a Start that can't reach its server yet.
func TestStopDuringStart(t *testing.T) {
	begun := make(chan struct{})
	b := &Bus{Transport: &fakeTransport{start: func(ctx context.Context) error {
		close(begun)
		<-ctx.Done()
		return ctx.Err()
	}}}
	result := make(chan error, 1)
	go func() { result <- b.Start(background) }()
	await(t, begun)
	if err := b.Stop(soon(t)); err != nil {
		t.Error(err)
	}
	if err := await(t, result); err != ErrStopped {
		t.Error(err)
	}
}

// A Stop during Start lets what was received meanwhile be handled, gives up
// what was to be sent, and is a Stop like any other to what comes after.
func TestStopDuringStartDrains(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	f := &fakeTransport{}
	f.start = func(ctx context.Context) error {
		for range 2 {
			f.receive(ctx, []byte("autobus::Tick"), []byte(`{"type":"Tick"}`))
		}
		close(begun)
		<-ctx.Done()
		return ctx.Err()
	}
	b := &Bus{Transport: f}
	handled := 0
	SubscribeOn(b, func(context.Context, tick) error { <-release; handled++; return nil })
	publish(t, b, tick{})
	result := make(chan error, 2)
	go func() { result <- b.Start(background) }()
	await(t, begun)
	go func() { result <- b.Stop(soon(t)) }()
	for s := b.started(); !s.over.Load(); {
		runtime.Gosched()
	}
	close(release)
	for range 2 {
		if err := await(t, result); err != ErrStopped && (err == nil || err.Error() != "autobus: Stop: abandoned 1 unsent message") {
			t.Error(err)
		}
	}
	if err := b.Publish(tick{}); err != ErrStopped {
		t.Errorf("Publish: %v", err)
	}
	if s := b.Stats(); handled != 2 || s.Handled != 2 || s.Unsent != 1 || s.Backlog != 0 {
		t.Errorf("handled %d; %+v", handled, s)
	}
}

// A transport's counters are counted once for each start that succeeded.
func TestStatsOfFailedStarts(t *testing.T) {
	f := &fakeTransport{}
	b := &Bus{Transport: f}
	start(t, b)
	if err := b.Stop(soon(t)); err != nil {
		t.Fatal(err)
	}
	f.start = func(context.Context) error { return errors.New("no") }
	b.Start(background)
	b.Start(background)
	if s := b.Stats(); s.Lost != 7 {
		t.Errorf("%+v", s)
	}
}

// A transport's Subscribe, and the Logger it calls, may ask the bus for Stats.
func TestTransportAsksForStats(t *testing.T) {
	f := &fakeTransport{}
	b := &Bus{Transport: f}
	f.subscribed = func() { b.Stats() }
	start(t, b)
	b.SubscribeRaw("A", func(context.Context, Raw) error { return nil }).Unsubscribe()
}

// What the transport can't send is counted and logged; what waits counts
// against the backlog, also while it is on its way.
func TestSendFails(t *testing.T) {
	sending, result := make(chan int), make(chan int)
	var log bytes.Buffer
	b := &Bus{Backlog: 80, Logger: slog.New(slog.NewTextHandler(&log, nil)), Transport: &fakeTransport{
		send: func(_ context.Context, messages []Message) (int, error) {
			sending <- len(messages)
			if lost := <-result; lost > 0 {
				return lost, errors.New("cable cut")
			}
			return 0, nil
		}}}
	start(t, b)
	publish(t, b, tick{})
	await(t, sending)
	publish(t, b, tick{})
	if err := b.Publish(tick{}); !errors.Is(err, ErrBacklog) {
		t.Errorf("got %v", err)
	}
	if s := b.Stats(); s.Backlog != 56 {
		t.Errorf("%+v", s)
	}
	result <- 1
	await(t, sending)
	result <- 0
	if err := b.Stop(soon(t)); err != nil {
		t.Fatal(err)
	}
	if s := b.Stats(); s.Unsent != 1 || s.Sent != 1 || s.Backlog != 0 || !strings.Contains(log.String(), "cable cut") {
		t.Errorf("%+v\n%s", s, &log)
	}
}

// A transport that can't send holds up Stop until its context ends.
func TestStopAbandonsUnsent(t *testing.T) {
	b := &Bus{Transport: &fakeTransport{send: func(ctx context.Context, messages []Message) (int, error) {
		<-ctx.Done()
		return len(messages), ctx.Err()
	}}}
	if err := b.Start(background); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		publish(t, b, tick{})
	}
	ctx, cancel := context.WithCancel(background)
	cancel()
	if err := b.Stop(ctx); err == nil || !strings.Contains(err.Error(), "abandoned 3 unsent messages: context canceled") {
		t.Error(err)
	}
	if s := b.Stats(); s.Unsent != 3 {
		t.Errorf("%+v", s)
	}
}

// Stop keeps to its context even when the transport doesn't look at its own.
func TestStopInTime(t *testing.T) {
	sending, result := make(chan int), make(chan int)
	b := &Bus{Transport: &fakeTransport{send: func(_ context.Context, messages []Message) (int, error) {
		sending <- len(messages)
		<-result
		return 0, nil
	}}}
	if err := b.Start(background); err != nil {
		t.Fatal(err)
	}
	for range 10 * batchSize / 28 {
		publish(t, b, tick{})
	}
	first := await(t, sending)
	ctx, cancel := context.WithCancel(background)
	cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- b.Stop(ctx) }()
	for b.lastSession().send.Err() == nil {
		runtime.Gosched()
	}
	close(result)
	if err := await(t, stopped); err == nil {
		t.Error("nothing was abandoned")
	}
	if s := b.Stats(); s.Sent != uint64(first) || s.Sent+s.Unsent != s.Published {
		t.Errorf("%+v", s)
	}
}

func (b *Bus) lastSession() *session { return b.latest.Load() }

// Run gives what is under way ten seconds.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memBus(t)
		entered := make(chan struct{}, 1)
		SubscribeOn(b, func(ctx context.Context, _ tick) error { entered <- struct{}{}; <-ctx.Done(); return nil })
		publish(t, b, tick{})
		ctx, cancel := context.WithCancel(background)
		result := make(chan error)
		go func() { result <- b.Run(ctx) }()
		<-entered
		began := time.Now()
		cancel()
		if err := <-result; !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		// It also returns when someone else stops the bus.
		go func() { result <- b.Run(background) }()
		synctest.Wait()
		if err := b.Stop(background); err != nil {
			t.Error(err)
		}
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}

// A bus runs its jobs from Start to Stop, and again.
func TestBusSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memBus(t)
		var got []int
		SubscribeOn(b, func(_ context.Context, e tick) error { got = append(got, e.N); return nil })
		n := 0
		if _, err := b.Schedule(Every(1).Second(), func(ctx context.Context) error {
			if err := b.Stop(ctx); err == nil {
				t.Error("Stop from a job")
			}
			n++
			return b.Publish(tick{N: n})
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Schedule(Every(0).Seconds(), func(context.Context) error { return nil }); err == nil {
			t.Error("no error for a bad recurrence")
		}
		time.Sleep(time.Minute) // of the bubble's own time: nothing runs before Start
		for range 2 {
			before := n
			if err := b.Start(background); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3500 * time.Millisecond)
			if err := b.Stop(background); err != nil {
				t.Fatal(err)
			}
			if ran := n - before; ran < 4 || ran > 5 { // one for all that were missed, and one each second
				t.Errorf("%d runs in 3.5 s", ran)
			}
			time.Sleep(time.Minute)
		}
		if s := b.Stats(); len(got) != n || s.JobRuns != uint64(n) || s.JobsFailed != 0 {
			t.Errorf("%d runs, handled %v: %+v", n, got, s)
		}

		release := make(chan struct{})
		job, err := b.Schedule(Every(1).Second(), func(context.Context) error { <-release; return errors.New("late") })
		if err != nil {
			t.Fatal(err)
		}
		job.Tag("stuck")
		if err := b.Start(background); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		if err := b.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.HasSuffix(err.Error(), "abandoned running jobs (every second [stuck]): context deadline exceeded") {
			t.Error(err)
		}
		close(release)
		synctest.Wait()
		if s := b.Stats(); s.JobsFailed != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// The package's functions are those of Default, whose zero value is ready.
func TestDefault(t *testing.T) {
	old := Default
	defer func() { Default = old }()
	Default = memBus(t)
	got := make(chan int, 1)
	Subscribe(func(_ context.Context, e tick) error { got <- e.N; return nil })
	if err := Start(soon(t)); err != nil {
		t.Fatal(err)
	}
	if err := Publish(&tick{N: 5}); err != nil || await(t, got) != 5 {
		t.Error(err)
	}
	if job, err := Schedule(Every(1).Hour(), func(context.Context) error { return nil }); err != nil || job.Next().IsZero() {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(background)
	cancel()
	if err := Run(ctx); err == nil {
		t.Error("Run of a started bus")
	}
	if err := Stop(soon(t)); err != nil {
		t.Error(err)
	}
}

// badError is an error that a nil pointer to it can't tell.
type badError struct{ text string }

func (e *badError) Error() string { return e.text }

func TestLogLine(t *testing.T) {
	line := string(logLine("autobus: hm", []any{"type", "a\nb", "n", 5, "u", uint64(6), "error", errors.New("x"), "d", time.Second, "e", (*badError)(nil), "x", 1.5, "stack", "main.go", "odd"}))
	_, rest, _ := strings.Cut(line, "autobus")
	if want := ": hm type=\"a\\nb\" n=5 u=6 error=\"x\" d=\"1s\" e=PANIC x=? stack=\nmain.go\n"; rest != want {
		t.Errorf("got %q", rest)
	}
}

// Publishing allocates nothing, and receiving no more than decoding does.
func TestBusAllocations(t *testing.T) {
	data, _ := Marshal(aReading)
	var v reading
	decode := testing.AllocsPerRun(1000, func() { Unmarshal(data, &v) })
	b := memBus(t)
	done := make(chan struct{}, 1)
	SubscribeOn(b, func(context.Context, reading) error { done <- struct{}{}; return nil })
	start(t, b)
	all := testing.AllocsPerRun(1000, func() {
		b.Publish(aReading)
		<-done
	})
	if all > decode && !raceEnabled {
		t.Errorf("%v allocations from Publish to handler, %v to decode", all, decode)
	}
	quiet := &Bus{URL: "mem://quiet"}
	start(t, quiet)
	if n := testing.AllocsPerRun(1000, func() { quiet.Publish(aReading) }); n > 0 && !raceEnabled {
		t.Errorf("%v allocations to publish", n)
	}
}

// From Publish to the handler, on one bus.
func BenchmarkMem(b *testing.B) { benchmarkBus(b, "mem://bench") }
func BenchmarkUDP(b *testing.B) { benchmarkBus(b, ownURL(b)+"&interface="+loopbackName(b)) }

func benchmarkBus(b *testing.B, url string) {
	ctx := context.Background()
	bus := &Bus{URL: url}
	done := make(chan struct{}, 1)
	n, want := 0, 0
	SubscribeOn(bus, func(_ context.Context, r reading) error {
		if n++; n == want {
			done <- struct{}{}
		}
		return nil
	}, Queue(1<<16, Block)) // one that is dropped would be waited for
	if err := bus.Start(ctx); err != nil {
		b.Fatal(err)
	}
	defer bus.Stop(ctx)
	b.ReportAllocs()
	b.ResetTimer()
	want = b.N
	for i := range b.N {
		if err := bus.Publish(aReading); err != nil {
			b.Fatal(err)
		}
		if i%200 == 199 {
			bus.Flush(ctx)
			for bus.Stats().Received < uint64(i-199) {
				runtime.Gosched()
			}
		}
	}
	<-done
}

// BenchmarkPublishUDP shows what Publish costs a process that only publishes,
// beside a bare loop with the same bytes: compare their cpu-ns/op.
func BenchmarkPublishUDP(b *testing.B) {
	m := testMulticast(b, ownURL(b)+"&interface="+loopbackName(b))
	payload, _ := Marshal(aReading)
	src := [16]byte([]byte("0123456789abcdef"))
	datagram := appendEnvelope(nil, "autobus::Reading", payload, &src, 1234567)
	b.Run("autobus", func(b *testing.B) {
		bus := &Bus{URL: "udp://" + m.to.String() + "?ttl=0&interface=" + loopbackName(b)}
		if err := bus.Start(background); err != nil {
			b.Fatal(err)
		}
		defer bus.Stop(background)
		defer reportCPU(b)()
		for b.Loop() {
			if err := bus.Publish(aReading); err != nil {
				bus.Flush(background) // the backlog is full
			}
		}
		bus.Flush(background)
		b.ReportMetric(float64(bus.Stats().Sent)/float64(b.N), "sent/op")
	})
	b.Run("bare", func(b *testing.B) {
		s := newMulticastSession(m)
		cards := s.cards()
		if len(cards) != 1 {
			b.Fatal(cards)
		}
		conn := dialPatiently(b, s, cards[0])
		defer reportCPU(b)()
		for b.Loop() {
			if _, err := conn.WriteToUDPAddrPort(datagram, m.to); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// loopbackName returns the name of the loopback interface.
func loopbackName(t testing.TB) string {
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 {
			return i.Name
		}
	}
	t.Fatal("no loopback interface")
	return ""
}

// BenchmarkReceive takes messages in as a transport does, as many at once as
// one read of a connection holds, and has them handled.
func BenchmarkReceive(b *testing.B) {
	const burst = 400
	bus := &Bus{URL: "mem://" + b.Name()}
	done := make(chan struct{})
	n := 0
	SubscribeOn(bus, func(context.Context, reading) error {
		if n++; n%burst == 0 {
			done <- struct{}{}
		}
		return nil
	})
	if err := bus.Start(background); err != nil {
		b.Fatal(err)
	}
	defer bus.Stop(background)
	payload, err := Marshal(aReading)
	if err != nil {
		b.Fatal(err)
	}
	channel := []byte("autobus::" + aReading.Type())
	defer reportCPU(b)()
	b.ReportAllocs()
	for i := 1; b.Loop(); i++ {
		bus.receive(background, channel, payload)
		if i%burst == 0 {
			<-done
		}
	}
}
