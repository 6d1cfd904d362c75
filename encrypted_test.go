package autobus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// encryptedOn has the URL of a bus of a test's own on each transport. Over UDP,
// Python autobus 1.0.0 fails to send what it encrypts.
var encryptedOn = map[string]func(testing.TB) string{"udp": ownURL}

// A tap is a transport that keeps a copy of what is sent.
type tap struct {
	Transport
	mu   sync.Mutex // guards sent
	sent [][]byte
}

func (t *tap) Send(ctx context.Context, messages []Message) (int, error) {
	t.mu.Lock()
	for _, m := range messages {
		t.sent = append(t.sent, bytes.Clone(m.Payload))
	}
	t.mu.Unlock()
	return t.Transport.Send(ctx, messages)
}

func (t *tap) payloads() [][]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.sent)
}

func newTap(t testing.TB) *tap {
	t.Helper()
	m, err := newMem(memBus(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	return &tap{Transport: m}
}

// hearTicks returns where the numbers of the ticks on b go.
func hearTicks(b *Bus) <-chan int {
	heard := make(chan int, 100)
	SubscribeOn(b, func(_ context.Context, e tick) error { heard <- e.N; return nil })
	return heard
}

// What goes out is a token of the event, and every subscription gets that.
func TestEncrypted(t *testing.T) {
	key := GenerateKey()
	out := newTap(t)
	b := memBus(t)
	b.Transport, b.Keys, b.MaxAge = out, []Key{key}, time.Minute
	one, two := hearTicks(b), hearTicks(b)
	raws := make(chan Raw, 1)
	b.SubscribeRaw("*", func(_ context.Context, r Raw) error { raws <- r; return nil })
	start(t, b)
	other := memBus(t)
	other.Keys, other.MaxAge = b.Keys, time.Minute
	elsewhere := hearTicks(other)
	start(t, other)

	want, err := Marshal(tick{1, 7})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		publish(t, b, tick{1, 7})
		for _, heard := range []<-chan int{one, two, elsewhere} {
			if n := await(t, heard); n != 7 {
				t.Errorf("heard %d", n)
			}
		}
		if r := await(t, raws); r.Name != "Tick" || string(r.JSON) != string(want) {
			t.Errorf("heard %s %s", r.Name, r.JSON)
		}
	}
	tokens := out.payloads()
	for i, token := range tokens {
		got, err := NewFernet(key).Open(nil, token, time.Minute)
		if err != nil || string(got) != string(want) || slices.ContainsFunc(tokens[:i], func(t []byte) bool { return bytes.Equal(t, token) }) {
			t.Errorf("sent %s: %s, %v", token, got, err)
		}
	}
	if s := b.Stats(); len(tokens) != 3 || s.DroppedToken+s.DroppedReplay > 0 {
		t.Errorf("sent %d; %+v", len(tokens), s)
	}
}

// The messages of Python autobus, as it encrypted them.
func TestEncryptedPythonWire(t *testing.T) {
	cases := 0
	for _, c := range wireCases(t) {
		if c.Key == "" {
			continue
		}
		cases++
		b := memBus(t)
		b.URL = "mem://" + c.Name
		b.Namespace, b.Keys = c.Namespace, []Key{parseKey(t, c.Key)}
		raws := make(chan Raw, 1)
		b.SubscribeRaw(c.Type, func(_ context.Context, r Raw) error { raws <- r; return nil })
		start(t, b)
		b.receive(background, []byte(c.Channel), []byte(c.Redis))
		if r := await(t, raws); string(r.JSON) != c.Plaintext {
			t.Errorf("%s: heard %s", c.Name, r.JSON)
		}
	}
	if cases == 0 {
		t.Error("no case is encrypted")
	}
}

// Buses on one channel, without a key or with others, ignore each other, and
// count. A second of logging is a line for each cause, without a secret.
func TestEncryptedApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := GenerateKey()
		buses := map[string]*Bus{}
		heard := map[string]<-chan int{}
		logs := map[string]*logLines{}
		for name, keys := range map[string][]Key{"plain": nil, "key": {key}, "another": {GenerateKey()}} {
			b := memBus(t)
			logs[name] = new(logLines)
			b.Keys, b.Logger = keys, logs[name]
			buses[name], heard[name] = b, hearTicks(b)
			start(t, b)
		}
		for name, b := range buses {
			for range 10 {
				publish(t, b, tick{N: 31337})
			}
			synctest.Wait()
			for other := range buses {
				if want := 10; len(heard[other]) != want && other == name || len(heard[other]) != 0 && other != name {
					t.Errorf("%s published, and %s heard %d", name, other, len(heard[other]))
				}
				for len(heard[other]) > 0 {
					<-heard[other]
				}
			}
		}
		for name, b := range buses {
			s := b.Stats()
			if dropped := s.DroppedMalformed + s.DroppedToken; dropped != 20 || (name == "plain") != (s.DroppedMalformed > 0) || s.Handled != 10 {
				t.Errorf("%s: %+v", name, s)
			}
			lines := logs[name].with("")
			if warnings := logs[name].with("WARN"); len(warnings) != 1 || len(lines) > 2 {
				t.Errorf("%s logged %q", name, lines)
			}
			for _, secret := range []string{"31337", "gAAAA", key.Encode()} {
				if found := logs[name].with(secret); found != nil {
					t.Errorf("%s logged %q", name, found)
				}
			}
		}
	})
}

