package autobus

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// reading is the event of the benchmarks: five fields, one of each common
// kind. The tags are for encoding/json.
type reading struct {
	ID    int      `json:"id"`
	Name  string   `json:"name"`
	On    bool     `json:"on"`
	Value float64  `json:"value"`
	Tags  []string `json:"tags"`
}

func (reading) Type() string { return "Reading" }

func (r reading) Marshal(e *Encoder) {
	e.Key("id").Int(r.ID)
	e.Key("name").String(r.Name)
	e.Key("on").Bool(r.On)
	e.Key("value").Float64(r.Value)
	e.Key("tags").Strings(r.Tags)
}

func (r *reading) Unmarshal(d *Decoder) error {
	for key := range d.Fields() {
		switch key {
		case "id":
			r.ID = d.Int()
		case "name":
			r.Name = d.String()
		case "on":
			r.On = d.Bool()
		case "value":
			r.Value = d.Float64()
		case "tags":
			r.Tags = d.Strings()
		}
	}
	return d.Err()
}

var aReading = &reading{ID: 1234567, Name: "boiler room", On: true, Value: 21.375, Tags: []string{"north", "cellar", "hot"}}

// BenchmarkEncode encodes the same struct both ways; ours writes the type too.
func BenchmarkEncode(b *testing.B) {
	b.Run("autobus", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			buf, _ = Append(buf[:0], aReading)
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			json.Marshal(aReading)
		}
	})
}

