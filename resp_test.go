package autobus

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A respCase is one of testdata/resp.json.
type respCase struct {
	Name, Wire, Expect string
	Want               any
}

const onlySubscribers = "subscriber: "

func respCases(t testing.TB) []respCase {
	t.Helper()
	data, err := os.ReadFile("testdata/resp.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Cases []respCase }
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) < 50 {
		t.Fatalf("only %d cases", len(file.Cases))
	}
	return file.Cases
}

func TestRESPVectors(t *testing.T) {
	for _, c := range respCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			wire := []byte(c.Wire)
			for _, step := range []int{len(wire), 1, 2, 3, 7} {
				testRESPCase(t, c, splitter{wire, step})
			}
			for i := 1; i < len(wire); i++ {
				testRESPCase(t, c, io.MultiReader(bytes.NewReader(wire[:i]), bytes.NewReader(wire[i:])))
			}
		})
	}
}

func testRESPCase(t *testing.T, c respCase, src io.Reader) {
	t.Helper()
	r := newRESPReader(&once{src: src})
	err := readReply(r)
	if err == nil && strings.HasPrefix(c.Name, onlySubscribers) {
		_, err = r.push()
	}
	if c.Expect == "protocol error" {
		var breach respError
		if !errors.As(err, &breach) {
			t.Fatalf("the error is %v, want a breach of the protocol", err)
		}
		if _, again := r.next(); !strings.HasPrefix(c.Name, onlySubscribers) && again != err {
			t.Fatalf("the error isn't final: then came %v", again)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, rest := respTree(r, r.values); len(rest) != 0 || !reflect.DeepEqual(got, c.Want) {
		t.Fatalf("got %v and %v, want %v", got, rest, c.Want)
	}
	if r.begin+r.at != r.end {
		t.Fatal("bytes are left")
	}
}

// splitter gives step bytes a read.
type splitter struct {
	b    []byte
	step int
}

func (s splitter) Read(p []byte) (int, error) { panic("use once") }

// once makes a reader of a splitter, and fails a test that reads on when it
// has all it needs by the end of the input.
type once struct {
	src io.Reader
	at  int
}

func (o *once) Read(p []byte) (int, error) {
	s, ok := o.src.(splitter)
	if !ok {
		return o.src.Read(p)
	}
	if o.at == len(s.b) {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.step)], s.b[o.at:])
	o.at += n
	return n, nil
}

// readReply reads one reply, as a connection does.
func readReply(r *respReader) error {
	for {
		if ok, err := r.next(); ok || err != nil {
			return err
		}
		if err := r.fill(); err != nil {
			return err
		}
	}
}

// respTree renders the first of values as testdata/resp.json does.
func respTree(r *respReader, values []respValue) (tree any, rest []respValue) {
	v, rest := values[0], values[1:]
	text := string(r.text(v))
	elements := func() (all []any) {
		all = []any{}
		for range v.n {
			var e any
			e, rest = respTree(r, rest)
			all = append(all, e)
		}
		return all
	}
	name := map[byte]string{'+': "simple", '-': "error", '!': "error", '$': "bulk", '=': "bulk", '(': "big", ',': "double"}[v.kind]
	switch v.kind {
	case '_':
		return map[string]any{"null": true}, rest
	case ':':
		return map[string]any{"int": strconv.FormatInt(v.n, 10)}, rest
	case '#':
		return map[string]any{"bool": text == "t"}, rest
	case '*', '>', '~':
		name := map[byte]string{'*': "array", '>': "push", '~': "set"}[v.kind]
		return map[string]any{name: elements()}, rest
	case '%':
		pairs := []any{}
		for pair := range slices.Chunk(elements(), 2) {
			pairs = append(pairs, pair)
		}
		return map[string]any{"map": pairs}, rest
	}
	return map[string]any{name: text}, rest
}

