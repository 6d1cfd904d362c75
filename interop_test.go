package autobus

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// These tests share a bus with other processes: with the real Python autobus,
// and with a second Go process. Every wait is for a line or an event.

// overTransports runs a test over UDP and over Redis.
func overTransports(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("UDP", func(t *testing.T) { test(t, ownURL(t)) })
	t.Run("Redis", func(t *testing.T) { test(t, serverURL(t)) })
}

// Every recorded event crosses from Python to Go and from Go to Python, each
// in its namespace.
func TestInteropWire(t *testing.T) { overTransports(t, testInteropWire) }

func testInteropWire(t *testing.T, url string) {
	cases := wireCases(t)
	python := newPython(t)
	buses := map[string]*goBus{}
	types := map[[2]string]bool{}
	for _, c := range cases {
		if key := [2]string{c.Namespace, c.Type}; !types[key] {
			types[key] = true
			python.subscribe(c.Namespace, c.Type)
		}
		if buses[c.Namespace] == nil {
			buses[c.Namespace] = startBus(t, url, c.Namespace)
		}
	}
	python.start(url)

	for _, c := range cases {
		want := canon(t, string(c.Fields))
		bus := buses[c.Namespace]
		heard := func(sender string) {
			t.Helper()
			name, fields := bus.next()
			if name != c.Type || !reflect.DeepEqual(fields, want) {
				t.Errorf("%s: from %s, Go got %s %.300v, want %s %.300v", c.Name, sender, name, fields, c.Type, want)
			}
			namespace, name, fields := python.next()
			if namespace != c.Namespace || name != c.Type || !reflect.DeepEqual(fields, want) {
				t.Errorf("%s: from %s, Python got %q %s %.300v, want %q %s %.300v", c.Name, sender, namespace, name, fields, c.Namespace, c.Type, want)
			}
		}
		python.publish(c.Namespace, c.Type, c.payload())
		heard("Python")

		event := Raw{Name: c.Type, JSON: []byte(c.payload())}
		if c.Name == "udp exactly 65000 bytes" && strings.HasPrefix(url, "udp:") {
			// Our src and seq take it over the limit.
			if err := bus.Publish(event); !errors.Is(err, ErrTooLarge) {
				t.Errorf("%s: %v", c.Name, err)
			}
			continue
		}
		publish(t, bus.Bus, event)
		heard("Go")
	}
	for _, b := range buses {
		b.nothingElse()
	}
	python.stop()
}

