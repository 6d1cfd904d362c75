package autobus

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

// The files in testdata hold what the real Python autobus and its libraries
// do; CONTRIBUTING.md says how to add to them.

// A wireCase is a message of testdata/python_wire.json.
type wireCase struct {
	Name      string
	Namespace string
	Channel   string
	Type      string          `json:"event_type"`
	Fields    json.RawMessage // as canon reads them
	Redis     string          `json:"wire_redis"`
	UDP       string          `json:"wire_udp"`
	Plaintext string          // where Redis is a token
	Key       string          // of that token
	TokenTime int64           `json:"token_time"`
}

// payload returns the event's JSON as Python wrote it.
func (c wireCase) payload() string {
	if c.Plaintext != "" {
		return c.Plaintext
	}
	return c.Redis
}

func wireCases(t testing.TB) []wireCase { return readVectors[wireCase](t, "testdata/python_wire.json") }

func TestPythonWire(t *testing.T) {
	for _, c := range wireCases(t) {
		t.Run(c.Name, func(t *testing.T) { testReencoded(t, c.Type, c.payload(), canon(t, string(c.Fields))) })
	}
}

// Everything that an event of pydantic's many field types puts on the wire.
func TestPydanticEmit(t *testing.T) {
	type emitCase struct{ Name, Result, Wire string }
	for _, c := range readVectors[emitCase](t, "testdata/pydantic_emit.json") {
		if c.Result != "OK" || c.Wire == "" {
			continue // Python sends nothing
		}
		t.Run(c.Name, func(t *testing.T) {
			want := canon(t, c.Wire).(map[string]any)
			name := want["type"].(string)
			delete(want, "type")
			testReencoded(t, name, c.Wire, want)
		})
	}
}

// testReencoded checks that a payload is read as the fields in want, and
// written again so that Python reads the same.
func testReencoded(t *testing.T, name, payload string, want any) {
	t.Helper()
	if !Valid([]byte(payload)) {
		t.Fatalf("not valid: %.200s", payload)
	}
	exact := exactEvent{name: name}
	if err := Unmarshal([]byte(payload), &exact); err != nil {
		t.Fatalf("%v: %.200s", err, payload)
	}
	if got := exact.canon(t); !reflect.DeepEqual(got, want) {
		t.Errorf("read\n%.400v, want\n%.400v", got, want)
	}
	sent := maps.Clone(want.(map[string]any))
	sent["type"] = name
	if got := reencode(t, exact); !reflect.DeepEqual(got, any(sent)) {
		t.Errorf("written by Encoder.Raw\n%.400v, want\n%.400v", got, sent)
	}
	loose := looseEvent{name: name}
	if err := Unmarshal([]byte(payload), &loose); err != nil {
		t.Fatalf("%v: %.200s", err, payload)
	}
	if got, want := reencode(t, loose), widened(sent); !reflect.DeepEqual(got, want) {
		t.Errorf("written by Encoder.Any\n%.400v, want\n%.400v", got, want)
	}
}

func reencode(t *testing.T, e Event) any {
	t.Helper()
	payload, err := Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if !Valid(payload) {
		t.Fatalf("we wrote what isn't valid: %.200s", payload)
	}
	return canon(t, string(payload))
}

// exactEvent is an event of any type that keeps its fields' JSON text.
type exactEvent struct {
	name   string
	fields map[string][]byte
}

func (r exactEvent) Type() string { return r.name }

func (r exactEvent) Marshal(e *Encoder) {
	for name, value := range r.fields {
		e.Key(name).Raw(value)
	}
}

func (r *exactEvent) Unmarshal(d *Decoder) error {
	r.fields = map[string][]byte{}
	for name := range d.Fields() {
		r.fields[name] = d.Raw()
	}
	return d.Err()
}

func (r exactEvent) canon(t *testing.T) any {
	fields := map[string]any{}
	for name, value := range r.fields {
		fields[name] = canon(t, string(value))
	}
	return fields
}

// looseEvent is an event of any type that keeps its fields' values.
type looseEvent struct {
	name   string
	fields map[string]any
}

func (a looseEvent) Type() string { return a.name }

func (a looseEvent) Marshal(e *Encoder) {
	for name, value := range a.fields {
		e.Key(name).Any(value)
	}
}

func (a *looseEvent) Unmarshal(d *Decoder) error {
	a.fields = map[string]any{}
	for name := range d.Fields() {
		a.fields[name] = d.Any()
	}
	return d.Err()
}

