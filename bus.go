// Package autobus is a lightweight, networked event bus: publish a typed event
// in one process, and its handlers run in every other process on the bus.
//
// By default the bus is UDP multicast on the local network, with no server and
// no configuration; a URL puts it on Redis. It is the sibling of the Python
// package autobus 1.0.0 and shares its wire, so that Go and Python processes
// sit on one bus.
//
// # Events
//
// An event is a struct with three methods: Type names it on the wire, Marshal
// writes its fields and Unmarshal reads them.
//
//	type Ping struct{ ID int }
//
//	func (Ping) Type() string                 { return "Ping" }
//	func (p Ping) Marshal(e *autobus.Encoder) { e.Key("id").Int(p.ID) }
//	func (p *Ping) Unmarshal(d *autobus.Decoder) error {
//		for key := range d.Fields() {
//			switch key {
//			case "id":
//				p.ID = d.Int()
//			}
//		}
//		return d.Err()
//	}
//
// The command autobusgen writes them for you: put this above the struct, and
// run go generate.
//
//	//go:generate go run github.com/autobus-go/autobus/cmd/autobusgen -type Ping
//
// [Encoder] and [Decoder] have a method for each kind of value. An event that
// has a method Validate is checked before any handler sees it: see [Validator].
//
// # The bus
//
// Most programs subscribe, and call [Run], which starts the bus, and stops it
// when its context ends:
//
//	autobus.Subscribe(func(ctx context.Context, p Ping) error {
//		return autobus.Publish(Pong{ID: p.ID})
//	})
//	err := autobus.Run(ctx)
//
// [Publish] works from anywhere, at any time, and never waits for the network.
// A subscription handles its events one after the other and holds up no other;
// [Concurrency] and [Queue] change that. A program with a main loop of its own
// calls [Start] and [Stop].
//
// These functions use [Default]. A program that needs another transport,
// namespace or logger sets its fields before the start, or has one [Bus] or
// many of its own:
//
//	bus := &autobus.Bus{URL: "redis://localhost:6379", Namespace: "line-3"}
//	autobus.SubscribeOn(bus, handlePing)
//
// # Transports
//
// [Bus.URL] chooses the transport: udp://group:port, redis://host:port and its
// relatives for TLS, Sentinel and Cluster, or mem://name within a process, for
// tests. A [Transport] of your own takes a URL's place.
//
// # Schedules
//
// What recurs is a job of the bus, and runs while that is started:
//
//	autobus.Schedule(autobus.Every(10).Minutes(), report)
//	autobus.Schedule(autobus.Every(1).Monday().At("09:00"), report)
//
// See [Every]. A [Scheduler] does it without a bus.
//
// # Encryption
//
// With [Bus.Keys] set, what the bus publishes is sealed, and nothing else than
// what one of the keys opens reaches a handler:
//
//	key, err := autobus.ParseKey(os.Getenv("AUTOBUS_KEY"))
//	bus := &autobus.Bus{Keys: []autobus.Key{key}, MaxAge: time.Minute}
//
// # What is guaranteed
//
// A bus delivers each event at most once, its own included. A subscription
// handles events in the order they arrive: for one publisher, that is the order
// of publishing, unless the network turns datagrams around.
//
// Nothing is lost silently: what cannot be delivered is an error to the caller
// or a number in [Stats]. What the network loses, a receiver can only tell by
// what comes after it, and of Python's messages not at all.
//
// Input may be hostile: no bytes that arrive make the bus panic, stall, or use
// more memory than its limits say. Without keys, anybody on the network can
// read and publish events.
//
// # Small programs
//
// The package uses no reflection and one module beside the standard library,
// golang.org/x/crypto. The build tag notls leaves crypto/tls out, and with it
// rediss:// URLs, for programs that must be small.
package autobus

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// DefaultURL is where a bus without a URL is: the group and port that Python
// autobus uses too.
const DefaultURL = "udp://239.255.0.1:5000"

const (
	defaultBacklog = 8 << 20          // bytes, see Bus.Backlog
	defaultQueue   = 65536            // messages, see Queue
	maxQueue       = 16 << 20         // bytes that a subscription's queue holds
	messagePlace   = 64               // bytes that a message takes in a queue besides its own
	maxMessage     = 64 << 20         // bytes of a payload that a bus takes
	grace          = 10 * time.Second // what Run gives Stop
)

// Errors that a caller may want to tell apart, with errors.Is.
var (
	// ErrStopped is returned by Publish once the bus has been stopped.
	ErrStopped = errors.New("autobus: the bus is stopped")

	// ErrTooLarge is returned by Publish for a message over the transport's
	// limit, or over the whole [Bus.Backlog]. The error's text gives both sizes.
	ErrTooLarge = errors.New("autobus: message too large")

	// ErrBacklog is returned by Publish when the bus already holds all the
	// unsent messages it may; see [Bus.Backlog].
	ErrBacklog = errors.New("autobus: backlog full")
)

// An Event is a value that travels on a bus.
type Event interface {
	// Type is the event's name on the wire: valid UTF-8, not empty, not "*",
	// and without a ':'. It must not depend on the event's fields.
	Type() string

	// Marshal writes the event's fields.
	Marshal(e *Encoder)
}

// A Validator is an event that checks itself once it has been unmarshalled.
// An error discards it, before any handler.
type Validator interface{ Validate() error }

// EventPtr is the pointer to an event type, by which an event is received.
// Nobody needs to name it: Subscribe infers it.
type EventPtr[T any] interface {
	*T
	Type() string
	Unmarshaler
}

// Raw is an event as it stands, for tools, bridges and recorders.
//
// Received, JSON is the payload byte for byte, its "type" included. Published,
// JSON is an object, or empty for one without fields; its "type", if it has
// one, must equal Name.
type Raw struct {
	Name string
	JSON []byte
}

// Type returns r.Name.
func (r Raw) Type() string { return r.Name }

// Marshal writes the fields of r.JSON as they stand.
func (r Raw) Marshal(e *Encoder) {
	if len(r.JSON) == 0 {
		return
	}
	d := decoders.Get().(*Decoder)
	defer d.free()
	if err := d.decode(string(r.JSON), rawFields{r.Name, e}, false); err != nil {
		e.Fail(err)
	}
}

// rawFields copies the fields of an object to an Encoder.
type rawFields struct {
	name string
	to   *Encoder
}

func (r rawFields) Unmarshal(d *Decoder) error {
	for key := range d.Fields() {
		if key == "type" {
			if name := d.String(); name != r.name {
				d.Fail(errors.New(`want "` + r.name + `", the event's type, have ` + quoted(clip(name))))
			}
			continue
		}
		r.to.Key(key)
		start := d.at
		if d.skip(r.to.depth); d.err == nil && r.to.value() {
			r.to.buf = append(r.to.buf, d.text[start:d.at]...)
		}
	}
	return d.Err()
}

// Default is the bus of the package's functions. Set its fields before Start.
var Default = new(Bus)

// Publish publishes e on the [Default] bus; see [Bus.Publish].
func Publish(e Event) error { return Default.Publish(e) }

// Subscribe subscribes on the [Default] bus; see [SubscribeOn].
func Subscribe[T any, P EventPtr[T]](handle func(context.Context, T) error, opts ...SubscribeOption) *Subscription {
	return SubscribeOn[T, P](Default, handle, opts...)
}

// Schedule adds a job to the [Default] bus; see [Bus.Schedule].
func Schedule(r Recurrence, fn func(context.Context) error) (*Job, error) {
	return Default.Schedule(r, fn)
}

