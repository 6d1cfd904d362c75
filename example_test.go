package autobus_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"sync"
	"time"

	"github.com/autobus-go/autobus"
)

// Ping and Pong are events, as anyone would write them.
type Ping struct {
	ID   int
	Name string
}

func (Ping) Type() string { return "Ping" }

func (p Ping) Marshal(e *autobus.Encoder) {
	e.Key("id").Int(p.ID)
	e.Key("name").String(p.Name)
}

func (p *Ping) Unmarshal(d *autobus.Decoder) error {
	for key := range d.Fields() {
		switch key {
		case "id":
			p.ID = d.Int()
		case "name":
			p.Name = d.String()
		}
	}
	return d.Err()
}

type Pong struct{ ID int }

func (Pong) Type() string { return "Pong" }

func (p Pong) Marshal(e *autobus.Encoder) { e.Key("id").Int(p.ID) }

func (p *Pong) Unmarshal(d *autobus.Decoder) error {
	for key := range d.Fields() {
		if key == "id" {
			p.ID = d.Int()
		}
	}
	return d.Err()
}

// A program that answers each Ping with a Pong. Without a URL it would be on
// the network; here both ends are in one process.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	autobus.Default.URL = "mem://example"

	autobus.Subscribe(func(ctx context.Context, p Ping) error {
		fmt.Println("heard ping", p.ID, "of", p.Name)
		return autobus.Publish(Pong{ID: p.ID})
	})
	autobus.Subscribe(func(ctx context.Context, p Pong) error {
		fmt.Println("heard pong", p.ID)
		cancel() // enough: Run ends
		return nil
	})
	if err := autobus.Publish(Ping{ID: 1, Name: "kitchen"}); err != nil {
		log.Fatal(err)
	}
	if err := autobus.Run(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// heard ping 1 of kitchen
	// heard pong 1
}

// A process may have as many buses as it needs. These two share a transport,
// as two processes on a network would.
func ExampleBus() {
	ctx := context.Background()
	kitchen := &autobus.Bus{URL: "mem://house"}
	garden := &autobus.Bus{URL: "mem://house"}

	heard := make(chan Ping)
	autobus.SubscribeOn(garden, func(ctx context.Context, p Ping) error {
		heard <- p
		return nil
	})
	for _, bus := range []*autobus.Bus{kitchen, garden} {
		if err := bus.Start(ctx); err != nil {
			log.Fatal(err)
		}
		defer bus.Stop(ctx)
	}

	if err := kitchen.Publish(Ping{ID: 7, Name: "kitchen"}); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%+v\n", <-heard)
	// Output: {ID:7 Name:kitchen}
}