// What a Go program writes is what a pydantic model takes, kind by kind.
func TestPydanticAccept(t *testing.T) {
	type acceptCase struct{ Type, JSON, Result string }
	result := map[[2]string]string{}
	for _, c := range readVectors[acceptCase](t, "testdata/pydantic_accept.json") {
		result[[2]string{c.Type, c.JSON}] = c.Result
	}
	day := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		pydantic string
		json     string
		write    func(e *Encoder)
	}{
		{"int", `1`, func(e *Encoder) { e.Int(1) }},
		{"int", `9223372036854775808`, func(e *Encoder) { e.Uint64(1 << 63) }},
		{"int strict", `1`, func(e *Encoder) { e.Int64(1) }},
		{"float", `1.5`, func(e *Encoder) { e.Float64(1.5) }},
		{"float", `NaN`, func(e *Encoder) { e.Float64(math.NaN()) }},
		{"float", `Infinity`, func(e *Encoder) { e.Float64(math.Inf(1)) }},
		{"bool", `true`, func(e *Encoder) { e.Bool(true) }},
		{"str", `"x"`, func(e *Encoder) { e.String("x") }},
		{"str", `"\u0000"`, func(e *Encoder) { e.String("\x00") }},
		{"Base64Bytes", `"aGk="`, func(e *Encoder) { e.Bytes([]byte("hi")) }},
		{"bytes base64 cfg", `"aGk="`, func(e *Encoder) { e.Bytes([]byte("hi")) }},
		{"datetime", `"2024-01-02T03:04:05Z"`, func(e *Encoder) { e.Time(day) }},
		{"datetime", `"2024-01-02T03:04:05.123456Z"`, func(e *Encoder) { e.Time(day.Add(123456000)) }},
		{"datetime", `"2024-01-02T03:04:05.123456789Z"`, func(e *Encoder) { e.Time(day.Add(123456789)) }},
		{"datetime", `"2024-01-02T03:04:05+02:00"`, func(e *Encoder) {
			e.Time(day.Add(-2 * time.Hour).In(time.FixedZone("", 2*60*60)))
		}},
		{"timedelta", `1.5`, func(e *Encoder) { e.Duration(1500 * time.Millisecond) }},
		{"list[int]", `[]`, func(e *Encoder) { e.Strings(nil) }},
		{"tuple[int,str]", `[1,"a"]`, func(e *Encoder) { e.BeginArray().Int(1).String("a").EndArray() }},
		{"nested model", `{"a":1}`, func(e *Encoder) { e.BeginObject().Key("a").Int(1).EndObject() }},
		{"Optional[int]", `null`, func(e *Encoder) { e.Null() }},
		{"Union[float,int]", `5`, func(e *Encoder) { e.Any(5) }},
		{"Union[float,int]", `5.0`, func(e *Encoder) { e.Any(5.0) }},
		{"Any", `{"a":[1,2.5,null,true,"x"]}`, func(e *Encoder) {
			e.Any(map[string]any{"a": []any{1, 2.5, nil, true, "x"}})
		}},
	} {
		if got := result[[2]string{c.pydantic, c.json}]; got != "OK" {
			t.Errorf("the table says %q of %s given %s", got, c.pydantic, c.json)
		}
		payload, err := Marshal(writes(c.write))
		if want := `{"type":"Written","v":` + c.json + `}`; err != nil || string(payload) != want {
			t.Errorf("for %s: wrote %s, %v; want %s", c.pydantic, payload, err, want)
		}
	}
}

// writes is an event with one field, that the function writes.
type writes func(e *Encoder)

func (writes) Type() string         { return "Written" }
func (w writes) Marshal(e *Encoder) { w(e.Key("v")) }