// Whatever is wrong with a token, the warning is the same; a debug line tells.
func TestEncryptedRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(logLines)
		key := GenerateKey()
		f := NewFernet(key)
		b := memBus(t)
		b.Keys, b.MaxAge, b.Logger = []Key{key}, time.Minute, log
		heard := hearTicks(b)
		start(t, b)
		payload, err := Marshal(tick{N: 1})
		if err != nil {
			t.Fatal(err)
		}
		head := encrypted(f, string(payload))
		type refusal struct{ token, problem string }
		for i := range 8 {
			time.Sleep(2 * time.Second) // of the bubble's own time
			now := time.Now()
			c := []refusal{
				{"", "not a token"},
				{`{"type":"Tick"}`, "not in canonical base64"},
				{string(f.Seal(nil, payload)) + "\n", "not in canonical base64"},
				{"gAAAAABlU_EA", "not a token"},
				{string(NewFernet(GenerateKey()).Seal(nil, payload)), "sealed under another key, or damaged"},
				{string(f.SealAt(nil, payload, now.Add(-61*time.Second))), "too old"},
				{string(f.SealAt(nil, payload, now.Add(61*time.Second))), "sealed in the future"},
				{string(sign(f, append([]byte{version, 0, 0, 0, 0, byte(now.Unix() >> 24), byte(now.Unix() >> 16), byte(now.Unix() >> 8), byte(now.Unix())}, head[:32]...))), "wrong padding"},
			}[i]
			before := len(log.with("WARN"))
			for range 5 {
				b.receive(background, []byte("autobus::Tick"), []byte(c.token))
			}
			if got := len(log.with("WARN")) - before; got != 1 {
				t.Errorf("%s: %d warnings", c.problem, got)
			}
			if lines := log.with("DEBUG"); !strings.HasSuffix(lines[len(lines)-1], c.problem+"\n") {
				t.Errorf("%s: logged %q", c.problem, lines)
			}
		}
		synctest.Wait()
		if s := b.Stats(); s.DroppedToken != 40 || s.Received != 40 || len(heard) != 0 {
			t.Errorf("%+v", s)
		}
		for _, line := range log.with("WARN") {
			if !strings.HasPrefix(line, "WARN autobus: dropped a message that no key of the bus opens, or that is too old or ahead of this clock type Tick bytes") {
				t.Errorf("logged %q", line)
			}
		}
	})
}