// Start starts the [Default] bus; see [Bus.Start].
func Start(ctx context.Context) error { return Default.Start(ctx) }

// Stop stops the [Default] bus; see [Bus.Stop].
func Stop(ctx context.Context) error { return Default.Stop(ctx) }

// Run runs the [Default] bus until ctx ends; see [Bus.Run].
func Run(ctx context.Context) error { return Default.Run(ctx) }

// A Bus connects the process to others. The zero Bus is ready: multicast,
// plaintext, no namespace. Set its fields before Start. Its methods may be
// called from any goroutine and from handlers. A Bus must not be copied.
type Bus struct {
	// URL chooses the transport; [DefaultURL] if empty.
	//
	//	udp://239.255.0.1:5000   UDP multicast, any IPv4 or IPv6 group
	//	redis://host:6379        Redis pub/sub, or what else speaks its protocol
	//	mem://name               the buses of this process that name it
	//
	// The options of udp are, as in udp://239.255.0.1:5000?ttl=4&rcvbuf=8388608:
	//
	//	interface=eth0,wlan0   join and send on these alone; default: join all
	//	                       that are up, send by the routing table
	//	ttl=1                  networks that a datagram may reach, one after the
	//	                       other: 0 (this host) to 255
	//	loopback=1             whether processes on this host hear it
	//	rcvbuf=4194304         bytes of receive buffer to ask the system for
	//
	// The URLs of Redis, where valkey and valkeys are redis and rediss, and
	// a password with one of / ? # has it percent-encoded:
	//
	//	redis://user:password@host:6379   port 6379 and localhost are the defaults
	//	redis://host1,host2:7000          tried in turn; the nodes of a Redis Cluster
	//	rediss://host                     TLS
	//	unix:///run/redis.sock            a Unix socket
	//	redis+sentinel://s1,s2/mymaster   the master that Sentinel names; rediss+sentinel has TLS
	//
	// A database's number, as in redis://host/1, is taken and means nothing:
	// pub/sub is the same in all. The options are those of Python's redis
	// package, times in seconds:
	//
	//	username=, password=       instead of those before the host
	//	client_name=               as CLIENT LIST shows it
	//	protocol=2                 or 3: the version of RESP
	//	socket_timeout=5           to answer, or to read on
	//	socket_connect_timeout=5   to connect and subscribe; default: socket_timeout
	//	health_check_interval=10   of silence before a PING; 0: none
	//	ssl_cert_reqs=required     or none: any certificate will do
	//	ssl_check_hostname=true    whether the certificate must be the host's
	//	ssl_ca_certs=              file of authorities; default: the system's
	//	ssl_certfile=, ssl_keyfile=  files of the client's certificate and its key
	//
	// and these of our own:
	//
	//	ssl_server_name=           the name in the certificate, if not the host
	//	sharded=1                  a Redis Cluster's SPUBLISH and SSUBSCRIBE
	//	sentinel_username=, sentinel_password=
	URL string

	// Namespace keeps buses on one transport apart: an event is received only
	// in the namespace it was published in. Any text.
	Namespace string

	// Keys encrypt the bus: the first one seals what is published, and what
	// none of them opens is discarded. Without keys the bus is plaintext. All
	// its processes, Python's included, need a key in common; the type of an
	// event, its size and its time stay visible. Who has the key can speak for
	// anyone; who hasn't can still carry a recorded message to a namespace with
	// the same key, or to a process that hasn't had it.
	//
	// To change the key while everything runs, restart the processes one by
	// one, three times:
	//
	//  1. with Keys: old, new. Now each opens both.
	//  2. with Keys: new, old. Now each seals with the new one.
	//  3. with Keys: new. Now the old one is worth nothing.
	//
	// A Python process has one key. It goes from old to new between steps 1
	// and 2, and hears nothing of those that still seal with the other one.
	Keys []Key

	// MaxAge is the age over which encrypted messages are discarded; 0 for any
	// age. It is counted in whole seconds by the clocks of the two hosts, of
	// which the sender's may be a minute ahead. Without it, who records a
	// message can play it back for ever; with it, that is discarded too: the
	// bus remembers the messages of that age, the newest 262,144 of them, in up
	// to 14 MiB. When more than these come within MaxAge, what is older than
	// they are is discarded as well, since it might be a replay; then a sender
	// whose clock is ahead has all the others look old, and be discarded. A bus
	// that is made anew, as in a new process, remembers nothing.
	//
	// An event's age counts from Publish, or from Start if that came later,
	// and includes its time in the backlog.
	MaxAge time.Duration

	// Backlog bounds the payload bytes of unsent messages that the bus holds
	// before Start, while disconnected, and under load; 8 MiB if 0. Over it,
	// Publish returns [ErrBacklog]. With Keys, it is the tokens that count:
	// 120 bytes for an event of 28, and a third more for a large one.
	Backlog int

	// Transport is used in place of URL, if not nil.
	Transport Transport

	// Logger gets what no caller can be told by an error. If nil, warnings
	// and errors go to standard error.
	Logger Logger

	wiring mutex // is held where the session or the transport's channels change; taken before mu

	mu      mutex // guards the fields up to out
	state   state
	session *session      // nil while stopped
	ended   chan struct{} // closed when the bus is stopped again
	past    Stats         // the counters of transports that are closed

	out outbox

	gate   sync.RWMutex            // held for reading while a message is taken in
	intake *session                // guarded by gate; nil: nothing is taken in
	latest atomic.Pointer[session] // whose context handlers get

	table  sync.RWMutex     // guards topics
	topics map[string]topic // by type name; all types by "*"

	scheduler Scheduler

	workers atomic.Int64  // goroutines that handle events
	quiet   chan struct{} // has room for one; told when workers falls to 0

	replays replays // what was opened, under MaxAge

	received                   atomic.Uint64
	_                          [64]byte // keeps apart what the transport counts and what the handlers do
	delivered, handled, failed atomic.Uint64
	discarded                  [causes]atomic.Uint64
	discardLog                 [causes]occasionally
	sendLog                    occasionally
}

type state uint8

const (
	stopped state = iota
	starting
	running
	stopping
)

// A session is what lives from Start to Stop.
type session struct {
	prefix     string // of every channel
	transport  Transport
	fernet     *Fernet       // nil: plaintext
	maxAge     time.Duration // of tokens
	log        Logger
	handlers   context.Context // what handlers are given
	abandon    context.CancelFunc
	send       context.Context // ends when Stop has no more patience
	cancelSend context.CancelFunc
	written    chan struct{} // closed when the writer has ended
	over       atomic.Bool   // nothing more is taken in

	cancelStart context.CancelCauseFunc // ends Start, while it is under way
	wasClosed   bool                    // the outbox, before Start
	stop        context.Context         // of a Stop that came during Start; guarded by Bus.mu
	stopErr     error                   // what that returns; set before the bus has ended
}

// handlerKey is the key of the *Bus in a handler's context.
type handlerKey struct{}

// Publish sends e to every handler of its type on the bus, this process's
// included. It marshals e, puts the message into the bus's buffer and returns:
// it never waits for the network. Before Start, messages are held, and sent
// when the bus starts.
//
// An error means that e was not published: what Marshal did wrong,
// [ErrTooLarge], [ErrBacklog] or [ErrStopped]. When it is nil, a message that
// is lost all the same is counted in [Stats]. A loop that publishes faster
// than the network takes it calls [Bus.Flush] now and then.
//
// A pointer to an event is an event too, and spares an allocation.
func (b *Bus) Publish(e Event) error {
	enc := encoders.Get().(*Encoder)
	enc.buf = enc.buf[:0]
	name, err := enc.event(e)
	if err == nil {
		err = b.enqueue(name, enc)
	}
	if cap(enc.buf) > keepBuffer {
		enc.buf = nil
	}
	encoders.Put(enc)
	return err
}

