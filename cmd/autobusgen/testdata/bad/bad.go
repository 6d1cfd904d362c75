// Package bad has every mistake that a struct can have.
package bad

import (
	"encoding/json"
	"net/url"
	"sync"
	"sync/atomic"
	"text/template"
	"time"
	"unsafe"

	"github.com/autobus-go/autobus"
)

//autobus:event
type Fields struct {
	Chan      chan int
	Func      func()
	Complex   complex128
	Pointer   unsafe.Pointer
	Interface interface{ Close() error }
	Error     error
	Struct    struct{ X int }
	Slice     []struct{ X int }
	Other     url.URL
	Others    map[string]*template.Template
	Atomic    atomic.Int64
	BigKey    map[float64]int
	TimeKey   map[time.Time]int
	StructKey map[Good]int
	NilNil    **int
	NilAny    *any
	NilJSON   *json.RawMessage
	Named     NamedPointer
	hidden    int
	jsonName  int `json:"json_name"`
	Generic   Box[int]
	Half      HalfMarshal
	OtherHalf HalfUnmarshal
	Wrong     WrongMarshal
	HalfText  HalfText
	JSON      WithJSON
	Itself    []Itself
	List      List
	Deep      map[string][]chan<- string
	Array     [3]func()
	Stolen    Stolen
}

//autobus:event
type Locks struct {
	mu     sync.Mutex `autobus:"-"`
	Held   [2]Guarded `autobus:"-"`
	Atomic struct {
		n atomic.Int64
	} `autobus:"-"`
	Borrowed *sync.Mutex `autobus:"-"`
}

// Guarded has methods of its own, and is copied all the same.
type Guarded struct{ sync.RWMutex }

//autobus:event
type Tags struct {
	Type      string
	Kind      string `autobus:"type"`
	A         int    `autobus:"same"`
	B         int    `autobus:"same"`
	UserID    int
	User_ID   int
	Unknown   int       `autobus:"x,requird"`
	JSON      int       `json:"y,omitzero"`
	Malformed int       `autobus: "z"`
	MalJSON   int       `json: "z"`
	Both      int       `autobus:",omitempty,required"`
	NoEmpty   Good      `autobus:",omitempty"`
	NoEmpty2  [2]int    `autobus:",omitempty"`
	NoEmpty3  Own       `json:",omitempty"`
	NoEmpty4  Hardly    `autobus:",omitempty"`
	NoEmpty5  Raw       `autobus:",omitempty"`
	Quoted    string    `autobus:",string"`
	Quoted2   time.Time `json:",string"`
	Quoted3   []int     `autobus:",string"`
	Bytes     [2]byte   `autobus:",omitempty"`
	Invalid   int       `autobus:"\xff"`
	RawText   string    `autobus:",raw"`
}

// Raw is autobus's.
type Raw = autobus.Raw

//autobus:event
type Embeds struct {
	*Good
	Own
	url.URL
	Good2 `autobus:",omitempty"`
	error
	Clash
	ID int
}

type (
	Good  struct{ X int }
	Good2 struct{ Y int }
	Clash struct{ ID int }

	Own          struct{}
	NamedPointer *int
	Box[T any]   struct{ V T }
	Itself       struct{ More []Itself }
	List         []List
	Stolen       url.Userinfo
	WithJSON     struct{ X int }
	Hardly       int

	HalfMarshal   struct{ X int }
	HalfUnmarshal struct{ X int }
	WrongMarshal  struct{ X int }
	HalfText      int
)

func (Own) Marshal(*autobus.Encoder)                    {}
func (*Own) Unmarshal(*autobus.Decoder) error           { return nil }
func (HalfMarshal) Marshal(*autobus.Encoder)            {}
func (*HalfUnmarshal) Unmarshal(*autobus.Decoder) error { return nil }
func (WrongMarshal) Marshal() ([]byte, error)           { return nil, nil }
func (WithJSON) MarshalJSON() ([]byte, error)           { return nil, nil }
func (HalfText) MarshalText() ([]byte, error)           { return nil, nil }
func (Hardly) MarshalText() ([]byte, error)             { return nil, nil }
func (*Hardly) UnmarshalText([]byte) error              { return nil }

//autobus:event
type Generic[T any] struct{ V T }

//autobus:event
type Alias = Good

//autobus:event
type NotAStruct []int

//autobus:event has:colon
type Colon struct{}

//autobus:event *
type Star struct{}

//autobus:event two words
type Words struct{}

//autobus:event One
//autobus:event Two
type TwoNames struct{}

//autobus:event
type ByHand struct{ X int }

func (ByHand) Type() string { return "ByHand" }

//autobus:event
type MethodNames struct {
	Marshal   int
	Unmarshal int
}

//autobus:event Twice
type Twice1 struct{}

//autobus:event Twice
type Twice2 struct{}

//autobus:event
type Borrowed url.Userinfo

//autobus:event

type EmptyLine struct{}

// autobus:event
type Space struct{}

//autobus:evnt
type Misspelt struct{}

func f() {
	//autobus:event
	type Local struct{}
}

//go:generate autobusgen -type Missing