// An age is exact to the second of the token.
func TestEncryptedMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := GenerateKey()
		f := NewFernet(key)
		for _, maxAge := range []time.Duration{0, time.Second, time.Minute, 1 << 62} {
			b := memBus(t)
			b.Keys, b.MaxAge = []Key{key}, maxAge
			heard := hearTicks(b)
			start(t, b)
			payload, err := Marshal(tick{N: 1})
			if err != nil {
				t.Fatal(err)
			}
			for _, age := range []time.Duration{-61 * time.Second, -60 * time.Second, 0, maxAge - time.Second, maxAge, maxAge + time.Second, 100 * time.Hour} {
				if maxAge > time.Hour && age > 100*time.Hour {
					continue // before 1970
				}
				b.receive(background, []byte("autobus::Tick"), f.SealAt(nil, payload, time.Now().Add(-age)))
				synctest.Wait()
				want := 0
				if maxAge == 0 || age >= -time.Minute && age <= maxAge {
					want = 1
				}
				if len(heard) != want {
					t.Errorf("MaxAge %v, age %v: heard %d", maxAge, age, len(heard))
				}
				for len(heard) > 0 {
					<-heard
				}
			}
		}
	})
}

// With MaxAge, a message is taken once, whoever sent it and however often it is
// played back. Without, it is taken each time, as in Python.
func TestEncryptedReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := GenerateKey()
		f := NewFernet(key)
		out := newTap(t)
		b := memBus(t)
		b.Transport, b.Keys, b.MaxAge = out, []Key{key}, time.Minute
		one, two := hearTicks(b), hearTicks(b)
		b.SubscribeRaw("*", func(context.Context, Raw) error { return nil })
		loose := memBus(t)
		loose.Keys = b.Keys
		three := hearTicks(loose)
		start(t, b)
		start(t, loose)
		heard := func(want ...int) {
			t.Helper()
			synctest.Wait()
			got := []int{len(one), len(two), len(three)}
			for _, c := range []<-chan int{one, two, three} {
				for len(c) > 0 {
					<-c
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("heard %v, want %v", got, want)
			}
		}
		dropped := func(replays, types, tokens uint64) {
			t.Helper()
			if s := b.Stats(); s.DroppedReplay != replays || s.DroppedType != types || s.DroppedToken != tokens {
				t.Errorf("want %d %d %d dropped: %+v", replays, types, tokens, s)
			}
		}
		play := func(name string, token []byte) {
			b.receive(background, []byte("autobus::"+name), token)
			loose.receive(background, []byte("autobus::"+name), token)
		}

		publish(t, b, tick{N: 1})
		heard(1, 1, 1) // its own comes back, to both
		dropped(0, 0, 0)
		for range 5 {
			play("Tick", out.payloads()[0])
		}
		heard(0, 0, 5)
		dropped(5, 0, 0)

		// On another channel it is worth nothing, and does no harm to the true one.
		payload, err := Marshal(tick{N: 2})
		if err != nil {
			t.Fatal(err)
		}
		token := f.Seal(nil, payload)
		play("Reading", token)
		heard(0, 0, 0)
		dropped(5, 1, 0)
		play("Tick", token)
		heard(1, 1, 1)
		play("Tick", token)
		heard(0, 0, 1)
		dropped(6, 1, 0)

		// A stop and a start forget nothing.
		if err := b.Stop(soon(t)); err != nil {
			t.Fatal(err)
		}
		start(t, b)
		play("Tick", token)
		heard(0, 0, 1)
		dropped(7, 1, 0)

		time.Sleep(time.Minute) // of the bubble's own time
		play("Tick", token)
		heard(0, 0, 1)
		dropped(8, 1, 0)
		time.Sleep(time.Second)
		play("Tick", token)
		heard(0, 0, 1)
		dropped(8, 1, 1)

		publish(t, b, tick{N: 3})
		heard(1, 1, 1)
		if n := len(b.replays.heap); n != 1 {
			t.Errorf("%d are remembered", n)
		}
	})
}