// An outbox holds what was published until the transport takes it.
type outbox struct {
	mu       sync.Mutex // guards the rest
	closed   bool       // Publish returns ErrStopped
	started  bool       // size, fernet and the channels are those of a session
	size     func(channel string, payload []byte) (size, limit int)
	fernet   atomic.Pointer[Fernet] // seals new messages; written under mu; nil: plaintext, or not started
	prefix   string
	channels map[string]string // by type name
	batches  []*batch          // the oldest first; the last one is being filled
	spare    []*batch          // empty, to be used again
	bytes    int               // of payloads here and on their way
	growth   int               // of these, what only sealing at Start will add
	idle     bool              // the writer waits for wake
	wake     chan struct{}     // has room for one
	moved    news              // of sent and unsent

	published, sent, unsent uint64 // messages taken, handed on, lost
}

// A batch is messages that go to the transport at once.
type batch struct {
	payloads []byte // one after another
	messages []outgoing
	sealed   bool
}

type outgoing struct {
	name string
	end  int // of its payload
}

const (
	batchSize   = 64 << 10 // bytes of payload in a batch, unless it is one message
	maxSpare    = 16       // batches kept for use again
	maxChannels = 4096     // channel names that an outbox remembers,
	maxCached   = 128      // of types with names up to so many bytes
)

// add puts a message into the last batch that has room.
func (o *outbox) add(name string, payload []byte) {
	n, sealed := len(o.batches), o.fernet.Load() != nil
	if n == 0 || len(o.batches[n-1].payloads)+len(payload) > batchSize || o.batches[n-1].sealed != sealed {
		var last *batch
		if i := len(o.spare) - 1; i >= 0 {
			last, o.spare = o.spare[i], o.spare[:i]
		} else if n > 0 { // it will be filled like the one before
			last = &batch{payloads: make([]byte, 0, batchSize), messages: make([]outgoing, 0, len(o.batches[n-1].messages))}
		} else {
			last = new(batch)
		}
		last.sealed = sealed
		o.batches = append(o.batches, last)
		n++
	}
	last := o.batches[n-1]
	last.payloads = append(last.payloads, payload...)
	last.messages = append(last.messages, outgoing{name, len(last.payloads)})
	o.bytes += len(payload)
	o.published++
}

// channel returns the channel of a type.
func (o *outbox) channel(name string) string {
	channel, ok := o.channels[name]
	if !ok {
		if channel = o.prefix + name; len(name) > maxCached {
			return channel
		}
		if o.channels == nil || len(o.channels) == maxChannels {
			o.channels = make(map[string]string)
		}
		o.channels[name] = channel
	}
	return channel
}

func (b *Bus) enqueue(name string, enc *Encoder) error {
	limit := b.Backlog
	if limit <= 0 { // below, Start says that it's a mistake
		limit = defaultBacklog
	}
	o := &b.out
	payload := o.lock(enc)
	wake, err := b.put(name, payload, limit)
	if wake { // after unlocking, or the writer would wait for that next
		o.wake <- struct{}{}
	}
	return err
}

// put puts a message into the outbox, which is locked, unlocks that, and tells
// whether the writer is to be woken.
func (b *Bus) put(name string, payload []byte, limit int) (wake bool, err error) {
	o := &b.out
	defer o.mu.Unlock()
	if o.closed {
		return false, ErrStopped
	}
	sized := payload // or something as long as its token
	if !o.started {
		sized = b.foresee(payload)
	}
	if o.size != nil {
		if size, limit := o.size(o.channel(name), sized); size > limit {
			return false, misfit(ErrTooLarge, name+" takes ", size, "the transport at most "+strconv.Itoa(limit))
		}
	}
	if len(sized) > limit {
		return false, misfit(ErrTooLarge, name+" has ", len(sized), "the whole backlog "+strconv.Itoa(limit))
	}
	if o.bytes+len(sized) > limit {
		return false, misfit(ErrBacklog, name+" has ", len(sized), strconv.Itoa(o.bytes)+" of at most "+strconv.Itoa(limit)+" are unsent")
	}
	o.add(name, payload)
	growth := len(sized) - len(payload)
	o.growth += growth
	o.bytes += growth
	wake = o.idle
	o.idle = false
	return wake, nil
}

// misfit is the error of an event for which there is no room: what has says, in
// bytes, is more than limit.
func misfit(cause error, has string, size int, limit string) error {
	return fail("event "+has+strconv.Itoa(size)+" bytes, and "+limit, cause)
}

// foresee sets what the outbox needs to know of a bus that isn't started, and
// returns something as long as payload will be. The fields may still change,
// and a mistake in them is Start's to tell.
func (b *Bus) foresee(payload []byte) []byte {
	o := &b.out
	o.prefix, o.channels, o.size = channelPrefix(b.Namespace), nil, nil
	if t, err := b.newTransport(); err == nil {
		o.size = t.Size
	}
	if len(b.Keys) == 0 {
		return payload
	}
	return appendSpaces(nil, tokenLen(len(payload)))
}

// lock locks o.mu, and returns the payload of what enc holds: sealed, if the
// bus is started and has keys. Before Start it stays plaintext, since the keys
// may still change.
func (o *outbox) lock(enc *Encoder) []byte {
	n := len(enc.buf)
	for {
		f := o.fernet.Load()
		if f != nil {
			enc.buf = f.Seal(enc.buf[:n], enc.buf[:n])
		}
		o.mu.Lock()
		if o.fernet.Load() == f {
			if f == nil {
				return enc.buf[:n]
			}
			return enc.buf[n:]
		}
		o.mu.Unlock() // the bus has been started, or stopped, meanwhile
	}
}

// open lets messages go to a session, and returns whether they were refused.
func (o *outbox) open(s *session) (wasClosed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	wasClosed = o.closed
	o.closed, o.started, o.size, o.prefix, o.channels = false, true, s.transport.Size, s.prefix, nil
	o.fernet.Store(s.fernet)
	o.bytes -= o.growth
	o.growth = 0
	if s.fernet != nil {
		o.seal(s.fernet)
	}
	if o.wake == nil {
		o.wake = make(chan struct{}, 1)
	}
	return wasClosed
}

// seal seals what was held since before Start.
func (o *outbox) seal(f *Fernet) {
	held, published := o.batches, o.published
	o.batches = nil
	var token []byte
	for _, batch := range held {
		if batch.sealed { // by a Start that failed
			o.batches = append(o.batches, batch)
			continue
		}
		o.bytes -= len(batch.payloads)
		start := 0
		for _, m := range batch.messages {
			token = f.Seal(token[:0], batch.payloads[start:m.end])
			o.add(m.name, token)
			start = m.end
		}
	}
	o.published = published
}

// reset takes open back.
func (o *outbox) reset(wasClosed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed, o.started = wasClosed, false
	o.fernet.Store(nil)
}

// close refuses messages from now on, and lets the writer end.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	if o.idle {
		o.idle = false
		o.wake <- struct{}{}
	}
}

// drop gives up all messages.
func (o *outbox) drop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, batch := range o.batches {
		o.unsent += uint64(len(batch.messages))
		o.bytes -= len(batch.payloads)
	}
	o.batches = nil
	o.moved.tell()
}

