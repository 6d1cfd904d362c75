package autobus

import (
	"encoding/json"
	"os"
	"testing"
)

// reading is the event of the benchmarks: five fields, one of each common kind.
type reading struct {
	ID    int
	Name  string
	On    bool
	Value float64
	Tags  []string
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

func TestJSONCasesQuick(t *testing.T) {
	dir := "../shared/vectors/json_cases/"
	var m []struct{ File, Cls, Py_wire string }
	b, _ := os.ReadFile(dir + "MANIFEST.json")
	json.Unmarshal(b, &m)
	for _, c := range m {
		data, err := os.ReadFile(dir + c.File)
		if err != nil {
			t.Fatal(err)
		}
		if Valid(data) != (c.Py_wire == "accept") {
			t.Errorf("%s %v", c.File, c.Py_wire)
		}
	}
	t.Log(len(m))
}