// Each file of JSONTestSuite is taken or refused as Python's json.loads does
// in a receiving peer, which the manifest tells.
func TestJSONCases(t *testing.T) {
	dir := os.Getenv("AUTOBUS_JSON_CASES")
	if dir == "" {
		dir = "../shared/vectors/json_cases"
	}
	if _, err := os.Stat(filepath.Join(dir, "MANIFEST.json")); errors.Is(err, fs.ErrNotExist) {
		missing(t, "the cases of JSONTestSuite are not in "+dir+"; AUTOBUS_JSON_CASES can name another folder")
	}
	// Not JSON, and yet Python takes and writes them; so do we.
	pythonOnly := []string{"n_number_NaN.json", "n_number_infinity.json", "n_number_minus_infinity.json"}

	type manifestCase struct {
		File   string
		Class  string `json:"cls"`
		Python string `json:"py_wire"`
		Redump string // what Python writes for what it read, cut off at 80
	}
	cases := readVectors[manifestCase](t, filepath.Join(dir, "MANIFEST.json"))
	if len(cases) < 300 {
		t.Errorf("only %d cases", len(cases))
	}
	for _, c := range cases {
		t.Run(c.File, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(dir, c.File))
			if err != nil {
				t.Fatal(err)
			}
			want := c.Class == "y"
			switch {
			case c.Class == "i":
				want = c.Python == "accept"
			case slices.Contains(pythonOnly, c.File):
				want = true
			}
			if want != (c.Python == "accept") {
				t.Errorf("Python's verdict is %s", c.Python)
			}
			if got := Valid(data); got != want {
				t.Errorf("Valid(%.80q) = %v", data, got)
			}

			// Decoder methods agree with Valid, and with Python on the value.
			payload := `{"v":` + string(data) + `,"type":"Case"}`
			var e looseEvent
			if err := Unmarshal([]byte(payload), &e); (err == nil) != want {
				t.Errorf("Unmarshal(%.80q): %v", payload, err)
			}
			var r exactEvent
			if err := Unmarshal([]byte(payload), &r); (err == nil) != want {
				t.Errorf("Unmarshal(%.80q) by Raw: %v", payload, err)
			}
			if want && len(c.Redump) < 80 {
				read := map[string]any{"v": canon(t, c.Redump)}
				if got := r.canon(t); !reflect.DeepEqual(got, any(read)) {
					t.Errorf("read %.200v, and Python read %.200v", got, read)
				}
				read["type"] = "Case"
				e.name = "Case"
				if got := reencode(t, e); !reflect.DeepEqual(got, widened(read)) {
					t.Errorf("read by Any %.200v, and Python read %.200v", got, read)
				}
			}
		})
	}
}

func readVectors[T any](t testing.TB, file string) []T {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var cases []T
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	return cases
}

// A pyInt is an integer of any size, and a pyFloat a float by its bits, with
// one NaN: Python keeps the two kinds of number apart.
type (
	pyInt   string
	pyFloat uint64
)

func toFloat(f float64) pyFloat {
	if math.IsNaN(f) {
		f = math.NaN()
	}
	return pyFloat(math.Float64bits(f))
}

// Python's additions, and the strings they may stand in, to be left alone.
var spelledFloats = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|-?Infinity|NaN`)

// canon reads JSON text as Python does, by another parser than ours, into
// values that reflect.DeepEqual compares as Python would: nil, bool, pyInt,
// pyFloat, string (a lone surrogate is U+FFFD), []any, map[string]any. The
// vectors' {"$float": "nan"} and {"$utf16": [units]} stand for what they say.
func canon(t testing.TB, text string) any {
	t.Helper()
	text = spelledFloats.ReplaceAllStringFunc(text, func(s string) string {
		if s[0] == '"' {
			return s
		}
		return `{"$float":"` + s + `"}`
	})
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %.200s", err, text)
	}
	return canonValue(t, v)
}

func canonValue(t testing.TB, v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, ok := new(big.Int).SetString(v.String(), 10); ok {
			return pyInt(i.String())
		}
		f, _ := strconv.ParseFloat(v.String(), 64) // out of range, f is what Python makes of it
		return toFloat(f)
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = canonValue(t, v[i])
		}
		return list
	case map[string]any:
		if name, ok := v["$float"].(string); ok {
			f, err := strconv.ParseFloat(name, 64)
			if err != nil {
				t.Fatal(err)
			}
			return toFloat(f)
		}
		if units, ok := v["$utf16"].([]any); ok {
			var u []uint16
			for _, unit := range units {
				n, err := unit.(json.Number).Int64()
				if err != nil {
					t.Fatal(err)
				}
				u = append(u, uint16(n))
			}
			return string(utf16.Decode(u))
		}
		object := map[string]any{}
		for name, value := range v {
			object[name] = canonValue(t, value)
		}
		return object
	}
	return v
}

// widened returns v with its integers that neither an int64 nor a uint64 holds
// as floats, which is how Decoder.Any reads them.
func widened(v any) any {
	switch v := v.(type) {
	case pyInt:
		i, _ := new(big.Int).SetString(string(v), 10)
		if i.IsInt64() || i.IsUint64() {
			return v
		}
		f, _ := strconv.ParseFloat(string(v), 64)
		return toFloat(f)
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = widened(v[i])
		}
		return list
	case map[string]any:
		object := map[string]any{}
		for name, value := range v {
			object[name] = widened(value)
		}
		return object
	}
	return v
}
