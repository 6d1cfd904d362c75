// Package every has events with every kind of field that autobusgen knows, to
// test what it writes.
package every

import (
	"encoding/json"
	"net/netip"
	"time"

	"github.com/autobus-go/autobus"
)

//go:generate go run github.com/autobus-go/autobus/cmd/autobusgen -python every.py

// Named types of the basic kinds.
type (
	Flag   bool
	Level  int8
	Code   uint16
	Ratio  float32
	Degree float64
	Name   string
	Names  []string
	Blob   []byte
	Grid   [2][3]int16
	Counts map[Name]uint32
)

// Every has a field of every kind.
//
//autobus:event
type Every struct {
	Bool    bool
	Int     int
	Int8    int8
	Int16   int16
	Int32   int32
	Int64   int64
	Uint    uint
	Uint8   uint8
	Uint16  uint16
	Uint32  uint32
	Uint64  uint64
	Uintptr uintptr
	Float32 float32
	Float64 float64
	String  string
	Bytes   []byte
	Digest  [4]byte
	Time    time.Time
	Took    time.Duration

	Flag   Flag
	Level  Level
	Code   Code
	Ratio  Ratio
	Degree Degree
	Name   Name
	Names  Names
	Blob   Blob
	Grid   Grid
	Counts Counts
	Month  time.Month

	Any      any
	More     map[string]any
	Document json.RawMessage
	Text     []byte `autobus:",raw"`
	Raw      autobus.Raw
	Own      Own
	Addr     netip.Addr

	IntPointer    *int
	LevelPointer  *Level
	TimePointer   *time.Time
	StringPointer *string
	ListPointer   *[]int
	RoomPointer   *Room
	OwnPointer    *Own
	MapPointer    *map[string]int
	BytesPointer  *[2]byte

	Strings   []string
	Ints      []int
	Levels    []Level
	Times     []time.Time
	Rooms     []Room
	Pointers  []*int
	Lists     [][]string
	Anything  []any
	Triple    [3]float64
	RoomPair  [2]Room
	Owns      []Own
	Addrs     []netip.Addr
	Digests   [][2]byte
	Raws      []autobus.Raw
	Documents []json.RawMessage

	ByName     map[string]int
	ByLevel    map[Level]string
	ByCode     map[uint64]int8
	RoomByName map[string]Room
	RoomByID   map[int]*Room
	ListByName map[string][]int
	Deep       map[string]map[int][]Room
	OwnByName  map[string]Own
	AddrByName map[string]netip.Addr
	HashByName map[string][2]byte
	JSONByName map[string]json.RawMessage
	RawByName  map[string]autobus.Raw
	TimeByName map[string]time.Time

	Room Room
	Base
	Changed func() `autobus:"-"`
	hidden  int    `autobus:"hidden"`
	Renamed int    `autobus:"other_name"`
	Skipped int    `json:"-"`
	_       int
}

// Base is embedded: its fields stand among those of Every.
type Base struct {
	BaseID int
	Inner
}

// Inner is embedded in what is embedded.
type Inner struct {
	InnerName string `json:"inner_name,omitempty"`
}

// Room is nested.
type Room struct {
	Title string
	Floor int8
	Doors []Door
}

// Door is nested deeper.
type Door struct {
	Open bool
	Type string // only an event's own fields can't be named so
}

// Own has methods written by hand.
type Own struct{ x, y int }

// Marshal writes the coordinates.
func (o Own) Marshal(e *autobus.Encoder) {
	e.Key("x").Int(o.x)
	e.Key("y").Int(o.y)
}

// Unmarshal reads them.
func (o *Own) Unmarshal(d *autobus.Decoder) error {
	for key := range d.Fields() {
		switch key {
		case "x":
			o.x = d.Int()
		case "y":
			o.y = d.Int()
		}
	}
	return d.Err()
}

// Options has every option of a tag.
//
//autobus:event EveryOptions
type Options struct {
	ID         int            `autobus:"id,required"`
	Parent     *int           `autobus:",required"`
	SomeBool   bool           `autobus:",omitempty"`
	SomeInt    int16          `autobus:",omitempty"`
	SomeFloat  float64        `autobus:",omitempty"`
	SomeString string         `json:",omitempty"`
	SomeBytes  []byte         `autobus:",omitempty"`
	SomeTime   time.Time      `autobus:",omitempty"`
	SomeTook   time.Duration  `autobus:",omitempty"`
	SomeAny    any            `autobus:",omitempty"`
	SomeList   []int          `autobus:",omitempty"`
	SomeWords  []string       `autobus:",omitempty"`
	SomeText   []byte         `autobus:",raw,omitempty"`
	SomeMap    map[string]int `autobus:",omitempty"`
	SomeRoom   *Room          `autobus:",omitempty"`

	QuotedBool    bool    `autobus:",string"`
	QuotedInt     int     `autobus:",string"`
	QuotedInt8    int8    `autobus:",string"`
	QuotedInt64   int64   `json:"quoted_int64,string"`
	QuotedUint    uint    `autobus:",string"`
	QuotedUint64  uint64  `autobus:",string,omitempty"`
	QuotedFloat32 float32 `autobus:",string"`
	QuotedFloat64 float64 `autobus:",string"`
}

//autobus:event
type Nothing struct{}

// Common has what encoding/json reads and writes as autobusgen does, under the
// same names.
//
//autobus:event
type Common struct {
	Bool    bool              `json:"bool"`
	Int     int               `json:"int"`
	Int8    int8              `json:"int8"`
	Int16   int16             `json:"int16"`
	Int32   int32             `json:"int32"`
	Int64   int64             `json:"int64"`
	Uint    uint              `json:"uint"`
	Uint8   uint8             `json:"uint8"`
	Uint16  uint16            `json:"uint16"`
	Uint32  uint32            `json:"uint32"`
	Uint64  uint64            `json:"uint64"`
	Uintptr uintptr           `json:"uintptr"`
	Float32 float32           `json:"float32"`
	Float64 float64           `json:"float64"`
	String  string            `json:"string"`
	Bytes   []byte            `json:"bytes"`
	Blob    Blob              `json:"blob"`
	Time    time.Time         `json:"time"`
	Level   Level             `json:"level"`
	Names   Names             `json:"names"`
	Grid    Grid              `json:"grid"`
	Counts  Counts            `json:"counts"`
	Any     any               `json:"any"`
	More    map[string]any    `json:"more"`
	Raw     json.RawMessage   `json:"raw"`
	Addr    netip.Addr        `json:"addr"`
	Pointer *int              `json:"pointer"`
	Point   *Point            `json:"point"`
	Times   []time.Time       `json:"times"`
	Points  []Point           `json:"points"`
	ByLevel map[Level]string  `json:"by_level"`
	ByName  map[string]*Point `json:"by_name"`
	Quoted  int               `json:"quoted,string"`
	Empty   []int             `json:"empty,omitempty"`
	Point2
}

// Point is nested.
type Point struct {
	X float64 `json:"x"`
	Y float64 `json:"y"`
}

// Point2 is embedded.
type Point2 struct {
	Z int `json:"z"`
}

// Reading is what the benchmark writes and reads.
//
//autobus:event
type Reading struct {
	ID    int
	Name  string
	On    bool
	Value float64
	Tags  []string
	Level uint8
	Worst *Point
	Track []Point
	At    time.Time
	Limit map[string]int
}