// What is just within a limit, and just over it.
func TestRESPLimits(t *testing.T) {
	line := strings.Repeat("a", maxRESPLine-2)
	nested := strings.Repeat("*1\r\n", maxRESPDepth)
	wide := strings.Repeat(":1\r\n", maxRESPElements)
	deep := "*63\r\n" + strings.Repeat("*1024\r\n"+wide, 63)
	for _, test := range []struct {
		name, in, want string
	}{
		{"line", "+" + line + "\r\n", ""},
		{"line too long", "+" + line + "aa\r\n", "a line over 64 KiB"},
		{"line without an end", "+" + line + "aaaaaa", "a line over 64 KiB"},
		{"nested", nested + ":1\r\n", ""},
		{"nested too deep", nested + "*0\r\n", "aggregates nested over 8 deep"},
		{"attribute nested too deep", nested + "|1\r\n", "aggregates nested over 8 deep"},
		{"elements", "*1024\r\n" + wide, ""},
		{"too many elements", "*1025\r\n", "an aggregate's length is over the limit"},
		{"pairs", "%512\r\n" + wide, ""},
		{"too many pairs", "%513\r\n", "an aggregate's length is over the limit"},
		{"values", deep, ""},
		{"too many values", "*65\r\n" + strings.Repeat("*1024\r\n"+wide, 65), "a reply over the limit"},
		{"bulk too long", "$67108865\r\n", "a string's length is over the limit"},
		{"two bulks too long", "*2\r\n$67108864\r\n" + strings.Repeat("a", 64<<20) + "\r\n$67108864\r\n", "a reply over the limit"},
		{"null error", "!-1\r\n", "a bad length of a string"},
		{"null push", ">-1\r\n", "a bad length of an aggregate"},
		{"null map", "%-1\r\n", "a bad length of an aggregate"},
		{"minus zero", "$-0\r\n", "a string's length isn't a number"},
		{"CR LF alone", "\r\n", "not Redis's protocol: no type begins with '\\r'"},
		{"HTTP", "HTTP/1.1 400 Bad Request\r\n", "it speaks HTTP, not Redis's protocol"},
		{"TLS", "\x15\x03\x01\x00\x02\x02\x46", "it speaks TLS: the URL must begin with rediss://"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := readReply(newRESPReader(strings.NewReader(test.in)))
			if got := errorText(err); got != test.want {
				t.Errorf("the error is %q, want %q", got, test.want)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// An attribute may stand before any value, and counts as none.
func TestRESPAttributes(t *testing.T) {
	in := "|1\r\n+a\r\n*1\r\n:1\r\n*2\r\n|0\r\n|1\r\n+b\r\n|1\r\n+c\r\n_\r\n_\r\n:1\r\n:2\r\n+OK\r\n"
	r := newRESPReader(strings.NewReader(in))
	if err := readReply(r); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"array": []any{map[string]any{"int": "1"}, map[string]any{"int": "2"}}}
	if got, rest := respTree(r, r.values); len(rest) != 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if err := readReply(r); err != nil || string(r.text(r.values[0])) != "OK" {
		t.Errorf("then came %v, %v", r.values, err)
	}
}

// A length that is declared takes no memory.
func TestRESPDeclaredLengths(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, in := range []string{"$67108864\r\nabc", "*1024\r\n*1024\r\n*1024\r\n*1024\r\n*1024\r\n", "%512\r\n$67108864\r\n"} {
		if err := readReply(newRESPReader(strings.NewReader(in))); err != io.EOF {
			t.Error(err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 256<<10 {
		t.Errorf("%d bytes allocated", n)
	}
}

// A large reply's memory is given back.
func TestRESPLargeThenSmall(t *testing.T) {
	big := strings.Repeat("x", 8<<20)
	in := "$8388608\r\n" + big + "\r\n+OK\r\n"
	r := newRESPReader(io.MultiReader(strings.NewReader(in), strings.NewReader("+AGAIN\r\n")))
	for _, want := range []string{big, "OK", "AGAIN"} {
		if err := readReply(r); err != nil {
			t.Fatal(err)
		}
		if got := string(r.text(r.values[0])); got != want {
			t.Fatalf("got %d bytes, want %d", len(got), len(want))
		}
	}
	if len(r.buf) > keepRESPBuffer {
		t.Errorf("the buffer still has %d bytes", len(r.buf))
	}
}

func TestRESPPush(t *testing.T) {
	for _, test := range []struct {
		in                        string
		kind                      pushKind
		pattern, channel, payload string
		bad                       bool
	}{
		{in: "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\np\r\n", kind: pushMessage, channel: "c", payload: "p"},
		{in: ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n", kind: pushMessage, channel: "c"},
		{in: ">3\r\n+message\r\n$1\r\nc\r\n$1\r\np\r\n", kind: pushMessage, channel: "c", payload: "p"},
		{in: "*3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$1\r\np\r\n", kind: pushMessage, channel: "c", payload: "p"},
		{in: "*4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$1\r\nc\r\n$1\r\np\r\n", kind: pushPattern, pattern: "c*", channel: "c", payload: "p"},
		{in: "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", kind: pushSubscribe, channel: "c"},
		{in: "*3\r\n$10\r\npsubscribe\r\n$2\r\nc*\r\n:1\r\n", kind: pushSubscribe, channel: "c*"},
		{in: "*3\r\n$10\r\nssubscribe\r\n$1\r\nc\r\n:1\r\n", kind: pushSubscribe, channel: "c"},
		{in: "*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n", kind: pushUnsubscribe, channel: "c"},
		{in: "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n", kind: pushUnsubscribe},
		{in: "*3\r\n$12\r\npunsubscribe\r\n$1\r\nc\r\n:0\r\n", kind: pushUnsubscribe, channel: "c"},
		{in: "*3\r\n$12\r\nsunsubscribe\r\n$1\r\nc\r\n:0\r\n", kind: pushUnsubscribe, channel: "c"},
		{in: "*2\r\n$4\r\npong\r\n$0\r\n\r\n", kind: pushPong},
		{in: "+PONG\r\n", kind: pushPong},
		{in: "-NOPERM no\r\n", kind: pushError, channel: "NOPERM no"},
		{in: "!9\r\nNOPERM no\r\n", kind: pushError, channel: "NOPERM no"},
		{in: ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", kind: pushOther},
		{in: "*2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", bad: true},
		{in: "*0\r\n", bad: true},
		{in: "*-1\r\n", bad: true},
		{in: ":1\r\n", bad: true},
		{in: "$1\r\na\r\n", bad: true},
		{in: "*1\r\n$7\r\nmessage\r\n", bad: true},
		{in: "*1\r\n:7\r\n", bad: true},
		{in: "*2\r\n$7\r\nmessage\r\n$1\r\nc\r\n", bad: true},
		{in: "*4\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\np\r\n$1\r\np\r\n", bad: true},
		{in: "*3\r\n$7\r\nmessage\r\n:1\r\n$1\r\np\r\n", bad: true},
		{in: "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$-1\r\n", bad: true},
		{in: "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n*1\r\n$1\r\np\r\n", bad: true},
		{in: "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n$1\r\n1\r\n", bad: true},
		{in: "*3\r\n$9\r\nsubscribe\r\n$-1\r\n:1\r\n", bad: true},
		{in: "*2\r\n$4\r\npong\r\n:1\r\n", bad: true},
	} {
		r := newRESPReader(strings.NewReader(test.in))
		if err := readReply(r); err != nil {
			t.Fatalf("%q: %v", test.in, err)
		}
		p, err := r.push()
		if (err != nil) != test.bad {
			t.Errorf("%q: the error is %v", test.in, err)
		}
		if err == nil && (p.kind != test.kind || string(p.pattern) != test.pattern || string(p.channel) != test.channel || string(p.payload) != test.payload) {
			t.Errorf("%q: got %d %q %q %q", test.in, p.kind, p.pattern, p.channel, p.payload)
		}
	}
}

func TestRESPWrite(t *testing.T) {
	got := string(appendCommand(nil, "AUTH", "", "a\r\nb"))
	if want := "*3\r\n$4\r\nAUTH\r\n$0\r\n\r\n$4\r\na\r\nb\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	m := Message{"c", []byte("p\r\n")}
	for verb, want := range map[string]string{publishVerb: "PUBLISH", spublishVerb: "SPUBLISH"} {
		got := string(appendPublish(nil, verb, &m))
		if want := string(appendCommand(nil, want, "c", "p\r\n")); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// No message costs an allocation, and none is parsed twice.
func TestRESPAllocations(t *testing.T) {
	wire := strings.Repeat("*3\r\n$7\r\nmessage\r\n$8\r\nautobus:\r\n$15\r\n{\"type\":\"Ping\"}\r\n", 1000)
	src := strings.NewReader(wire)
	r := newRESPReader(src)
	read := func() {
		src.Reset(wire)
		for range 1000 {
			if err := readReply(r); err != nil {
				t.Fatal(err)
			}
			if p, err := r.push(); err != nil || p.kind != pushMessage {
				t.Fatal(p, err)
			}
		}
	}
	read()
	if n := testing.AllocsPerRun(10, read); n > 0 {
		t.Errorf("%v allocations to read 1000 messages", n)
	}
	b := make([]byte, 0, 1024)
	m := Message{"autobus::Ping", []byte(`{"type":"Ping"}`)}
	if n := testing.AllocsPerRun(100, func() { b = appendPublish(b[:0], publishVerb, &m) }); n > 0 {
		t.Errorf("%v allocations to write one", n)
	}
}

// BenchmarkRESP parses what a subscriber and a publisher are told most.
func BenchmarkRESP(b *testing.B) {
	message := string(appendCommand(nil, "message", "autobus::Bench", strings.Repeat("x", 100)))
	for _, c := range []struct{ name, wire string }{{"message", message}, {"count", ":1\r\n"}} {
		b.Run(c.name, func(b *testing.B) {
			const many = 100
			wire := strings.NewReader(strings.Repeat(c.wire, many))
			r := newRESPReader(wire)
			b.ReportAllocs()
			for n := 0; n < b.N; {
				ok, err := r.next()
				if err != nil {
					b.Fatal(err)
				}
				if ok {
					if c.name == "message" {
						if p, err := r.push(); err != nil || p.kind != pushMessage {
							b.Fatal(p, err)
						}
					}
					n++
					continue
				}
				if err := r.fill(); err != nil {
					wire.Seek(0, io.SeekStart)
				}
			}
		})
	}
}