// What leaves in one batch, Python hears event by event: those of before Start
// go out together, padded to one length where that pays.
func TestInteropBatch(t *testing.T) {
	url := ownURL(t)
	python := newPython(t)
	python.subscribe("", "Ping")
	python.start(url)
	b := &Bus{URL: url, Logger: noWarnings{t}}
	texts := make([]string, 100)
	for i := range texts {
		texts[i] = fmt.Sprintf(`{"i":%d,"text":"%s"}`, i, strings.Repeat(`é\"😀 `, i*i%50))
		publish(t, b, Raw{Name: "Ping", JSON: []byte(texts[i])})
	}
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, text := range texts {
		if _, name, fields := python.next(); name != "Ping" || !reflect.DeepEqual(fields, canon(t, text)) {
			t.Fatalf("Python got %s %v, want %s", name, fields, text)
		}
	}
	python.stop()
	if err := b.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// Generated events: every JSON type, each way, a batch at a time.
func TestInteropGenerated(t *testing.T) { overTransports(t, testInteropGenerated) }

func testInteropGenerated(t *testing.T, url string) {
	const events, batch = 500, 20
	types := []string{"Ping", "Tick", "Évt"}
	random := rand.New(rand.NewPCG(1, 2))
	python := newPython(t)
	bus := startBus(t, url, "generated")
	python.subscribe("generated", types...)
	python.start(url)

	type event struct {
		name string
		want any
	}
	var sent []event
	heard := func() {
		t.Helper()
		for _, e := range sent {
			if name, fields := bus.next(); name != e.name || !reflect.DeepEqual(fields, e.want) {
				t.Errorf("Go got %s\n%.600v, want %s\n%.600v", name, fields, e.name, e.want)
			}
			if _, name, fields := python.next(); name != e.name || !reflect.DeepEqual(fields, e.want) {
				t.Errorf("Python got %s\n%.600v, want %s\n%.600v", name, fields, e.name, e.want)
			}
		}
		sent = sent[:0]
	}
	for i := range events {
		name, fields := types[i%len(types)], generateFields(random)
		python.publish("generated", name, fields)
		sent = append(sent, event{name, canon(t, fields)})
		if len(sent) == batch {
			heard()
		}
	}
	heard()
	for i := range events {
		name, fields := types[i%len(types)], generateFields(random)
		want := canon(t, fields)
		var e Event = Raw{Name: name, JSON: []byte(fields)}
		if name == "Ping" {
			// This one by Go values: what Decoder.Any reads, Encoder.Any writes.
			var values anyPing
			if err := Unmarshal([]byte(fields), &values); err != nil {
				t.Fatal(err)
			}
			e, want = values, widened(want)
		}
		publish(t, bus.Bus, e)
		sent = append(sent, event{name, want})
		if len(sent) == batch {
			heard()
		}
	}
	heard()
	bus.nothingElse()
	python.stop()
}

type anyPing struct{ looseEvent }

func (anyPing) Type() string { return "Ping" }

// One event type in many namespaces: each is heard in its own alone.
func TestInteropNamespaces(t *testing.T) { overTransports(t, testInteropNamespaces) }

func testInteropNamespaces(t *testing.T, url string) {
	namespaces := []string{"", "a", "b", "a:b", "A", "a ", "é", "*"}
	python := newPython(t)
	buses := map[string]*goBus{}
	for _, namespace := range namespaces {
		buses[namespace] = startBus(t, url, namespace)
		python.subscribe(namespace, "Ping")
	}
	python.start(url)
	for i, namespace := range namespaces {
		python.publish(namespace, "Ping", fmt.Sprintf(`{"python":%d}`, i))
		publish(t, buses[namespace].Bus, Raw{Name: "Ping", JSON: fmt.Appendf(nil, `{"go":%d}`, i)})
		want := []any{
			map[string]any{"python": pyInt(strconv.Itoa(i))},
			map[string]any{"go": pyInt(strconv.Itoa(i))},
		}
		for range 2 { // in either order
			_, fields := buses[namespace].next()
			if !slices.ContainsFunc(want, func(w any) bool { return reflect.DeepEqual(w, fields) }) {
				t.Errorf("Go in %q got %v", namespace, fields)
			}
			in, _, fields := python.next()
			if in != namespace || !slices.ContainsFunc(want, func(w any) bool { return reflect.DeepEqual(w, fields) }) {
				t.Errorf("Python in %q got %v, sent in %q", in, fields, namespace)
			}
		}
	}
	for _, b := range buses {
		b.nothingElse()
	}
	python.stop()
}

// A Python and two Go processes on one port: what one of them publishes, all
// three get, once.
func TestInteropThreeProcesses(t *testing.T) { overTransports(t, testInteropThreeProcesses) }

func testInteropThreeProcesses(t *testing.T, url string) {
	const rounds = 50
	python, child := newPython(t), newGoPeer(t)
	bus := startBus(t, url, "three")
	for _, p := range []*peer{python, child} {
		p.subscribe("three", "Hello")
		p.start(url)
	}
	for i := range rounds {
		hello := func(from string) string { return fmt.Sprintf(`{"from":%q,"round":%d}`, from, i) }
		python.publish("three", "Hello", hello("python"))
		child.publish("three", "Hello", hello("child"))
		publish(t, bus.Bus, Raw{Name: "Hello", JSON: []byte(hello("parent"))})
		got := map[string][]string{}
		tell := func(who string, fields any) {
			f := fields.(map[string]any)
			got[who] = append(got[who], fmt.Sprint(f["from"], f["round"]))
		}
		for range 3 {
			_, fields := bus.next()
			tell("parent", fields)
			_, _, fields = python.next()
			tell("python", fields)
			_, _, fields = child.next()
			tell("child", fields)
		}
		want := []string{fmt.Sprint("child", i), fmt.Sprint("parent", i), fmt.Sprint("python", i)}
		for who, heard := range got {
			if slices.Sort(heard); !slices.Equal(heard, want) {
				t.Errorf("%s heard %q, want %q", who, heard, want)
			}
		}
	}
	bus.nothingElse()
	python.stop()
	child.stop()
}

// A typed event, whose fields a Python class declares.
func TestInteropTyped(t *testing.T) { overTransports(t, testInteropTyped) }

func testInteropTyped(t *testing.T, url string) {
	python := newPython(t)
	bus := &Bus{URL: url, Namespace: "typed", Logger: noWarnings{t}}
	heard := make(chan everyKind, 1)
	SubscribeOn(bus, func(_ context.Context, r everyKind) error { heard <- r; return nil })
	start(t, bus)
	python.command(`{"do":"subscribe","namespace":"typed","type":"Reading","fields":{"count":"int","ratio":"float",` +
		`"name":"str","fine":"bool","tags":"list[str]","at":"datetime","took":"timedelta","blob":"Base64Bytes",` +
		`"either":"Union[int, float]","more":"dict","none":"Optional[int]"}}`)
	python.start(url)

	sent := everyKind{
		Count: -7, Ratio: 3, Name: "naïve 😀 \x00\"", Fine: true, Tags: []string{"a", "", "é"},
		At: time.Date(2024, 2, 29, 23, 59, 58, 123456000, time.UTC), Took: -1500 * time.Millisecond,
		Blob: []byte{0, 1, 0xFE, 0xFF}, Either: 5.0, More: map[string]any{"x": []any{int64(1), 2.5, nil, true, "z"}},
	}
	publish(t, bus, sent)
	if got := await(t, heard); !reflect.DeepEqual(got, sent) {
		t.Errorf("Go got %+v, want %+v", got, sent)
	}
	line := python.await("event")
	want := `Reading(count=-7, ratio=3.0, name='naïve 😀 \x00"', fine=True, tags=['a', '', 'é'], ` +
		`at=datetime.datetime(2024, 2, 29, 23, 59, 58, 123456, tzinfo=TzInfo(0)), ` +
		`took=datetime.timedelta(days=-1, seconds=86398, microseconds=500000), blob=b'\x00\x01\xfe\xff', ` +
		`either=5.0, more={'x': [1, 2.5, None, True, 'z']}, none=None)`
	if got := line["repr"]; got != want {
		t.Errorf("Python got\n%s, want\n%s", got, want)
	}

	// Python's json writes no datetime, timedelta or bytes, so a Python program
	// sends them as strings and numbers.
	sender := newPython(t)
	sender.subscribe("typed", "Other")
	sender.start(url)
	sender.publish("typed", "Reading", `{"count":-7,"ratio":3,"name":"naïve 😀 \u0000\"","fine":true,"tags":["a","","é"],`+
		`"at":"2024-02-29T23:59:58.123456+00:00","took":-1.5,"blob":"AAH+/w==","either":5.0,`+
		`"more":{"x":[1,2.5,null,true,"z"]},"none":null}`)
	got := await(t, heard)
	if !got.At.Equal(sent.At) {
		t.Errorf("Go got At %v, want %v", got.At, sent.At)
	}
	if got.At = sent.At; !reflect.DeepEqual(got, sent) {
		t.Errorf("Go got %+v, want %+v", got, sent)
	}
	if got := python.await("event")["repr"]; got != want {
		t.Errorf("Python got\n%s, want\n%s", got, want)
	}
	sender.stop()
	python.stop()
}

// everyKind has a field of every kind.
type everyKind struct {
	Count  int
	Ratio  float64
	Name   string
	Fine   bool
	Tags   []string
	At     time.Time
	Took   time.Duration
	Blob   []byte
	Either any
	More   map[string]any
	None   *int
}

func (everyKind) Type() string { return "Reading" }

func (r everyKind) Marshal(e *Encoder) {
	e.Key("count").Int(r.Count)
	e.Key("ratio").Float64(r.Ratio)
	e.Key("name").String(r.Name)
	e.Key("fine").Bool(r.Fine)
	e.Key("tags").Strings(r.Tags)
	e.Key("at").Time(r.At)
	e.Key("took").Duration(r.Took)
	e.Key("blob").Bytes(r.Blob)
	e.Key("either").Any(r.Either)
	e.Key("more").Any(r.More)
	if e.Key("none"); r.None == nil {
		e.Null()
	} else {
		e.Int(*r.None)
	}
}

func (r *everyKind) Unmarshal(d *Decoder) error {
	for key := range d.Fields() {
		switch key {
		case "count":
			r.Count = d.Int()
		case "ratio":
			r.Ratio = d.Float64()
		case "name":
			r.Name = d.String()
		case "fine":
			r.Fine = d.Bool()
		case "tags":
			r.Tags = d.Strings()
		case "at":
			r.At = d.Time()
		case "took":
			r.Took = d.Duration()
		case "blob":
			r.Blob = d.Bytes()
		case "either":
			r.Either = d.Any()
		case "more":
			r.More, _ = d.Any().(map[string]any)
		case "none":
			if r.None = nil; !d.Null() {
				n := d.Int()
				r.None = &n
			}
		}
	}
	return d.Err()
}

// A goBus is a bus in this process that hears all of its namespace.
type goBus struct {
	*Bus
	t     *testing.T
	heard chan Raw
}

func startBus(t *testing.T, url, namespace string) *goBus {
	t.Helper()
	b := &goBus{&Bus{URL: url, Namespace: namespace, Logger: noWarnings{t}}, t, make(chan Raw, 256)}
	b.SubscribeRaw("*", func(_ context.Context, r Raw) error { b.heard <- r; return nil })
	start(t, b.Bus)
	return b
}

// next returns the next event's type and its fields, as canon has them.
func (b *goBus) next() (name string, fields any) {
	b.t.Helper()
	event := await(b.t, b.heard)
	all := canon(b.t, string(event.JSON)).(map[string]any)
	if all["type"] != event.Name {
		b.t.Errorf("type %v came as %s", all["type"], event.Name)
	}
	delete(all, "type")
	return event.Name, all
}

// nothingElse checks that b has heard all and nothing more: it publishes an
// event, and nothing comes before that.
func (b *goBus) nothingElse() {
	b.t.Helper()
	publish(b.t, b.Bus, Raw{Name: "Last"})
	if name, fields := b.next(); name != "Last" {
		b.t.Errorf("heard %s %v as well", name, fields)
	}
	if s := b.Stats(); s.Lost+s.Unsent+s.Failed+s.DroppedMalformed+s.DroppedType+s.DroppedOversized+s.DroppedOverflow > 0 {
		b.t.Errorf("the bus dropped something: %+v", s)
	}
}

// noWarnings fails the test on a warning.
type noWarnings struct{ t *testing.T }

func (l noWarnings) Debug(msg string, args ...any) {}
func (l noWarnings) Info(msg string, args ...any)  {}
func (l noWarnings) Warn(msg string, args ...any)  { l.t.Error(append([]any{msg}, args...)...) }
func (l noWarnings) Error(msg string, args ...any) { l.t.Error(append([]any{msg}, args...)...) }

// A peer is another process on the bus. testdata/peer.py tells what it reads
// and writes.
type peer struct {
	t     *testing.T
	stdin io.WriteCloser
	lines chan string      // from the process; closed at its end
	seen  []map[string]any // lines that came while another was awaited
	wait  func() error     // for the end of the process
}

func newPython(t *testing.T) *peer {
	t.Helper()
	python := os.Getenv("AUTOBUS_PYTHON")
	if python == "" {
		missing(t, "AUTOBUS_PYTHON names no Python with autobus 1.0.0; script/test installs one")
	}
	return newPeer(t, exec.Command(python, "testdata/peer.py"))
}

// newGoPeer runs this test binary once more, as runGoPeer.
func newGoPeer(t *testing.T) *peer {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		missing(t, err.Error())
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "AUTOBUS_TEST_ROLE=peer")
	return newPeer(t, cmd)
}

