package autobus

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// What RFC 8259 lacks stands as one of these numbers for encoding/json.
var stand = []struct{ name, number string }{{"NaN", "0e-9001"}, {"Infinity", "0e-9002"}, {"-Infinity", "0e-9003"}}

// reference reads a text as encoding/json does, but for the differences that
// this package documents: NaN, Infinity and -Infinity are numbers, bytes that
// aren't UTF-8 are an error, nesting is bounded at 1000, and numbers have the
// types of [Decoder.Any].
func reference(text string) (v any, ok bool) {
	var b []byte
	depth, deepest := 0, 0
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '"': // the whole string, up to its quote
			start := i
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			i = min(i+1, len(text))
			b = append(b, text[start:i]...)
			continue
		case c == '[' || c == '{':
			depth++
			deepest = max(deepest, depth)
		case c == ']' || c == '}':
			depth--
		}
		found := false
		for _, s := range stand {
			if found = strings.HasPrefix(text[i:], s.name); found {
				b = append(b, " "+s.number+" "...) // no part of a longer number
				i += len(s.name)
				break
			}
		}
		if !found {
			b = append(b, text[i])
			i++
		}
	}
	if deepest > maxDepth || !utf8.ValidString(text) || !json.Valid(b) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, false
	}
	return referenceNumbers(v), true
}

func referenceNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		for _, s := range stand {
			if string(v) == s.number {
				f, _ := strconv.ParseFloat(s.name, 64)
				return f
			}
		}
		if !strings.ContainsAny(string(v), ".eE") {
			if i, err := strconv.ParseInt(string(v), 10, 64); err == nil {
				return i
			}
			if u, err := strconv.ParseUint(string(v), 10, 64); err == nil {
				return u
			}
		}
		f, _ := strconv.ParseFloat(string(v), 64)
		return f
	case []any:
		for i := range v {
			v[i] = referenceNumbers(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = referenceNumbers(v[key])
		}
	}
	return v
}

// checkDecode holds every way to read a text to the reference.
func checkDecode(t *testing.T, data []byte) {
	text := string(data)
	want, ok := reference(text)
	if Valid(data) != ok {
		t.Fatalf("Valid(%q) is %v, want %v", text, !ok, ok)
	}
	got, err := readAny(text)
	if (err == nil) != ok || ok && !same(got, want) {
		t.Fatalf("Any of %q is %v, %v, want %v, %v", text, got, err, want, ok)
	}
	var problem *decodeError
	if err != nil && (!errors.As(err, &problem) || problem.offset < 0 || problem.offset > len(text) || len(err.Error()) > 1000) {
		t.Fatalf("the error of %q is %v", text, err)
	}
	for _, way := range ways {
		r := reader(way.read)
		if err := Unmarshal(data, &r); (err == nil) != ok {
			t.Fatalf("%s of %q: %v, want %v", way.name, text, err, ok)
		}
		f := forgetful(way.read)
		if err := Unmarshal(data, f); (err == nil) != ok {
			t.Fatalf("%s of %q, forgotten: %v, want %v", way.name, text, err, ok)
		}
	}
	raw, err := read(text, (*Decoder).Raw)
	if (err == nil) != ok || ok && string(raw) != strings.Trim(text, " \t\r\n") {
		t.Fatalf("Raw of %q is %q, %v", text, raw, err)
	}
	// As an event.
	object, isObject := want.(map[string]any)
	typ, err := payloadType(text)
	if wantType, _ := object["type"].(string); (err == nil) != isObject || typ != wantType {
		t.Fatalf("the type of %q is %q, %v, want %q", text, typ, err, wantType)
	}
	if isObject {
		delete(object, "type")
		fields := map[string]any{}
		event := eventReader(func(d *Decoder) {
			for key := range d.Fields() {
				fields[key] = d.Any()
			}
		})
		if err := Unmarshal(data, &event); err != nil || !same(fields, object) {
			t.Fatalf("the fields of %q are %v, %v, want %v", text, fields, err, object)
		}
	}
	checkRaw(t, data, typ, object, isObject)
	// By the wrong methods: an error or a value, and never a panic.
	for _, misread := range misreaders {
		v := forgetful(misread)
		if err := Unmarshal(data, v); err == nil && !ok {
			t.Fatalf("%q is taken", text)
		}
	}
	var v reading
	if why, err := decodeEvent("Reading", text, &v); why == handled && (err != nil || typ != "Reading") {
		t.Fatalf("%q is an event: %v", text, err)
	}
}