// write hands on what gathers in the outbox, until it is closed and empty:
// while some batches are on their way, the next ones form.
func (b *Bus) write(s *session) {
	defer close(s.written)
	var batches []*batch
	var messages []Message
	o := &b.out
	for {
		o.mu.Lock()
		for len(o.batches) == 0 {
			if o.closed {
				o.mu.Unlock()
				return
			}
			o.idle = true
			o.mu.Unlock()
			<-o.wake
			o.mu.Lock()
		}
		batches, o.batches = o.batches, batches[:0]
		o.mu.Unlock()
		for i, batch := range batches {
			messages = b.send(s, batch, messages[:0])
			batches[i] = nil
		}
	}
}

// send hands a batch to the transport, and accounts for it.
func (b *Bus) send(s *session, batch *batch, messages []Message) []Message {
	o := &b.out
	start := 0
	o.mu.Lock()
	name, channel := "", ""
	for _, m := range batch.messages {
		if m.name != name { // most are of one type
			name, channel = m.name, o.channel(m.name)
		}
		messages = append(messages, Message{channel, batch.payloads[start:m.end]})
		start = m.end
	}
	o.mu.Unlock()

	lost, err := len(messages), s.send.Err()
	if err == nil {
		lost, err = s.transport.Send(s.send, messages)
	}

	o.mu.Lock()
	o.bytes -= len(batch.payloads)
	o.sent += uint64(len(messages) - lost)
	o.unsent += uint64(lost)
	if len(o.spare) < maxSpare && cap(batch.payloads) <= 2*batchSize {
		clear(batch.messages)
		batch.payloads, batch.messages = batch.payloads[:0], batch.messages[:0]
		o.spare = append(o.spare, batch)
	}
	o.moved.tell()
	o.mu.Unlock()
	if err != nil && s.send.Err() == nil && b.sendLog.ok(time.Now()) {
		s.log.Error("autobus: messages could not be sent", "lost", lost, "error", err)
	}
	clear(messages)
	return messages
}

// Flush waits until the transport has handed on all that was published before
// the call (to a server: until it has answered), or ctx ends. It returns nil
// also for messages that could not be sent; Unsent in [Stats] counts those.
// Before Start, it waits for that too.
func (b *Bus) Flush(ctx context.Context) error {
	o := &b.out
	o.mu.Lock()
	for target := o.published; target > o.sent+o.unsent; {
		if err := o.moved.wait(ctx, &o.mu); err != nil {
			o.mu.Unlock()
			return fail("Flush", err)
		}
	}
	o.mu.Unlock()
	if s := b.started(); s != nil {
		return s.transport.Flush(ctx)
	}
	return nil
}

// Start connects the bus, and returns once an event published anywhere on it
// would reach this one, and the other way round. A mistake in the bus's
// fields is returned at once; a server that can't be reached yet is tried
// until ctx ends, since devices boot in any order. Afterwards ctx plays no
// part. A bus that is started already returns an error; a stopped one starts
// afresh.
func (b *Bus) Start(ctx context.Context) error {
	s, ctx, err := b.begin(ctx)
	if err != nil {
		return err
	}
	defer s.cancelStart(nil)

	err = s.transport.Start(ctx, b.receive, s.log)

	b.mu.Lock()
	stop := s.stop
	if up := err == nil; up {
		go b.write(s)
		if stop == nil {
			b.state = running
			err = b.scheduler.start(s.handlers, s.log)
		}
	}
	b.mu.Unlock()
	switch {
	case stop != nil:
		s.stopErr = b.shutDown(stop, s, err == nil)
		b.end()
		return ErrStopped
	case err != nil:
		b.refuse(s)
		s.abandon()
		s.cancelSend()
		b.abandonQueues()
		b.out.reset(s.wasClosed)
		b.detach(s, false)
		b.end()
	}
	return err
}

// begin makes the session that Start is to bring up, and Start's context.
func (b *Bus) begin(ctx context.Context) (*session, context.Context, error) {
	b.wiring.Lock()
	defer b.wiring.Unlock()
	b.mu.Lock()
	if b.state != stopped {
		b.mu.Unlock()
		return nil, nil, fail("Start: the bus is started already", nil)
	}
	t, err := b.checkFields()
	if err != nil {
		b.mu.Unlock()
		return nil, nil, err
	}
	s := &session{prefix: channelPrefix(b.Namespace), transport: t, log: b.Logger, written: make(chan struct{})}
	if s.log == nil {
		s.log = stderrLogger{}
	}
	if len(b.Keys) > 0 {
		s.fernet, s.maxAge = NewFernet(b.Keys...), b.MaxAge
	}
	s.handlers, s.abandon = context.WithCancel(context.WithValue(context.Background(), handlerKey{}, b))
	s.send, s.cancelSend = context.WithCancel(context.Background())
	ctx, s.cancelStart = context.WithCancelCause(ctx)
	s.wasClosed = b.out.open(s)
	b.state, b.session, b.ended = starting, s, make(chan struct{})
	b.latest.Store(s)
	if b.quiet == nil {
		b.quiet = make(chan struct{}, 1)
	}
	b.mu.Unlock()
	b.takeIn(s)
	b.table.RLock()
	defer b.table.RUnlock()
	for name := range b.topics {
		t.Subscribe(s.prefix + name)
	}
	return s, ctx, nil
}

// checkFields returns the transport that the bus's fields describe.
func (b *Bus) checkFields() (Transport, error) {
	if !utf8.ValidString(b.Namespace) {
		return nil, fail("the namespace "+quoted(b.Namespace)+" isn't valid UTF-8", nil)
	}
	if b.Backlog < 0 {
		return nil, fail("Backlog is "+strconv.Itoa(b.Backlog)+", want a number of bytes, or 0 for 8 MiB", nil)
	}
	if slices.Contains(b.Keys, Key{}) {
		return nil, fail("one of Keys is zero: want GenerateKey, ParseKey or DeriveKey, and their errors looked at", nil)
	}
	if b.MaxAge > 0 && len(b.Keys) == 0 {
		return nil, fail("MaxAge is set and Keys are not: without keys, a message has no age", nil)
	}
	if b.MaxAge < 0 {
		return nil, fail("MaxAge is "+b.MaxAge.String()+", want a time, or 0 for any age", nil)
	}
	return b.newTransport()
}

// newTransport makes the transport that the bus's fields name.
func (b *Bus) newTransport() (Transport, error) {
	if b.Transport != nil {
		return b.Transport, nil
	}
	url := b.URL
	if url == "" {
		url = DefaultURL
	}
	scheme, _, ok := strings.Cut(url, "://")
	if !ok {
		return nil, fail("the URL has no scheme: want udp://group:port, redis://host:port or mem://name", nil)
	}
	switch lower(scheme) {
	case "udp":
		return newMulticast(url)
	case "redis", "rediss", "valkey", "valkeys", "unix", "redis+sentinel", "rediss+sentinel":
		return newRedis(url)
	case "mem":
		return newMem(url)
	}
	return nil, fail("URL scheme "+quoted(scheme)+" is unknown: want udp://group:port, redis://host:port or mem://name", nil)
}

// channelPrefix is what the names of a namespace's channels begin with.
func channelPrefix(namespace string) string { return "autobus:" + namespace + ":" }

// takeIn sets the session that messages are taken in for, once those under
// way are in.
func (b *Bus) takeIn(s *session) {
	b.gate.Lock()
	b.intake = s
	b.gate.Unlock()
}

