package every

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autobus-go/autobus"
)

// A filler makes random values.
type filler struct {
	*rand.Rand
	grain time.Duration // of times and durations
}

func fill(r *rand.Rand, v reflect.Value) { filler{r, 1}.fill(v) }

// fill gives v a random value: the zero value, the least and the greatest
// number, an empty list and a nil pointer among them.
func (r filler) fill(v reflect.Value) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(r.Int64N(4e9), r.Int64N(1e9)).Truncate(r.grain).UTC()))
		return
	case time.Duration:
		v.SetInt(int64(time.Duration(r.Int64N(4e15) - 2e15).Truncate(r.grain)))
		return
	case netip.Addr:
		v.Set(reflect.ValueOf([]netip.Addr{{}, netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fe80::1%eth0")}[r.IntN(3)]))
		return
	case Own:
		v.Set(reflect.ValueOf(Own{r.IntN(9), -r.IntN(9)}))
		return
	case json.RawMessage:
		v.SetBytes([]byte([]string{`null`, `{"a":[1,2.5,"x"]}`, `true`, `"é"`}[r.IntN(4)]))
		return
	case autobus.Raw:
		v.Set(reflect.ValueOf([]autobus.Raw{
			{Name: "Other", JSON: []byte(`{"type":"Other","a":[1,2.5],"b":{"type":"x"}}`)},
			{Name: "", JSON: []byte(`{"type":""}`)},
		}[r.IntN(2)]))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n := int64(r.Uint64()) >> (64 - v.Type().Bits())
		v.SetInt([]int64{n, n, 0, math.MinInt64 >> (64 - v.Type().Bits()), math.MaxInt64 >> (64 - v.Type().Bits())}[r.IntN(5)])
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		n := r.Uint64() >> (64 - v.Type().Bits())
		v.SetUint([]uint64{n, n, 0, math.MaxUint64 >> (64 - v.Type().Bits())}[r.IntN(4)])
	case reflect.Float32:
		v.SetFloat(float64([]float32{0, 0.1, -math.MaxFloat32, math.SmallestNonzeroFloat32, r.Float32()}[r.IntN(5)]))
	case reflect.Float64:
		v.SetFloat([]float64{0, 0.1, 3, -math.MaxFloat64, math.SmallestNonzeroFloat64, r.NormFloat64()}[r.IntN(6)])
	case reflect.String:
		v.SetString(someString(r.Rand))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), r.IntN(4), 4))
		for i := range v.Len() {
			r.fill(v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			r.fill(v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(4) {
			key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			r.fill(key)
			r.fill(elem)
			v.SetMapIndex(key, elem)
		}
	case reflect.Pointer:
		if v.SetZero(); r.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			r.fill(v.Elem())
		}
	case reflect.Interface:
		if some := someAny(r.Rand, 3); some != nil {
			v.Set(reflect.ValueOf(some))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() && v.Field(i).Kind() != reflect.Func && v.Type().Field(i).Name != "Skipped" {
				if strings.Contains(string(v.Type().Field(i).Tag), ",raw") {
					v.Field(i).SetBytes([]byte(`{"a":[1,null,"é"]}`))
					continue
				}
				r.fill(v.Field(i))
			}
		}
	default:
		panic("no values for " + v.Type().String())
	}
}

func someString(r *rand.Rand) string {
	letters := []rune("aZ0 _-\"\\/\n\x00é日😀\u2028<")
	text := make([]rune, r.IntN(6))
	for i := range text {
		text[i] = letters[r.IntN(len(letters))]
	}
	return string(text)
}

// someAny is what Decoder.Any makes of JSON.
func someAny(r *rand.Rand, depth int) any {
	n := r.IntN(9)
	if depth == 0 {
		n = r.IntN(7)
	}
	switch n {
	case 0:
		return nil
	case 1:
		return r.IntN(2) == 0
	case 2:
		return int64(r.IntN(2000) - 1000)
	case 3:
		return uint64(math.MaxUint64)
	case 4:
		return r.NormFloat64()
	case 5, 6:
		return someString(r)
	case 7:
		list := []any{}
		for range r.IntN(3) {
			list = append(list, someAny(r, depth-1))
		}
		return list
	}
	object := map[string]any{}
	for range r.IntN(3) {
		object[someString(r)] = someAny(r, depth-1)
	}
	return object
}