// The steps of Bus.Keys' documentation lose nothing, in whatever order the
// processes are restarted.
func TestEncryptedRotation(t *testing.T) {
	old, key := GenerateKey(), GenerateKey()
	steps := [][]Key{{old}, {old, key}, {key, old}, {key}}
	for i := range len(steps) - 1 {
		a, b := memBus(t), memBus(t)
		a.Keys, b.Keys = steps[i], steps[i+1]
		byA, byB := hearTicks(a), hearTicks(b)
		start(t, a)
		start(t, b)
		for _, from := range []*Bus{a, b} {
			publish(t, from, tick{N: i})
			for _, heard := range []<-chan int{byA, byB} {
				if n := await(t, heard); n != i {
					t.Errorf("step %d: heard %d", i, n)
				}
			}
		}
		for _, b := range []*Bus{a, b} {
			if s := b.Stats(); s.DroppedToken > 0 {
				t.Errorf("step %d: %+v", i, s)
			}
			if err := b.Stop(soon(t)); err != nil {
				t.Error(err)
			}
		}
	}
}

// What is held for Start is sealed there, with the keys of then.
func TestEncryptedBeforeStart(t *testing.T) {
	early, key := GenerateKey(), GenerateKey()
	out := newTap(t)
	b := memBus(t)
	b.Transport = out
	heard := hearTicks(b)
	publish(t, b, tick{N: 1})
	b.Keys = []Key{early}
	for n := range 1000 {
		publish(t, b, tick{N: 2 + n})
	}
	held := b.Stats()
	fails := errors.New("not yet")
	b.Transport = &fakeTransport{start: func(context.Context) error { return fails }}
	if err := b.Start(soon(t)); err != fails {
		t.Fatal(err)
	}
	publish(t, b, tick{N: 1002})
	b.Transport, b.Keys = out, []Key{key, early}
	start(t, b)
	for n := range 1002 {
		if got := await(t, heard); got != n+1 {
			t.Fatalf("heard %d, want %d", got, n+1)
		}
	}
	for i, token := range out.payloads() {
		by := NewFernet(key)
		if i < 1001 {
			by = NewFernet(early) // the Start that failed has sealed them
		}
		if _, err := by.Open(nil, token, 0); err != nil {
			t.Fatalf("message %d: %s", i, token)
		}
	}
	if err := b.Flush(soon(t)); err != nil {
		t.Fatal(err)
	}
	if s := b.Stats(); held.Published != 1001 || s.Published != 1002 || s.Sent != 1002 || s.Backlog != 0 {
		t.Errorf("%+v, then %+v", held, s)
	}
}

// However Publish and Start meet, nothing leaves in plaintext.
func TestEncryptedWhileStarting(t *testing.T) {
	for range 20 {
		out := newTap(t)
		b := &Bus{Transport: out, Keys: []Key{GenerateKey()}}
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				<-begin
				for n := range 200 {
					publish(t, b, tick{N: n})
				}
			})
		}
		close(begin)
		start(t, b)
		wg.Wait()
		if err := b.Flush(soon(t)); err != nil {
			t.Fatal(err)
		}
		sent := out.payloads()
		for _, payload := range sent {
			if !bytes.HasPrefix(payload, []byte("gAAAAA")) {
				t.Fatalf("sent %s", payload)
			}
		}
		if len(sent) != 800 {
			t.Errorf("sent %d", len(sent))
		}
	}
}