// Stop ends what Start began, in good order: it lets running jobs finish, sends
// what is pending, stops receiving, lets handlers finish what was received,
// sends what they published and closes the transport. When ctx ends first, it
// cancels the contexts of jobs and handlers, and its error says what it
// abandoned. Afterwards no goroutine of the bus is left but those of abandoned
// handlers and jobs. Stopping a bus that isn't started does nothing.
//
// A handler or job must not wait for Stop, which waits for it: called with the
// context that one was given, Stop returns an error at once.
func (b *Bus) Stop(ctx context.Context) error {
	if caller, _ := ctx.Value(handlerKey{}).(*Bus); caller == b {
		return fail("Stop: called from a handler or job, which it would wait for; use another goroutine and context", nil)
	}
	b.mu.Lock()
	s, ended := b.session, b.ended
	mine := b.state == starting || b.state == running
	switch b.state {
	case stopped:
		b.mu.Unlock()
		return nil
	case running:
		b.state = stopping
		b.mu.Unlock()
		err := b.shutDown(ctx, s, true)
		b.end()
		return err
	case starting: // Start does it, once it has come back
		b.state = stopping
		s.stop = ctx
		s.cancelStart(ErrStopped)
	}
	b.mu.Unlock()
	select {
	case <-ended:
		if mine {
			return s.stopErr
		}
		return nil
	case <-ctx.Done():
		return fail("Stop", ctx.Err())
	}
}

// shutDown ends a session, whose transport is up or has not come up.
func (b *Bus) shutDown(ctx context.Context, s *session, up bool) error {
	jobs := b.scheduler.stop(ctx)
	if up {
		b.Flush(ctx) // an error of it shows below again
	}
	b.refuse(s)

	var queued, handlers int
	for waiting := true; waiting && b.workers.Load() > 0; {
		select {
		case <-b.quiet:
		case <-ctx.Done():
			waiting = false
			handlers = int(b.workers.Load()) // before they learn of it, and end
			s.abandon()
			queued = b.abandonQueues()
		}
	}

	before := b.Stats().Unsent
	b.out.close()
	if up {
		select {
		case <-s.written:
		case <-ctx.Done():
			s.cancelSend()
			<-s.written
		}
	} else {
		b.out.drop()
	}
	err := ctx.Err()
	if up && err == nil {
		err = s.transport.Flush(ctx)
	}
	if closeErr := b.detach(s, up); err == nil {
		err = closeErr
	}
	unsent := 0
	if ctx.Err() != nil || !up { // what was sent and not confirmed is among them
		unsent = int(b.Stats().Unsent - before)
	}
	s.abandon()
	s.cancelSend()

	var left []string
	for _, what := range []struct {
		n     int
		thing string
	}{{unsent, "unsent message"}, {queued, "received event"}, {handlers, "running handler"}} {
		switch what.n {
		case 0:
		case 1:
			left = append(left, "1 "+what.thing)
		default:
			left = append(left, strconv.Itoa(what.n)+" "+what.thing+"s")
		}
	}
	if jobs != "" {
		left = append(left, "running jobs ("+jobs+")")
	}
	if len(left) > 0 {
		return fail("Stop: abandoned "+strings.Join(left, ", "), err)
	}
	if err != nil && ctx.Err() == nil {
		return fail("Stop", err)
	}
	return nil
}

// detach takes the transport off the bus, and closes it if it is up.
func (b *Bus) detach(s *session, up bool) (err error) {
	b.wiring.Lock()
	defer b.wiring.Unlock()
	if up {
		err = s.transport.Close()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if t, ok := s.transport.(StatsTransport); ok && up {
		t.AddStats(&b.past)
	}
	b.session = nil
	return err
}

// end makes the bus a stopped one.
func (b *Bus) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = stopped
	close(b.ended)
}

// Run starts the bus, waits until ctx ends or the bus is stopped, and stops
// it with a grace of 10 seconds for what is under way. It returns nil after a
// clean end. Most programs call Run.
func (b *Bus) Run(ctx context.Context) error {
	if err := b.Start(ctx); err != nil {
		return err
	}
	b.mu.Lock()
	ended := b.ended
	b.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-ended:
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	return b.Stop(ctx)
}

// Schedule has fn run at the times of r while the bus is started, as
// [Scheduler.Schedule] does, with a context like a handler's. It works before,
// during and after Start. An error that fn returns, or its panic, is logged and
// counted, and the job goes on; [ErrCancelJob] ends it.
func (b *Bus) Schedule(r Recurrence, fn func(context.Context) error) (*Job, error) {
	return b.scheduler.Schedule(r, fn)
}

// A Subscription is a handler's place on a bus.
type Subscription struct {
	bus         *Bus
	name        string // a type, or "*"
	handle      func(ctx context.Context, name, text string) (cause, error)
	concurrency int
	limit       int // of messages in the queue
	overflow    Overflow
	work        func() // s.run, made once

	mu      sync.Mutex // guards the rest
	room    news       // in the queue, under Block
	queue   []message  // a ring; its length is a power of two
	head    int        // where its first message is
	count   int
	bytes   int
	running int // goroutines at work
	gone    bool
}

// message is a message that was received: its type and its payload.
type message struct{ name, text string }

// size is what m counts for in a queue: its bytes, and its place.
func (m message) size() int { return len(m.name) + len(m.text) + messagePlace }

// A SubscribeOption changes how a subscription handles events.
type SubscribeOption func(*Subscription)

// Concurrency lets up to n handlers of a subscription run at once. By default
// it is 1, and events are handled in the order they were published.
func Concurrency(n int) SubscribeOption {
	if n < 1 {
		panic("autobus: Concurrency(" + strconv.Itoa(n) + "): want at least 1")
	}
	return func(s *Subscription) { s.concurrency = n }
}

// Queue bounds the events that wait for a subscription's handler, and says
// what happens to the next one. By default they are 65,536, and the newest is
// dropped. Whatever n is, they hold at most 16 MiB of payload.
func Queue(n int, when Overflow) SubscribeOption {
	if n < 1 || when > Block {
		panic("autobus: Queue(" + strconv.Itoa(n) + ", …): want at least 1, and DropNewest, DropOldest or Block")
	}
	return func(s *Subscription) { s.limit, s.overflow = n, when }
}

// Overflow is what happens to an event for which a subscription's queue has
// no room.
type Overflow uint8

const (
	// DropNewest drops the event that just came. It is counted in Stats.
	DropNewest Overflow = iota
	// DropOldest drops the event that has waited longest. It is counted in Stats.
	DropOldest
	// Block makes the bus wait for room, and with it all its subscriptions:
	// what comes meanwhile waits in the network, which may drop it. Over
	// mem:// it waits in the backlogs of the buses that publish.
	Block
)

// SubscribeOn calls handle for every event of type T on the bus. It works
// before, during and after Start, and at once.
//
// Each subscription has a queue and a goroutine of its own: it handles events
// in order, and a slow or stuck one delays no other. Each handler gets its own
// copy. Its context is cancelled when Stop runs out of time. An error it
// returns, or a panic, is logged and counted, and the bus goes on.
//
// SubscribeOn panics if T's type name can't be one: it is empty, "*", has a
// ':' or isn't UTF-8.
//
// It is a function because methods can't have type parameters.
func SubscribeOn[T any, P EventPtr[T]](b *Bus, handle func(context.Context, T) error, opts ...SubscribeOption) *Subscription {
	if handle == nil {
		panic("autobus: Subscribe: the handler is nil")
	}
	spare := sync.Pool{New: func() any { return new(T) }}
	return b.subscribe(P(new(T)).Type(), opts, func(ctx context.Context, name, text string) (cause, error) {
		p := spare.Get().(*T)
		why, err := decodeEvent(name, text, P(p))
		var event, zero T
		event, *p = *p, zero
		spare.Put(p)
		if err != nil {
			return why, err
		}
		return handled, handle(ctx, event)
	})
}

