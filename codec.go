package autobus

import (
	"encoding/base64"
	"errors"
	"iter"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// maxDepth bounds how deep JSON may nest, an event's own object included.
// Python's json gives up near the same depth (its recursion limit).
const maxDepth = 1000

// keepBuffer is the largest buffer that goes back into a pool.
const keepBuffer = 64 << 10

// A Marshaler writes its fields into the object that e has open.
type Marshaler interface {
	Marshal(e *Encoder)
}

// An Unmarshaler reads one JSON value, most often an object by ranging over
// [Decoder.Fields]. The error it returns, usually d.Err(), refuses the event;
// an error that d met counts even if it is not returned. To refuse a field,
// call [Decoder.Fail] inside the loop: then the error names it.
type Unmarshaler interface {
	Unmarshal(d *Decoder) error
}

// Marshal returns the payload of e: a JSON object of its fields, and its type
// in the field "type".
func Marshal(e Event) ([]byte, error) { return Append(nil, e) }

// Append appends the payload of e to dst, as [Marshal] makes it. On an error
// it returns dst as it was.
func Append(dst []byte, e Event) ([]byte, error) {
	enc := encoders.Get().(*Encoder)
	own := enc.buf
	enc.buf = dst
	_, err := enc.event(e)
	out := enc.buf
	enc.buf = own
	encoders.Put(enc)
	if err != nil {
		return dst, err
	}
	return out, nil
}

// Unmarshal reads the JSON text data into v, and requires that nothing follows
// it. Where v has a Type method, as events have, the field "type" on the top
// level is the bus's own and [Decoder.Fields] passes it over; its value is not
// compared with v's. An error names the field's path and the byte offset, and
// leaves v partly written. The strings that v gets share one copy of data.
func Unmarshal(data []byte, v Unmarshaler) error {
	d := decoders.Get().(*Decoder)
	defer d.free()
	_, isEvent := v.(interface{ Type() string })
	return d.decode(string(data), v, isEvent)
}

// Valid reports whether data is one JSON text as this package reads it: RFC
// 8259, and NaN, Infinity and -Infinity as numbers; strict UTF-8, nested at
// most 1000 deep.
func Valid(data []byte) bool {
	end, problem := skipValue(data, skipSpace(data, 0), 0)
	return problem == "" && skipSpace(data, end) == len(data)
}

// An Encoder writes one JSON object, field by field, for [Event.Marshal]. Its
// methods return it, so that they chain: e.Key("id").Int(7). It keeps its
// first error, which Publish and [Marshal] then return; after it nothing more
// is written. What it writes is compact UTF-8; a call out of order (a value
// without a key, an array left open) is an error, never bad JSON.
type Encoder struct {
	buf     []byte
	expects expectation
	depth   int
	floor   int                     // the depth of the object that the running Marshal may not close
	objects [maxDepth/64 + 1]uint64 // bit d is set where the container at depth d is an object
	isEvent bool
	err     error

	head     []byte // what the payload of an event of headType begins with
	headType []byte
}

// An expectation is what an Encoder has to write next.
type expectation uint8

const (
	expectNothing expectation = iota // the text is complete, or there was an error
	expectKey                        // in an object: a key, or its end
	expectValue                      // after a key
	expectElem                       // in an array: an element, or its end
)

var encoders = sync.Pool{New: func() any { return new(Encoder) }}

// event appends the payload of ev to e.buf, and returns its type.
func (e *Encoder) event(ev Event) (name string, err error) {
	if ev == nil {
		return "", &failure{text: "the event is nil"}
	}
	name = ev.Type()
	if string(e.headType) != name || name == "" {
		if problem := typeProblem(name); problem != "" {
			return name, &failure{text: "event type " + strconv.Quote(name) + " " + problem}
		}
		e.head = appendQuoted(append(e.head[:0], `{"type":`...), name)
		e.headType = append(e.headType[:0], name...)
	}
	e.buf = append(e.buf, e.head...)
	e.expects, e.depth, e.floor, e.isEvent, e.err = expectKey, 1, 0, true, nil
	e.objects[0] |= 1 << 1
	e.fields(ev)
	e.EndObject()
	if e.err != nil {
		return name, &failure{text: "event " + name, cause: e.err}
	}
	return name, nil
}

// Key writes a field's name; its value must follow. The name "type" is taken
// on an event's top level: it carries [Event.Type].
func (e *Encoder) Key(name string) *Encoder {
	if e.expects != expectKey || name == "type" && e.depth == 1 && e.isEvent {
		return e.refuseKey(name)
	}
	buf, before := e.buf, byte(',')
	if last := len(buf) - 1; buf[last] == '{' {
		buf, before = buf[:last], '{'
	}
	e.expects = expectValue
	if n := len(name); n <= 6 {
		// With its quote and colon it fits in one word.
		if w := loadShort(name); odd(w|blanks<<(8*n)) == 0 {
			e.buf = store(append(buf, before, '"'), w|('"'|':'<<8)<<(8*n), n+2)
			return e
		}
	}
	e.buf = append(appendQuoted(append(buf, before), name), ':')
	return e
}

// refuseKey says why Key may not write name. It is apart to keep Key short.
func (e *Encoder) refuseKey(name string) *Encoder {
	if e.expects == expectKey {
		return e.Fail(errors.New(`field "type" is taken: it carries the event's type`))
	}
	if e.expects == expectValue {
		return e.misuse("Key(" + strconv.Quote(name) + ") where the value of " + e.lastKey() + " belongs")
	}
	return e.misuse("Key(" + strconv.Quote(name) + ") outside an object")
}

// lastKey returns the key that was just written, in its quotes.
func (e *Encoder) lastKey() string {
	quoted := strings.TrimSuffix(string(e.buf), ":")
	return quoted[strings.LastIndexByte(quoted[:len(quoted)-1], '"'):]
}

// value makes room for a value, and reports whether one may stand here.
func (e *Encoder) value() bool {
	switch e.expects {
	case expectValue:
		e.expects = expectKey
	case expectElem:
		if e.buf[len(e.buf)-1] != '[' {
			e.buf = append(e.buf, ',')
		}
	default:
		e.misuse("a value without a key")
		return false
	}
	return true
}

// misuse fails, unless an error before is the reason why nothing is expected.
func (e *Encoder) misuse(what string) *Encoder {
	return e.Fail(errors.New("Marshal: " + what))
}

// Null writes null.
func (e *Encoder) Null() *Encoder {
	if e.value() {
		e.buf = append(e.buf, "null"...)
	}
	return e
}

// Bool writes true or false.
func (e *Encoder) Bool(v bool) *Encoder {
	if e.value() {
		e.buf = strconv.AppendBool(e.buf, v)
	}
	return e
}

// Int writes an integer.
func (e *Encoder) Int(v int) *Encoder { return e.Int64(int64(v)) }

// Int64 writes an integer. Python reads it exactly at any size.
func (e *Encoder) Int64(v int64) *Encoder {
	if e.value() {
		e.buf = appendInt(e.buf, v)
	}
	return e
}

// Uint64 writes an integer.
func (e *Encoder) Uint64(v uint64) *Encoder {
	if e.value() {
		e.buf = appendUint(e.buf, v)
	}
	return e
}

// Float64 writes the shortest number that reads back as v, always with a
// point or an exponent, so that Python keeps it apart from an integer. What
// RFC 8259 lacks is written as Python does: NaN, Infinity, -Infinity.
func (e *Encoder) Float64(v float64) *Encoder {
	if e.value() {
		e.buf = appendFloat(e.buf, v)
	}
	return e
}

// String writes a string. What isn't valid UTF-8 in it becomes U+FFFD.
func (e *Encoder) String(v string) *Encoder {
	if e.value() {
		e.buf = appendQuoted(e.buf, v)
	}
	return e
}

// Strings writes an array of strings; nil is an empty one.
func (e *Encoder) Strings(v []string) *Encoder {
	if !e.value() {
		return e
	}
	if e.depth == maxDepth {
		return e.misuse(tooDeep)
	}
	buf := append(e.buf, '[')
	for i, s := range v {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = appendQuoted(buf, s)
	}
	e.buf = append(buf, ']')
	return e
}

// Bytes writes a string in standard base64 with padding (RFC 4648 section 4),
// what Python's pydantic.Base64Bytes reads.
func (e *Encoder) Bytes(v []byte) *Encoder {
	if e.value() {
		e.buf = append(e.buf, '"')
		e.buf = base64.StdEncoding.AppendEncode(e.buf, v)
		e.buf = append(e.buf, '"')
	}
	return e
}

// Time writes a string in RFC 3339 form, to the nanosecond. It keeps t's zone,
// but writes UTC where that is not whole minutes away, which the form can't
// express. A year outside 0 to 9999, or a zone 24 hours or more from UTC, is
// an error.
func (e *Encoder) Time(t time.Time) *Encoder {
	if _, offset := t.Zone(); offset%60 != 0 {
		t = t.UTC()
	}
	if e.value() {
		e.buf = append(e.buf, '"')
		buf, err := t.AppendText(e.buf)
		if err != nil {
			return e.Fail(err)
		}
		e.buf = append(buf, '"')
	}
	return e
}

// Duration writes a number of seconds, exact to the nanosecond.
func (e *Encoder) Duration(v time.Duration) *Encoder {
	if !e.value() {
		return e
	}
	n := uint64(v)
	if v < 0 {
		n = -n
		e.buf = append(e.buf, '-')
	}
	e.buf = appendDecimal(e.buf, n/1e9, n%1e9)
	return e
}

// Any writes nil, a bool, any Go integer or float, a string, a []any or a
// map[string]any of such values (its keys sorted), or a [Marshaler] as an
// object. Another type is an error.
func (e *Encoder) Any(v any) *Encoder {
	if e.err != nil {
		return e // what holds itself ends here, at the depth limit
	}
	switch v := v.(type) {
	case nil:
		return e.Null()
	case bool:
		return e.Bool(v)
	case int:
		return e.Int64(int64(v))
	case int8:
		return e.Int64(int64(v))
	case int16:
		return e.Int64(int64(v))
	case int32:
		return e.Int64(int64(v))
	case int64:
		return e.Int64(v)
	case uint:
		return e.Uint64(uint64(v))
	case uint8:
		return e.Uint64(uint64(v))
	case uint16:
		return e.Uint64(uint64(v))
	case uint32:
		return e.Uint64(uint64(v))
	case uint64:
		return e.Uint64(v)
	case float32:
		return e.Float64(float64(v))
	case float64:
		return e.Float64(v)
	case string:
		return e.String(v)
	case []any:
		e.BeginArray()
		for _, elem := range v {
			e.Any(elem)
		}
		return e.EndArray()
	case map[string]any:
		keys := make([]string, 0, len(v))
		for key := range v {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		e.BeginObject()
		for _, key := range keys {
			e.Key(key).Any(v[key])
		}
		return e.EndObject()
	case Marshaler:
		return e.Object(v)
	}
	return e.misuse("Any takes nil, bool, numbers, string, []any, map[string]any and Marshaler, and was given another type")
}

// Raw writes a value that is JSON text already, as it stands but for white
// space around it. Text that isn't [Valid] is an error.
func (e *Encoder) Raw(json []byte) *Encoder {
	if !e.value() {
		return e
	}
	start := skipSpace(json, 0)
	end, problem := skipValue(json, start, e.depth)
	if problem == "" && skipSpace(json, end) != len(json) {
		end, problem = skipSpace(json, end), "something follows the JSON value"
	}
	if problem != "" {
		return e.misuse("Raw, at byte " + strconv.Itoa(end) + ": " + problem)
	}
	e.buf = append(e.buf, json[start:end]...)
	return e
}

// Object writes an object whose fields v writes. A nil interface is null; for
// a nil pointer, which v can't tell from others, write Null instead.
func (e *Encoder) Object(v Marshaler) *Encoder {
	if v == nil {
		return e.Null()
	}
	if e.BeginObject(); e.err == nil {
		e.fields(v)
	}
	return e.EndObject()
}

// fields has v write into the object that was just begun, and no further.
func (e *Encoder) fields(v Marshaler) {
	depth, floor := e.depth, e.floor
	e.floor = depth
	v.Marshal(e)
	if e.err == nil && e.depth != depth {
		e.misuse("an array or object is left open")
	}
	e.floor = floor
}

// BeginArray starts an array: values follow, then EndArray.
func (e *Encoder) BeginArray() *Encoder { return e.begin('[', expectElem) }

// EndArray ends the array.
func (e *Encoder) EndArray() *Encoder { return e.end(']', expectElem) }

// BeginObject starts an object: keys and values follow, then EndObject.
func (e *Encoder) BeginObject() *Encoder { return e.begin('{', expectKey) }

// EndObject ends the object.
func (e *Encoder) EndObject() *Encoder { return e.end('}', expectKey) }

func (e *Encoder) begin(bracket byte, expects expectation) *Encoder {
	if !e.value() {
		return e
	}
	if e.depth == maxDepth {
		return e.misuse(tooDeep)
	}
	e.depth++
	if expects == expectKey {
		e.objects[e.depth/64] |= 1 << (e.depth % 64)
	} else {
		e.objects[e.depth/64] &^= 1 << (e.depth % 64)
	}
	e.buf = append(e.buf, bracket)
	e.expects = expects
	return e
}

func (e *Encoder) end(bracket byte, expects expectation) *Encoder {
	if e.err == nil && e.expects == expectValue {
		return e.misuse("the key " + e.lastKey() + " has no value")
	}
	if e.expects != expects || e.depth == e.floor {
		return e.misuse("'" + string(rune(bracket)) + "' where it ends nothing")
	}
	e.buf = append(e.buf, bracket)
	e.depth--
	switch {
	case e.depth == 0:
		e.expects = expectNothing
	case e.objects[e.depth/64]>>(e.depth%64)&1 == 1:
		e.expects = expectKey
	default:
		e.expects = expectElem
	}
	return e
}

// Fail refuses the event: Publish returns err. The first error is kept.
func (e *Encoder) Fail(err error) *Encoder {
	if e.err == nil && err != nil {
		e.err = err
		e.expects = expectNothing
	}
	return e
}

// A Kind is what a JSON value is.
type Kind uint8

// The kinds. A number with a point or an exponent, NaN and the infinities are
// floats; any other number is an integer.
const (
	KindInvalid Kind = iota // no value here, or an error before it
	KindNull
	KindBool
	KindInt
	KindFloat
	KindString
	KindArray
	KindObject
)

// String returns the kind with its article, as errors have it: "a string".
func (k Kind) String() string {
	names := [...]string{"nothing", "null", "a bool", "an integer", "a float", "a string", "an array", "an object"}
	if int(k) >= len(names) {
		k = KindInvalid
	}
	return names[k]
}

// A Decoder reads one JSON value for [Unmarshaler]. Each value is read once,
// by the method for its kind; a value that is not read is skipped, and
// validated all the same. The Decoder keeps its first error: from then on
// every method returns the zero value and the loops end, so that a single
// look at Err at the end is enough.
type Decoder struct {
	text    string
	at      int    // the offset of what comes next
	last    int    // the offset of the value that was read last
	ready   bool   // an unread value stands there
	path    []int  // where we are, for each Fields or Elems under way: an element's index, or ^ the offset of a field's name
	isEvent bool   // take "type" on the top level as the event's type
	typ     string // the last such type
	typed   bool   // there was one
	scratch []byte // for strings with escapes
	err     error
}

var decoders = sync.Pool{New: func() any { return new(Decoder) }}

// free gives d back to the pool, without the memory it points to. What decode
// sets need not be reset.
func (d *Decoder) free() {
	if cap(d.scratch) > keepBuffer {
		d.scratch = nil
	}
	d.text, d.typ, d.err = "", "", nil
	d.path = d.path[:0]
	d.typed = false
	decoders.Put(d)
}

// decode reads text into v.
func (d *Decoder) decode(text string, v Unmarshaler, isEvent bool) error {
	d.text, d.isEvent = text, isEvent
	if d.at = skipSpace(text, 0); d.at == len(text) {
		d.fail(d.at, "there is no JSON value")
		return d.err
	}
	d.ready = true
	d.Object(v)
	if d.err == nil {
		if d.at = skipSpace(text, d.at); d.at < len(text) {
			d.fail(d.at, "something follows the JSON value")
		}
	}
	return d.err
}

// payloadType validates a payload and returns what its "type" says, "" where
// there is none or it isn't a string.
func payloadType(text string) (string, error) {
	d := decoders.Get().(*Decoder)
	defer d.free()
	if err := d.decode(text, skipFields{}, true); err != nil {
		return "", err
	}
	return d.typ, nil
}

type skipFields struct{}

func (skipFields) Unmarshal(d *Decoder) error {
	for range d.Fields() {
	}
	return d.Err()
}

// Err returns the first error, or nil.
func (d *Decoder) Err() error { return d.err }

// Fail refuses the value that was read last: err comes out of Err, with its
// path and offset. The first error is kept.
func (d *Decoder) Fail(err error) {
	if err != nil && d.err == nil {
		d.setError(&decodeError{offset: d.last, cause: err})
	}
}

// fail keeps the first mistake. Inlined, it would keep end from being so.
//
//go:noinline
func (d *Decoder) fail(offset int, problem string) {
	if d.err == nil {
		d.setError(&decodeError{offset: offset, problem: problem})
	}
}

func (d *Decoder) setError(err *decodeError) {
	var path []byte
	for i, step := range d.path {
		if len(path) > maxPath {
			break
		}
		if step >= 0 {
			path = append(strconv.AppendInt(append(path, '['), int64(step), 10), ']')
			continue
		}
		if i > 0 {
			path = append(path, '.')
		}
		if name := ^step; name > 0 {
			end, _, _ := scanString(d.text, name)
			path = appendUnquoted(path, d.text[name+1:end-1])
		}
	}
	err.path = clip(string(path))
	d.err = err
	d.ready = false
}

// maxPath bounds the bytes of a field path in an error.
const maxPath = 100

// clip cuts what came from others to a length for an error or the log, and
// cuts no character in two. Bytes that aren't UTF-8 stay.
func clip(name string) string {
	if len(name) <= maxPath {
		return name
	}
	n := maxPath
	for n > maxPath-utf8.UTFMax && !utf8.RuneStart(name[n]) {
		n--
	}
	return name[:n] + "…"
}

// A decodeError says what is wrong with a JSON text, and where.
type decodeError struct {
	path    string // names from the text: not for the log
	offset  int
	problem string
	cause   error // in place of problem, where the program itself refused
}

func (e *decodeError) Error() string {
	where := "at byte " + strconv.Itoa(e.offset)
	if e.path != "" {
		where = "field " + strconv.Quote(e.path) + " " + where
	}
	if e.cause != nil {
		return "autobus: " + where + ": " + strings.TrimPrefix(e.cause.Error(), "autobus: ")
	}
	return "autobus: " + where + ": " + e.problem
}

func (e *decodeError) Unwrap() error { return e.cause }

// Kind tells what the next value is, without reading it.
func (d *Decoder) Kind() Kind {
	if !d.ready {
		return KindInvalid
	}
	switch d.text[d.at] {
	case 'n':
		return KindNull
	case 't', 'f':
		return KindBool
	case '"':
		return KindString
	case '[':
		return KindArray
	case '{':
		return KindObject
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'N', 'I':
		if _, isFloat, problem := scanNumber(d.text, d.at); problem != "" {
			return KindInvalid
		} else if isFloat {
			return KindFloat
		}
		return KindInt
	}
	return KindInvalid
}

// take begins the reading of a value and returns its first byte, or 0 if there
// is nothing to read.
func (d *Decoder) take() byte {
	if !d.ready {
		return d.nothing()
	}
	d.ready = false
	d.last = d.at
	return d.text[d.at]
}

// nothing is what take does if there is nothing to read.
//
//go:noinline
func (d *Decoder) nothing() byte {
	d.fail(d.at, "Unmarshal reads a value where there is none, or reads it twice")
	return 0
}

// mismatch fails with what was wanted and what stands there.
func (d *Decoder) mismatch(want string) {
	if d.err != nil {
		return
	}
	d.ready = true
	have := d.Kind()
	d.ready = false
	if have == KindInvalid {
		if end, problem := skipValue(d.text, d.at, len(d.path)); problem != "" {
			d.fail(end, problem)
			return
		}
	}
	d.fail(d.at, "want "+want+", have "+have.String())
}

// end finishes the reading of a value that ends at end.
func (d *Decoder) end(end int, problem string) bool {
	if problem != "" {
		d.fail(end, problem)
		return false
	}
	d.at = end
	return true
}

// Null reads a null and reports true; any other value is left to be read.
func (d *Decoder) Null() bool {
	if !d.ready || d.text[d.at] != 'n' {
		return false
	}
	d.take()
	return d.end(scanLiteral(d.text, d.at, "null"))
}

// Bool reads true or false.
func (d *Decoder) Bool() bool {
	switch d.take() {
	case 't':
		return d.end(scanLiteral(d.text, d.at, "true"))
	case 'f':
		d.end(scanLiteral(d.text, d.at, "false"))
	default:
		d.mismatch("a bool")
	}
	return false
}

// Int reads a number that is an integer in an int's range; 1.0 and 1e3 are.
func (d *Decoder) Int() int { return int(d.signed(strconv.IntSize)) }

// Int64 reads a number that is an integer in an int64's range; 1.0 and 1e3 are.
func (d *Decoder) Int64() int64 { return d.signed(64) }

// Uint64 reads a number that is an integer in a uint64's range; 1.0 and 1e3 are.
func (d *Decoder) Uint64() uint64 {
	start := d.at
	magnitude, negative := d.integer()
	if negative && magnitude != 0 {
		d.fail(start, "a negative number doesn't fit in 64 unsigned bits")
		return 0
	}
	return magnitude
}

func (d *Decoder) signed(size int) int64 {
	start := d.at
	magnitude, negative := d.integer()
	limit := uint64(1)<<(size-1) - 1
	if negative {
		limit++
	}
	if magnitude > limit {
		d.fail(start, "the integer doesn't fit in "+strconv.Itoa(size)+" bits")
		return 0
	}
	if negative {
		return -int64(magnitude)
	}
	return int64(magnitude)
}

// integer reads a number with an integer value.
func (d *Decoder) integer() (magnitude uint64, negative bool) {
	c := d.take()
	magnitude, negative, fraction, end := scanShort(d.text, d.at)
	// Without a c there is nothing to read, whatever d.at points to.
	if c == 0 || end == 0 || fraction > 0 {
		return d.oddInteger(c)
	}
	d.at = end
	return magnitude, negative
}

// oddInteger is integer for what is not a few digits: a float with an integer
// value, an integer of 20 digits and more, or a mistake.
func (d *Decoder) oddInteger(c byte) (magnitude uint64, negative bool) {
	start := d.at
	text, isFloat, ok := d.number(c)
	if !ok {
		return 0, false
	}
	if negative = text[0] == '-'; negative {
		text = text[1:]
	}
	if isFloat {
		if text, ok = wholeDigits(text); !ok {
			d.fail(start, "want an integer, have a float with a fraction or no finite value")
			return 0, false
		}
	}
	magnitude, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		d.fail(start, "the integer doesn't fit in 64 bits")
		return 0, false
	}
	return magnitude, negative
}

// wholeDigits writes a float without sign as an integer's digits, if it is an
// integer: exactly, where a float64 would round. Over 20 digits stand for any
// integer that is too large.
func wholeDigits(text string) (digits string, ok bool) {
	if text == "NaN" || text == "Infinity" {
		return "", false
	}
	text, exponent, ok := strings.Cut(text, "e")
	if !ok {
		text, exponent, _ = strings.Cut(text, "E")
	}
	whole, fraction, _ := strings.Cut(text, ".")
	all := whole + fraction
	for all != "" && all[0] == '0' {
		all = all[1:]
	}
	for digits = all; digits != "" && digits[len(digits)-1] == '0'; {
		digits = digits[:len(digits)-1]
	}
	if digits == "" {
		return "0", true
	}
	scale, _ := strconv.ParseInt(exponent, 10, 32) // out of range gives the nearest, which will do
	if scale += int64(len(all) - len(digits) - len(fraction)); scale < 0 {
		return "", false
	}
	return digits + "00000000000000000000"[:min(scale, 20)], true
}

// number reads the text of a number that starts with c.
func (d *Decoder) number(c byte) (text string, isFloat, ok bool) {
	if c != '-' && c-'0' > 9 && c != 'N' && c != 'I' {
		d.mismatch("a number")
		return "", false, false
	}
	start := d.at
	end, isFloat, problem := scanNumber(d.text, start)
	if !d.end(end, problem) {
		return "", false, false
	}
	return d.text[start:end], isFloat, true
}

// Float64 reads any number, rounded to the nearest float64; NaN, Infinity and
// -Infinity are numbers. As in Python, 1e400 is +Inf and 1e-400 is 0.
func (d *Decoder) Float64() float64 {
	c := d.take()
	if digits, negative, fraction, end := scanShort(d.text, d.at); c != 0 && end != 0 && digits < 1<<53 {
		// Both are exact as floats, so that the quotient is the nearest to the number.
		d.at = end
		f := float64(digits) / powersOfTen[fraction]
		if negative {
			f = -f
		}
		return f
	}
	text, _, ok := d.number(c)
	if !ok {
		return 0
	}
	f, _ := strconv.ParseFloat(text, 64) // out of range gives the infinity we want
	return f
}

var powersOfTen = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18}