// What is written reads back the same, for values of every field.
func FuzzRoundTrip(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		var every Every
		fill(r, reflect.ValueOf(&every).Elem())
		every.hidden = r.IntN(100)
		checkRoundTrip(t, every)
		var options Options
		fill(r, reflect.ValueOf(&options).Elem())
		data, err := autobus.Marshal(options)
		if err != nil {
			t.Fatal(err)
		}
		var back Options
		if err := autobus.Unmarshal(data, &back); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		for _, empty := range []any{&options.SomeBytes, &options.SomeList, &options.SomeWords, &options.SomeMap} {
			if v := reflect.ValueOf(empty).Elem(); v.Len() == 0 {
				v.SetZero() // it was left out
			}
		}
		if !reflect.DeepEqual(back, options) {
			t.Errorf("%s\nread as %+v\nwant    %+v", data, back, options)
		}
	})
}

func checkRoundTrip(t *testing.T, v Every) {
	t.Helper()
	data, err := autobus.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var back Every
	if err := autobus.Unmarshal(data, &back); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	if !reflect.DeepEqual(back, v) {
		a, b := reflect.ValueOf(back), reflect.ValueOf(v)
		for i := range a.NumField() {
			if name := a.Type().Field(i).Name; a.Field(i).CanInterface() && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
				t.Errorf("%s read as %#v, want %#v", name, a.Field(i), b.Field(i))
			}
		}
		t.Errorf("not the same: %s", data)
	}
	again, err := autobus.Marshal(&back)
	if err != nil || !bytes.Equal(again, data) {
		t.Errorf("written again: %s, %v; want %s", again, err, data)
	}
}

// Whatever can be read can be written, and reads as that again.
func FuzzHostile(f *testing.F) {
	for seed := range uint64(5) {
		var every Every
		fill(rand.New(rand.NewPCG(seed, 1)), reflect.ValueOf(&every).Elem())
		data, err := autobus.Marshal(every)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, c := range refused {
		f.Add([]byte(c.json))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var every Every
		if err := autobus.Unmarshal(data, &every); err == nil {
			once, err := autobus.Marshal(every)
			if err != nil {
				t.Fatalf("%q can be read, but not written: %v", data, err)
			}
			var back Every
			if err := autobus.Unmarshal(once, &back); err != nil {
				t.Fatalf("%q can be written, but not read: %v", once, err)
			}
			if twice, err := autobus.Marshal(back); err != nil || !bytes.Equal(once, twice) {
				t.Errorf("%q\nwas written as %q\nand then as    %q, %v", data, once, twice, err)
			}
		}
		var options Options
		autobus.Unmarshal(data, &options)
	})
}

// refused are texts that an event refuses, and why.
var refused = []struct{ json, want string }{
	{`{"int8":128}`, `field "int8" at byte 8: want an integer from -128 to 127`},
	{`{"int8":-129}`, `field "int8" at byte 8: want an integer from -128 to 127`},
	{`{"int16":32768}`, "from -32768 to 32767"},
	{`{"int32":2147483648}`, "from -2147483648 to 2147483647"},
	{`{"int64":9223372036854775808}`, "doesn't fit in 64 bits"},
	{`{"uint8":256}`, "from 0 to 255"},
	{`{"uint8":-1}`, "from 0 to 255"},
	{`{"uint16":65536}`, "from 0 to 65535"},
	{`{"uint32":4294967296}`, "from 0 to 4294967295"},
	{`{"uint":-1}`, "doesn't fit"},
	{`{"uint64":18446744073709551616}`, "doesn't fit"},
	{`{"float32":1e39}`, `field "float32" at byte 11: want a number that fits in 32 bits`},
	{`{"ratio":-1e39}`, "32 bits"},
	{`{"level":300}`, "from -128 to 127"},
	{`{"code":70000}`, "from 0 to 65535"},
	{`{"int":1.5}`, "want an integer"},
	{`{"int":null}`, "want a number, have null"},
	{`{"string":null}`, "want a string, have null"},
	{`{"strings":null}`, "want an array, have null"},
	{`{"ints":null}`, "want an array, have null"},
	{`{"by_name":null}`, "want an object, have null"},
	{`{"more":7}`, "want an object, have an integer"},
	{`{"room":null}`, "want an object, have null"},
	{`{"digest":"AAA="}`, `field "digest" at byte 10: want 4 bytes in base64`},
	{`{"bytes_pointer":"AAAA"}`, "want 2 bytes in base64"},
	{`{"triple":[1,2]}`, "want 3 elements"},
	{`{"triple":[1,2,3,4]}`, "want 3 elements"},
	{`{"grid":[[1,2,3],[1,2]]}`, `field "grid[1]" at byte 20: want 3 elements`},
	{`{"grid":[[1,2,3],[1,2,40000]]}`, `field "grid[1][2]" at byte 22: want an integer from -32768 to 32767`},
	{`{"grid":[[1,2,3],[1,2,3],[]]}`, "want 2 elements"},
	{`{"by_level":{"128":"x"}}`, "want an integer from -128 to 127 as the name"},
	{`{"by_level":{"x":"x"}}`, "want an integer from -128 to 127 as the name"},
	{`{"by_code":{"-1":1}}`, "want an integer from 0 to 18446744073709551615 as the name"},
	{`{"by_code":{"1":200}}`, `field "by_code.1" at byte 16: want an integer from -128 to 127`},
	{`{"room_by_id":{"9223372036854775808":null}}`, "as the name"},
	{`{"rooms":[{"floor":1},{"floor":128}]}`, `field "rooms[1].floor" at byte 31: want an integer from -128 to 127`},
	{`{"addr":"10.0.0"}`, `field "addr" at byte 8: `},
	{`{"own":{"x":"a"}}`, `field "own.x" at byte 12: want a number`},
	{`{"raw":7}`, "want an object"},
	{`{"raw":{"type":7}}`, "want a string"},
	{`{"raw":{"type":"a","type":"b"}}`, "want one type, have two"},
	{`{"time":"yesterday"}`, "RFC 3339"},
	{`{"took":"1s"}`, "want a number"},
}