func newPeer(t *testing.T, cmd *exec.Cmd) *peer {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, stdin: stdin, lines: make(chan string, 1024)}
	go func() {
		defer close(p.lines)
		for r := bufio.NewReader(stdout); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			p.lines <- line
		}
	}()
	p.wait = sync.OnceValue(func() error {
		p.stdin.Close() // which ends the process
		var rest error
		for line := range p.lines {
			rest = errors.Join(rest, errors.New(line))
		}
		err := errors.Join(cmd.Wait(), rest)
		if stderr.Len() > 0 {
			err = errors.Join(err, errors.New(stderr.String()))
		}
		return err
	})
	t.Cleanup(func() {
		cmd.Process.Kill() // no-op after stop
		if err := p.wait(); t.Failed() {
			t.Log("the peer ended: ", err)
		}
	})
	return p
}

func (p *peer) command(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		p.t.Fatal(err, p.wait())
	}
}

func (p *peer) subscribe(namespace string, types ...string) {
	p.t.Helper()
	for _, name := range types {
		p.command(fmt.Sprintf(`{"do":"subscribe","namespace":%s,"type":%s}`, quote(namespace), quote(name)))
	}
}

func (p *peer) start(url string) {
	p.t.Helper()
	p.command(fmt.Sprintf(`{"do":"start","url":%s}`, quote(url)))
	p.await("started")
}