// String reads a string. A lone surrogate escape in it becomes U+FFFD.
func (d *Decoder) String() string {
	if d.take() != '"' {
		d.mismatch("a string")
		return ""
	}
	s, _ := d.quoted()
	return s
}

// quoted reads the string that begins with the quote at d.at.
func (d *Decoder) quoted() (s string, ok bool) {
	start := d.at + 1
	rest := d.text[start:]
	var w uint64
	if len(rest) >= 8 {
		w = load(rest, 0)
	} else {
		w = loadShort(rest)
	}
	n := bits.TrailingZeros64(odd(w)) / 8
	if n == 8 {
		// isPlain is fast, but has to know where the string ends.
		if n = strings.IndexByte(rest, '"'); n < 8 || !isPlain(rest[:n]) {
			return d.oddQuoted()
		}
	} else if n == len(rest) || rest[n] != '"' {
		return d.oddQuoted()
	}
	d.at = start + n + 1
	return rest[:n], true
}

// onePass is how much of a string is read without having been scanned: a
// mistake after it costs no memory, and going through it twice little time.
const onePass = 16 << 10

// oddQuoted is quoted for a string that isn't plain ASCII.
func (d *Decoder) oddQuoted() (s string, ok bool) {
	start := d.at + 1
	if i := asciiRun(d.text, start); i < len(d.text) && d.text[i] == '\\' {
		rest, n, ascii := d.text[start:min(start+onePass, len(d.text))], 0, false
		d.scratch, n, ascii = appendUnescaped(d.scratch[:0], rest)
		if n < len(rest) && rest[n] == '"' && (ascii || utf8.Valid(d.scratch)) {
			d.at = start + n + 1
			return string(d.scratch), true
		}
	}
	end, escaped, problem := scanString(d.text, d.at)
	if !d.end(end, problem) {
		return "", false
	}
	if s = d.text[start : end-1]; escaped {
		d.scratch = appendUnquoted(d.scratch[:0], s)
		s = string(d.scratch)
	}
	return s, true
}