// A bridge carries every event of one bus to another. It must not run both
// ways between the same two: the events would go round for ever.
func ExampleBus_SubscribeRaw() {
	ctx := context.Background()
	from := &autobus.Bus{URL: "mem://bridge-from"}
	to := &autobus.Bus{URL: "mem://bridge-to"}

	from.SubscribeRaw("*", func(ctx context.Context, e autobus.Raw) error {
		fmt.Printf("%s: %s\n", e.Name, e.JSON)
		return to.Publish(e)
	})
	arrived := make(chan Pong)
	autobus.SubscribeOn(to, func(ctx context.Context, p Pong) error {
		arrived <- p
		return nil
	})
	for _, bus := range []*autobus.Bus{from, to} {
		if err := bus.Start(ctx); err != nil {
			log.Fatal(err)
		}
		defer bus.Stop(ctx)
	}

	for _, e := range []autobus.Event{
		Ping{ID: 1, Name: "kitchen"},
		autobus.Raw{Name: "Alarm", JSON: []byte(`{"level": 3, "where": ["cellar"]}`)},
		Pong{ID: 1},
	} {
		if err := from.Publish(e); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("arrived:", <-arrived)
	// Output:
	// Ping: {"type":"Ping","id":1,"name":"kitchen"}
	// Alarm: {"type":"Alarm","level":3,"where":["cellar"]}
	// Pong: {"type":"Pong","id":1}
	// arrived: {1}
}

// With Concurrency a subscription handles several events at once, and their
// order is gone. Here two handlers wait for each other.
func ExampleConcurrency() {
	ctx := context.Background()
	bus := &autobus.Bus{URL: "mem://concurrency"}
	var both sync.WaitGroup
	both.Add(2)
	autobus.SubscribeOn(bus, func(ctx context.Context, p Ping) error {
		both.Done()
		both.Wait()
		return nil
	}, autobus.Concurrency(2))
	if err := bus.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer bus.Stop(ctx)

	for id := range 2 {
		if err := bus.Publish(Ping{ID: id}); err != nil {
			log.Fatal(err)
		}
	}
	both.Wait()
	fmt.Println("two at once")
	// Output: two at once
}

// A subscriber that wants the latest state alone keeps a queue of one.
func ExampleQueue() {
	ctx := context.Background()
	bus := &autobus.Bus{URL: "mem://queue", Logger: silent{}}
	busy, free, handled := make(chan struct{}), make(chan struct{}), make(chan int)
	autobus.SubscribeOn(bus, func(ctx context.Context, p Ping) error {
		if p.ID == 0 {
			close(busy)
			<-free // while this one takes its time, 1 to 9 come
		}
		handled <- p.ID
		return nil
	}, autobus.Queue(1, autobus.DropOldest))
	if err := bus.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer bus.Stop(ctx)

	for id := range 10 {
		if err := bus.Publish(Ping{ID: id}); err != nil {
			log.Fatal(err)
		}
		if id == 0 {
			<-busy
		}
	}
	if err := bus.Flush(ctx); err != nil {
		log.Fatal(err)
	}
	close(free)
	fmt.Println("handled", <-handled, "and", <-handled, "dropped", bus.Stats().DroppedOverflow)
	// Output: handled 0 and 9 dropped 8
}

// Temperature refuses what can't be.
type Temperature struct{ Celsius float64 }

func (Temperature) Type() string { return "Temperature" }

func (t Temperature) Marshal(e *autobus.Encoder) { e.Key("celsius").Float64(t.Celsius) }

func (t *Temperature) Unmarshal(d *autobus.Decoder) error {
	for key := range d.Fields() {
		if key == "celsius" {
			t.Celsius = d.Float64()
		}
	}
	return d.Err()
}

func (t Temperature) Validate() error {
	if !(t.Celsius >= -273.15) { // NaN is no temperature either
		return errors.New("colder than can be")
	}
	return nil
}

// Temperature has a method Validate. What it refuses, no handler sees.
func ExampleValidator() {
	ctx := context.Background()
	bus := &autobus.Bus{URL: "mem://validator", Logger: silent{}}
	handled := make(chan float64)
	autobus.SubscribeOn(bus, func(ctx context.Context, t Temperature) error {
		handled <- t.Celsius
		return nil
	})
	if err := bus.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer bus.Stop(ctx)

	for _, celsius := range []float64{-300, 21.5} {
		if err := bus.Publish(Temperature{celsius}); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("handled", <-handled, "refused", bus.Stats().DroppedInvalid)
	// Output: handled 21.5 refused 1
}

// silent is a Logger that says nothing. Most programs use a *slog.Logger.
type silent struct{}

func (silent) Debug(string, ...any) {}
func (silent) Info(string, ...any)  {}
func (silent) Warn(string, ...any)  {}
func (silent) Error(string, ...any) {}

func ExampleMarshal() {
	data, err := autobus.Marshal(Ping{ID: 1, Name: "kitchen"})
	fmt.Println(string(data), err)
	// Output: {"type":"Ping","id":1,"name":"kitchen"} <nil>
}

func ExampleUnmarshal() {
	var p Ping
	err := autobus.Unmarshal([]byte(`{"id": 1, "color": "red", "name": "kitchen"}`), &p)
	fmt.Println(p, err)

	// An error names the field, and the byte of the text.
	err = autobus.Unmarshal([]byte(`{"id": "one"}`), &p)
	fmt.Println(err)
	// Output:
	// {1 kitchen} <nil>
	// autobus: field "id" at byte 7: want a number, have a string
}

// Settings shows fields that may be missing or null, with a default, and a
// list.
type Settings struct {
	Limit *int // null: none
	Rate  float64
	Rooms []string
}

func (Settings) Type() string { return "Settings" }

func (s Settings) Marshal(e *autobus.Encoder) {
	e.Key("limit")
	if s.Limit == nil {
		e.Null()
	} else {
		e.Int(*s.Limit)
	}
	e.Key("rate").Float64(s.Rate)
	e.Key("rooms").Strings(s.Rooms)
}

func (s *Settings) Unmarshal(d *autobus.Decoder) error {
	*s = Settings{Rate: 1} // the default
	for key := range d.Fields() {
		switch key {
		case "limit":
			s.Limit = nil
			if !d.Null() {
				limit := d.Int()
				s.Limit = &limit
			}
		case "rate":
			if s.Rate = d.Float64(); !(s.Rate > 0) {
				d.Fail(errors.New("the rate must be positive"))
			}
		case "rooms":
			s.Rooms = d.Strings()
		}
	}
	return d.Err()
}

func ExampleDecoder_Fields() {
	for _, text := range []string{
		`{"rooms": ["kitchen", "cellar"]}`,
		`{"limit": null, "rate": 2}`,
		`{"limit": 5, "unknown": {"is": ["skipped"]}}`,
		`{"rate": 0}`,
	} {
		var s Settings
		if err := autobus.Unmarshal([]byte(text), &s); err != nil {
			fmt.Println(err)
			continue
		}
		limit := "none"
		if s.Limit != nil {
			limit = fmt.Sprint(*s.Limit)
		}
		fmt.Println("limit", limit, "rate", s.Rate, "rooms", s.Rooms)
	}
	// Output:
	// limit none rate 1 rooms [kitchen cellar]
	// limit none rate 2 rooms []
	// limit 5 rate 1 rooms []
	// autobus: field "rate" at byte 9: the rate must be positive
}

// Flush waits until all that was published is sent: here because the backlog
// is too small for everything at once.
func ExampleBus_Flush() {
	ctx := context.Background()
	bus := &autobus.Bus{URL: "mem://flush", Backlog: 100}
	last := make(chan int, 1)
	autobus.SubscribeOn(bus, func(ctx context.Context, p Pong) error {
		if p.ID == 999 {
			last <- p.ID
		}
		return nil
	})
	if err := bus.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer bus.Stop(ctx)

	for id := range 1000 {
		err := bus.Publish(Pong{ID: id})
		if errors.Is(err, autobus.ErrBacklog) {
			if err = bus.Flush(ctx); err == nil {
				err = bus.Publish(Pong{ID: id})
			}
		}
		if err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("heard", <-last)
	// Output: heard 999
}

func ExampleBus_Stats() {
	ctx := context.Background()
	bus := &autobus.Bus{URL: "mem://stats", Logger: silent{}}
	autobus.SubscribeOn(bus, func(ctx context.Context, p Ping) error {
		if p.ID == 2 {
			return errors.New("not this one")
		}
		return nil
	})
	if err := bus.Start(ctx); err != nil {
		log.Fatal(err)
	}
	for id := range 3 {
		if err := bus.Publish(Ping{ID: id}); err != nil {
			log.Fatal(err)
		}
	}
	if err := bus.Publish(Pong{}); err != nil { // which nobody wants
		log.Fatal(err)
	}
	if err := bus.Stop(ctx); err != nil {
		log.Fatal(err)
	}
	s := bus.Stats()
	fmt.Println("sent", s.Sent, "received", s.Received, "handled", s.Handled, "failed", s.Failed)
	// Output: sent 4 received 3 handled 2 failed 1
}

// Stop gives up when its context ends, and says what it has left behind.
func ExampleBus_Stop() {
	bus := &autobus.Bus{URL: "mem://stop"}
	began := make(chan struct{})
	autobus.SubscribeOn(bus, func(ctx context.Context, p Ping) error {
		close(began)
		<-ctx.Done() // a handler that takes long minds its context
		return nil
	})
	if err := bus.Start(context.Background()); err != nil {
		log.Fatal(err)
	}
	if err := bus.Publish(Ping{}); err != nil {
		log.Fatal(err)
	}
	<-began

	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	fmt.Println(bus.Stop(ctx))
	// Output: autobus: Stop: abandoned 1 running handler: context deadline exceeded
}

// mirror is a transport that hands its messages back to its own bus. One for a
// real medium differs in Start, Send and Close: it connects, writes, and waits
// for the goroutine that reads.
type mirror struct {
	receive func(ctx context.Context, channel, payload []byte)

	mu       sync.Mutex // guards channels
	channels map[string]bool
}

func (m *mirror) Start(_ context.Context, receive func(ctx context.Context, channel, payload []byte), _ autobus.Logger) error {
	m.receive = receive
	return nil
}

func (m *mirror) Subscribe(channel string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.channels == nil {
		m.channels = make(map[string]bool)
	}
	m.channels[channel] = true
}

func (m *mirror) Unsubscribe(channel string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.channels, channel)
}

func (m *mirror) Size(channel string, payload []byte) (size, limit int) { return len(payload), 1 << 20 }

func (m *mirror) Send(ctx context.Context, messages []autobus.Message) (lost int, err error) {
	for _, message := range messages {
		m.mu.Lock()
		all := message.Channel[:strings.LastIndex(message.Channel, ":")+1] + "*"
		wanted := m.channels[message.Channel] || m.channels[all]
		m.mu.Unlock()
		if wanted {
			m.receive(ctx, []byte(message.Channel), message.Payload)
		}
	}
	return 0, nil
}

func (m *mirror) Flush(context.Context) error { return nil }

func (m *mirror) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.channels = nil
	return nil
}

func ExampleTransport() {
	ctx := context.Background()
	bus := &autobus.Bus{Transport: new(mirror)}
	autobus.SubscribeOn(bus, func(ctx context.Context, p Ping) error {
		fmt.Println("heard ping", p.ID)
		return nil
	})
	if err := bus.Start(ctx); err != nil {
		log.Fatal(err)
	}
	if err := bus.Publish(Ping{ID: 1}); err != nil {
		log.Fatal(err)
	}
	if err := bus.Stop(ctx); err != nil { // once the handler is done
		log.Fatal(err)
	}
	// Output: heard ping 1
}