// publish has the peer publish an event; a "type" among its fields is left out.
func (p *peer) publish(namespace, name, fields string) {
	p.t.Helper()
	p.command(fmt.Sprintf(`{"do":"publish","namespace":%s,"type":%s,"fields":%s}`, quote(namespace), quote(name), fields))
}

// stop ends the peer, and checks that it heard nothing else and had no trouble.
func (p *peer) stop() {
	p.t.Helper()
	p.command(`{"do":"stop"}`)
	p.await("stopped")
	for _, line := range p.seen {
		p.t.Errorf("the peer said %.600v", line)
	}
	if err := p.wait(); err != nil {
		p.t.Errorf("the peer: %v", err)
	}
}

// next returns the next event that the peer hears.
func (p *peer) next() (namespace, name string, fields any) {
	p.t.Helper()
	line := p.await("event")
	return line["namespace"].(string), line["type"].(string), line["fields"]
}

// await returns the next line of a kind.
func (p *peer) await(kind string) map[string]any {
	p.t.Helper()
	for i, line := range p.seen {
		if line["is"] == kind {
			p.seen = slices.Delete(p.seen, i, i+1)
			return line
		}
	}
	for timeout := time.After(patience); ; {
		select {
		case text, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("the peer ended: %v; it said %.600v", p.wait(), p.seen)
			}
			line := canon(p.t, text).(map[string]any)
			if line["is"] == kind {
				return line
			}
			p.seen = append(p.seen, line)
		case <-timeout:
			p.t.Fatalf("no %s from the peer, it said %.600v", kind, p.seen)
		}
	}
}