func TestRefused(t *testing.T) {
	for _, c := range refused {
		var every Every
		if err := autobus.Unmarshal([]byte(c.json), &every); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.json, err, c.want)
		}
	}
}

func TestOptions(t *testing.T) {
	one, big := 1, math.MaxInt
	for _, c := range []struct {
		json string
		want Options
		fail string
	}{
		{`{"id":7,"parent":null}`, Options{ID: 7}, ""},
		{`{"id":7,"parent":1}`, Options{ID: 7, Parent: &one}, ""},
		{`{"id":7,"parent":null,"quoted_bool":true,"quoted_int":9223372036854775807,"quoted_int8":-1,"quoted_float64":1.5}`,
			Options{ID: 7, QuotedBool: true, QuotedInt: big, QuotedInt8: -1, QuotedFloat64: 1.5}, ""},
		{`{"id":7,"parent":null,"quoted_bool":"true","quoted_int":"9223372036854775807","quoted_int8":"-1","quoted_float64":"1.5"}`,
			Options{ID: 7, QuotedBool: true, QuotedInt: big, QuotedInt8: -1, QuotedFloat64: 1.5}, ""},
		{`{"parent":1}`, Options{}, `autobus: at byte 10: the required field "id" is missing`},
		{`{"id":7}`, Options{}, `the required field "parent" is missing`},
		{`{}`, Options{}, `the required field "id" is missing`},
		{`{"quoted_bool":"maybe"}`, Options{}, `field "quoted_bool" at byte 15: want true or false, in a string or not`},
		{`{"quoted_int8":"128"}`, Options{}, "want an integer from -128 to 127, in a string or not"},
		{`{"quoted_int8":128}`, Options{}, "want an integer from -128 to 127"},
		{`{"quoted_int":"x"}`, Options{}, "want an integer that fits in an int, in a string or not"},
		{`{"quoted_uint":"-1"}`, Options{}, "want an integer from 0 to the greatest uint, in a string or not"},
		{`{"quoted_uint64":"18446744073709551616"}`, Options{}, "want an integer from 0 to 18446744073709551615, in a string or not"},
		{`{"quoted_float32":"1e39"}`, Options{}, "want a number that fits in 32 bits, in a string or not"},
		{`{"quoted_float64":"x"}`, Options{}, "want a number that fits in 64 bits, in a string or not"},
	} {
		var got Options
		err := autobus.Unmarshal([]byte(c.json), &got)
		switch {
		case c.fail == "" && (err != nil || !reflect.DeepEqual(got, c.want)):
			t.Errorf("%s: %+v, %v", c.json, got, err)
		case c.fail != "" && (err == nil || !strings.Contains(err.Error(), c.fail)):
			t.Errorf("%s: %v, want %s", c.json, err, c.fail)
		}
	}
	data, err := autobus.Marshal(Options{})
	if want := `{"type":"EveryOptions","id":0,"parent":null,"quoted_bool":"false","quoted_int":"0","quoted_int8":"0","quoted_int64":"0",` +
		`"quoted_uint":"0","quoted_float32":"0","quoted_float64":"0"}`; string(data) != want || err != nil {
		t.Errorf("the zero value is %s, %v", data, err)
	}
}