// SubscribeRaw calls handle for every event of the type named name, or of all
// types if it is "*", as it stands. The payload is valid JSON of that type. In
// all else it is like [SubscribeOn].
func (b *Bus) SubscribeRaw(name string, handle func(context.Context, Raw) error, opts ...SubscribeOption) *Subscription {
	if handle == nil {
		panic("autobus: Subscribe: the handler is nil")
	}
	return b.subscribe(name, opts, func(ctx context.Context, name, text string) (cause, error) {
		typ, err := payloadType(text)
		if err != nil {
			return malformed, err
		}
		if typ != name {
			return wrongType, errWrongType
		}
		return handled, handle(ctx, Raw{Name: name, JSON: []byte(text)})
	})
}

func (b *Bus) subscribe(name string, opts []SubscribeOption, handle func(context.Context, string, string) (cause, error)) *Subscription {
	if problem := typeProblem(name); problem != "" && name != "*" {
		panic("autobus: Subscribe: event type " + quoted(name) + " " + problem)
	}
	s := &Subscription{bus: b, name: name, handle: handle, concurrency: 1, limit: defaultQueue}
	for _, option := range opts {
		option(s)
	}
	s.work = s.run
	b.wiring.Lock()
	defer b.wiring.Unlock()
	now := b.changeTopic(name, func(subs []*Subscription) []*Subscription { return append(subs, s) })
	if session := b.started(); now == 1 && session != nil {
		session.transport.Subscribe(session.prefix + name)
	}
	return s
}

// started returns the session there is, nil while the bus is stopped.
func (b *Bus) started() *session {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.session
}

// Unsubscribe ends the subscription at once: no event is taken from its queue
// after it returns, and those in there are counted as abandoned. One that was
// taken before is still handled. A handler may call it, also on its own
// subscription.
func (s *Subscription) Unsubscribe() {
	s.mu.Lock()
	gone := s.gone
	s.gone = true
	s.bus.discarded[abandoned].Add(uint64(s.drop()))
	s.mu.Unlock()
	if gone {
		return
	}
	b := s.bus
	b.wiring.Lock()
	defer b.wiring.Unlock()
	left := b.changeTopic(s.name, func(subs []*Subscription) []*Subscription {
		return slices.DeleteFunc(subs, func(other *Subscription) bool { return other == s })
	})
	if session := b.started(); left == 0 && session != nil {
		session.transport.Unsubscribe(session.prefix + s.name)
	}
}

// changeTopic replaces a topic's subscriptions and returns how many they are.
// A message on its way in keeps the ones it found.
func (b *Bus) changeTopic(name string, change func([]*Subscription) []*Subscription) int {
	b.table.Lock()
	defer b.table.Unlock()
	subs := change(slices.Clone(b.topics[name].subs))
	if b.topics == nil {
		b.topics = make(map[string]topic)
	}
	if len(subs) == 0 {
		delete(b.topics, name)
	} else {
		b.topics[name] = topic{name, subs}
	}
	return len(subs)
}

// topic is who wants a type's events. Its slice is never changed in place.
type topic struct {
	name string
	subs []*Subscription
}

// typeProblem returns what is wrong with an event type's name, "" if nothing.
func typeProblem(name string) string {
	switch {
	case name == "":
		return "is empty"
	case name == "*":
		return "stands for all types"
	case strings.Contains(name, ":"):
		return "has a ':', which ends a namespace"
	case !utf8.ValidString(name):
		return "isn't valid UTF-8"
	}
	return ""
}

// receive takes in a message for the transport.
func (b *Bus) receive(ctx context.Context, channel, payload []byte) {
	b.gate.RLock()
	defer b.gate.RUnlock()
	s := b.intake
	if s == nil || s.over.Load() || len(channel) <= len(s.prefix) || string(channel[:len(s.prefix)]) != s.prefix {
		return
	}
	name := channel[len(s.prefix):]
	b.table.RLock()
	typed, all := b.topics[string(name)], b.topics["*"]
	b.table.RUnlock()
	if len(typed.subs)+len(all.subs) == 0 || bytes.IndexByte(name, ':') >= 0 || string(name) == "*" {
		return
	}
	b.received.Add(1)
	if len(payload) > maxMessage {
		b.discard(s.log, oversized, string(name), len(payload), nil)
		return
	}
	m := message{name: typed.name}
	if m.name == "" {
		m.name = string(name)
	}
	if s.fernet == nil {
		m.text = string(payload) // one copy, which nobody can change
	} else if m.text = b.open(s, m.name, payload); m.text == "" {
		return
	}
	for _, sub := range typed.subs {
		sub.push(ctx, s, m)
	}
	for _, sub := range all.subs {
		sub.push(ctx, s, m)
	}
}

// open returns the event in a token, or "" when it has discarded it.
func (b *Bus) open(s *session, name string, token []byte) (text string) {
	buf := encoders.Get().(*Encoder)
	defer encoders.Put(buf)
	now := time.Now()
	plaintext, stamp, problem := s.fernet.open(buf.buf[:0], token, s.maxAge, now)
	if problem != "" {
		if b.discard(s.log, badToken, name, len(token), nil) {
			s.log.Debug("autobus: refused a token", "type", clip(name), "problem", problem)
		}
		return ""
	}
	text = string(plaintext) // one copy, which nobody can change
	if cap(plaintext) <= keepBuffer {
		buf.buf = plaintext
	}
	if s.maxAge == 0 && text != "" { // of an empty one, payloadType tells what is wrong
		return text
	}
	// A token that somebody copies to another channel must not make the bus
	// discard it on its own.
	switch typ, err := payloadType(text); {
	case err != nil:
		b.discard(s.log, malformed, name, len(token), err)
	case typ != name:
		b.discard(s.log, wrongType, name, len(token), errWrongType)
	case !b.replays.fresh(stamp, unixSeconds(now.Add(-s.maxAge))):
		b.discard(s.log, replayed, name, len(token), nil)
	default:
		return text
	}
	return ""
}

// push puts m into the queue, or deals with its overflow.
func (s *Subscription) push(ctx context.Context, session *session, m message) {
	s.mu.Lock()
	waited := false
	for !s.gone && s.count > 0 && (s.count >= s.limit || s.bytes+m.size() > maxQueue) {
		switch {
		case s.overflow == DropOldest:
			oldest := s.pop()
			s.mu.Unlock() // a Logger may do anything
			s.bus.discard(session.log, overflowed, oldest.name, len(oldest.text), nil)
			s.mu.Lock()
		case s.overflow == DropNewest:
			s.mu.Unlock()
			s.bus.discard(session.log, overflowed, m.name, len(m.text), nil)
			return
		case session.over.Load() || ctx.Err() != nil:
			s.mu.Unlock()
			s.bus.discarded[abandoned].Add(1)
			return
		default:
			waited = true
			_ = s.room.wait(ctx, &s.mu) // the next turn sees why
		}
	}
	if s.gone {
		s.mu.Unlock()
		if waited {
			s.bus.discarded[abandoned].Add(1)
		}
		return
	}
	if s.count == len(s.queue) {
		queue := make([]message, max(16, 2*s.count))
		n := copy(queue, s.queue[s.head:])
		copy(queue[n:], s.queue[:s.head])
		s.queue, s.head = queue, 0
	}
	s.queue[(s.head+s.count)&(len(s.queue)-1)] = m
	s.count++
	s.bytes += m.size()
	begin := s.running < s.concurrency
	if begin {
		s.running++
		s.bus.workers.Add(1)
	}
	s.mu.Unlock()
	if begin { // after unlocking, or it would wait for that first
		go s.work()
	}
}