func init() { roles["peer"] = runGoPeer }

// runGoPeer is testdata/peer.py in Go, for one namespace. It has one command
// more: {"do": "stats"}.
func runGoPeer() int {
	bus := new(Bus)
	lines := make(chan string) // one writer at a time
	go func() {
		for line := range lines {
			fmt.Println(line)
		}
	}()
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	for in := bufio.NewReader(os.Stdin); ; {
		text, err := in.ReadString('\n')
		if err != nil {
			return 0
		}
		var command struct {
			Do, Namespace, Type, URL string
			Fields                   json.RawMessage
		}
		must(json.Unmarshal([]byte(text), &command))
		switch command.Do {
		case "subscribe":
			bus.Namespace = command.Namespace
			bus.SubscribeRaw(command.Type, func(_ context.Context, r Raw) error {
				lines <- fmt.Sprintf(`{"is":"event","namespace":%s,"type":%s,"fields":%s}`, quote(bus.Namespace), quote(r.Name), r.JSON)
				return nil
			})
		case "start":
			bus.URL = command.URL
			must(bus.Start(context.Background()))
			lines <- `{"is":"started"}`
		case "publish":
			must(bus.Publish(Raw{Name: command.Type, JSON: command.Fields}))
		case "stats":
			text, err := json.Marshal(bus.Stats())
			must(err)
			lines <- `{"is":"stats","stats":` + string(text) + `}`
		case "stop":
			must(bus.Stop(context.Background()))
			lines <- `{"is":"stopped"}`
		}
	}
}