// Nothing and nil: the zero value of every field can be sent and read.
func TestZero(t *testing.T) {
	data, err := autobus.Marshal(Every{})
	if err != nil {
		t.Fatal(err)
	}
	var back Every
	if err := autobus.Unmarshal(data, &back); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	if back.Strings == nil || back.Ints == nil || back.ByName == nil || back.IntPointer != nil || back.Any != nil {
		t.Errorf("%+v", back)
	}
	if data, err := autobus.Marshal(Nothing{}); string(data) != `{"type":"Nothing"}` || err != nil {
		t.Errorf("%s, %v", data, err)
	}
	if err := autobus.Unmarshal([]byte(`{"type":"Nothing","more":[1]}`), new(Nothing)); err != nil {
		t.Error(err)
	}
}

// Of a name that comes twice, the last value counts, and nothing of the first
// is left.
func TestTwice(t *testing.T) {
	var v Every
	err := autobus.Unmarshal([]byte(`{"room":{"title":"a","floor":1},"room":{"floor":2},"rooms":[{"floor":1}],"rooms":[{"title":"b"}],`+
		`"by_name":{"a":1},"by_name":{"b":2},"room_pointer":{"floor":1},"room_pointer":{"title":"c"},"int_pointer":1,"int_pointer":null,`+
		`"own":{"x":1},"own":{"y":2},"room_pair":[{"floor":1},{"floor":1}],"room_pair":[{"title":"a"},{"title":"b"}]}`), &v)
	want := Every{
		Room: Room{Floor: 2}, Rooms: []Room{{Title: "b"}}, ByName: map[string]int{"b": 2}, RoomPointer: &Room{Title: "c"},
		Own: Own{y: 2}, RoomPair: [2]Room{{Title: "a"}, {Title: "b"}},
	}
	if err != nil || !reflect.DeepEqual(v, want) {
		t.Errorf("%+v, %v", v, err)
	}
}

// Where the two mean the same, what one of autobus and encoding/json writes the
// other reads as it was.
func FuzzJSON(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		var v Common
		fill(rand.New(rand.NewPCG(seed, 2)), reflect.ValueOf(&v).Elem())
		v.Any, v.More = "text", map[string]any{"a": []any{1.5, nil, true}} // numbers in them are float64 to the one
		if len(v.Empty) == 0 {
			v.Empty = nil
		}
		if string(v.Raw) == "null" {
			v.Raw = json.RawMessage("{}")
		}
		theirs, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := autobus.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var fromTheirs, fromOurs Common
		if err := autobus.Unmarshal(theirs, &fromTheirs); err != nil || !reflect.DeepEqual(fromTheirs, v) {
			t.Errorf("autobus reads %s\nas   %+v, %v\nwant %+v", theirs, fromTheirs, err, v)
		}
		if err := json.Unmarshal(ours, &fromOurs); err != nil || !reflect.DeepEqual(fromOurs, v) {
			t.Errorf("encoding/json reads %s\nas   %+v, %v\nwant %+v", ours, fromOurs, err, v)
		}
		var names, ourNames map[string]json.RawMessage
		if err := json.Unmarshal(theirs, &names); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(ours, &ourNames); err != nil {
			t.Fatal(err)
		}
		delete(ourNames, "type")
		for name := range ourNames {
			if _, ok := names[name]; !ok {
				t.Errorf("encoding/json leaves out %s", name)
			}
		}
		if len(names) != len(ourNames) {
			t.Errorf("encoding/json writes %d fields, autobus %d", len(names), len(ourNames))
		}
	})
}

// byHand is Reading with methods as one writes them by hand.
type byHand Reading

func (byHand) Type() string { return "Reading" }

