//go:build unix

package main

import (
	"bytes"
	"encoding/json"

	"github.com/autobus-go/autobus"
	"github.com/autobus-go/autobus/bench/json/event"
	"github.com/bytedance/sonic"
	sonicencoder "github.com/bytedance/sonic/encoder"
	"github.com/go-faster/jx"
	goccy "github.com/goccy/go-json"
	"github.com/mailru/easyjson"
	"github.com/mailru/easyjson/jwriter"
	"github.com/tinylib/msgp/msgp"
	"github.com/valyala/fastjson"
)

// An encodable has the methods of every generator.
type encodable[T any] interface {
	*T
	autobus.Event
	autobus.Unmarshaler
	easyjson.Marshaler
	easyjson.Unmarshaler
	msgp.Marshaler
	msgp.Unmarshaler
}

// A contender encodes one event again and again, and decodes one text into one
// struct, which it is given zeroed. What is encoded is valid until the next.
type contender struct {
	name   string
	encode func() []byte
	decode func(data []byte) error
}

// contenders returns what writes v and reads into into. Each is used the way its
// documentation has it for speed, short of what leaves the input and the
// strings one memory.
func contenders[T any, P encodable[T]](v, into P, jxWrite func(*jx.Encoder, P), jxRead func(*jx.Decoder, P) error,
	fastWrite func(*fastjson.Arena, P) *fastjson.Value, fastRead func(*fastjson.Value, P) error) []contender {
	var ours, sonics, msgpacked, fast []byte
	var easy jwriter.Writer
	easy.NoEscapeHTML = true
	var easyBuf []byte
	var e jx.Encoder
	var d jx.Decoder
	var goccied bytes.Buffer
	goccyEncoder := goccy.NewEncoder(&goccied)
	goccyEncoder.SetEscapeHTML(false)
	var std bytes.Buffer
	stdEncoder := json.NewEncoder(&std)
	stdEncoder.SetEscapeHTML(false)
	var arena fastjson.Arena
	var parser fastjson.Parser
	return []contender{
		{"autobus", func() []byte {
			ours, _ = autobus.Append(ours[:0], v)
			return ours
		}, func(data []byte) error { return autobus.Unmarshal(data, into) }},
		{"sonic", func() []byte {
			sonics = sonics[:0]
			sonicencoder.EncodeInto(&sonics, v, 0)
			return sonics
		}, func(data []byte) error { return sonic.Unmarshal(data, into) }},
		{"goccy", func() []byte {
			goccied.Reset()
			goccyEncoder.Encode(v)
			return goccied.Bytes()
		}, func(data []byte) error { return goccy.Unmarshal(data, into) }},
		{"easyjson", func() []byte {
			easy.Buffer.Buf = easyBuf[:0]
			v.MarshalEasyJSON(&easy)
			easyBuf, _ = easy.BuildBytes()
			return easyBuf
		}, func(data []byte) error { return easyjson.Unmarshal(data, into) }},
		{"jx", func() []byte {
			e.Reset()
			jxWrite(&e, v)
			return e.Bytes()
		}, func(data []byte) error {
			d.ResetBytes(data)
			return jxRead(&d, into)
		}},
		{"fastjson", func() []byte {
			arena.Reset()
			fast = fastWrite(&arena, v).MarshalTo(fast[:0])
			return fast
		}, func(data []byte) error {
			parsed, err := parser.ParseBytes(data)
			if err != nil {
				return err
			}
			return fastRead(parsed, into)
		}},
		{"encoding/json", func() []byte {
			std.Reset()
			stdEncoder.Encode(v)
			return std.Bytes()
		}, func(data []byte) error { return json.Unmarshal(data, into) }},
		{msgpName, func() []byte {
			msgpacked, _ = v.MarshalMsg(msgpacked[:0])
			return msgpacked
		}, func(data []byte) error {
			_, err := into.UnmarshalMsg(data)
			return err
		}},
	}
}

// msgpName is of the contender that doesn't read or write JSON.
const msgpName = "msgp (not JSON)"