type eventReader func(*Decoder)

func (*eventReader) Type() string                 { return "T" }
func (f *eventReader) Unmarshal(d *Decoder) error { (*f)(d); return d.Err() }

// checkRaw publishes the text as it stands, and as a part of another event.
func checkRaw(t *testing.T, data []byte, typ string, object map[string]any, isObject bool) {
	if typ != "" && typeProblem(typ) == "" {
		again, err := Marshal(Raw{Name: typ, JSON: data})
		if err == nil {
			got, ok := reference(string(again))
			if fields, _ := got.(map[string]any); !ok || fields["type"] != typ || len(fields) != len(object)+1 {
				t.Fatalf("Raw of %q is %s", data, again)
			}
		} else if !strings.Contains(err.Error(), `"type"`) { // of two types, one may differ
			t.Fatalf("Raw of %q: %v", data, err)
		}
	}
	inside, err := Marshal(writer(func(e *Encoder) { e.Key("a").Raw(data) }))
	if err == nil != (Valid(data) && Valid([]byte(`[`+string(data)+`]`))) {
		t.Fatalf("Raw of %q: %v", data, err)
	}
	if err == nil && !Valid(inside) {
		t.Fatalf("Raw of %q is %s", data, inside)
	}
}

// misreaders read as if a text were what it isn't, and break off.
var misreaders = []func(*Decoder){
	func(d *Decoder) { d.Int() },
	func(d *Decoder) { d.Uint64() },
	func(d *Decoder) { d.Duration() },
	func(d *Decoder) { d.Time() },
	func(d *Decoder) { d.Bytes() },
	func(d *Decoder) { d.Strings() },
	func(d *Decoder) { d.Object(new(deepInts)) },
	func(d *Decoder) { d.Object(new(tree)) },
	func(d *Decoder) {
		for range d.Elems() {
			d.Duration()
		}
	},
	func(d *Decoder) {
		for range d.Fields() {
			for range d.Elems() {
				if d.Int64() == 0 {
					break
				}
			}
		}
	},
	func(d *Decoder) {
		for range d.Fields() {
			if d.Null() || d.Kind() == KindFloat {
				return
			}
			d.Int()
			d.Int()
		}
	},
}

// FuzzDecode holds the Decoder to encoding/json on any text.
func FuzzDecode(f *testing.F) {
	for _, c := range accepted {
		f.Add([]byte(c.text))
	}
	for _, c := range rejected {
		f.Add([]byte(c.text))
	}
	for _, c := range mistakes {
		f.Add([]byte(c.text))
	}
	for _, c := range numbers {
		f.Add([]byte(c.text))
		f.Add([]byte(`{"type":"Reading","id":` + c.text + `}`))
	}
	for _, c := range encoded {
		text, _ := written(c.write)
		f.Add([]byte(text))
	}
	data, _ := Marshal(aReading)
	f.Add(data)
	f.Add([]byte(strings.Repeat("[", 1000) + strings.Repeat("]", 1000)))
	f.Add([]byte(strings.Repeat(`{"a":[`, 501)))
	f.Fuzz(checkDecode)
}

// everything is an event with a field of each kind.
type everything struct {
	Int      int
	Int64    int64
	Uint64   uint64
	Float    float64
	Bool     bool
	String   string
	Strings  []string
	Bytes    []byte
	Time     time.Time
	Duration time.Duration
	Any      any
	Raw      []byte
	Null     bool
	Point    point
	Tree     tree
	Extra    map[string]any // by any name
}

func (everything) Type() string { return "Everything" }

func (v everything) Marshal(e *Encoder) {
	e.Key("int").Int(v.Int).Key("int64").Int64(v.Int64).Key("uint64").Uint64(v.Uint64).Key("float").Float64(v.Float).Key("bool").Bool(v.Bool)
	e.Key("string").String(v.String).Key("strings").Strings(v.Strings).Key("bytes").Bytes(v.Bytes).Key("time").Time(v.Time).Key("duration").Duration(v.Duration)
	e.Key("any").Any(v.Any).Key("raw").Raw(v.Raw).Key("null").Null().Key("point").Object(v.Point).Key("tree").Object(v.Tree)
	for _, key := range slices.Sorted(maps.Keys(v.Extra)) {
		e.Key("x" + key).Any(v.Extra[key])
	}
}