func quote(s string) string {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(quoted)
}

// generateFields returns the JSON of an event's fields.
func generateFields(r *rand.Rand) string {
	return generateObject(r, 1+r.IntN(6), 4)
}

func generateObject(r *rand.Rand, size, depth int) string {
	var b strings.Builder
	names := map[string]bool{"type": true}
	b.WriteByte('{')
	for range size {
		text := generateString(r)
		name := canonString(text)
		if names[name] || strings.Contains(name, "\uFFFD") {
			continue // pydantic refuses half a pair in a field's name
		}
		if names[name] = true; len(names) > 2 {
			b.WriteByte(',')
		}
		b.WriteString(text + ":" + generateValue(r, depth-1))
	}
	b.WriteByte('}')
	return b.String()
}

func generateValue(r *rand.Rand, depth int) string {
	kind := r.IntN(12)
	if depth == 0 {
		kind = r.IntN(9)
	}
	switch kind {
	case 0:
		return "null"
	case 1:
		return strconv.FormatBool(r.IntN(2) == 0)
	case 2:
		return strconv.Itoa(r.IntN(2000) - 1000)
	case 3: // near the ends of what 32, 53, 63 and 64 bits hold
		edge := new(big.Int).Lsh(big.NewInt(1), []uint{31, 32, 53, 63, 64}[r.IntN(5)])
		edge.Add(edge, big.NewInt(int64(r.IntN(5)-2)))
		if r.IntN(2) == 0 {
			edge.Neg(edge)
		}
		return edge.String()
	case 4: // as long as anyone's
		digits := "-"[r.IntN(2):] + strconv.Itoa(1+r.IntN(9))
		for range r.IntN(80) {
			digits += strconv.Itoa(r.IntN(10))
		}
		return digits
	case 5:
		return []string{"NaN", "Infinity", "-Infinity", "-0.0", "0.0", "1e400", "-0", "5e-324", "1.7976931348623157e308", "1E+2"}[r.IntN(10)]
	case 6:
		f := math.Float64frombits(r.Uint64())
		if math.IsNaN(f) || math.IsInf(f, 0) {
			f = r.NormFloat64()
		}
		return strconv.FormatFloat(f, 'e', -1, 64)
	case 7, 8:
		return generateString(r)
	case 9:
		return generateObject(r, r.IntN(4), depth)
	}
	var b strings.Builder
	b.WriteByte('[')
	for i := range r.IntN(5) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(generateValue(r, depth-1))
	}
	b.WriteByte(']')
	return b.String()
}

// generateString returns a JSON string, its characters now as they are, now
// escaped, now half of a pair.
func generateString(r *rand.Rand) string {
	const plain = "aZ09 _-.$/éß€日本한Ελעבع\u2028\uFEFF\uFFFD\uFFFF\x7f\u0301😀🎉👍🏽\U00010000\U0010FFFF"
	chars := []rune(plain)
	escaped := []string{`\"`, `\\`, `\/`, `\b`, `\f`, `\n`, `\r`, `\t`, `\u0000`, `\u001F`, `\u00e9`, `\u20AC`, `\ud83d\ude00`, `\uDBFF\uDFFF`, `\ud83d`, `\udfff`}
	var b strings.Builder
	b.WriteByte('"')
	for range r.IntN(20) {
		if r.IntN(3) == 0 {
			b.WriteString(escaped[r.IntN(len(escaped))])
		} else {
			b.WriteRune(chars[r.IntN(len(chars))])
		}
	}
	b.WriteByte('"')
	return b.String()
}

// canonString returns what a JSON string stands for.
func canonString(text string) string {
	var s string
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		panic(err)
	}
	return s
}