// The backlog counts tokens, before Start those that there will be: of small
// events they are four times as long. Start changes neither the count nor what
// is refused.
func TestEncryptedBacklog(t *testing.T) {
	tooMany := "autobus: event Tick has 120 bytes, and 360 of at most 400 are unsent: backlog full"
	tooLarge := "autobus: event Reading has 3640 bytes, and the whole backlog 400: message too large"
	fails := errors.New("not yet")
	started, hold := fails, make(chan struct{})
	b := &Bus{Backlog: 400, Keys: []Key{GenerateKey()}, Transport: &fakeTransport{
		start: func(context.Context) error { return started },
		send:  func(context.Context, []Message) (int, error) { <-hold; return 0, nil },
	}}
	check := func(when string) {
		t.Helper()
		if s := b.Stats(); s.Backlog != 360 {
			t.Errorf("%s: %+v", when, s)
		}
		if err := b.Publish(tick{}); !errors.Is(err, ErrBacklog) || err.Error() != tooMany {
			t.Errorf("%s: %v", when, err)
		}
		if err := b.Publish(reading{Name: strings.Repeat("x", 2600)}); !errors.Is(err, ErrTooLarge) || err.Error() != tooLarge {
			t.Errorf("%s: %v", when, err)
		}
	}
	publish(t, b, tick{})
	publish(t, b, tick{})
	if err := b.Start(soon(t)); err != fails {
		t.Fatal(err)
	}
	publish(t, b, tick{}) // two are sealed now, and this one isn't
	check("before Start")
	started = nil
	start(t, b)
	check("started")
	close(hold)
	if err := b.Flush(soon(t)); err != nil {
		t.Fatal(err)
	}
	if s := b.Stats(); s.Backlog != 0 || s.Sent != 3 {
		t.Errorf("%+v", s)
	}

	// Without keys after all, they are no more than they were.
	b = &Bus{Keys: []Key{GenerateKey()}, Transport: &fakeTransport{send: func(context.Context, []Message) (int, error) { <-hold; return 0, nil }}}
	hold = make(chan struct{})
	publish(t, b, tick{})
	b.Keys = nil
	start(t, b)
	if s := b.Stats(); s.Backlog != 28 {
		t.Errorf("%+v", s)
	}
	close(hold)
}

// It is the token that has to fit, also before Start: over UDP, 48,591 bytes of
// JSON on any channel of up to 56, as README.md says.
func TestEncryptedTooLarge(t *testing.T) {
	b := memBus(t)
	b.URL, b.Namespace, b.Keys = ownURL(t), strings.Repeat("n", 56-len("autobus::Reading")), []Key{GenerateKey()}
	payload, err := Marshal(reading{})
	if err != nil {
		t.Fatal(err)
	}
	small := reading{Name: strings.Repeat("x", 48_591-len(payload))}
	large := reading{Name: small.Name + "x"}
	for _, when := range []string{"before Start", "after"} {
		if err := b.Publish(large); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "event Reading takes 65020 bytes, and the transport at most 65000") {
			t.Errorf("%s: %v", when, err)
		}
		if err := b.Publish(small); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if when == "before Start" {
			start(t, b)
		}
	}
	if err := b.Flush(soon(t)); err != nil {
		t.Error(err)
	}
	if s := b.Stats(); s.Sent != 2 || s.Unsent != 0 {
		t.Errorf("%+v", s)
	}
}