func (v *everything) Unmarshal(d *Decoder) error {
	for key := range d.Fields() {
		switch key {
		case "int":
			v.Int = d.Int()
		case "int64":
			v.Int64 = d.Int64()
		case "uint64":
			v.Uint64 = d.Uint64()
		case "float":
			v.Float = d.Float64()
		case "bool":
			v.Bool = d.Bool()
		case "string":
			v.String = d.String()
		case "strings":
			v.Strings = d.Strings()
		case "bytes":
			v.Bytes = d.Bytes()
		case "time":
			v.Time = d.Time()
		case "duration":
			v.Duration = d.Duration()
		case "any":
			v.Any = d.Any()
		case "raw":
			v.Raw = d.Raw()
		case "null":
			v.Null = d.Null()
		case "point":
			d.Object(&v.Point)
		case "tree":
			d.Object(&v.Tree)
		default:
			if v.Extra == nil {
				v.Extra = map[string]any{}
			}
			v.Extra[key[1:]] = d.Any()
		}
	}
	return nil
}

// random makes a value of the types that [Decoder.Any] returns.
func random(rnd *rand.Rand, s string, depth int) any {
	n := rnd.IntN(9)
	if depth == 0 {
		n = rnd.IntN(7)
	}
	switch n {
	case 0:
		return nil
	case 1:
		return rnd.IntN(2) == 0
	case 2:
		return int64(rnd.Uint64()) >> rnd.IntN(64)
	case 3:
		return rnd.Uint64() | 1<<63
	case 4:
		return math.Float64frombits(rnd.Uint64())
	case 5:
		return float64(rnd.IntN(2e6)-1e6) / math.Pow10(rnd.IntN(6))
	case 6:
		return piece(rnd, s)
	case 7:
		list := make([]any, rnd.IntN(4))
		for i := range list {
			list[i] = random(rnd, s, depth-1)
		}
		return list
	default:
		object := map[string]any{}
		for range rnd.IntN(4) {
			object[piece(rnd, s)] = random(rnd, s, depth-1)
		}
		return object
	}
}

// piece is a part of s as it is written: in UTF-8.
func piece(rnd *rand.Rand, s string) string {
	from := rnd.IntN(len(s) + 1)
	return string([]rune(s[from : from+rnd.IntN(len(s)-from+1)]))
}

// jsonSame reports whether encoding/json read what we wrote.
func jsonSame(got, want any) bool {
	if f, ok := want.(float64); ok {
		number, _ := got.(json.Number)
		back, err := number.Float64()
		return err == nil && same(back, f)
	}
	switch want := want.(type) {
	case int64:
		number, _ := got.(json.Number)
		return string(number) == strconv.FormatInt(want, 10)
	case uint64:
		number, _ := got.(json.Number)
		return string(number) == strconv.FormatUint(want, 10)
	case []any:
		list, _ := got.([]any)
		return slices.EqualFunc(list, want, jsonSame)
	case map[string]any:
		object, _ := got.(map[string]any)
		for key := range want {
			if v, ok := object[key]; !ok || !jsonSame(v, want[key]) {
				return false
			}
		}
		return len(object) == len(want)
	}
	return same(got, want)
}