// Strings reads an array of strings; an empty one is not nil.
func (d *Decoder) Strings() []string {
	if !d.open('[', "an array") {
		return nil
	}
	list := []string{}
	top := len(d.path)
	d.path = append(d.path, 0)
	for i := 0; d.more(']', i > 0); i++ { // as in elems
		if d.at == len(d.text) {
			d.fail(d.at, endless)
			break
		}
		if i == 0 {
			list = make([]string, 0, 4)
		}
		d.ready = true
		d.path[top] = i
		list = append(list, d.String())
	}
	if d.err != nil {
		return nil
	}
	d.path = d.path[:top]
	return list
}

// Bytes reads a string in standard base64 with padding (RFC 4648 section 4).
// Line breaks in it don't count: Python's base64.encodebytes makes some.
func (d *Decoder) Bytes() []byte {
	start := d.at
	text := d.String()
	if d.err != nil {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		d.fail(start, "the string isn't standard base64 with padding")
		return nil
	}
	return b
}

// Time reads a string in RFC 3339 form, as 2006-01-02T15:04:05.999999999Z or
// with an offset.
func (d *Decoder) Time() time.Time {
	start := d.at
	text := d.String()
	if d.err != nil {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err == nil {
		// Parse is laxer than RFC 3339 section 5.6: an hour of one digit, a
		// comma, an offset of 24:00 or 00:60 (go.dev/issue/54580).
		offset := text[len(text)-len("00:00"):]
		if text[12] != ':' && text[19] != ',' && (text[len(text)-1] == 'Z' || offset < "24" && offset[3:] < "60") {
			return t
		}
	}
	d.fail(start, "the string isn't a time in RFC 3339 form")
	return time.Time{}
}

// Duration reads a number of seconds, exact to the nanosecond where it is
// written without an exponent. Over about 292 years is an error.
func (d *Decoder) Duration() time.Duration {
	start := d.at
	text, _, ok := d.number(d.take())
	if !ok {
		return 0
	}
	v, ok := parseSeconds(text)
	if !ok {
		d.fail(start, "the seconds don't fit in a duration")
		return 0
	}
	return v
}

// parseSeconds converts a JSON number of seconds, rounding half away from zero.
func parseSeconds(text string) (time.Duration, bool) {
	digits, negative := strings.CutPrefix(text, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	seconds, err := strconv.ParseUint(whole, 10, 64)
	if err != nil || strings.ContainsAny(fraction, "eE") {
		f, _ := strconv.ParseFloat(text, 64)
		f = math.Round(f * 1e9)
		return time.Duration(f), f >= -1<<63 && f < 1<<63
	}
	var nanos, unit uint64 = 0, 1e9
	for i := 0; i < len(fraction) && unit > 1; i++ {
		unit /= 10
		nanos += uint64(fraction[i]-'0') * unit
	}
	if len(fraction) > 9 && fraction[9] >= '5' {
		nanos++
	}
	limit := uint64(math.MaxInt64)
	if negative {
		limit++
	}
	if seconds > limit/1e9 || seconds*1e9+nanos > limit {
		return 0, false
	}
	if negative {
		return -time.Duration(seconds*1e9 + nanos), true
	}
	return time.Duration(seconds*1e9 + nanos), true
}

// Any reads any value: nil, bool, int64, uint64 (integers over int64), float64
// (floats, and integers over uint64), string, []any or map[string]any. An
// event's "type" is not in the map, as [Decoder.Fields] passes it over.
func (d *Decoder) Any() any {
	switch d.Kind() {
	case KindNull:
		d.Null()
		return nil
	case KindBool:
		return d.Bool()
	case KindString:
		return d.String()
	case KindFloat:
		return d.Float64()
	case KindInt:
		text, _, _ := d.number(d.take())
		if v, err := strconv.ParseInt(text, 10, 64); err == nil {
			return v
		}
		if v, err := strconv.ParseUint(text, 10, 64); err == nil {
			return v
		}
		f, _ := strconv.ParseFloat(text, 64)
		return f
	case KindArray:
		list := []any{}
		for range d.Elems() {
			list = append(list, d.Any())
		}
		if d.err == nil {
			return list
		}
		return nil
	case KindObject:
		object := map[string]any{}
		for key := range d.Fields() {
			object[key] = d.Any()
		}
		if d.err == nil {
			return object
		}
		return nil
	}
	d.take()
	d.mismatch("a value")
	return nil
}

// Raw reads any value and returns a copy of its text.
func (d *Decoder) Raw() []byte {
	start := d.at
	d.Skip()
	if d.err != nil {
		return nil
	}
	return []byte(d.text[start:d.at])
}

// Skip reads any value and validates it.
func (d *Decoder) Skip() { d.skip(len(d.path)) }

// skip reads any value that stands inside depth containers.
func (d *Decoder) skip(depth int) {
	if !d.ready {
		d.nothing()
		return
	}
	d.ready = false
	d.last = d.at
	d.end(skipValue(d.text, d.at, depth))
}

// Object reads a value with v.
func (d *Decoder) Object(v Unmarshaler) {
	if !d.ready {
		d.nothing()
		return
	}
	d.last = d.at
	d.Fail(v.Unmarshal(d))
	if d.ready {
		d.Skip()
	}
}

// Fields reads an object and yields its field names in turn, each before its
// value is read. A name may come twice, and the last value counts.
func (d *Decoder) Fields() iter.Seq[string] {
	// A literal, where d.fields would do: only this keeps the loop's body on the stack.
	return func(yield func(string) bool) { d.fields(yield) }
}

func (d *Decoder) fields(yield func(string) bool) {
	if !d.open('{', "an object") {
		return
	}
	top := len(d.path)
	own := d.isEvent && top == 0
	d.path = append(d.path, ^0)
	for n, wanted := 0, true; d.more('}', n > 0); n++ {
		start := d.at
		if start == len(d.text) || d.text[start] != '"' {
			d.fail(start, wantName)
			return
		}
		name, ok := d.quoted()
		if !ok {
			return
		}
		if i := d.at; i+1 < len(d.text) && d.text[i] == ':' && d.text[i+1] > ' ' {
			d.at++
		} else if !d.end(scanColon(d.text, i)) {
			return
		}
		d.ready = true
		d.path[top] = ^start
		switch {
		case own && name == "type":
			d.typed, d.typ = true, ""
			if d.text[d.at] == '"' {
				d.typ = d.String()
			}
		case wanted:
			wanted = yield(name)
		}
		if d.ready {
			d.Skip()
		}
	}
	d.path = d.path[:top]
}

// Elems reads an array and yields the index of each element before it is read.
func (d *Decoder) Elems() iter.Seq[int] {
	return func(yield func(int) bool) { d.elems(yield) }
}

func (d *Decoder) elems(yield func(int) bool) {
	if !d.open('[', "an array") {
		return
	}
	top := len(d.path)
	d.path = append(d.path, 0)
	for i, wanted := 0, true; d.more(']', i > 0); i++ {
		if d.at == len(d.text) {
			d.fail(d.at, endless)
			return
		}
		d.ready = true
		d.path[top] = i
		if wanted {
			wanted = yield(i)
		}
		if d.ready {
			d.Skip()
		}
	}
	d.path = d.path[:top]
}

// open begins an array or object.
func (d *Decoder) open(bracket byte, want string) bool {
	if c := d.take(); c != bracket {
		d.mismatch(want)
		return false
	}
	if len(d.path) == maxDepth {
		d.fail(d.at, tooDeep)
		return false
	}
	d.at++
	return true
}

// more moves to the next field or element, over a comma where one is due, or
// past the bracket that ends them.
func (d *Decoder) more(bracket byte, comma bool) bool {
	if d.err != nil {
		return false
	}
	i := d.at
	if comma && i+1 < len(d.text) && d.text[i] == ',' && d.text[i+1] > ' ' {
		d.at = i + 1
		return true
	}
	i = skipSpace(d.text, i)
	switch {
	case i >= len(d.text):
		d.fail(i, endless)
		return false
	case d.text[i] == bracket:
		d.at = i + 1
		return false
	case !comma:
	case d.text[i] == ',':
		i = skipSpace(d.text, i+1)
	default:
		d.fail(i, "want ',' or '"+string(rune(bracket))+"'")
		return false
	}
	d.at = i
	return true
}

// What follows reads and writes JSON text, in a string or in bytes. A scan
// function starts at the first byte of what it scans and returns where that
// ends, or where the problem is and what.

type text interface{ string | []byte }

const (
	endless  = "the JSON text ends too early"
	tooDeep  = "nested over 1000 deep"
	wantName = "want a field name in quotes"
)

// lowBits and highBits have the lowest and the highest bit of each byte set.
const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// load returns the eight bytes of s from i on, the first in the lowest bits.
// The compiler makes one load of it.
func load[S text](s S, i int) uint64 {
	s = s[i : i+8]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// load4 is load of four bytes.
func load4[S text](s S, i int) uint64 {
	s = s[i : i+4]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24
}

// loadShort is load of all of s, which has less than eight bytes; zeros follow.
func loadShort[S text](s S) uint64 {
	if n := len(s); n >= 4 { // two halves, which may overlap
		return load4(s, 0) | load4(s, n-4)<<(8*(n-4)&63)
	} else if n > 0 {
		return uint64(s[0]) | uint64(s[n/2])<<(8*(n/2)&63) | uint64(s[n-1])<<(8*(n-1)&63)
	}
	return 0
}

// store appends the first n bytes of w, the lowest first; n is at most 8. It
// writes all eight, in one go, and takes back what is too much.
func store(dst []byte, w uint64, n int) []byte {
	return append(dst, byte(w), byte(w>>8), byte(w>>16), byte(w>>24),
		byte(w>>32), byte(w>>40), byte(w>>48), byte(w>>56))[:len(dst)+n]
}

// special sets the highest bit of each byte in w that can't stand for itself in
// a JSON string: a quote, a backslash, a control character. Below 128 a byte is
// n or more if its sum with 128-n is 128 or more; where '"' and ' ' change
// places, the quote comes right behind the control characters.
func special(w uint64) uint64 {
	v := w &^ highBits
	return ^(quotable(v)&((v^'\\'*lowBits)+127*lowBits) | w) & highBits
}

// odd is special for ASCII text: it sets the highest bit of the first byte that
// is special or not ASCII, and maybe of bytes behind it.
func odd(w uint64) uint64 {
	return (^(quotable(w) & ((w ^ '\\'*lowBits) + 127*lowBits)) | w) & highBits
}

// quotable sets the highest bit of each byte of the ASCII in w that is neither a
// quote nor a control character.
func quotable(w uint64) uint64 { return (w ^ ('"'^' ')*lowBits) + (127-' ')*lowBits }

// asciiRun returns where the first byte of s from i on is that is special or
// not ASCII, or len(s).
func asciiRun[S text](s S, i int) int {
	for {
		var w uint64
		if i+8 <= len(s) {
			w = load(s, i)
		} else {
			w = loadShort(s[i:]) // the zeros behind s end the run
		}
		if m := odd(w); m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
		i += 8
	}
}

// plainRun returns where the first special byte of s from i on is, or len(s),
// and adds the bytes before it to seen, to tell ASCII by.
func plainRun[S text](s S, i int, seen *uint64) int {
	for high := *seen; ; i += 8 {
		var w uint64
		if i+8 <= len(s) {
			w = load(s, i)
		} else {
			w = loadShort(s[i:])
		}
		if m := special(w); m != 0 {
			n := bits.TrailingZeros64(m) &^ 7
			*seen = high | w&(1<<n-1)
			return i + n/8
		}
		high |= w
	}
}

// scanString scans a string from its opening quote to past its closing one.
func scanString[S text](s S, i int) (end int, escaped bool, problem string) {
	start := i + 1
	if i = asciiRun(s, start); i < len(s) && s[i] == '"' {
		return i + 1, false, ""
	}
	var seen uint64
	for {
		i = plainRun(s, i, &seen)
		if i == len(s) {
			return i, escaped, endless
		}
		switch s[i] {
		case '"':
			if seen&highBits != 0 && !utf8.Valid([]byte(s[start:i])) {
				return start, escaped, "the string isn't valid UTF-8"
			}
			return i + 1, escaped, ""
		case '\\':
			for escaped = true; i < len(s) && s[i] == '\\'; {
				n := escapeLen(s, i)
				if n == 0 {
					return i, escaped, "a bad escape"
				}
				i += n
			}
		default:
			return i, escaped, "a raw control character in a string"
		}
	}
}

// escapeLen returns the length of the escape at i, 0 if it is none.
func escapeLen[S text](s S, i int) int {
	if i+6 <= len(s) && s[i+1] == 'u' && hex4(s[i+2:]) < noHex {
		return 6
	}
	if i+2 <= len(s) && unescaped[s[i+1]] != 0 {
		return 2
	}
	return 0
}

// hex4 returns the number that four hexadecimal digits make, noHex or more if
// these are none.
func hex4[S text](s S) rune {
	s = s[:4]
	return hexDigit[s[0]]<<12 | hexDigit[s[1]]<<8 | hexDigit[s[2]]<<4 | hexDigit[s[3]]
}

const noHex = 0x10000

// hexDigit has each hexadecimal digit's value, and noHex elsewhere.
var hexDigit = func() (t [256]rune) {
	for c := range t {
		t[c] = noHex
	}
	for i, c := range "0123456789abcdef" {
		t[c] = rune(i)
	}
	for i, c := range "ABCDEF" {
		t[c] = rune(10 + i)
	}
	return t
}()

// appendUnquoted appends what the inside of a string, scanned before, stands for.
func appendUnquoted[S text](dst []byte, s S) []byte {
	dst, _, _ = appendUnescaped(dst, s)
	return dst
}

// appendUnescaped appends what the inside of a string stands for, up to its closing
// quote, to a mistake, or to the end of s, and returns where that is; ascii
// unless there are bytes in it that may not be UTF-8.
func appendUnescaped[S text](dst []byte, s S) (out []byte, i int, ascii bool) {
	var seen uint64
	for {
		start := i
		i = plainRun(s, i, &seen)
		dst = append(dst, s[start:i]...)
		if i == len(s) || s[i] != '\\' {
			return dst, i, seen&highBits == 0
		}
		for i < len(s) && s[i] == '\\' {
			r := rune(noHex)
			if i+6 <= len(s) && s[i+1] == 'u' {
				r = hex4(s[i+2:])
			}
			if r >= noHex {
				if i+2 > len(s) || unescaped[s[i+1]] == 0 {
					return dst, i, seen&highBits == 0
				}
				dst = append(dst, unescaped[s[i+1]])
				i += 2
				continue
			}
			i += 6
			if r >= 0xD800 && r < 0xE000 {
				r, i = surrogate(s, r, i)
			}
			if r >= utf8.RuneSelf && r < 0x800 { // Latin, Greek, Cyrillic, Hebrew, Arabic
				dst = append(dst, byte(0xC0|r>>6), byte(0x80|r&0x3F))
			} else {
				dst = utf8.AppendRune(dst, r)
			}
		}
	}
}

// surrogate joins the surrogate first, whose escape ends at i, with the one
// that follows if they make a pair; a lone one becomes U+FFFD.
func surrogate[S text](s S, first rune, i int) (r rune, end int) {
	if first < 0xDC00 && i+6 <= len(s) && s[i] == '\\' && s[i+1] == 'u' {
		if second := hex4(s[i+2:]); second >= 0xDC00 && second < 0xE000 {
			return (first-0xD800)<<10 + (second - 0xDC00) + 0x10000, i + 6
		}
	}
	return utf8.RuneError, i
}

// unescaped has what stands for the letter of a two-byte escape.
var unescaped = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// appendQuoted appends s as a JSON string. What isn't valid UTF-8 in it
// becomes U+FFFD, one for each byte.
func appendQuoted[S text](dst []byte, s S) []byte {
	dst = append(dst, '"')
	if n := len(s); n < 8 {
		if w := loadShort(s); odd(w|blanks<<(8*n&63)) == 0 {
			return store(dst, w|'"'<<(8*n&63), n+1)
		}
	} else if s, ok := any(s).(string); ok && (n < 64 || strings.IndexByte(s, '"') < 0) && isPlain(s) {
		return append(append(dst, s...), '"')
	}
	return append(appendEscaped(dst, s), '"')
}

const blanks = ' ' * lowBits

// isPlain reports whether s, of eight bytes or more, is ASCII that stands for
// itself in a JSON string. In 64 bytes or more it takes a quote for plain: the
// library looks for one byte faster than we can, and a Decoder has done it.
func isPlain(s string) bool {
	last := load(s, len(s)-8)
	if len(s) >= 64 {
		if strings.IndexByte(s, '\\') >= 0 {
			return false
		}
		for ; len(s) >= 64; s = s[64:] {
			block := s[:64]
			p, q, r, t := load(block, 0), load(block, 8), load(block, 16), load(block, 24)
			u, v, w, x := load(block, 32), load(block, 40), load(block, 48), load(block, 56)
			const up = (128 - ' ') * lowBits // lifts what is no control character to 128
			all := (p + up) & (q + up) & (r + up) & (t + up) & (u + up) & (v + up) & (w + up) & (x + up)
			if all&^(p|q|r|t|u|v|w|x)&highBits != highBits {
				return false
			}
		}
	}
	for ; len(s) > 8; s = s[8:] {
		if odd(load(s, 0)) != 0 {
			return false
		}
	}
	return odd(last) == 0
}

// appendEscaped is appendQuoted between the quotes, for any string.
func appendEscaped[S text](dst []byte, s S) []byte {
	start := len(dst)
	var seen uint64
	for i := 0; ; i++ {
		run := i
		i = plainRun(s, i, &seen)
		dst = append(dst, s[run:i]...)
		if i == len(s) {
			break
		}
		dst = appendEscape(dst, s[i])
	}
	if seen&highBits != 0 && !utf8.Valid([]byte(s)) {
		dst = dst[:start]
		for _, r := range string(s) {
			if r < ' ' || r == '"' || r == '\\' {
				dst = appendEscape(dst, byte(r))
			} else {
				dst = utf8.AppendRune(dst, r)
			}
		}
	}
	return dst
}

// appendEscape appends the escape for a special byte.
func appendEscape(dst []byte, c byte) []byte {
	const (
		letters = "uuuuuuuubtnufruuuuuuuuuuuuuuuuuu" // of the control characters' escapes
		digits  = "0123456789abcdef"
	)
	letter := c
	if c < ' ' {
		letter = letters[c]
	}
	if letter == 'u' {
		return append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
	}
	return append(dst, '\\', letter)
}

// quotedLen returns how many bytes appendQuoted would append.
func quotedLen[S text](s S) int {
	n := len(s) + 2
	var seen uint64
	for i := 0; ; i++ {
		if i = plainRun(s, i, &seen); i == len(s) {
			break
		}
		switch s[i] {
		case '"', '\\', '\b', '\f', '\n', '\r', '\t':
			n++
		default:
			n += 5
		}
	}
	if seen&highBits != 0 && !utf8.Valid([]byte(s)) {
		for i, rest := 0, string(s); i < len(rest); {
			r, size := utf8.DecodeRuneInString(rest[i:])
			if r == utf8.RuneError && size == 1 {
				n += 2 // U+FFFD takes three bytes
			}
			i += size
		}
	}
	return n
}

// appendFloat appends a float as [Encoder.Float64] describes.
func appendFloat(dst []byte, v float64) []byte {
	switch {
	case v != v:
		return append(dst, "NaN"...)
	case v > math.MaxFloat64:
		return append(dst, "Infinity"...)
	case v < -math.MaxFloat64:
		return append(dst, "-Infinity"...)
	}
	abs := math.Abs(v)
	if abs < 1e9 {
		// Most floats in events have few digits. If v is the float nearest to
		// n/1e6, then that is the shortest decimal for it too, since two
		// decimals of up to 15 digits are never nearest to the same float.
		if n := int64(abs*1e6 + 0.5); float64(n)/1e6 == abs {
			if math.Signbit(v) {
				dst = append(dst, '-')
			}
			return appendDecimal(dst, uint64(n)/1e6, uint64(n)%1e6*1e3)
		}
	}
	if abs < 1e-6 || abs >= 1e21 {
		return strconv.AppendFloat(dst, v, 'e', -1, 64)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, v, 'f', -1, 64)
	for _, c := range dst[start:] {
		if c == '.' {
			return dst
		}
	}
	return append(dst, '.', '0')
}

// appendInt appends v in decimal.
func appendInt(dst []byte, v int64) []byte {
	if v < 0 {
		return appendUint(append(dst, '-'), -uint64(v))
	}
	return appendUint(dst, uint64(v))
}

// appendUint appends n in decimal, eight digits at a time.
func appendUint(dst []byte, n uint64) []byte {
	if n >= 1e8 {
		dst = appendUint(dst, n/1e8)
		return store(dst, digits(n%1e8)|'0'*lowBits, 8)
	}
	w := digits(n)
	zeros := min(bits.TrailingZeros64(w)/8, 7)
	return store(dst, (w|'0'*lowBits)>>(8*zeros), 8-zeros)
}

// digits returns the eight decimal digits of n, which is below 1e8, one a byte,
// the first in the lowest. It halves: into two numbers of four digits, four of
// two, eight of one, all of them at once, dividing by a hundred and by ten as
// a product by the inverse (Granlund and Montgomery, 1994).
func digits(n uint64) uint64 {
	n = n/1e4 | n%1e4<<32
	hundreds := n * 5243 >> 19 & 0x7f_0000_007f
	n = hundreds | (n-100*hundreds)<<16
	tens := n * 103 >> 10 & 0xf_000f_000f_000f
	return tens | (n-10*tens)<<8
}

// appendDecimal appends a whole number and so many billionths, with all digits
// that matter and at least one behind the point.
func appendDecimal(dst []byte, whole, billionths uint64) []byte {
	w := digits(billionths % 1e8)
	dst = append(appendUint(dst, whole), '.', byte('0'+billionths/1e8))
	return store(dst, w|'0'*lowBits, 8-bits.LeadingZeros64(w)/8)
}

// skipSpace returns the offset of the first byte from i on that is not JSON
// white space (RFC 8259 section 2).
func skipSpace[S text](s S, i int) int {
	const space = 1<<' ' | 1<<'\n' | 1<<'\t' | 1<<'\r'
	for i < len(s) && s[i] <= ' ' && uint64(space)>>s[i]&1 == 1 {
		i++
	}
	return i
}

// skipValue scans any value, inside depth containers. It doesn't recurse.
func skipValue[S text](s S, i, depth int) (end int, problem string) {
	if i < len(s) && s[i] != '{' && s[i] != '[' {
		return scanScalar(s, i)
	}
	outside := depth
	var objects [maxDepth/64 + 1]uint64 // as in Encoder
	for {
		// Here a value belongs at i.
		if i == len(s) {
			return i, endless
		}
		if c := s[i]; c == '{' || c == '[' {
			if depth == maxDepth {
				return i, tooDeep
			}
			depth++
			object := c == '{'
			bit := uint64(1) << (depth % 64)
			if object {
				objects[depth/64] |= bit
			} else {
				objects[depth/64] &^= bit
			}
			i = skipSpace(s, i+1)
			if i == len(s) || s[i] != c+2 { // ']' is '[' + 2, '}' is '{' + 2
				if object {
					if i, problem = scanName(s, i); problem != "" {
						return i, problem
					}
				}
				continue
			}
			i++
			depth--
		} else if i, problem = scanScalar(s, i); problem != "" {
			return i, problem
		}
		// Here a value has ended: close what ends with it.
		for {
			if depth == outside {
				return i, ""
			}
			if i = skipSpace(s, i); i == len(s) {
				return i, endless
			}
			object := objects[depth/64]>>(depth%64)&1 == 1
			if c := s[i]; c == ',' {
				if i = skipSpace(s, i+1); object {
					if i, problem = scanName(s, i); problem != "" {
						return i, problem
					}
				}
				break
			} else if object && c == '}' || !object && c == ']' {
				i++
				depth--
			} else if object {
				return i, "want ',' or '}'"
			} else {
				return i, "want ',' or ']'"
			}
		}
	}
}

// scanName scans a field's name, the colon, and the space up to its value.
func scanName[S text](s S, i int) (end int, problem string) {
	if i == len(s) {
		return i, endless
	}
	if s[i] != '"' {
		return i, wantName
	}
	if i, _, problem = scanString(s, i); problem != "" {
		return i, problem
	}
	return scanColon(s, i)
}

// scanColon scans from the end of a field's name to the start of its value.
func scanColon[S text](s S, i int) (end int, problem string) {
	if i = skipSpace(s, i); i == len(s) {
		return i, endless
	}
	if s[i] != ':' {
		return i, "want ':' after a field name"
	}
	if i = skipSpace(s, i+1); i == len(s) {
		return i, endless
	}
	return i, ""
}

// scanScalar scans any value but an array or object.
func scanScalar[S text](s S, i int) (end int, problem string) {
	switch c := s[i]; {
	case c == '"':
		end, _, problem = scanString(s, i)
		return end, problem
	case c == 't':
		return scanLiteral(s, i, "true")
	case c == 'f':
		return scanLiteral(s, i, "false")
	case c == 'n':
		return scanLiteral(s, i, "null")
	case c == '-' || c-'0' <= 9 || c == 'N' || c == 'I':
		end, _, problem = scanNumber(s, i)
		return end, problem
	}
	return i, "want a JSON value"
}

func scanLiteral[S text](s S, i int, literal string) (end int, problem string) {
	if len(s)-i < len(literal) || string(s[i:i+len(literal)]) != literal {
		return i, "want " + literal
	}
	return i + len(literal), ""
}

// scanNumber scans a number (RFC 8259 section 6), or what Python adds: NaN,
// Infinity and -Infinity. It is a float if it has a point or an exponent, or
// is one of these.
func scanNumber[S text](s S, i int) (end int, isFloat bool, problem string) {
	start := i
	if s[i] == '-' {
		i++
	}
	if i < len(s) && s[i] == 'I' {
		end, problem = scanLiteral(s, i, "Infinity")
		return end, true, problem
	}
	if s[start] == 'N' {
		end, problem = scanLiteral(s, i, "NaN")
		return end, true, problem
	}
	whole := i
	if i = skipDigits(s, i); i == whole {
		return i, false, "want a digit"
	}
	if s[whole] == '0' && i > whole+1 {
		return whole, false, "a number with a leading zero"
	}
	if i < len(s) && s[i] == '.' {
		fraction := i + 1
		if i = skipDigits(s, fraction); i == fraction {
			return i, true, "want a digit after the point"
		}
		isFloat = true
	}
	if i < len(s) && s[i]|0x20 == 'e' {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		exponent := i
		if i = skipDigits(s, i); i == exponent {
			return i, true, "want a digit in the exponent"
		}
		isFloat = true
	}
	return i, isFloat, ""
}

// scanShort scans what most numbers are: up to 19 digits, and no exponent. They
// stand for digits divided by ten, fraction times. Its end is 0 for anything
// else, which is for scanNumber.
func scanShort(s string, i int) (digits uint64, negative bool, fraction, end int) {
	if i < len(s) && s[i] == '-' {
		negative = true
		i++
	}
	start := i
	for ; i < len(s) && s[i]-'0' <= 9; i++ {
		digits = digits*10 + uint64(s[i]-'0')
	}
	n := i - start
	if n == 0 || n > 1 && s[start] == '0' {
		return 0, false, 0, 0
	}
	if i < len(s) && s[i] == '.' {
		point := i
		for i++; i < len(s) && s[i]-'0' <= 9; i++ {
			digits = digits*10 + uint64(s[i]-'0')
		}
		if fraction = i - point - 1; fraction == 0 {
			return 0, false, 0, 0
		}
	}
	// 19 digits can't have overflowed.
	if n+fraction > 19 || i < len(s) && s[i]|0x20 == 'e' {
		return 0, false, 0, 0
	}
	return digits, negative, fraction, i
}

func skipDigits[S text](s S, i int) int {
	for i < len(s) && s[i]-'0' <= 9 {
		i++
	}
	return i
}