func TestEncryptedMistakes(t *testing.T) {
	for want, b := range map[string]*Bus{
		"one of Keys is zero": {URL: "mem://x", Keys: []Key{GenerateKey(), {}}},
		"MaxAge is -1s":       {URL: "mem://x", MaxAge: -time.Second},
	} {
		if err := b.Start(soon(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// Sealing what is published allocates nothing, and opening it once.
func TestEncryptedAllocations(t *testing.T) {
	quiet := &Bus{URL: "mem://quiet", Keys: []Key{GenerateKey()}}
	start(t, quiet)
	if n := testing.AllocsPerRun(1000, func() { quiet.Publish(aReading) }); n > 0 && !raceEnabled {
		t.Errorf("%v allocations to publish", n)
	}
	counts := map[bool]float64{}
	for _, encrypted := range []bool{false, true} {
		b := memBus(t)
		if encrypted {
			b.URL, b.Keys = b.URL+".sealed", []Key{GenerateKey()}
		}
		done := make(chan struct{}, 1)
		SubscribeOn(b, func(context.Context, reading) error { done <- struct{}{}; return nil })
		start(t, b)
		counts[encrypted] = testing.AllocsPerRun(1000, func() {
			b.Publish(aReading)
			<-done
		})
	}
	if counts[true] > counts[false] && !raceEnabled {
		t.Errorf("%v allocations from Publish to handler, %v without keys", counts[true], counts[false])
	}
}

// Encrypted events to the real Python autobus, and from it where it can send
// them; a peer with another key, and one without, hear nothing and are not
// heard.
func TestInteropEncrypted(t *testing.T) {
	for name, url := range encryptedOn {
		t.Run(name, func(t *testing.T) {
			url, key := url(t), GenerateKey()
			python, stranger := newPython(t), newPython(t)
			for _, p := range []*peer{python, stranger} {
				p.subscribe("sec", "Ping", "Last")
			}
			startEncrypted(python, url, key)
			startEncrypted(stranger, url, GenerateKey())
			log := new(logLines)
			b := &goBus{&Bus{URL: url, Namespace: "sec", Keys: []Key{key}, MaxAge: time.Minute, Logger: log}, t, make(chan Raw, 256)}
			b.SubscribeRaw("*", func(_ context.Context, r Raw) error { b.heard <- r; return nil })
			start(t, b.Bus)

			for n, fields := range []string{`{}`, `{"id":1}`, `{"v":"😀 é \u0000"}`, `{"v":{"a":[1,{"b":null}]},"f":1.0}`, `{"v":1208925819614629174706176}`,
				`{"v":"` + strings.Repeat("x", 40_000) + `"}`} {
				want := canon(t, fields)
				publish(t, b.Bus, Raw{Name: "Ping", JSON: []byte(fields)})
				if _, got := b.next(); !reflect.DeepEqual(got, want) {
					t.Errorf("Go's %d: Go got %.300v", n, got)
				}
				if _, _, got := python.next(); !reflect.DeepEqual(got, want) {
					t.Errorf("Go's %d: Python got %.300v", n, got)
				}
				if name == "udp" {
					continue
				}
				python.publish("sec", "Ping", fields)
				if _, got := b.next(); !reflect.DeepEqual(got, want) {
					t.Errorf("Python's %d: Go got %.300v", n, got)
				}
				if _, _, got := python.next(); !reflect.DeepEqual(got, want) {
					t.Errorf("Python's %d: Python got %.300v", n, got)
				}
				stranger.publish("sec", "Ping", fields)
				stranger.next() // its own
			}
			if name != "udp" {
				// The stranger's six are here when what it published last is, or
				// rather would be: so Python is asked for one after them.
				python.publish("sec", "Last", `{}`)
				if name, _ := b.next(); name != "Last" {
					t.Errorf("Go got %s", name)
				}
				python.next()
			}
			python.stop()
			stranger.stop() // it fails the test if it has heard or logged anything
			s := b.Stats()
			if want := map[bool]uint64{true: 0, false: 6}[name == "udp"]; s.DroppedToken != want || s.DroppedReplay+s.DroppedMalformed+s.Failed > 0 {
				t.Errorf("%+v", s)
			}
			if lines := log.with("ERROR"); len(lines) > 0 {
				t.Errorf("logged %q", lines)
			}
		})
	}
}

func startEncrypted(p *peer, url string, key Key) {
	p.t.Helper()
	line, err := json.Marshal(map[string]string{"do": "start", "url": url, "key": key.Encode()})
	if err != nil {
		p.t.Fatal(err)
	}
	p.command(string(line))
	p.await("started")
}