// checkRoundTrip encodes an event and reads it back, by encoding/json too.
func checkRoundTrip(t *testing.T, i int64, u uint64, f float64, s string, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	valid := string([]rune(s))
	v := everything{Int: int(i), Int64: i, Uint64: u, Float: f, Bool: u%2 == 0, String: s, Strings: []string{s, "", s}, Bytes: []byte(s), Duration: time.Duration(i),
		Time: time.Unix(int64(u%200e9)-60e9, i&0x1fffffff).In(time.FixedZone("", int(seed%86399)-43200)), Any: random(rnd, s, 4), Null: true, Point: point{int(i), int(u)}}
	for range rnd.IntN(3) {
		v.Tree.Kids = append(v.Tree.Kids, tree{Kids: make([]tree, rnd.IntN(2))})
	}
	raw, err := written(func(e *Encoder) { e.Any(v.Any) })
	if err != nil {
		t.Fatal(err)
	}
	v.Raw = []byte(raw)
	v.Extra, _ = random(rnd, s, 2).(map[string]any)

	data, err := Append([]byte("before"), v)
	if err != nil {
		t.Fatal(err)
	}
	data = data[len("before"):]
	if pointed, err := Marshal(&v); err != nil || !bytes.Equal(pointed, data) {
		t.Fatalf("by pointer: %v\n%s\n%s", err, pointed, data)
	}
	if !Valid(data) || !utf8.Valid(data) || bytes.ContainsAny(data, "\n\r\t") {
		t.Fatalf("bad JSON: %q", data)
	}
	if typ, err := payloadType(string(data)); typ != "Everything" || err != nil {
		t.Fatalf("the type of %s is %q, %v", data, typ, err)
	}
	var back everything
	if err := Unmarshal(data, &back); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	if back.Int != v.Int || back.Int64 != i || back.Uint64 != u || !same(back.Float, f) || back.Bool != v.Bool || back.String != valid ||
		!slices.Equal(back.Strings, []string{valid, "", valid}) || !bytes.Equal(back.Bytes, v.Bytes) || !back.Time.Equal(v.Time) || back.Duration != v.Duration ||
		!same(back.Any, v.Any) || !bytes.Equal(back.Raw, v.Raw) || !back.Null || back.Point != v.Point || len(back.Tree.Kids) != len(v.Tree.Kids) {
		t.Fatalf("\ngot  %+v\nwant %+v\ntext %s", back, v, data)
	}
	if len(back.Extra) != len(v.Extra) || len(v.Extra) > 0 && !same(back.Extra, v.Extra) {
		t.Fatalf("extra fields %v, want %v", back.Extra, v.Extra)
	}
	checkText(t, s)

	if want, ok := reference(string(data)); !ok || !same(want.(map[string]any)["any"], v.Any) {
		t.Fatalf("the reference reads %v", want)
	}
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil {
		if !bytes.Contains(data, []byte("NaN")) && !bytes.Contains(data, []byte("Infinity")) {
			t.Fatalf("encoding/json: %v: %s", err, data)
		}
		return
	}
	for key, want := range map[string]any{"type": "Everything", "int64": i, "uint64": u, "float": f, "string": valid, "strings": []any{valid, "", valid}, "any": v.Any,
		"raw": v.Any, "null": nil} {
		if got, ok := fields[key]; !ok || !jsonSame(got, want) {
			t.Fatalf("encoding/json reads %s as %v, want %v: %s", key, got, want, data)
		}
	}
	for key, want := range v.Extra {
		if !jsonSame(fields["x"+key], want) {
			t.Fatalf("encoding/json reads x%q as %v, want %v", key, fields["x"+key], want)
		}
	}
	var std struct {
		Bytes []byte
		Time  time.Time
	}
	if err := json.Unmarshal(data, &std); err != nil || !bytes.Equal(std.Bytes, v.Bytes) || !std.Time.Equal(v.Time) {
		t.Fatalf("encoding/json reads %+v, %v", std, err)
	}
}

// FuzzRoundTrip encodes random events: what is read back is equal, and
// encoding/json reads the same.
func FuzzRoundTrip(f *testing.F) {
	for i, c := range floats {
		f.Add(int64(i), uint64(i), c.v, c.want, uint64(i))
	}
	for i, c := range accepted {
		f.Add(int64(math.MinInt64), uint64(math.MaxUint64), 0.1, c.text, uint64(i))
	}
	for i, c := range encoded {
		text, _ := written(c.write)
		f.Add(int64(math.MaxInt64), uint64(1)<<63, -1e21, text, uint64(i)*1e9)
	}
	for i, s := range []string{"", "\xff\xfe", "\xed\xa0\x80", "café 😀\u2028<>&", "\x00\x1f\"\\/\b\f\n\r\t\x7f"} {
		f.Add(int64(-i), uint64(i), math.Copysign(0, -1), s, uint64(i))
	}
	f.Fuzz(checkRoundTrip)
}