func (r byHand) Marshal(e *autobus.Encoder) {
	e.Key("id").Int(r.ID)
	e.Key("name").String(r.Name)
	e.Key("on").Bool(r.On)
	e.Key("value").Float64(r.Value)
	e.Key("tags").Strings(r.Tags)
	e.Key("level").Int(int(r.Level))
	if r.Worst != nil {
		e.Key("worst").Object((*pointByHand)(r.Worst))
	} else {
		e.Key("worst").Null()
	}
	e.Key("track").BeginArray()
	for i := range r.Track {
		e.Object((*pointByHand)(&r.Track[i]))
	}
	e.EndArray()
	e.Key("at").Time(r.At)
	names := make([]string, 0, len(r.Limit))
	for name := range r.Limit {
		names = append(names, name)
	}
	slices.Sort(names)
	e.Key("limit").BeginObject()
	for _, name := range names {
		e.Key(name).Int(r.Limit[name])
	}
	e.EndObject()
}

func (r *byHand) Unmarshal(d *autobus.Decoder) error {
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
		case "level":
			n := d.Int()
			if n < 0 || n > math.MaxUint8 {
				d.Fail(errLevel)
			}
			r.Level = uint8(n)
		case "worst":
			if d.Null() {
				r.Worst = nil
			} else {
				r.Worst = new(Point)
				d.Object((*pointByHand)(r.Worst))
			}
		case "track":
			r.Track = nil
			for range d.Elems() {
				r.Track = append(r.Track, Point{})
				d.Object((*pointByHand)(&r.Track[len(r.Track)-1]))
			}
		case "at":
			r.At = d.Time()
		case "limit":
			r.Limit = make(map[string]int)
			for name := range d.Fields() {
				r.Limit[name] = d.Int()
			}
		}
	}
	return d.Err()
}

var errLevel = errors.New("want 0 to 255")

type pointByHand Point

func (p *pointByHand) Marshal(e *autobus.Encoder) {
	e.Key("x").Float64(p.X)
	e.Key("y").Float64(p.Y)
}

func (p *pointByHand) Unmarshal(d *autobus.Decoder) error {
	for key := range d.Fields() {
		switch key {
		case "x":
			p.X = d.Float64()
		case "y":
			p.Y = d.Float64()
		}
	}
	return d.Err()
}

var aReading = &Reading{
	ID: 1234567, Name: "boiler room", On: true, Value: 21.375, Tags: []string{"north", "cellar", "hot"}, Level: 3,
	Worst: &Point{1.5, 2.25}, Track: []Point{{1, 2}, {3, 4.5}, {5, 6}}, At: time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC),
	Limit: map[string]int{"low": 5, "high": 90},
}

// BenchmarkMarshal and BenchmarkUnmarshal run generated methods beside those
// that are written by hand. Their ratio is what counts.
func BenchmarkMarshal(b *testing.B) {
	for _, c := range []struct {
		name  string
		event autobus.Event
	}{{"generated", aReading}, {"by hand", (*byHand)(aReading)}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				buf, _ = autobus.Append(buf[:0], c.event)
			}
		})
	}
}

func BenchmarkUnmarshal(b *testing.B) {
	data, err := autobus.Marshal(aReading)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		into autobus.Unmarshaler
	}{{"generated", new(Reading)}, {"by hand", new(byHand)}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := autobus.Unmarshal(data, c.into); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Generated methods allocate no more than those that are written by hand.
func TestGeneratedAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops things at random under the race detector")
	}
	data, err := autobus.Marshal(aReading)
	if err != nil {
		t.Fatal(err)
	}
	byHandData, err := autobus.Marshal((*byHand)(aReading))
	if err != nil || !bytes.Equal(data, byHandData) {
		t.Fatalf("by hand: %s, %v; generated: %s", byHandData, err, data)
	}
	var buf []byte
	marshal := func(e autobus.Event) float64 {
		return testing.AllocsPerRun(1000, func() { buf, _ = autobus.Append(buf[:0], e) })
	}
	unmarshal := func(v autobus.Unmarshaler) float64 {
		return testing.AllocsPerRun(1000, func() {
			if err := autobus.Unmarshal(data, v); err != nil {
				t.Fatal(err)
			}
		})
	}
	if got, want := marshal(aReading), marshal((*byHand)(aReading)); got > want {
		t.Errorf("Marshal allocates %v times, by hand %v", got, want)
	}
	if got, want := unmarshal(new(Reading)), unmarshal(new(byHand)); got > want {
		t.Errorf("Unmarshal allocates %v times, by hand %v", got, want)
	}
}