func jxWriteReading(e *jx.Encoder, r *event.Reading) {
	e.ObjStart()
	e.FieldStart("type")
	e.Str(r.Kind)
	e.FieldStart("id")
	e.Int(r.ID)
	e.FieldStart("name")
	e.Str(r.Name)
	e.FieldStart("on")
	e.Bool(r.On)
	e.FieldStart("value")
	e.Float64(r.Value)
	e.FieldStart("tags")
	e.ArrStart()
	for _, tag := range r.Tags {
		e.Str(tag)
	}
	e.ArrEnd()
	e.ObjEnd()
}

func jxReadReading(d *jx.Decoder, r *event.Reading) error {
	return d.ObjBytes(func(d *jx.Decoder, key []byte) (err error) {
		switch string(key) {
		case "type":
			r.Kind, err = d.Str()
		case "id":
			r.ID, err = d.Int()
		case "name":
			r.Name, err = d.Str()
		case "on":
			r.On, err = d.Bool()
		case "value":
			r.Value, err = d.Float64()
		case "tags":
			r.Tags = make([]string, 0, 4)
			err = d.Arr(func(d *jx.Decoder) error {
				tag, err := d.Str()
				r.Tags = append(r.Tags, tag)
				return err
			})
		default:
			err = d.Skip()
		}
		return err
	})
}

func jxWriteNote(e *jx.Encoder, n *event.Note) {
	e.ObjStart()
	e.FieldStart("type")
	e.Str(n.Kind)
	e.FieldStart("text")
	e.Str(n.Text)
	e.ObjEnd()
}

func jxReadNote(d *jx.Decoder, n *event.Note) error {
	return d.ObjBytes(func(d *jx.Decoder, key []byte) (err error) {
		switch string(key) {
		case "type":
			n.Kind, err = d.Str()
		case "text":
			n.Text, err = d.Str()
		default:
			err = d.Skip()
		}
		return err
	})
}

func fastWriteReading(a *fastjson.Arena, r *event.Reading) *fastjson.Value {
	o := a.NewObject()
	o.Set("type", a.NewString(r.Kind))
	o.Set("id", a.NewNumberInt(r.ID))
	o.Set("name", a.NewString(r.Name))
	if r.On {
		o.Set("on", a.NewTrue())
	} else {
		o.Set("on", a.NewFalse())
	}
	o.Set("value", a.NewNumberFloat64(r.Value))
	tags := a.NewArray()
	for i, tag := range r.Tags {
		tags.SetArrayItem(i, a.NewString(tag))
	}
	o.Set("tags", tags)
	return o
}

func fastReadReading(v *fastjson.Value, r *event.Reading) (err error) {
	kind, err := v.Get("type").StringBytes()
	if err != nil {
		return err
	}
	r.Kind = string(kind)
	if r.ID, err = v.Get("id").Int(); err != nil {
		return err
	}
	name, err := v.Get("name").StringBytes()
	if err != nil {
		return err
	}
	r.Name = string(name)
	if r.On, err = v.Get("on").Bool(); err != nil {
		return err
	}
	if r.Value, err = v.Get("value").Float64(); err != nil {
		return err
	}
	tags, err := v.Get("tags").Array()
	if err != nil {
		return err
	}
	r.Tags = make([]string, len(tags))
	for i, tag := range tags {
		text, err := tag.StringBytes()
		if err != nil {
			return err
		}
		r.Tags[i] = string(text)
	}
	return nil
}

func fastWriteNote(a *fastjson.Arena, n *event.Note) *fastjson.Value {
	o := a.NewObject()
	o.Set("type", a.NewString(n.Kind))
	o.Set("text", a.NewString(n.Text))
	return o
}

func fastReadNote(v *fastjson.Value, n *event.Note) error {
	kind, err := v.Get("type").StringBytes()
	if err != nil {
		return err
	}
	n.Kind = string(kind)
	text, err := v.Get("text").StringBytes()
	n.Text = string(text)
	return err
}