// BenchmarkDecode decodes the same text both ways.
func BenchmarkDecode(b *testing.B) {
	data, _ := Marshal(aReading)
	b.Run("autobus", func(b *testing.B) {
		b.ReportAllocs()
		var v reading
		for b.Loop() {
			if err := Unmarshal(data, &v); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.ReportAllocs()
		var v reading
		for b.Loop() {
			if err := json.Unmarshal(data, &v); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkStrings is about text as Python sends it, all escapes, and as we do.
func BenchmarkStrings(b *testing.B) {
	for _, c := range []struct{ name, text string }{
		{"ascii", strings.Repeat("the boiler is hot again. ", 20)},
		{"utf8", strings.Repeat("котёл снова горячий 🔥 ", 20)},
		{"escapes", strings.Repeat("котёл снова горячий 🔥 ", 20)},
	} {
		quoted := string(appendQuoted(nil, c.text))
		if c.name == "escapes" {
			quoted = asciiJSON(quoted)
		}
		b.Run("decode/"+c.name, func(b *testing.B) {
			b.SetBytes(int64(len(quoted)))
			b.ReportAllocs()
			data := []byte(quoted)
			read := reader(func(d *Decoder) { _ = d.String() })
			for b.Loop() {
				if err := Unmarshal(data, &read); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("encode/"+c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.text)))
			var buf []byte
			for b.Loop() {
				buf = appendQuoted(buf[:0], c.text)
			}
		})
	}
}

// asciiJSON escapes what isn't ASCII, as Python's json.dumps does.
func asciiJSON(text string) string {
	var b []byte
	for _, r := range text {
		switch {
		case r < 0x80:
			b = append(b, byte(r))
		case r < 0x10000:
			b = append(b, `\u`+strconv.FormatInt(0x10000+int64(r), 16)[1:]...)
		default:
			r -= 0x10000
			b = append(b, `\u`+strconv.FormatInt(0xd800+int64(r>>10), 16)+`\u`+strconv.FormatInt(0xdc00+int64(r&0x3ff), 16)...)
		}
	}
	return string(b)
}

// reader is an Unmarshaler, writer an event of type "T", for tests of a call.
type reader func(*Decoder)

func (f *reader) Unmarshal(d *Decoder) error { (*f)(d); return d.Err() }

type writer func(*Encoder)

func (writer) Type() string         { return "T" }
func (f writer) Marshal(e *Encoder) { f(e) }

// read reads a whole text.
func read[T any](text string, f func(*Decoder) T) (v T, err error) {
	r := reader(func(d *Decoder) { v = f(d) })
	err = Unmarshal([]byte(text), &r)
	return v, err
}

// written returns the text of the value that f writes.
func written(f func(*Encoder)) (string, error) {
	data, err := Marshal(writer(func(e *Encoder) { e.Key("v"); f(e) }))
	text, ok := strings.CutPrefix(string(data), `{"type":"T","v":`)
	if err == nil && (!ok || text[len(text)-1] != '}') {
		return "", errors.New("the test got " + string(data))
	}
	return strings.TrimSuffix(text, "}"), err
}

func readAny(text string) (any, error) { return read(text, (*Decoder).Any) }

// same is reflect.DeepEqual, but has NaN equal itself and -0 unequal to 0.
func same(a, b any) bool {
	switch a := a.(type) {
	case float64:
		b, ok := b.(float64)
		return ok && (math.Float64bits(a) == math.Float64bits(b) || a != a && b != b)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, same)
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, same)
	}
	return reflect.DeepEqual(a, b)
}

// wantError checks that err has text in it, or is nil if text is empty.
func wantError(t *testing.T, err error, text string) {
	t.Helper()
	switch {
	case err == nil && text != "":
		t.Errorf("no error, want %q", text)
	case err != nil && (text == "" || !strings.Contains(err.Error(), text)):
		t.Errorf("error %q, want %q", err, text)
	case err != nil && (!strings.HasPrefix(err.Error(), "autobus: ") || strings.Count(err.Error(), "autobus: ") > 1):
		t.Errorf("error %q, want the prefix autobus: once", err)
	}
}

type point struct{ X, Y int }

func (p point) Marshal(e *Encoder) { e.Key("x").Int(p.X).Key("y").Int(p.Y) }

func (p *point) Unmarshal(d *Decoder) error {
	for key := range d.Fields() {
		switch key {
		case "x":
			p.X = d.Int()
		case "y":
			p.Y = d.Int()
		}
	}
	return d.Err()
}

// encoded has a text for each thing that an Encoder writes.
var encoded = []struct {
	name  string
	write func(*Encoder)
	want  string
}{
	{"Null", func(e *Encoder) { e.Null() }, `null`},
	{"Bool true", func(e *Encoder) { e.Bool(true) }, `true`},
	{"Bool false", func(e *Encoder) { e.Bool(false) }, `false`},
	{"Int", func(e *Encoder) { e.Int(-7) }, `-7`},
	{"Int64 min", func(e *Encoder) { e.Int64(math.MinInt64) }, `-9223372036854775808`},
	{"Int64 max", func(e *Encoder) { e.Int64(math.MaxInt64) }, `9223372036854775807`},
	{"Uint64 max", func(e *Encoder) { e.Uint64(math.MaxUint64) }, `18446744073709551615`},
	{"String", func(e *Encoder) { e.String("héllo") }, `"héllo"`},
	{"String empty", func(e *Encoder) { e.String("") }, `""`},
	{"String escapes", func(e *Encoder) { e.String("\"\\/\b\f\n\r\t\x00\x1f\x7f<>&\u2028") }, `"\"\\/\b\f\n\r\t\u0000\u001f` + "\x7f<>&\u2028" + `"`},
	{"String emoji", func(e *Encoder) { e.String("🔥") }, `"🔥"`},
	{"String not UTF-8", func(e *Encoder) { e.String("a\xff\xfe\"\xc0") }, `"a` + "\ufffd\ufffd" + `\"` + "\ufffd" + `"`},
	{"String surrogate half", func(e *Encoder) { e.String("\xed\xa0\x80") }, `"` + "\ufffd\ufffd\ufffd" + `"`},
	{"String U+FFFD", func(e *Encoder) { e.String("\ufffd") }, `"` + "\ufffd" + `"`},
	{"Strings", func(e *Encoder) { e.Strings([]string{"a", "", "b\n"}) }, `["a","","b\n"]`},
	{"Strings nil", func(e *Encoder) { e.Strings(nil) }, `[]`},
	{"Bytes", func(e *Encoder) { e.Bytes([]byte("\xff\xfe\xfd\xfc")) }, `"//79/A=="`},
	{"Bytes nil", func(e *Encoder) { e.Bytes(nil) }, `""`},
	{"Time UTC", func(e *Encoder) { e.Time(time.Date(2024, 2, 29, 23, 59, 59, 1, time.UTC)) }, `"2024-02-29T23:59:59.000000001Z"`},
	{"Time zone", func(e *Encoder) { e.Time(time.Date(2024, 1, 2, 3, 4, 5, 0, time.FixedZone("", -5400))) }, `"2024-01-02T03:04:05-01:30"`},
	{"Time zone with seconds", func(e *Encoder) { e.Time(time.Date(1900, 1, 1, 0, 19, 32, 0, time.FixedZone("LMT", 1172))) }, `"1900-01-01T00:00:00Z"`},
	{"Time zero", func(e *Encoder) { e.Time(time.Time{}) }, `"0001-01-01T00:00:00Z"`},
	{"Duration zero", func(e *Encoder) { e.Duration(0) }, `0.0`},
	{"Duration", func(e *Encoder) { e.Duration(1500 * time.Millisecond) }, `1.5`},
	{"Duration whole", func(e *Encoder) { e.Duration(-100 * time.Second) }, `-100.0`},
	{"Duration small", func(e *Encoder) { e.Duration(1) }, `0.000000001`},
	{"Duration zeros", func(e *Encoder) { e.Duration(-60*time.Second - 10*time.Millisecond) }, `-60.01`},
	{"Duration min", func(e *Encoder) { e.Duration(math.MinInt64) }, `-9223372036.854775808`},
	{"Duration max", func(e *Encoder) { e.Duration(math.MaxInt64) }, `9223372036.854775807`},
	{"Raw", func(e *Encoder) { e.Raw([]byte(" {\"a\" : [1, NaN]}\n")) }, `{"a" : [1, NaN]}`},
	{"Object", func(e *Encoder) { e.Object(point{1, 2}) }, `{"x":1,"y":2}`},
	{"Object nil", func(e *Encoder) { e.Object(nil) }, `null`},
	{"Object with a type", func(e *Encoder) { e.Object(writer(func(e *Encoder) { e.Key("type").String("free here") })) }, `{"type":"free here"}`},
	{"BeginArray empty", func(e *Encoder) { e.BeginArray().EndArray() }, `[]`},
	{"BeginObject empty", func(e *Encoder) { e.BeginObject().EndObject() }, `{}`},
	{"nested", func(e *Encoder) {
		e.BeginArray().Int(1).BeginObject().Key("a").BeginArray().EndArray().Key("b").Null().EndObject().BeginArray().String("[").String("{").EndArray().Bool(true).EndArray()
	}, `[1,{"a":[],"b":null},["[","{"],true]`},
	{"Key escapes", func(e *Encoder) { e.BeginObject().Key("a\"\n\xff").Int(1).Key("").Int(2).EndObject() }, `{"a\"\n` + "\ufffd" + `":1,"":2}`},
	{"Any", func(e *Encoder) {
		e.Any([]any{nil, true, int(-1), int8(-8), int16(-16), int32(-32), int64(-64), uint(1), uint8(8), uint16(16), uint32(32), uint64(64),
			float32(0.5), 2.0, "s", []any{}, map[string]any{"b": 1, "a": []any{2}, "c": map[string]any{}}, point{3, 4}})
	}, `[null,true,-1,-8,-16,-32,-64,1,8,16,32,64,0.5,2.0,"s",[],{"a":[2],"b":1,"c":{}},{"x":3,"y":4}]`},
	{"Any nil slice and map", func(e *Encoder) { e.Any([]any{[]any(nil), map[string]any(nil)}) }, `[[],{}]`},
}

func TestEncoder(t *testing.T) {
	for _, c := range encoded {
		t.Run(c.name, func(t *testing.T) {
			got, err := written(c.write)
			wantError(t, err, "")
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if !Valid([]byte(got)) {
				t.Errorf("%s isn't valid", got)
			}
		})
	}
}

// plainFloat is how floats are written, in the plainest way.
func plainFloat(v float64) string {
	switch {
	case math.IsNaN(v):
		return "NaN"
	case math.IsInf(v, 0):
		return strings.TrimPrefix(strconv.FormatFloat(v, 'f', -1, 64), "+") + "inity"
	case v != 0 && (math.Abs(v) < 1e-6 || math.Abs(v) >= 1e21):
		return strconv.FormatFloat(v, 'e', -1, 64)
	}
	text := strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

var floats = []struct {
	v    float64
	want string
}{
	{0, "0.0"}, {math.Copysign(0, -1), "-0.0"}, {1, "1.0"}, {-1, "-1.0"}, {0.1, "0.1"}, {-21.375, "-21.375"}, {1e20, "100000000000000000000.0"},
	{1e21, "1e+21"}, {-1e21, "-1e+21"}, {1e-6, "0.000001"}, {9.99e-7, "9.99e-07"}, {1e-7, "1e-07"}, {0.30000000000000004, "0.30000000000000004"},
	{999999999.999999, "999999999.999999"}, {1e9, "1000000000.0"}, {1e9 + 0.5, "1000000000.5"}, {999999999.9999999, "999999999.9999999"},
	{1 << 53, "9007199254740992.0"}, {1e15, "1000000000000000.0"}, {0.000001234567, "0.000001234567"}, {100.000001, "100.000001"}, {0.0625, "0.0625"},
	{math.MaxFloat64, "1.7976931348623157e+308"}, {math.SmallestNonzeroFloat64, "5e-324"}, {math.Pi, "3.141592653589793"},
	{math.NaN(), "NaN"}, {math.Inf(1), "Infinity"}, {math.Inf(-1), "-Infinity"},
}

func TestFloatText(t *testing.T) {
	check := func(v float64) {
		t.Helper()
		got := string(appendFloat(nil, v))
		if want := plainFloat(v); got != want {
			t.Fatalf("%x is written %s, want %s", v, got, want)
		}
		back, err := read(got, (*Decoder).Float64)
		if err != nil || !same(back, v) {
			t.Fatalf("%s reads back as %v, %v", got, back, err)
		}
		if kind, _ := read(got, (*Decoder).kindAndSkip); kind != KindFloat {
			t.Fatalf("%s is %v", got, kind)
		}
	}
	for _, c := range floats {
		check(c.v)
		if got := string(appendFloat(nil, c.v)); got != c.want {
			t.Errorf("%x is written %s, want %s", c.v, got, c.want)
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50_000 {
		check(math.Float64frombits(rnd.Uint64()))
		decimal := float64(rnd.Int64N(1e16)-5e15) / math.Pow10(rnd.IntN(20))
		check(decimal)
		check(math.Nextafter(decimal, math.Inf(1)))
		check(math.Nextafter(decimal, math.Inf(-1)))
		check(rnd.NormFloat64() * 1e6)
		check(float64(rnd.IntN(2e6)-1e6) / 1000)
	}
}

func TestIntegerText(t *testing.T) {
	check := func(n uint64) {
		t.Helper()
		if got, want := string(appendUint([]byte("x"), n)), "x"+strconv.FormatUint(n, 10); got != want {
			t.Fatalf("%d is written %s", n, got)
		}
		if got, want := string(appendInt([]byte("x"), int64(n))), "x"+strconv.FormatInt(int64(n), 10); got != want {
			t.Fatalf("%d is written %s", int64(n), got)
		}
	}
	for n := range uint64(100_000) { // each group of four digits
		check(n)
		check(n * 10_000)
		check(n * 100_000_000)
	}
	for power := uint64(1); power < 1e19; power *= 10 {
		check(power*10 - 1)
		check(power * 10)
		check(-power)
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 100_000 {
		check(rnd.Uint64() >> rnd.IntN(64))
	}
}

func (d *Decoder) kindAndSkip() Kind { k := d.Kind(); d.Skip(); return k }

// encoderErrors has every error that an Encoder makes.
var encoderErrors = []struct {
	name  string
	write func(*Encoder)
	want  string
}{
	{"value without a key", func(e *Encoder) { e.Int(1) }, "autobus: event T: Marshal: a value without a key"},
	{"two values", func(e *Encoder) { e.Key("a").Int(1).Int(2) }, "a value without a key"},
	{"each value without a key: Null", func(e *Encoder) { e.Null() }, "a value without a key"},
	{"each value without a key: Bool", func(e *Encoder) { e.Bool(true) }, "a value without a key"},
	{"each value without a key: Uint64", func(e *Encoder) { e.Uint64(1) }, "a value without a key"},
	{"each value without a key: Float64", func(e *Encoder) { e.Float64(1) }, "a value without a key"},
	{"each value without a key: String", func(e *Encoder) { e.String("") }, "a value without a key"},
	{"each value without a key: Strings", func(e *Encoder) { e.Strings([]string{"a"}) }, "a value without a key"},
	{"each value without a key: Bytes", func(e *Encoder) { e.Bytes(nil) }, "a value without a key"},
	{"each value without a key: Time", func(e *Encoder) { e.Time(time.Time{}) }, "a value without a key"},
	{"each value without a key: Duration", func(e *Encoder) { e.Duration(1) }, "a value without a key"},
	{"each value without a key: Any", func(e *Encoder) { e.Any([]any{1}) }, "a value without a key"},
	{"each value without a key: Raw", func(e *Encoder) { e.Raw([]byte("1")) }, "a value without a key"},
	{"each value without a key: Object", func(e *Encoder) { e.Object(point{}) }, "a value without a key"},
	{"each value without a key: BeginArray", func(e *Encoder) { e.BeginArray() }, "a value without a key"},
	{"each value without a key: BeginObject", func(e *Encoder) { e.BeginObject() }, "a value without a key"},
	{"two keys", func(e *Encoder) { e.Key("a").Key("b") }, `Marshal: Key("b") where the value of "a" belongs`},
	{"key in an array", func(e *Encoder) { e.Key("a").BeginArray().Key("b") }, `Key("b") outside an object`},
	{"key without a value", func(e *Encoder) { e.Key("a") }, `Marshal: the key "a" has no value`},
	{"array left open", func(e *Encoder) { e.Key("a").BeginArray() }, "Marshal: an array or object is left open"},
	{"object left open", func(e *Encoder) { e.Key("a").BeginObject() }, "an array or object is left open"},
	{"inner object left open", func(e *Encoder) { e.Key("a").Object(writer(func(e *Encoder) { e.Key("b").BeginObject() })).EndObject() }, "an array or object is left open"},
	{"array ended as object", func(e *Encoder) { e.Key("a").BeginArray().EndObject() }, "'}' where it ends nothing"},
	{"object ended as array", func(e *Encoder) { e.EndArray() }, "']' where it ends nothing"},
	{"event's object ended", func(e *Encoder) { e.EndObject() }, "'}' where it ends nothing"},
	{"object ended by its Marshal", func(e *Encoder) { e.Key("a").Object(writer(func(e *Encoder) { e.EndObject().Key("b").BeginObject() })) }, "'}' where it ends nothing"},
	{"object ended after its key", func(e *Encoder) { e.Key("a").BeginObject().Key("b").EndObject() }, "Marshal: the key \"b\" has no value"},
	{"type taken", func(e *Encoder) { e.Key("type").Int(1) }, `autobus: event T: field "type" is taken: it carries the event's type`},
	{"type taken, later", func(e *Encoder) { e.Key("a").Object(point{}).Key("type").Int(1) }, `field "type" is taken`},
	{"time too late", func(e *Encoder) { e.Key("a").Time(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)) }, "year outside of range"},
	{"time too early", func(e *Encoder) { e.Key("a").Time(time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)) }, "year outside of range"},
	{"time zone too far", func(e *Encoder) { e.Key("a").Time(time.Date(2000, 1, 1, 0, 0, 0, 0, time.FixedZone("", 86400))) }, "timezone hour outside of range"},
	{"any type", func(e *Encoder) { e.Key("a").Any([]string{}) }, "Marshal: Any takes nil, bool, numbers, string, []any, map[string]any and Marshaler, and was given another type"},
	{"any type, inside", func(e *Encoder) { e.Key("a").Any(map[string]any{"b": []any{struct{}{}}}) }, "was given another type"},
	{"raw empty", func(e *Encoder) { e.Key("a").Raw(nil) }, "Marshal: Raw, at byte 0: the JSON text ends too early"},
	{"raw two values", func(e *Encoder) { e.Key("a").Raw([]byte("1 2")) }, "Marshal: Raw, at byte 2: something follows the JSON value"},
	{"raw injection", func(e *Encoder) { e.Key("a").Raw([]byte(`1,"type":2`)) }, "at byte 1: something follows the JSON value"},
	{"raw bad", func(e *Encoder) { e.Key("a").Raw([]byte(`[1,]`)) }, "at byte 3: want a JSON value"},
	{"raw not UTF-8", func(e *Encoder) { e.Key("a").Raw([]byte("\"\xff\"")) }, "isn't valid UTF-8"},
	{"own error", func(e *Encoder) { e.Fail(errOwn).Key("a").Key("b") }, "autobus: event T: out of milk"},
	{"too deep", func(e *Encoder) { e.Key("a"); nestArrays(e, 1000) }, "Marshal: nested over 1000 deep"},
}

var errOwn = errors.New("out of milk")

func nestArrays(e *Encoder, n int) {
	for range n {
		e.BeginArray()
	}
	for range n {
		e.EndArray()
	}
}

func TestEncoderErrors(t *testing.T) {
	for _, c := range encoderErrors {
		t.Run(c.name, func(t *testing.T) {
			// An error sticks: nothing that follows mends it.
			for _, more := range []func(*Encoder){func(*Encoder) {}, func(e *Encoder) { e.Key("z").Int(1).Fail(errors.New("second")) }} {
				dst := []byte("as it was")
				got, err := Append(dst, writer(func(e *Encoder) {
					if c.write(e); e.err != nil {
						more(e)
					}
				}))
				wantError(t, err, c.want)
				if string(got) != "as it was" {
					t.Errorf("Append returned %q", got)
				}
			}
		})
	}
	_, err := Marshal(writer(func(e *Encoder) { e.Fail(errOwn) }))
	if !errors.Is(err, errOwn) {
		t.Errorf("%v is not its cause", err)
	}
	_, err = Marshal(writer(func(e *Encoder) { e.Fail(nil).Key("a").Int(1) }))
	wantError(t, err, "")
}

type named string

func (n named) Type() string     { return string(n) }
func (named) Marshal(e *Encoder) {}

func TestMarshal(t *testing.T) {
	got, err := Append([]byte("x{"), reading{ID: 1, Tags: []string{"a"}})
	if want := `x{{"type":"Reading","id":1,"name":"","on":false,"value":0.0,"tags":["a"]}`; string(got) != want || err != nil {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if got, err := Marshal(named("é\"\n")); string(got) != `{"type":"é\"\n"}` || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
	for name, want := range map[string]string{
		"":     `autobus: event type "" is empty`,
		"*":    `autobus: event type "*" stands for all types`,
		"a:b":  `autobus: event type "a:b" has a ':', which ends a namespace`,
		"\xff": `autobus: event type "\xff" isn't valid UTF-8`,
	} {
		_, err := Marshal(named(name))
		wantError(t, err, want)
	}
	_, err = Marshal(nil)
	wantError(t, err, "autobus: the event is nil")

	// "type" as a field is an error from Publish, at once.
	err = new(Bus).Publish(writer(func(e *Encoder) { e.Key("type").String("T") }))
	wantError(t, err, `autobus: event T: field "type" is taken`)

	// A Marshal may marshal.
	got, err = Marshal(writer(func(e *Encoder) {
		inner, err := Marshal(reading{})
		e.Fail(err).Key("inner").Raw(inner).Key("b").Int(1)
	}))
	if want := `{"type":"T","inner":{"type":"Reading","id":0,"name":"","on":false,"value":0.0,"tags":[]},"b":1}`; string(got) != want || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
}

// A Marshal that recovers from a panic inside leaves an error, not bad JSON.
func TestEncoderPanicInside(t *testing.T) {
	for _, after := range []func(*Encoder){
		func(e *Encoder) {},
		func(e *Encoder) { e.EndObject() },
		func(e *Encoder) { e.EndArray().EndObject() },
		func(e *Encoder) { e.Int(1).EndArray().EndObject() },
		func(e *Encoder) { e.Int(1).EndArray() },
	} {
		data, err := Marshal(writer(func(e *Encoder) {
			func() {
				defer func() { recover() }()
				e.Key("a").Object(writer(func(e *Encoder) { e.Key("b").BeginArray(); panic("inside") }))
			}()
			after(e)
		}))
		if err == nil && !json.Valid(data) {
			t.Errorf("bad JSON: %s", data)
		}
	}
	got, err := Marshal(reading{})
	if err != nil || !json.Valid(got) {
		t.Errorf("afterwards: %s, %v", got, err)
	}
}

// A walk makes random calls of an Encoder and keeps what the text must be.
type walk struct {
	rnd     *rand.Rand
	want    []byte
	open    []byte // the brackets that are open
	floor   int    // how many of them are not this Marshal's to close
	keyed   bool   // a key waits for its value
	illegal bool   // a call was out of order
	careful bool   // make no mistakes
}

func (w *walk) inArray() bool { return w.open[len(w.open)-1] == '[' }

// value notes a value, and reports whether it may stand here.
func (w *walk) value(text string) bool {
	if w.illegal || !w.inArray() && !w.keyed {
		w.illegal = true
		return false
	}
	if w.inArray() {
		w.comma()
	}
	w.keyed = false
	w.want = append(w.want, text...)
	return true
}

func (w *walk) comma() {
	if c := w.want[len(w.want)-1]; c != '[' && c != '{' {
		w.want = append(w.want, ',')
	}
}

func (w *walk) begin(bracket string) bool {
	if !w.value(bracket) {
		return false
	}
	w.open = append(w.open, bracket[0])
	return true
}

func (w *walk) end(opened, closing byte) {
	if w.illegal || w.keyed || len(w.open) == w.floor || w.open[len(w.open)-1] != opened {
		w.illegal = true
		return
	}
	w.open = w.open[:len(w.open)-1]
	w.want = append(w.want, closing)
}

func jsonText(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(v)
	return strings.TrimSuffix(b.String(), "\n")
}

func (w *walk) text() string {
	s := make([]byte, w.rnd.IntN(20))
	for i := range s {
		s[i] = " \"\\\n\x01az09/{}[],:\x7f"[w.rnd.IntN(17)]
	}
	return string(s)
}

// Marshal is one object's walk.
func (w *walk) Marshal(e *Encoder) {
	floor := w.floor
	w.floor = len(w.open)
	defer func() { w.floor = floor }()
	for range w.rnd.IntN(20) {
		w.step(e)
	}
	if w.careful { // end in good order
		if w.keyed {
			w.value("null")
			e.Null()
		}
		for len(w.open) > w.floor {
			if w.inArray() {
				w.end('[', ']')
				e.EndArray()
			} else {
				w.end('{', '}')
				e.EndObject()
			}
		}
	}
	if len(w.open) != w.floor || w.keyed {
		w.illegal = true
	}
}

func (w *walk) step(e *Encoder) {
	n := w.rnd.IntN(16)
	if w.careful {
		switch {
		case w.inArray() || w.keyed:
			if n < 2 || n == 3 && w.keyed || n == 2 || n == 3 && len(w.open) == w.floor {
				n = 8
			}
		case n == 2 && len(w.open) > w.floor:
		default:
			n = 0
		}
	}
	switch n {
	case 0, 1:
		key := w.text()
		if w.illegal || w.keyed || w.inArray() {
			w.illegal = true
		} else {
			w.comma()
			w.want = append(append(w.want, jsonText(key)...), ':')
			w.keyed = true
		}
		e.Key(key)
	case 2:
		w.end('{', '}')
		e.EndObject()
	case 3:
		w.end('[', ']')
		e.EndArray()
	case 4, 5:
		w.begin("{")
		e.BeginObject()
	case 6, 7:
		w.begin("[")
		e.BeginArray()
	case 8:
		w.value("null")
		e.Null()
	case 9:
		v := w.rnd.IntN(2) == 0
		w.value(strconv.FormatBool(v))
		e.Bool(v)
	case 10:
		v := w.rnd.Int64()
		w.value(jsonText(v))
		e.Int64(v)
	case 11:
		v := w.text()
		w.value(jsonText(v))
		e.String(v)
	case 12:
		v := []string{w.text(), w.text()}[:w.rnd.IntN(3)]
		w.value(jsonText(v))
		e.Strings(v)
	case 13:
		v := map[string]any{w.text(): []any{0.5, nil, w.text()}, w.text(): true}
		w.value(jsonText(v))
		e.Any(v)
	case 14:
		v := jsonText([]any{w.text(), 1})
		w.value(v)
		e.Raw([]byte(v))
	case 15:
		if w.begin("{") {
			e.Object(w)
			w.end('{', '}')
		} else {
			e.Object(w)
		}
	}
}

// TestEncoderWalk makes random calls: the result is the error that they
// deserve, or the JSON text that they say.
func TestEncoderWalk(t *testing.T) {
	good, bad := 0, 0
	for seed := range uint64(20_000) {
		w := &walk{rnd: rand.New(rand.NewPCG(seed, 0)), want: []byte(`{"type":"T"`), open: []byte("{"), careful: seed%2 == 0}
		data, err := Marshal(writer(w.Marshal))
		w.want = append(w.want, '}')
		switch {
		case w.illegal != (err != nil):
			t.Fatalf("seed %d: error %v, want one: %v\ngot  %s\nwant %s", seed, err, w.illegal, data, w.want)
		case err != nil:
			bad++
		case !Valid(data) || !json.Valid(data):
			t.Fatalf("seed %d: bad JSON: %s", seed, data)
		case string(data) != string(w.want):
			t.Fatalf("seed %d:\ngot  %s\nwant %s", seed, data, w.want)
		default:
			good++
		}
	}
	if good < 10_000 || bad < 5_000 {
		t.Errorf("%d good walks and %d bad ones: too few", good, bad)
	}
}

// numbers has what each number is by each method; "" is an error.
var numbers = []struct {
	text                 string
	kind                 Kind
	int64, uint64, float string
	any                  any
}{
	{"0", KindInt, "0", "0", "0", int64(0)},
	{"-0", KindInt, "0", "0", "-0", int64(0)},
	{"-0.0", KindFloat, "0", "0", "-0", math.Copysign(0, -1)},
	{"0.0", KindFloat, "0", "0", "0", 0.0},
	{"7", KindInt, "7", "7", "7", int64(7)},
	{"-7", KindInt, "-7", "", "-7", int64(-7)},
	{"1.0", KindFloat, "1", "1", "1", 1.0},
	{"1e3", KindFloat, "1000", "1000", "1000", 1000.0},
	{"1E+3", KindFloat, "1000", "1000", "1000", 1000.0},
	{"-1.5e1", KindFloat, "-15", "", "-15", -15.0},
	{"1500e-2", KindFloat, "15", "15", "15", 15.0},
	{"1500e-3", KindFloat, "", "", "1.5", 1.5},
	{"1.5", KindFloat, "", "", "1.5", 1.5},
	{"0.1e0", KindFloat, "", "", "0.1", 0.1},
	{"1.0000000000000000001", KindFloat, "", "", "1", 1.0},
	{"9007199254740993.0", KindFloat, "9007199254740993", "9007199254740993", "9007199254740992", 9007199254740992.0},
	{"9223372036854775807", KindInt, "9223372036854775807", "9223372036854775807", "9.223372036854775807e18", int64(math.MaxInt64)},
	{"9223372036854775807.0", KindFloat, "9223372036854775807", "9223372036854775807", "9.223372036854775807e18", 9.223372036854775807e18},
	{"-9223372036854775808", KindInt, "-9223372036854775808", "", "-9.223372036854775808e18", int64(math.MinInt64)},
	{"-9223372036854775808.0", KindFloat, "-9223372036854775808", "", "-9.223372036854775808e18", -9.223372036854775808e18},
	{"9223372036854775808", KindInt, "", "9223372036854775808", "9.223372036854775808e18", uint64(1 << 63)},
	{"-9223372036854775809", KindInt, "", "", "-9.223372036854775809e18", -9.223372036854775809e18},
	{"18446744073709551615", KindInt, "", "18446744073709551615", "18446744073709551615", uint64(math.MaxUint64)},
	{"18446744073709551615.000e0", KindFloat, "", "18446744073709551615", "18446744073709551615", 18446744073709551615.0},
	{"18446744073709551616", KindInt, "", "", "18446744073709551616", 18446744073709551616.0},
	{"-18446744073709551615", KindInt, "", "", "-18446744073709551615", -18446744073709551615.0},
	{"1e19", KindFloat, "", "10000000000000000000", "1e19", 1e19},
	{"1e20", KindFloat, "", "", "1e20", 1e20},
	{"99999999999999999999", KindInt, "", "", "1e20", 1e20},
	{"123456789012345678901234567890", KindInt, "", "", "123456789012345678901234567890", 123456789012345678901234567890.0},
	{"1" + strings.Repeat("0", 400), KindInt, "", "", "+Inf", math.Inf(1)},
	{"1e400", KindFloat, "", "", "+Inf", math.Inf(1)},
	{"-1e400", KindFloat, "", "", "-Inf", math.Inf(-1)},
	{"1e-400", KindFloat, "", "", "0", 0.0},
	{"-1e-400", KindFloat, "", "", "-0", math.Copysign(0, -1)},
	{"0e400", KindFloat, "0", "0", "0", 0.0},
	{"0e99999999999999999999", KindFloat, "0", "0", "0", 0.0},
	{"1e99999999999999999999", KindFloat, "", "", "+Inf", math.Inf(1)},
	{"1e-99999999999999999999", KindFloat, "", "", "0", 0.0},
	{"0.000" + strings.Repeat("0", 400) + "12e406", KindFloat, "120", "120", "120", 120.0},
	{"12" + strings.Repeat("0", 400) + "e-399", KindFloat, "120", "120", "120", 120.0},
	{"NaN", KindFloat, "", "", "NaN", math.NaN()},
	{"Infinity", KindFloat, "", "", "+Inf", math.Inf(1)},
	{"-Infinity", KindFloat, "", "", "-Inf", math.Inf(-1)},
}

func TestNumbers(t *testing.T) {
	for _, c := range numbers {
		t.Run(clip(c.text), func(t *testing.T) {
			text := `[` + c.text + `]`
			inArray := func(f func(d *Decoder)) error {
				_, err := read(text, func(d *Decoder) (none int) {
					for range d.Elems() {
						if kind := d.Kind(); kind != c.kind {
							t.Errorf("%v, want %v", kind, c.kind)
						}
						f(d)
					}
					return
				})
				return err
			}
			check := func(method, want string, read func(d *Decoder) string) {
				t.Helper()
				var got string
				err := inArray(func(d *Decoder) { got = read(d) })
				switch {
				case want == "" && err == nil:
					t.Errorf("%s returned %s, want an error", method, got)
				case want == "" && (got != "0" || !strings.Contains(err.Error(), `field "[0]" at byte 1: `)):
					t.Errorf("%s returned %s, %v, want 0 and an error with path and offset", method, got, err)
				case want != "" && (err != nil || got != want):
					t.Errorf("%s returned %s, %v, want %s", method, got, err, want)
				}
			}
			check("Int64", c.int64, func(d *Decoder) string { return strconv.FormatInt(d.Int64(), 10) })
			check("Uint64", c.uint64, func(d *Decoder) string { return strconv.FormatUint(d.Uint64(), 10) })
			wantInt := c.int64
			if _, err := strconv.Atoi(wantInt); err != nil {
				wantInt = ""
			}
			check("Int", wantInt, func(d *Decoder) string { return strconv.Itoa(d.Int()) })
			f, _ := strconv.ParseFloat(c.float, 64)
			check("Float64", plainFloat(f), func(d *Decoder) string { return plainFloat(d.Float64()) })
			if err := inArray(func(d *Decoder) {
				if got := d.Any(); !same(got, c.any) {
					t.Errorf("Any returned %T %v, want %T %v", got, got, c.any, c.any)
				}
			}); err != nil {
				t.Error(err)
			}
			if err := inArray(func(d *Decoder) {
				if got := d.Raw(); string(got) != c.text {
					t.Errorf("Raw returned %s", got)
				}
			}); err != nil {
				t.Error(err)
			}
			if !Valid([]byte(c.text)) || !Valid([]byte(" "+c.text+"\n")) {
				t.Error("not valid")
			}
		})
	}
	// An int has the platform's range.
	for _, c := range []struct {
		text string
		want int
	}{{strconv.Itoa(math.MaxInt), math.MaxInt}, {strconv.Itoa(math.MinInt), math.MinInt}, {strconv.Itoa(math.MaxInt) + "0", 0}, {strconv.Itoa(math.MinInt) + "0", 0}} {
		got, err := read(c.text, (*Decoder).Int)
		if got != c.want || (err != nil) != (c.want == 0) {
			t.Errorf("Int of %s is %d, %v", c.text, got, err)
		}
		if err != nil {
			wantError(t, err, "doesn't fit in "+cmp.Or(map[bool]string{true: "64 bits"}[strconv.IntSize == 64], "32 bits"))
		}
	}
}

// accepted has texts and their values; the first ones are as Python writes them.
var accepted = []struct {
	text string
	want any
}{
	{`{"id": 7, "name": "caf\u00e9 \ud83d\ude00", "on": true, "value": NaN, "type": "Reading"}`,
		map[string]any{"id": int64(7), "name": "café 😀", "on": true, "value": math.NaN(), "type": "Reading"}},
	{`[Infinity, -Infinity, 1.0, 1e+16, 1e-05]`, []any{math.Inf(1), math.Inf(-1), 1.0, 1e16, 1e-5}},
	{" \t\r\n[ \t\r\n] \t\r\n", []any{}},
	{" {\n} ", map[string]any{}},
	{`null`, nil}, {`true`, true}, {`false`, false}, {`""`, ""},
	{`{"a":1,"a":2}`, map[string]any{"a": int64(2)}},
	{`{"a":{"x":1},"a":{"y":2}}`, map[string]any{"a": map[string]any{"y": int64(2)}}},
	{`{"A":1,"a":2,"":3,"\u0061b":4,"a\\":5}`, map[string]any{"A": int64(1), "a": int64(2), "": int64(3), "ab": int64(4), "a\\": int64(5)}},
	{`"\"\\\/\b\f\n\r\t"`, "\"\\/\b\f\n\r\t"},
	{`"\u0000\u001F\u00e9\u20AC\ud83D\uDE00"`, "\x00\x1fé€😀"},
	{`"\ud800"`, "\ufffd"}, {`"\udc00"`, "\ufffd"}, {`"\ud800x"`, "\ufffdx"}, {`"\ud800\n"`, "\ufffd\n"},
	{`"\ud800\ud800"`, "\ufffd\ufffd"}, {`"\udc00\ud800"`, "\ufffd\ufffd"}, {`"\ud800\ud83d\ude00"`, "\ufffd😀"},
	{`"\ud800\u0041"`, "\ufffdA"}, {`"\ud83d\ude00\ude00"`, "😀\ufffd"}, {`"\ud800\\udc00"`, "\ufffd\\udc00"},
	{"\"\x7f\u0080\ufffd\U0010ffff\u2028\"", "\x7f\u0080\ufffd\U0010ffff\u2028"},
	{`"0123456789abcdefghijklmnopqrstuvwxyz\t0123456789é0123456789"`, "0123456789abcdefghijklmnopqrstuvwxyz\t0123456789é0123456789"},
	{`[[],{},[[1],{"a":[{}]}],"]}"]`, []any{[]any{}, map[string]any{}, []any{[]any{int64(1)}, map[string]any{"a": []any{map[string]any{}}}}, "]}"}},
}

// rejected has texts that are none, and the error for each.
var rejected = []struct{ text, want string }{
	{``, "autobus: at byte 0: there is no JSON value"},
	{" \n", "autobus: at byte 2: there is no JSON value"},
	{"\ufeff{}", "at byte 0: want a JSON value"},
	{"{}\ufeff", "at byte 2: something follows the JSON value"},
	{`{}{}`, "at byte 2: something follows the JSON value"},
	{`[1] ,`, "at byte 4: something follows the JSON value"},
	{`1 2`, "at byte 2: something follows the JSON value"},
	{"\x00", "at byte 0: want a JSON value"},
	{"[\x00]", `autobus: field "[0]" at byte 1: want a JSON value`},
	{"{}\x00", "at byte 2: something follows the JSON value"},
	{"\v1", "at byte 0: want a JSON value"},
	{"\u00a01", "at byte 0: want a JSON value"},
	{`[`, "at byte 1: the JSON text ends too early"},
	{`[1`, "the JSON text ends too early"},
	{`[1,`, "the JSON text ends too early"},
	{`[1,]`, `field "[1]" at byte 3: want a JSON value`},
	{`[,1]`, `field "[0]" at byte 1: want a JSON value`},
	{`[1 2]`, `at byte 3: want ',' or ']'`},
	{`[1}`, `at byte 2: want ',' or ']'`},
	{`[}`, `at byte 1: want a JSON value`},
	{`{`, "the JSON text ends too early"},
	{`{"a"`, "the JSON text ends too early"},
	{`{"a":`, "the JSON text ends too early"},
	{`{"a":1`, "the JSON text ends too early"},
	{`{"a":1,`, "at byte 7: want a field name in quotes"},
	{`{"a":1,}`, "at byte 7: want a field name in quotes"},
	{`{,}`, "at byte 1: want a field name in quotes"},
	{`{a:1}`, "at byte 1: want a field name in quotes"},
	{`{1:1}`, "at byte 1: want a field name in quotes"},
	{`{NaN:1}`, "at byte 1: want a field name in quotes"},
	{`{"a" 1}`, "at byte 5: want ':' after a field name"},
	{`{"a"}`, "at byte 4: want ':' after a field name"},
	{`{"a":1]`, `field "a" at byte 6: want ',' or '}'`},
	{`{"a":1 "b":2}`, `at byte 7: want ',' or '}'`},
	{`{"a":}`, `field "a" at byte 5: want a JSON value`},
	{`]`, "at byte 0: want a JSON value"},
	{`'a'`, "at byte 0: want a JSON value"},
	{`"a`, "at byte 2: the JSON text ends too early"},
	{`"\`, "at byte 1: a bad escape"},
	{`"\x41"`, "at byte 1: a bad escape"},
	{`"\'"`, "at byte 1: a bad escape"},
	{`"\u12"`, "at byte 1: a bad escape"},
	{`"\u12g4"`, "at byte 1: a bad escape"},
	{`"\U0041"`, "at byte 1: a bad escape"},
	{`"\u 123"`, "at byte 1: a bad escape"},
	{`"\u+123"`, "at byte 1: a bad escape"},
	{`"\ud800\u12"`, "at byte 7: a bad escape"},
	{"\"a\nb\"", "at byte 2: a raw control character in a string"},
	{"\"\x00\"", "at byte 1: a raw control character in a string"},
	{"\"12345678901234567\x1f\"", "at byte 18: a raw control character in a string"},
	{"\"\xff\"", "at byte 1: the string isn't valid UTF-8"},
	{"\"\xc0\x80\"", "the string isn't valid UTF-8"},
	{"\"\xed\xa0\x80\"", "the string isn't valid UTF-8"},
	{"\"\xf4\x90\x80\x80\"", "the string isn't valid UTF-8"},
	{"\"\xc3\"", "the string isn't valid UTF-8"},
	{"\"\xc3\\u00e9\xa9\"", "the string isn't valid UTF-8"},
	{"\"12345678901234567890\xe2\x82\"", "the string isn't valid UTF-8"},
	{"{\"\xff\":1}", "at byte 2: the string isn't valid UTF-8"},
	{`nul`, "at byte 0: want null"},
	{`nulL`, "at byte 0: want null"},
	{`True`, "at byte 0: want a JSON value"},
	{`tru`, "at byte 0: want true"},
	{`fals`, "at byte 0: want false"},
	{`truee`, "at byte 4: something follows the JSON value"},
	{`01`, "at byte 0: a number with a leading zero"},
	{`-01`, "at byte 1: a number with a leading zero"},
	{`00.5`, "a number with a leading zero"},
	{`-`, "at byte 1: want a digit"},
	{`-a`, "at byte 1: want a digit"},
	{`+1`, "at byte 0: want a JSON value"},
	{`.5`, "at byte 0: want a JSON value"},
	{`1.`, "at byte 2: want a digit after the point"},
	{`1.e5`, "at byte 2: want a digit after the point"},
	{`1e`, "at byte 2: want a digit in the exponent"},
	{`1e+`, "at byte 3: want a digit in the exponent"},
	{`1E-x`, "at byte 3: want a digit in the exponent"},
	{`0x1F`, "at byte 1: something follows the JSON value"},
	{`1_000`, "at byte 1: something follows the JSON value"},
	{`1e5.5`, "at byte 3: something follows the JSON value"},
	{`Na`, "at byte 0: want NaN"},
	{`nan`, "at byte 0: want null"},
	{`-NaN`, "at byte 1: want a digit"},
	{`Infinit`, "at byte 0: want Infinity"},
	{`-Infinit`, "at byte 1: want Infinity"},
	{`+Infinity`, "at byte 0: want a JSON value"},
	{`--1`, "at byte 1: want a digit"},
	{`/**/1`, "at byte 0: want a JSON value"},
	{strings.Repeat("[", 1001) + strings.Repeat("]", 1001), "at byte 1000: nested over 1000 deep"},
}

// The same grammar stands in every way to read a value.
var ways = []struct {
	name string
	read func(d *Decoder)
}{
	{"Any", func(d *Decoder) { d.Any() }},
	{"Skip", func(d *Decoder) { d.Skip() }},
	{"Raw", func(d *Decoder) { d.Raw() }},
	{"none", func(d *Decoder) {}},
	{"each", readEach},
}

// readEach reads each value by the method for its kind.
func readEach(d *Decoder) {
	switch d.Kind() {
	case KindNull:
		d.Null()
	case KindBool:
		d.Bool()
	case KindInt, KindFloat:
		d.Float64()
	case KindString:
		_ = d.String()
	case KindArray:
		for range d.Elems() {
			readEach(d)
		}
	case KindObject:
		for range d.Fields() {
			readEach(d)
		}
	default:
		d.Any() // for its error
	}
}

func TestGrammar(t *testing.T) {
	for _, c := range accepted {
		got, err := readAny(c.text)
		if err != nil || !same(got, c.want) {
			t.Errorf("%q is %v, %v, want %v", c.text, got, err, c.want)
		}
		if !Valid([]byte(c.text)) {
			t.Errorf("%q isn't valid", c.text)
		}
		for _, way := range ways {
			r := reader(way.read)
			if err := Unmarshal([]byte(c.text), &r); err != nil {
				t.Errorf("%s of %q: %v", way.name, c.text, err)
			}
			if err := Unmarshal([]byte(`{"a":[`+c.text+`]}`), &r); err != nil {
				t.Errorf("%s of %q, inside: %v", way.name, c.text, err)
			}
		}
		if raw, err := read(c.text, (*Decoder).Raw); string(raw) != strings.Trim(c.text, " \t\r\n") {
			t.Errorf("Raw of %q is %q, %v", c.text, raw, err)
		}
	}
	for _, c := range rejected {
		_, err := readAny(c.text)
		t.Run(strconv.Quote(clip(c.text)), func(t *testing.T) { wantError(t, err, c.want) })
		if Valid([]byte(c.text)) {
			t.Errorf("%q is valid", c.text)
		}
		for _, way := range ways {
			r := reader(way.read)
			if err := Unmarshal([]byte(c.text), &r); err == nil {
				t.Errorf("%s takes %q", way.name, c.text)
			}
			// As the value of an unknown field, and behind one that ends the loop.
			if err := Unmarshal([]byte(`{"unknown":`+c.text+`}`), new(reading)); err == nil {
				t.Errorf("an unknown field takes %q", c.text)
			}
		}
		if _, err := payloadType(c.text); err == nil {
			t.Errorf("payloadType takes %q", c.text)
		}
	}
}

// mistakes has what Unmarshal methods can get wrong, or find wrong in a text
// that is good JSON.
var mistakes = []struct {
	name, text string
	read       func(*Decoder)
	want       string
}{
	{"Bool of a number", `1`, func(d *Decoder) { d.Bool() }, "autobus: at byte 0: want a bool, have an integer"},
	{"Int of a string", `"1"`, func(d *Decoder) { d.Int() }, "want a number, have a string"},
	{"Int of null", `null`, func(d *Decoder) { d.Int() }, "want a number, have null"},
	{"Int of a fraction", `1.5`, func(d *Decoder) { d.Int() }, "want an integer, have a float with a fraction or no finite value"},
	{"Int of NaN", `NaN`, func(d *Decoder) { d.Int() }, "want an integer, have a float with a fraction or no finite value"},
	{"Int64 too large", `9223372036854775808`, func(d *Decoder) { d.Int64() }, "the integer doesn't fit in 64 bits"},
	{"Int64 too small", `-9223372036854775809`, func(d *Decoder) { d.Int64() }, "the integer doesn't fit in 64 bits"},
	{"Uint64 too large", `18446744073709551616`, func(d *Decoder) { d.Uint64() }, "the integer doesn't fit in 64 bits"},
	{"Uint64 negative", `-1`, func(d *Decoder) { d.Uint64() }, "a negative number doesn't fit in 64 unsigned bits"},
	{"Uint64 negative float", `-1.0`, func(d *Decoder) { d.Uint64() }, "a negative number doesn't fit in 64 unsigned bits"},
	{"Float64 of a bool", `true`, func(d *Decoder) { d.Float64() }, "want a number, have a bool"},
	{"String of an object", `{}`, func(d *Decoder) { _ = d.String() }, "want a string, have an object"},
	{"Strings of a string", `"a"`, func(d *Decoder) { d.Strings() }, "want an array, have a string"},
	{"Strings of a number", `["a",1.5]`, func(d *Decoder) { d.Strings() }, `field "[1]" at byte 5: want a string, have a float`},
	{"Bytes of a number", `1`, func(d *Decoder) { d.Bytes() }, "want a string, have an integer"},
	{"Bytes not base64", `"-_=="`, func(d *Decoder) { d.Bytes() }, "at byte 0: the string isn't standard base64 with padding"},
	{"Bytes without padding", `"aGk"`, func(d *Decoder) { d.Bytes() }, "the string isn't standard base64 with padding"},
	{"Time of a number", `1700000000`, func(d *Decoder) { d.Time() }, "want a string, have an integer"},
	{"Time without a zone", `"2024-01-02T03:04:05"`, func(d *Decoder) { d.Time() }, "at byte 0: the string isn't a time in RFC 3339 form"},
	{"Time with a space", `"2024-01-02 03:04:05Z"`, func(d *Decoder) { d.Time() }, "the string isn't a time in RFC 3339 form"},
	{"Time that isn't", `"2023-02-29T00:00:00Z"`, func(d *Decoder) { d.Time() }, "the string isn't a time in RFC 3339 form"},
	{"Time with a comma", `"2024-01-02T03:04:05,5Z"`, func(d *Decoder) { d.Time() }, "the string isn't a time in RFC 3339 form"},
	{"Time with one digit", `"2024-01-02T3:04:05Z"`, func(d *Decoder) { d.Time() }, "the string isn't a time in RFC 3339 form"},
	{"Time too far off", `"2024-01-02T03:04:05+24:00"`, func(d *Decoder) { d.Time() }, "the string isn't a time in RFC 3339 form"},
	{"Time off by 60 minutes", `"2024-01-02T03:04:05.5+01:60"`, func(d *Decoder) { d.Time() }, "the string isn't a time in RFC 3339 form"},
	{"Time empty", `""`, func(d *Decoder) { d.Time() }, "the string isn't a time in RFC 3339 form"},
	{"Duration of a string", `"1s"`, func(d *Decoder) { d.Duration() }, "want a number, have a string"},
	{"Duration too long", `9223372036.854775808`, func(d *Decoder) { d.Duration() }, "at byte 0: the seconds don't fit in a duration"},
	{"Duration much too long", `1e300`, func(d *Decoder) { d.Duration() }, "the seconds don't fit in a duration"},
	{"Duration of NaN", `NaN`, func(d *Decoder) { d.Duration() }, "the seconds don't fit in a duration"},
	{"Duration of Infinity", `-Infinity`, func(d *Decoder) { d.Duration() }, "the seconds don't fit in a duration"},
	{"Fields of an array", `[]`, func(d *Decoder) { d.Fields()(nil) }, "want an object, have an array"},
	{"Elems of an object", `{}`, func(d *Decoder) { d.Elems()(nil) }, "want an array, have an object"},
	{"value read twice", `1`, func(d *Decoder) { d.Int(); d.Int() }, "at byte 1: Unmarshal reads a value where there is none, or reads it twice"},
	{"value skipped twice", `[1]`, func(d *Decoder) { d.Skip(); d.Skip() }, "or reads it twice"},
	{"object read twice", `{"a":1}`, func(d *Decoder) { d.Object(new(point)); d.Object(new(point)) }, "or reads it twice"},
	{"any read twice", `{"a":1}`, func(d *Decoder) { d.Any(); d.Any() }, "or reads it twice"},
	{"after the last element", `[1]`, func(d *Decoder) {
		for range d.Elems() {
		}
		d.Null()
		_ = d.String()
	}, "Unmarshal reads a value where there is none"},
	{"object's fields in its field", `{"a":{}}`, func(d *Decoder) {
		for range d.Fields() {
			d.Skip()
			for range d.Fields() {
			}
		}
	}, `field "a" at byte 7: Unmarshal reads a value where there is none`},
	{"own error", `{"a":[{"b":5}]}`, func(d *Decoder) {
		for range d.Fields() {
			for range d.Elems() {
				for range d.Fields() {
					d.Int()
					d.Fail(errOwn)
					d.Fail(errors.New("second"))
				}
			}
		}
	}, `autobus: field "a[0].b" at byte 11: out of milk`},
	{"own error after Skip", `[1, [2], 3]`, func(d *Decoder) {
		for i := range d.Elems() {
			if d.Skip(); i == 1 {
				d.Fail(errOwn)
			}
		}
	}, `autobus: field "[1]" at byte 4: out of milk`},
	{"own error after Raw", ` {"a":{}}`, func(d *Decoder) { d.Raw(); d.Fail(errOwn) }, `autobus: at byte 1: out of milk`},
	{"own error from a nested object", `{"p":1}`, func(d *Decoder) {
		for range d.Fields() {
			d.Object(refuses{})
		}
	}, `autobus: field "p" at byte 5: out of milk`},
	{"path", `{"a":{"b c":[[1,{"":{"é":"x"}}]]}}`, func(d *Decoder) { d.Object(new(deepInts)) }, `field "a.b c[0][1]..é" at byte 26: want a number, have a string`},
	{"path with quotes", `{"a\"\n":"x"}`, func(d *Decoder) { d.Object(new(deepInts)) }, `field "a\"\n" at byte 9: `},
	{"long name", `{"` + strings.Repeat("é", 99) + `":"x"}`, func(d *Decoder) { d.Object(new(deepInts)) }, `field "` + strings.Repeat("é", 50) + `…" at byte 202: `},
	{"long path", strings.Repeat(`{"abcdefghi":`, 50) + `"x"` + strings.Repeat("}", 50), func(d *Decoder) { d.Object(new(deepInts)) },
		`field "` + strings.Repeat("abcdefghi.", 10) + `…" at byte 650: `},
}

// refuses reads nothing and returns an error.
type refuses struct{}

func (refuses) Unmarshal(*Decoder) error { return errOwn }

// deepInts wants every scalar to be an integer.
type deepInts struct{ sum int }

func (v *deepInts) Unmarshal(d *Decoder) error {
	switch d.Kind() {
	case KindObject:
		for range d.Fields() {
			d.Object(v)
		}
	case KindArray:
		for range d.Elems() {
			d.Object(v)
		}
	default:
		v.sum += d.Int()
	}
	return d.Err()
}

func TestDecodeErrors(t *testing.T) {
	for _, c := range mistakes {
		t.Run(c.name, func(t *testing.T) {
			r := reader(c.read)
			err := Unmarshal([]byte(c.text), &r)
			wantError(t, err, c.want)
			if !Valid([]byte(c.text)) {
				t.Error("the text should be valid")
			}
			if strings.Contains(c.want, errOwn.Error()) != errors.Is(err, errOwn) {
				t.Errorf("%v: Is says %v", err, errors.Is(err, errOwn))
			}
			// An error counts even if Unmarshal doesn't return it.
			if err := Unmarshal([]byte(c.text), forgetful(c.read)); err == nil {
				t.Error("forgotten, the error is lost")
			}
		})
	}
}

type forgetful func(*Decoder)

func (f forgetful) Unmarshal(d *Decoder) error { f(d); return nil }

// What is cut keeps its characters whole, and what isn't UTF-8 isn't lost.
func TestClip(t *testing.T) {
	a := strings.Repeat("a", 100)
	for _, test := range []struct{ name, want string }{
		{"", ""},
		{a, a},
		{a + "b", a + "…"},
		{a[:99] + "äb", a[:99] + "…"},
		{a[:98] + "äb", a[:98] + "ä…"},
		{a[:97] + "😀", a[:97] + "…"},
		{a[:96] + "😀b", a[:96] + "😀…"},
		{strings.Repeat("\x80", 200), strings.Repeat("\x80", 96) + "…"},
	} {
		if got := clip(test.name); got != test.want {
			t.Errorf("%q:\n got %q\nwant %q", test.name, got, test.want)
		}
	}
}

// From the first error on, every method returns the zero value and every loop ends.
func TestDecoderAfterError(t *testing.T) {
	for _, text := range []string{`7`, `"a"`, `true`, `null`, `[1,2]`, `{"a":1}`, `1.5`} {
		f := forgetful(func(d *Decoder) {
			d.Fail(errOwn)
			if d.Kind() != KindInvalid || d.Null() || d.Bool() || d.Int() != 0 || d.Int64() != 0 || d.Uint64() != 0 || d.Float64() != 0 || d.String() != "" ||
				d.Strings() != nil || d.Bytes() != nil || !d.Time().IsZero() || d.Duration() != 0 || d.Any() != nil || d.Raw() != nil {
				t.Errorf("%s: a value after the error", text)
			}
			for range d.Fields() {
				t.Error("a field after the error")
			}
			for range d.Elems() {
				t.Error("an element after the error")
			}
			p := point{X: 5}
			if d.Object(&p); p.X != 5 {
				t.Error("an object after the error")
			}
			d.Skip()
			d.Fail(errors.New("second"))
			if !errors.Is(d.Err(), errOwn) {
				t.Errorf("the error is %v", d.Err())
			}
		})
		if err := Unmarshal([]byte(text), f); !errors.Is(err, errOwn) {
			t.Errorf("%s: the error is %v", text, err)
		}
	}
}

func TestKind(t *testing.T) {
	for text, want := range map[string]string{
		`null`: "null", `true`: "a bool", `false`: "a bool", `1`: "an integer", `-1`: "an integer", `1.0`: "a float", `-1e5`: "a float", `NaN`: "a float",
		`Infinity`: "a float", `-Infinity`: "a float", `"a"`: "a string", `[]`: "an array", `{}`: "an object",
	} {
		r := reader(func(d *Decoder) {
			if got := d.Kind().String(); got != want || d.Kind().String() != want {
				t.Errorf("%s is %s, want %s", text, got, want)
			}
			if d.Skip(); d.Kind() != KindInvalid {
				t.Errorf("%s is still there after it was read", text)
			}
		})
		if err := Unmarshal([]byte(text), &r); err != nil {
			t.Error(err)
		}
	}
	for _, text := range []string{`]`, `-`, `Nan`, `Inf`, `-x`, `+1`, "\x00", `1.`, `1e`} {
		r := reader(func(d *Decoder) {
			if got := d.Kind(); got != KindInvalid {
				t.Errorf("%q is %v", text, got)
			}
		})
		if Unmarshal([]byte(text), &r) == nil {
			t.Errorf("%q is taken", text)
		}
	}
	if got := Kind(200).String(); got != "nothing" {
		t.Errorf("Kind(200) is %s", got)
	}
}

func TestDecoderValues(t *testing.T) {
	type values struct {
		null, bool bool
		strings    []string
		bytes      []byte
		time       time.Time
		duration   time.Duration
		point      point
		raw        string
		any        any
	}
	const text = `{ "null": null, "bool": false, "bool": true, "strings": ["a", "\u00e9", ""], "bytes": "//79\/A==", "time": "2024-01-02T03:04:05.5+02:00",
		"duration": 1.5, "point": {"x": 1, "z": [{}], "y": 2}, "raw": { "a" : 1 } , "any": [1, {"type": 2}] }`
	var got values
	r := reader(func(d *Decoder) {
		for key := range d.Fields() {
			switch key {
			case "null":
				got.null = d.Null()
			case "bool":
				if d.Null() {
					t.Error("a bool is no null")
				}
				got.bool = d.Bool()
			case "strings":
				got.strings = d.Strings()
			case "bytes":
				got.bytes = d.Bytes()
			case "time":
				got.time = d.Time()
			case "duration":
				got.duration = d.Duration()
			case "point":
				d.Object(&got.point)
			case "raw":
				got.raw = string(d.Raw())
			case "any":
				got.any = d.Any()
			}
		}
	})
	if err := Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	wantTime := time.Date(2024, 1, 2, 1, 4, 5, 5e8, time.UTC)
	if !got.time.Equal(wantTime) {
		t.Errorf("time %v", got.time)
	}
	got.time = wantTime
	want := values{true, true, []string{"a", "é", ""}, []byte("\xff\xfe\xfd\xfc"), wantTime, 1500 * time.Millisecond, point{1, 2}, `{ "a" : 1 }`,
		[]any{int64(1), map[string]any{"type": int64(2)}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if s, err := read(`[]`, (*Decoder).Strings); s == nil || len(s) != 0 || err != nil {
		t.Errorf("empty Strings: %#v, %v", s, err)
	}
	if b, err := read(`""`, (*Decoder).Bytes); len(b) != 0 || err != nil {
		t.Errorf("empty Bytes: %#v, %v", b, err)
	}
	if b, err := read(`"aGVs\nbG8=\n"`, (*Decoder).Bytes); string(b) != "hello" || err != nil {
		t.Errorf("Bytes with line breaks: %q, %v", b, err)
	}
}

// The text that an Unmarshaler read belongs to nobody else.
func TestDecodedIsACopy(t *testing.T) {
	data := []byte(`{"s":"plain","r":[1]}`)
	var s string
	var r []byte
	u := reader(func(d *Decoder) {
		for key := range d.Fields() {
			if key == "s" {
				s = d.String()
			} else {
				r = d.Raw()
			}
		}
	})
	if err := Unmarshal(data, &u); err != nil {
		t.Fatal(err)
	}
	for i := range data {
		data[i] = 'x'
	}
	if s != "plain" || string(r) != "[1]" {
		t.Errorf("%q and %q changed with the data", s, r)
	}
	r[0] = 'y'
	if s != "plain" {
		t.Error("Raw's copy is the text itself")
	}
}

func TestUnmarshalEvent(t *testing.T) {
	keys := func(v interface {
		Unmarshaler
		seen() []string
	}, text string) []string {
		t.Helper()
		if err := Unmarshal([]byte(text), v); err != nil {
			t.Fatal(err)
		}
		return v.seen()
	}
	const text = `{"a":1,"type":"T","b":{"type":2},"typ\u0065":null,"Type":3}`
	// An event's own type is passed over, on the top level only.
	if got, want := keys(new(eventKeys), text), []string{"a", "b", "type", "Type"}; !slices.Equal(got, want) {
		t.Errorf("an event sees %q, want %q", got, want)
	}
	if got, want := keys(new(plainKeys), text), []string{"a", "type", "b", "type", "type", "Type"}; !slices.Equal(got, want) {
		t.Errorf("another value sees %q, want %q", got, want)
	}
	for _, c := range []struct{ text, want string }{
		{`{"type":"A"}`, "A"}, {`{"type":"A","type":"B"}`, "B"}, {`{"type":"A","type":1}`, ""}, {`{"t\u0079pe":"\u0041"}`, "A"}, {`{}`, ""}, {`[]`, "error"},
		{`{"type":["A"]}`, ""}, {`{"type":A}`, "error"}, {`{"type":"A" 1}`, "error"}, {`{"x":{"type":"A"}}`, ""}, {`{"Type":"A"}`, ""}, {`"type"`, "error"}, {`{"type":"\ud800"}`, "\ufffd"},
	} {
		got, err := payloadType(c.text)
		if err != nil {
			got += "error"
		}
		if got != c.want {
			t.Errorf("the type of %s is %q, want %q", c.text, got, c.want)
		}
	}
}

type plainKeys struct{ keys []string }

func (v *plainKeys) seen() []string { return v.keys }
func (v *plainKeys) Unmarshal(d *Decoder) error {
	for key := range d.Fields() {
		v.keys = append(v.keys, key)
		if d.Kind() == KindObject {
			d.Object(v)
		}
	}
	return d.Err()
}

type eventKeys struct{ plainKeys }

func (*eventKeys) Type() string { return "T" }

// guarded checks itself.
type guarded struct{ Level int }

func (guarded) Type() string { return "Guarded" }
func (g *guarded) Unmarshal(d *Decoder) error {
	for key := range d.Fields() {
		if key == "level" {
			g.Level = d.Int()
		}
	}
	return d.Err()
}
func (g guarded) Validate() error {
	if g.Level > 10 {
		return errOwn
	}
	return nil
}

// lazy reads its payload by other means than Fields.
type lazy struct{ raw string }

func (lazy) Type() string                  { return "Lazy" }
func (l *lazy) Unmarshal(d *Decoder) error { l.raw = string(d.Raw()); return nil }

func TestDecodeEvent(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       cause
	}{
		{"Guarded", `{"level":10,"type":"Guarded"}`, handled},
		{"Guarded", `{"type":"Guarded","level":11}`, invalid},
		{"Guarded", `{"type":"Guarded","level":11,"level":1}`, handled},
		{"Guarded", `{"type":"guarded","level":1}`, wrongType},
		{"Guarded", `{"level":1}`, wrongType},
		{"Guarded", `{"type":1}`, wrongType},
		{"Guarded", `{"type":null}`, wrongType},
		{"Guarded", `{"type":"Guarded","level":"x"}`, malformed},
		{"Guarded", `{"type":"Guarded"`, malformed},
		{"Guarded", `["Guarded"]`, malformed},
		{"Guarded", `null`, malformed},
		{"Guarded", ``, malformed},
	} {
		why, err := decodeEvent(c.name, c.text, new(guarded))
		if why != c.want || (err != nil) != (c.want != handled) || (why == invalid) != errors.Is(err, errOwn) {
			t.Errorf("%s: %s %v, want %s", c.text, causeText[why], err, causeText[c.want])
		}
	}
	for text, want := range map[string]cause{`{"a":1,"type":"Lazy"}`: handled, `{"type":"Eager"}`: wrongType, `[1]`: malformed, `{"type":"Lazy",}`: malformed} {
		l := new(lazy)
		if why, _ := decodeEvent("Lazy", text, l); why != want || why == handled && l.raw != text {
			t.Errorf("%s: %s, want %s", text, causeText[why], causeText[want])
		}
	}
}

// A loop may end early, leave values unread, and ask again: the rest is
// skipped, and validated all the same.
func TestLoops(t *testing.T) {
	const text = `{"a":[1,2,3],"b":{"x":1,"y":[{}]},"c":5}`
	after := func(d *Decoder) { // what follows the loop is in its place
		if d.Kind() != KindInvalid || d.Null() {
			t.Error("a value is left after the loop")
		}
	}
	for name, f := range map[string]func(*Decoder){
		"read nothing": func(d *Decoder) {
			for range d.Fields() {
			}
		},
		"break": func(d *Decoder) {
			for range d.Fields() {
				break
			}
		},
		"break after reading": func(d *Decoder) {
			for range d.Fields() {
				d.Skip()
				break
			}
		},
		"break inside": func(d *Decoder) {
			for key := range d.Fields() {
				if key == "a" {
					for i := range d.Elems() {
						if i == 1 {
							if d.Int() != 2 && d.Err() == nil {
								t.Error("a[1] is not 2")
							}
							break
						}
					}
				}
			}
		},
		"break outside": func(d *Decoder) {
		fields:
			for range d.Fields() {
				for range d.Elems() {
					break fields
				}
			}
		},
		"return inside": func(d *Decoder) {
			func() {
				for range d.Fields() {
					for range d.Elems() {
						return
					}
				}
			}()
			after(d)
		},
		"by hand": func(d *Decoder) {
			next, stop := iter.Pull(d.Fields())
			if key, ok := next(); key != "a" && d.Err() == nil || ok != (d.Err() == nil) {
				t.Errorf("the first field is %q", key)
			}
			stop()
			after(d)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := reader(func(d *Decoder) {
				f(d)
				after(d)
			})
			if err := Unmarshal([]byte(text), &r); err != nil {
				t.Error(err)
			}
			// Each prefix is an error, whatever is read of it, and each with a mistake.
			for i := range text {
				if Unmarshal([]byte(text[:i]), &r) == nil {
					t.Errorf("%s is taken", text[:i])
				}
				if bad := text[:i] + "!" + text[i:]; !strings.Contains(bad, `"!`) && !strings.Contains(bad, `!"`) || !Valid([]byte(bad)) {
					if Unmarshal([]byte(bad), &r) == nil {
						t.Errorf("%s is taken", bad)
					}
				}
			}
		})
	}
	var indexes []int
	r := reader(func(d *Decoder) {
		for i := range d.Elems() {
			indexes = append(indexes, i)
		}
	})
	if err := Unmarshal([]byte(` [ 1 , [ ] , "a" ] `), &r); err != nil || !slices.Equal(indexes, []int{0, 1, 2}) {
		t.Errorf("indexes %v, %v", indexes, err)
	}
}

// A panic in Marshal or Unmarshal goes to the caller, and harms no later call.
func TestPanics(t *testing.T) {
	for range 10 {
		func() {
			defer func() {
				if recover() != "mine" {
					t.Error("the panic is lost")
				}
			}()
			r := reader(func(d *Decoder) {
				for range d.Fields() {
					panic("mine")
				}
			})
			Unmarshal([]byte(`{"a":{"b":1}}`), &r)
		}()
		var v reading
		data, err := Marshal(aReading)
		if err2 := Unmarshal(data, &v); err != nil || err2 != nil || !reflect.DeepEqual(v, *aReading) {
			t.Fatalf("%v, %v: %+v", err, err2, v)
		}
	}
}

type tree struct{ Kids []tree }

func (v tree) Marshal(e *Encoder) {
	e.Key("kids").BeginArray()
	for _, kid := range v.Kids {
		e.Object(kid)
	}
	e.EndArray()
}

func (v *tree) Unmarshal(d *Decoder) error {
	for key := range d.Fields() {
		if key == "kids" {
			for range d.Elems() {
				var kid tree
				d.Object(&kid)
				v.Kids = append(v.Kids, kid)
			}
		}
	}
	return nil // the Decoder knows
}

func TestObjects(t *testing.T) {
	want := tree{Kids: []tree{{}, {Kids: []tree{{}, {Kids: []tree{{}}}}}, {}}}
	text, err := written(func(e *Encoder) { e.Object(want) })
	if err != nil {
		t.Fatal(err)
	}
	var got tree
	if err := Unmarshal([]byte(text), &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s is %v, %v", text, got, err)
	}
	err = Unmarshal([]byte(`{"kids":[{"kids":[]},{"kids":[{},{"kids":5}]}]}`), &got)
	wantError(t, err, `field "kids[1].kids[1].kids" at byte 41: want an array, have an integer`)
}

// Depth is bounded at 1000 in every way to read and write, an event's own
// object included.
func TestDepth(t *testing.T) {
	nest := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	objects := func(n int) string { return strings.Repeat(`{"a":`, n) + `0` + strings.Repeat("}", n) }
	mixed := func(n int) string {
		return strings.Repeat(`{"a":[`, n/2) + strings.Repeat("[", n%2) + strings.Repeat("]", n%2) + strings.Repeat("]}", n/2)
	}
	for _, make := range []func(int) string{nest, objects, mixed} {
		for n, want := range map[int]string{999: "", 1000: "", 1001: "nested over 1000 deep", 2000: "nested over 1000 deep"} {
			for _, way := range ways {
				r := reader(way.read)
				t.Run(way.name+" "+strconv.Itoa(n), func(t *testing.T) {
					wantError(t, Unmarshal([]byte(make(n)), &r), want)
				})
			}
			if Valid([]byte(make(n))) != (want == "") {
				t.Errorf("Valid at %d", n)
			}
			_, err := payloadType(`{"a":` + make(n-1) + `}`)
			wantError(t, err, want)
			_, err = Marshal(writer(func(e *Encoder) { e.Key("a").Raw([]byte(make(n - 1))) }))
			wantError(t, err, want)
			_, err = Marshal(Raw{Name: "T", JSON: []byte(`{"a":` + make(n-1) + `}`)})
			wantError(t, err, want)
			// Inside another object, as a Marshaler.
			_, err = Marshal(writer(func(e *Encoder) { e.Key("b").Object(Raw{Name: "T", JSON: []byte(`{"a":` + make(n-2) + `}`)}) }))
			wantError(t, err, want)
		}
	}
	for n, want := range map[int]string{999: "", 1000: "nested over 1000 deep"} {
		_, err := Marshal(writer(func(e *Encoder) { e.Key("a"); nestArrays(e, n) }))
		wantError(t, err, want)
		_, err = Marshal(writer(func(e *Encoder) {
			for range n {
				e.Key("a").BeginObject()
			}
			for range n {
				e.EndObject()
			}
		}))
		wantError(t, err, want)
		var v any
		for range n {
			v = []any{v}
		}
		_, err = Marshal(writer(func(e *Encoder) { e.Key("a").Any(v) }))
		wantError(t, err, want)
		var chain tree
		for range n/2 - 1 {
			chain = tree{Kids: []tree{chain}}
		}
		_, err = Marshal(writer(func(e *Encoder) { e.Key("a").Object(chain) }))
		wantError(t, err, want)
	}
	// What holds itself ends at the limit too.
	slice := []any{1, nil, nil}
	slice[1], slice[2] = slice, slice
	object := map[string]any{}
	object["a"], object["b"] = object, object
	for _, v := range []any{slice, object, new(snake)} {
		_, err := Marshal(writer(func(e *Encoder) { e.Key("a").Any(v) }))
		wantError(t, err, "nested over 1000 deep")
	}
}

// snake holds itself, twice.
type snake struct{}

func (s *snake) Marshal(e *Encoder) { e.Key("a").Object(s).Key("b").Object(s) }

// A hostile text costs no more memory than a copy of it.
func TestHostileTextIsCheap(t *testing.T) {
	const n = 100_000
	for name, text := range map[string]string{
		"open arrays":   strings.Repeat("[", n),
		"nested arrays": strings.Repeat("[", n/2) + strings.Repeat("]", n/2),
		"open objects":  strings.Repeat(`{"a":`, n/5),
		"digits":        strings.Repeat("9", n),
		"fraction":      "0." + strings.Repeat("9", n),
		"exponent":      "1e" + strings.Repeat("9", n),
		"commas":        "[" + strings.Repeat("1,", n/2),
		"strings":       "[" + strings.Repeat(`"",`, n/3),
		"names":         `{"` + strings.Repeat("a", n),
		"escapes":       `"` + strings.Repeat(`\`, n),
	} {
		for how, way := range map[string]func(*Decoder){
			"Skip": func(d *Decoder) { d.Skip() },
			"Raw":  func(d *Decoder) { d.Raw() },
			"Int":  func(d *Decoder) { d.Int() },
			"none": func(d *Decoder) {},
			"each": readEach,
			"Fields": func(d *Decoder) {
				for range d.Fields() {
				}
			},
			"Elems": func(d *Decoder) {
				for range d.Elems() {
				}
			},
		} {
			data := []byte(text)
			r := reader(way)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			Unmarshal(data, &r)
			runtime.ReadMemStats(&after)
			if bytes := after.TotalAlloc - before.TotalAlloc; bytes > 3*n {
				t.Errorf("%s by %s: %d bytes for a text of %d", name, how, bytes, n)
			}
		}
		if got := testing.AllocsPerRun(5, func() { Valid([]byte(text)) }); got > 1 { // the []byte
			t.Errorf("%s: Valid allocates %v times", name, got)
		}
	}
}

func TestRawEvent(t *testing.T) {
	for _, c := range []struct{ name, json, want string }{
		{"T", ``, `{"type":"T"}`},
		{"T", `{}`, `{"type":"T"}`},
		{"T", ` { } `, `{"type":"T"}`},
		{"T", `{"a": 1,  "b": [1, 2.50, NaN, "\u00e9\ud800"]}`, `{"type":"T","a":1,"b":[1, 2.50, NaN, "\u00e9\ud800"]}`},
		{"T", `{"a":1,"type":"T","b":2}`, `{"type":"T","a":1,"b":2}`},
		{"T", `{"t\u0079pe":"\u0054"}`, `{"type":"T"}`},
		{"T", `{"a":1,"a":{"type":7}}`, `{"type":"T","a":1,"a":{"type":7}}`},
		{"T", `{"\n\u00e9":0}`, `{"type":"T","\né":0}`},
		{"T", `{"type":"U"}`, `error autobus: event T: field "type" at byte 8: want "T", the event's type, have "U"`},
		{"T", `{"type":"T","type":"U"}`, `error autobus: event T: field "type" at byte 19: want "T", the event's type, have "U"`},
		{"T", `{"type":1}`, `error autobus: event T: field "type" at byte 8: want a string, have an integer`},
		{"T", `[]`, `error autobus: event T: at byte 0: want an object, have an array`},
		{"T", `null`, `error autobus: event T: at byte 0: want an object, have null`},
		{"T", `{"a":1`, `error autobus: event T: field "a" at byte 6: the JSON text ends too early`},
		{"T", `{"a":1,}`, `error autobus: event T: field "a" at byte 7: want a field name in quotes`},
		{"T", `{"a":01}`, `error autobus: event T: field "a" at byte 5: a number with a leading zero`},
		{"T", `{} {}`, `error autobus: event T: at byte 3: something follows the JSON value`},
		{"T", ` `, `error autobus: event T: at byte 1: there is no JSON value`},
		{"T", "{\"a\":\"\xff\"}", `error autobus: event T: field "a" at byte 6: the string isn't valid UTF-8`},
		{"", `{}`, `error autobus: event type "" is empty`},
		{"a:b", `{}`, `error autobus: event type "a:b" has a ':', which ends a namespace`},
	} {
		data, err := Marshal(Raw{Name: c.name, JSON: []byte(c.json)})
		got := string(data)
		if err != nil {
			got = "error " + err.Error()
		}
		if got != c.want {
			t.Errorf("%q %s\ngot  %s\nwant %s", c.name, c.json, got, c.want)
		}
		if err == nil && !Valid(data) {
			t.Errorf("bad JSON: %s", data)
		}
	}
	// What was published as a typed event goes on as it came.
	first, _ := Marshal(aReading)
	second, err := Marshal(Raw{Name: "Reading", JSON: first})
	if err != nil || string(first) != string(second) {
		t.Errorf("%s, %v, want %s", second, err, first)
	}
}

func TestBytesLaw(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for n := range 300 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		text, err := written(func(e *Encoder) { e.Bytes(b) })
		if want := `"` + base64.StdEncoding.EncodeToString(b) + `"`; text != want || err != nil {
			t.Fatalf("%x is %s, %v", b, text, err)
		}
		if got, err := read(text, (*Decoder).Bytes); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%s is %x, %v", text, got, err)
		}
	}
}

func TestTimeLaw(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	first, last := time.Date(0, 1, 2, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 30, 0, 0, 0, 0, time.UTC)
	for range 5000 {
		v := time.Unix(first.Unix()+rnd.Int64N(last.Unix()-first.Unix()), rnd.Int64N(1e9)).In(time.FixedZone("", rnd.IntN(2*86399)-86399))
		if rnd.IntN(2) == 0 {
			v = v.In(time.FixedZone("", 60*(rnd.IntN(2*1439)-1439)))
		}
		text, err := written(func(e *Encoder) { e.Time(v) })
		if err != nil {
			t.Fatalf("%v: %v", v, err)
		}
		got, err := read(text, (*Decoder).Time)
		if err != nil || !got.Equal(v) {
			t.Fatalf("%v is %s and reads back as %v, %v", v, text, got, err)
		}
		var other time.Time
		if json.Unmarshal([]byte(text), &other); !other.Equal(v) {
			t.Fatalf("encoding/json reads %s as %v", text, other)
		}
	}
}

func TestDurationLaw(t *testing.T) {
	check := func(v time.Duration) {
		t.Helper()
		text, err := written(func(e *Encoder) { e.Duration(v) })
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(text, (*Decoder).Duration)
		if err != nil || got != v {
			t.Fatalf("%d is %s and reads back as %d, %v", v, text, got, err)
		}
		if kind, _ := read(text, (*Decoder).kindAndSkip); kind != KindFloat {
			t.Fatalf("%s is %v", text, kind)
		}
		if f, _ := strconv.ParseFloat(text, 64); math.Abs(f-v.Seconds()) > 1e-15*math.Abs(f) {
			t.Fatalf("%s is %v seconds, want %v", text, f, v.Seconds())
		}
	}
	rnd := rand.New(rand.NewPCG(7, 8))
	for range 20_000 {
		check(time.Duration(rnd.Uint64() >> rnd.IntN(64)))
		check(-time.Duration(rnd.Uint64() >> rnd.IntN(64)))
		check(time.Duration(rnd.Int64N(1e6)) * time.Millisecond)
	}
	for text, want := range map[string]time.Duration{
		`0`: 0, `-0`: 0, `-0.0`: 0, `2`: 2e9, `1e3`: 1e12, `1E-3`: 1e6, `1.5e-9`: 2, `0.0000000004`: 0, `0.0000000005`: 1, `-0.0000000005`: -1,
		`0.99999999949`: 999999999, `0.9999999995`: 1e9, `0.1`: 1e8, `0.12345678949`: 123456789, `1e-400`: 0, `9223372036.854775807`: math.MaxInt64,
		`-9223372036.854775808`: math.MinInt64, `9223372036`: 9223372036e9, `9223372036.8547758074`: math.MaxInt64,
	} {
		if got, err := read(text, (*Decoder).Duration); err != nil || got != want {
			t.Errorf("%s is %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{`9223372036.8547758075`, `-9223372036.854775809`, `9223372037`, `1e10`, `18446744073709551616`, `99999999999999999999999`, `1e400`, `NaN`} {
		if got, err := read(text, (*Decoder).Duration); err == nil || got != 0 {
			t.Errorf("%s is %d, %v, want 0 and an error", text, got, err)
		}
	}
}

// checkText holds the helpers for JSON text to their laws, for any s.
func checkText(t *testing.T, s string) {
	t.Helper()
	valid := string([]rune(s)) // each bad byte is U+FFFD
	quoted := appendQuoted([]byte("x"), s)[1:]
	if n := quotedLen(s); n != len(quoted) || quotedLen([]byte(s)) != n {
		t.Fatalf("quotedLen of %q is %d, want %d", s, n, len(quoted))
	}
	if other := appendQuoted(nil, []byte(s)); !bytes.Equal(other, quoted) {
		t.Fatalf("appendQuoted of bytes is %s, want %s", other, quoted)
	}
	if !utf8.Valid(quoted) || !json.Valid(quoted) {
		t.Fatalf("%q is quoted as %s", s, quoted)
	}
	var got string
	if err := json.Unmarshal(quoted, &got); err != nil || got != valid {
		t.Fatalf("encoding/json reads %s as %q, %v", quoted, got, err)
	}
	for _, quoted := range []string{string(quoted), asciiJSON(string(quoted)), jsonText(s)} {
		end, escaped, problem := scanString(quoted, 0)
		if end != len(quoted) || problem != "" || escaped != strings.Contains(quoted, `\`) {
			t.Fatalf("scanString of %s: %d, %v, %q", quoted, end, escaped, problem)
		}
		if end2, escaped2, problem := scanString([]byte(quoted+" "), 0); end2 != end || escaped2 != escaped || problem != "" {
			t.Fatalf("scanString of the bytes %s: %d, %v, %q", quoted, end2, escaped2, problem)
		}
		if got := appendUnquoted([]byte("x"), quoted[1:end-1]); string(got) != "x"+valid {
			t.Fatalf("appendUnquoted of %s is %q", quoted, got)
		}
		if got := appendUnquoted(nil, []byte(quoted[1:end-1])); string(got) != valid {
			t.Fatalf("appendUnquoted of the bytes %s is %q", quoted, got)
		}
		if got, err := read(quoted, (*Decoder).String); err != nil || got != valid {
			t.Fatalf("String of %s is %q, %v", quoted, got, err)
		}
	}
}

func TestText(t *testing.T) {
	// Every byte at every place in the eight that are looked at together.
	for n := range 20 {
		for at := range n {
			for c := range 256 {
				s := []byte("abcdefghijklmnopqrst"[:n])
				s[at] = byte(c)
				checkText(t, string(s))
			}
		}
	}
	// And in the blocks that longer ones are looked at by.
	for _, n := range []int{31, 32, 33, 40, 63, 64, 65, 71, 72, 100, 127, 128, 129, 136} {
		for at := range n {
			for _, c := range []byte("\"\\\x00\x1f !#[]\x7f\x80\xff") {
				s := []byte(strings.Repeat("abcdefghijklmnopqrstuvwxyz", 6)[:n])
				s[at] = c
				checkText(t, string(s))
			}
		}
	}
	// And where reading without having scanned ends, an escape cut in two.
	for more := range 40 {
		checkText(t, "\n"+strings.Repeat("a", onePass-30+more)+"😀é")
	}
	rnd := rand.New(rand.NewPCG(9, 10))
	alphabet := []string{"a", "bcdefghijk", "\"", "\\", "\n", "\x01", "é", "€", "😀", "\xff", "\xc3", "\xed\xa0\x80", "\ufffd", "\x7f", "\u2028", "\\u00e9", "/"}
	for range 10_000 {
		var s string
		for range rnd.IntN(12) {
			s += alphabet[rnd.IntN(len(alphabet))]
		}
		checkText(t, s)
	}
}

func TestAllocations(t *testing.T) {
	data, _ := Marshal(aReading)
	long, _ := Marshal(&reading{Name: strings.Repeat("naïve ", 100)})
	var v reading
	buf := make([]byte, 0, 1024)
	discard := reader(func(d *Decoder) { d.Skip() })
	var list any = []any{1, 2.5, "s", []any{nil, true}}
	anys := writer(func(e *Encoder) { e.Key("a").Any(list) })
	wide := writer(func(e *Encoder) {
		e.Key("t").Time(time.Unix(0, 0)).Key("d").Duration(5).Key("b").Bytes(data).Key("r").Raw(data).Key("é\n").String("é\n")
		e.Key("o").BeginObject().Key("a").BeginArray().Uint64(1).Null().Float64(1.0 / 3).EndArray().EndObject()
	})
	if raceEnabled {
		t.Skip("sync.Pool drops things at random under the race detector")
	}
	for _, c := range []struct {
		name string
		want float64
		f    func()
	}{
		{"encode", 0, func() { Append(buf, aReading) }},
		{"encode every kind", 0, func() { Append(buf, &wide) }},
		{"encode any", 0, func() { Append(buf, &anys) }},
		{"decode", 2, func() { Unmarshal(data, &v) }},             // the text, and the tags
		{"decode UTF-8", 1, func() { Unmarshal(long, &v) }},       // the text; no tags is no memory
		{"skip", 1, func() { Unmarshal(data, &discard) }},         // the text
		{"valid", 0, func() { Valid(data); Valid(long) }},         //
		{"type", 0, func() { payloadType(`{"type":"a","b":1}`) }}, // a string already
	} {
		if got := testing.AllocsPerRun(100, c.f); got != c.want {
			t.Errorf("%s allocates %v times, want %v", c.name, got, c.want)
		}
	}
}