// pop takes the first message out of the queue.
func (s *Subscription) pop() message {
	m := s.queue[s.head]
	s.queue[s.head] = message{}
	s.head = (s.head + 1) & (len(s.queue) - 1)
	s.count--
	s.bytes -= m.size()
	return m
}

// drop empties the queue and returns how many messages that was.
func (s *Subscription) drop() int {
	n := s.count
	s.queue, s.head, s.count, s.bytes = nil, 0, 0, 0
	s.room.tell()
	return n
}

// wake makes a push that waits for room look again.
func (s *Subscription) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room.tell()
}

// refuse ends the session's taking in, once what is under way is in.
func (b *Bus) refuse(s *session) {
	s.over.Store(true)
	for _, sub := range b.subscriptions() {
		sub.wake()
	}
	b.takeIn(nil)
}

// abandonQueues empties every queue and returns how many events that was.
func (b *Bus) abandonQueues() (n int) {
	for _, s := range b.subscriptions() {
		s.mu.Lock()
		n += s.drop()
		s.mu.Unlock()
	}
	b.discarded[abandoned].Add(uint64(n))
	return n
}

func (b *Bus) subscriptions() (all []*Subscription) {
	b.table.RLock()
	defer b.table.RUnlock()
	for _, t := range b.topics {
		all = append(all, t.subs...)
	}
	return all
}

// run handles what is in the queue, and ends when that is empty.
func (s *Subscription) run() {
	b := s.bus
	clean := false
	defer func() {
		if !clean { // the handler has ended the goroutine, by runtime.Goexit
			go s.work()
		}
	}()
	for {
		s.mu.Lock()
		if s.count == 0 {
			s.running--
			if len(s.queue) > 1024 {
				s.queue, s.head = nil, 0
			}
			s.mu.Unlock()
			clean = true
			if b.workers.Add(-1) == 0 {
				select {
				case b.quiet <- struct{}{}:
				default:
				}
			}
			return
		}
		m := s.pop()
		if s.overflow == Block {
			s.room.tell()
		}
		s.mu.Unlock()
		b.delivered.Add(1)
		b.handle(s, m)
	}
}

// handle has m handled, and counts how that went.
func (b *Bus) handle(s *Subscription, m message) {
	session := b.latest.Load()
	ended := false
	defer func() {
		if ended {
			return
		}
		b.failed.Add(1)
		p := recover()
		if p == nil {
			session.log.Error("autobus: a handler ended its goroutine", "type", clip(m.name))
			return
		}
		session.log.Error("autobus: a handler panicked", "type", clip(m.name), "panic", p, "stack", stackText())
	}()
	why, err := s.handle(session.handlers, m.name, m.text)
	ended = true
	switch {
	case why != handled:
		b.discard(session.log, why, m.name, len(m.text), err)
	case err != nil:
		b.failed.Add(1)
		session.log.Error("autobus: a handler failed", "type", clip(m.name), "error", err)
	default:
		b.handled.Add(1)
	}
}

// stackText is the stack of the caller, for the log of a panic.
func stackText() string {
	stack := make([]byte, 16<<10)
	return string(stack[:runtime.Stack(stack, false)])
}

// A cause is why a message did not reach a handler.
type cause uint8

const (
	handled cause = iota // it did
	malformed
	wrongType
	invalid
	oversized
	overflowed
	abandoned
	badToken
	replayed
	causes // how many there are
)

var causeText = [causes]string{
	malformed:  "a malformed message",
	wrongType:  "a message whose type is not its channel's",
	invalid:    "an event that Validate refused",
	oversized:  "an oversized message",
	overflowed: "a message for which a subscription's queue had no room",
	badToken:   "a message that no key of the bus opens, or that is too old or ahead of this clock",
	replayed:   "a message that had come before",
}

var errWrongType = errors.New(`autobus: "type" is missing or not the channel's`)

// decodeEvent reads a payload into v and has v check itself.
func decodeEvent(name, text string, v Unmarshaler) (cause, error) {
	d := decoders.Get().(*Decoder)
	err := d.decode(text, v, true)
	typ, typed := d.typ, d.typed
	d.free()
	if err == nil && !typed { // v may have read it by other means than Fields
		typ, err = payloadType(text)
	}
	if err != nil {
		return malformed, err
	}
	if typ != name {
		return wrongType, errWrongType
	}
	if v, ok := v.(Validator); ok {
		if err := v.Validate(); err != nil {
			return invalid, err
		}
	}
	return handled, nil
}

// discard counts a message that is dropped, and logs it if the last such line
// is a second old, which it returns. No text of the message goes into the log,
// since anyone may have written it: of an error only what the program itself
// said.
func (b *Bus) discard(log Logger, why cause, name string, size int, err error) bool {
	b.discarded[why].Add(1)
	if !b.discardLog[why].ok(time.Now()) {
		return false
	}
	args := []any{"type", clip(name), "bytes", size, "dropped", b.discarded[why].Load()}
	switch e, ok := err.(*decodeError); {
	case ok && e.cause == nil:
		args = append(args, "offset", e.offset, "problem", e.problem)
	case ok:
		args = append(args, "offset", e.offset, "error", e.cause)
	case why == invalid:
		args = append(args, "error", err)
	}
	log.Warn("autobus: dropped "+causeText[why], args...)
	return true
}

// Stats counts what a bus has done since it was made, over every start.
type Stats struct {
	Published uint64 // messages that Publish took
	Sent      uint64 // of these, handed on by the transport
	Unsent    uint64 // of these, lost: not sent, refused by the server or not answered, or abandoned by Stop
	Backlog   int    // bytes of payload that wait to be sent

	Received  uint64 // messages that came in for at least one subscription
	Delivered uint64 // messages taken from subscriptions' queues to be handled, each once a subscription
	Handled   uint64 // events whose handler returned nil
	Failed    uint64 // events whose handler returned an error or panicked

	DroppedMalformed uint64 // not a message, or not the JSON that the event's Unmarshal wants
	DroppedType      uint64 // the payload's "type" is not the channel's
	DroppedInvalid   uint64 // refused by the event's Validate
	DroppedOversized uint64 // a payload over 64 MiB
	DroppedOverflow  uint64 // a subscription's queue had no room: once a subscription
	DroppedToken     uint64 // with Keys: not sealed under one of them, or damaged; with MaxAge: older, or over a minute ahead of our clock
	DroppedReplay    uint64 // with MaxAge: sealed no longer ago, but come before, or too many have since
	DroppedAbandoned uint64 // still queued at Unsubscribe, or when Stop ran out of time

	JobRuns    uint64 // runs of scheduled jobs that began
	JobsFailed uint64 // of these, those that ended with an error or a panic
	JobsMissed uint64 // times without a run of their own; see [Job.Skipped]

	Lost       uint64 // messages of any type that gaps in Go senders' sequences show to be missing; less again when one comes late
	Duplicates uint64 // copies of a message that came by more than one way, dropped
	Reconnects uint64 // times that a connection to a server was made anew
}

