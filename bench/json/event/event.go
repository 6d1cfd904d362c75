// Package event holds the events that bench/json gives to every contender: the
// structs, the methods that each of the generators writes for them, and those
// of autobus.
package event

import "github.com/autobus-go/autobus"

//go:generate go run github.com/mailru/easyjson/easyjson@v0.9.2 -no_std_marshalers -output_filename easyjson.go event.go
//go:generate go run github.com/tinylib/msgp@v1.6.5 -tests=false -o msgp.go

// A Reading has a field of each common kind, and the type, which autobus writes
// and checks itself.
//
//easyjson:json
type Reading struct {
	Kind  string   `json:"type" msg:"type"`
	ID    int      `json:"id" msg:"id"`
	Name  string   `json:"name" msg:"name"`
	On    bool     `json:"on" msg:"on"`
	Value float64  `json:"value" msg:"value"`
	Tags  []string `json:"tags" msg:"tags"`
}

func (Reading) Type() string { return "Reading" }

func (r Reading) Marshal(e *autobus.Encoder) {
	e.Key("id").Int(r.ID)
	e.Key("name").String(r.Name)
	e.Key("on").Bool(r.On)
	e.Key("value").Float64(r.Value)
	e.Key("tags").Strings(r.Tags)
}

func (r *Reading) Unmarshal(d *autobus.Decoder) error {
	r.Kind = r.Type() // the bus lets no other in
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

// A Note is one long string.
//
//easyjson:json
type Note struct {
	Kind string `json:"type" msg:"type"`
	Text string `json:"text" msg:"text"`
}

func (Note) Type() string { return "Note" }

func (n Note) Marshal(e *autobus.Encoder) { e.Key("text").String(n.Text) }

func (n *Note) Unmarshal(d *autobus.Decoder) error {
	n.Kind = n.Type()
	for key := range d.Fields() {
		switch key {
		case "text":
			n.Text = d.String()
		}
	}
	return d.Err()
}