// Stats returns the bus's counters. It is cheap, and may be called at any time.
func (b *Bus) Stats() Stats {
	b.mu.Lock()
	s := b.past
	if b.session != nil && b.state != starting {
		if t, ok := b.session.transport.(StatsTransport); ok {
			t.AddStats(&s)
		}
	}
	b.mu.Unlock()
	b.out.mu.Lock()
	s.Published, s.Backlog = b.out.published, b.out.bytes
	s.Sent = b.out.sent - min(s.Unsent, b.out.sent) // what the transport lost later isn't sent
	s.Unsent += b.out.unsent
	b.out.mu.Unlock()
	b.scheduler.mu.Lock()
	s.JobRuns, s.JobsFailed, s.JobsMissed = b.scheduler.runs.Load(), b.scheduler.stats.failed, b.scheduler.stats.skipped
	b.scheduler.mu.Unlock()
	s.Received, s.Delivered, s.Handled, s.Failed = b.received.Load(), b.delivered.Load(), b.handled.Load(), b.failed.Load()
	s.DroppedMalformed += b.discarded[malformed].Load()
	s.DroppedType += b.discarded[wrongType].Load()
	s.DroppedInvalid += b.discarded[invalid].Load()
	s.DroppedOversized += b.discarded[oversized].Load()
	s.DroppedOverflow += b.discarded[overflowed].Load()
	s.DroppedToken += b.discarded[badToken].Load()
	s.DroppedReplay += b.discarded[replayed].Load()
	s.DroppedAbandoned += b.discarded[abandoned].Load()
	return s
}

// A Transport moves messages between buses. The package has its own for the
// URLs that [Bus] lists; set [Bus.Transport] to use another.
//
// The bus calls Subscribe, Unsubscribe and Flush at any time between Start and
// Close, also while Start runs, and Subscribe and Size before it too; Send from
// one goroutine at a time. After Close, Start may follow again.
type Transport interface {
	// Start connects, and returns once it is connected and every channel
	// subscribed so far is in force. A mistake that waiting won't mend (a
	// wrong name, a refused password) is returned at once; anything else is
	// tried again until ctx ends. ctx governs Start alone. When Start returns
	// an error it has left nothing behind, and Close is not called.
	//
	// From then until Close, the transport calls receive for every message on
	// a subscribed channel, this bus's own included, once, in the order it
	// arrives. receive keeps neither slice and is safe for concurrent use.
	// Where a subscription asks for it (see [Block]) it waits for room in a
	// queue, or until its ctx ends: give it one that Close cancels.
	Start(ctx context.Context, receive func(ctx context.Context, channel, payload []byte), log Logger) error

	// Subscribe asks for a channel's messages from now on, and Unsubscribe
	// ends that; each is called once, however many subscriptions the bus has.
	// Neither blocks. A channel that ends in ":*" stands for every
	// channel that has a non-empty name without a ':' in the place of the
	// '*'; a message that matches both ways is received once all the same.
	Subscribe(channel string)
	Unsubscribe(channel string)

	// Size returns how many bytes a message takes on this transport, and how
	// many it may take.
	Size(channel string, payload []byte) (size, limit int)

	// Send hands on messages in order, in as few system calls as it can, and
	// returns how many of them were lost and why. While the transport is
	// disconnected it waits; when ctx ends, what is not sent yet is lost. It
	// keeps neither the slice nor the payloads. It may find a message over the
	// limit, which is lost.
	Send(ctx context.Context, messages []Message) (lost int, err error)

	// Flush waits until every message that Send has taken is out of the
	// transport's hands, with a server: until it has answered.
	Flush(ctx context.Context) error

	// Close disconnects, forgets the subscriptions and waits for the
	// transport's goroutines. No call of receive is left when it returns.
	Close() error
}

// A Message is opaque bytes on a channel, as a [Transport] moves it.
type Message struct {
	Channel string
	Payload []byte
}

// A StatsTransport is a [Transport] with counters of its own, which AddStats
// adds to s; Unsent is of messages that Send took and that were lost later.
// Start sets them to zero.
type StatsTransport interface {
	Transport
	AddStats(s *Stats)
}

// A Logger is where a bus writes what its callers can't be told by an error.
// *slog.Logger is one. The args are keys and values by turns. Its methods are
// called from any goroutine.
type Logger interface {
	Debug(msg string, args ...any)
	Info(msg string, args ...any)
	Warn(msg string, args ...any)
	Error(msg string, args ...any)
}

// stderrLogger is the Logger of a bus that has none.
type stderrLogger struct{}

func (stderrLogger) Debug(string, ...any) {}
func (stderrLogger) Info(string, ...any)  {}

func (stderrLogger) Warn(msg string, args ...any)  { os.Stderr.Write(logLine(msg, args)) }
func (stderrLogger) Error(msg string, args ...any) { os.Stderr.Write(logLine(msg, args)) }

// logLine is a message and its arguments, in the form of log/slog's default.
func logLine(msg string, args []any) []byte {
	line := time.Now().AppendFormat(nil, time.DateTime)
	line = append(append(line, ' '), msg...)
	for i := 0; i+1 < len(args); i += 2 {
		key, _ := args[i].(string)
		line = append(append(append(line, ' '), key...), '=')
		if stack, ok := args[i+1].(string); ok && key == "stack" {
			line = append(append(line, '\n'), stack...)
		} else {
			line = appendValue(line, args[i+1])
		}
	}
	return append(line, '\n')
}

func appendValue(line []byte, value any) (out []byte) {
	defer func() {
		if recover() != nil { // the method of a nil pointer, most likely
			out = append(line, "PANIC"...)
		}
	}()
	switch v := value.(type) {
	case string:
		return strconv.AppendQuote(line, v)
	case int:
		return strconv.AppendInt(line, int64(v), 10)
	case uint64:
		return strconv.AppendUint(line, v, 10)
	case error:
		return strconv.AppendQuote(line, v.Error())
	case interface{ String() string }:
		return strconv.AppendQuote(line, v.String())
	}
	return append(line, '?')
}

// news has goroutines wait for a change of what a lock guards: a [sync.Cond]
// that knows contexts. The zero value is ready, and both methods are called
// with the lock held.
type news chan struct{}

// wait lets go of the lock until there is news, or ctx ends.
func (n *news) wait(ctx context.Context, lock sync.Locker) error {
	if *n == nil {
		*n = make(news)
	}
	told := *n
	lock.Unlock()
	defer lock.Lock()
	select {
	case <-told:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tell wakes all who wait. It stays out of line, where it mostly does nothing.
//
//go:noinline
func (n *news) tell() {
	if *n != nil {
		close(*n)
		*n = nil
	}
}

// sleep waits for d, or returns false once ctx ends.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// occasionally says yes at most once a second.
type occasionally struct{ last atomic.Int64 }

func (o *occasionally) ok(now time.Time) bool {
	t, last := now.UnixNano(), o.last.Load()
	return (last == 0 || t-last >= int64(time.Second) || t < last) && o.last.CompareAndSwap(last, t)
}

// failure is an error with the package's prefix, what went wrong, and the
// cause for errors.Is and errors.As.
type failure struct {
	text  string
	cause error
}

func (f *failure) Error() string {
	if f.cause == nil {
		return "autobus: " + f.text
	}
	return "autobus: " + f.text + ": " + strings.TrimPrefix(f.cause.Error(), "autobus: ")
}

func (f *failure) Unwrap() error { return f.cause }
