package autobus

import (
	"bytes"
	"io"
	"slices"
	"strconv"
)

// Limits of what a peer may send. DESIGN.md, section 5 sets the first four;
// the server's own are larger (proto-max-bulk-len is 512 MiB), but it sends
// nothing like it to a publisher or a subscriber.
const (
	maxRESPLine     = 64 << 10 // bytes of a line
	maxRESPBulk     = 64 << 20 // bytes of a bulk string: a payload
	maxRESPDepth    = 8        // aggregates inside one another
	maxRESPElements = 1024     // in one aggregate; a map has two for each entry
	maxRESPValues   = 64 << 10 // in one reply, those in its aggregates included

	// maxRESPReply leaves room for a payload's channel and pattern.
	maxRESPReply = maxRESPBulk + 4<<20
)

const (
	minRESPBuffer  = 4 << 10  // what a connection begins with
	wideRESPBuffer = 64 << 10 // what it grows to when reads fill it
	keepRESPBuffer = 1 << 20  // a larger one is given up once it is empty
)

// A respReader reads replies of RESP2 and RESP3, the Redis serialization
// protocol (https://redis.io/docs/latest/develop/reference/protocol-spec/),
// without its streamed types, which no server sends. A protocol error is
// final.
//
// It parses each byte once, however the bytes arrive, and its buffer grows
// only as they do: a length that is merely declared allocates nothing.
type respReader struct {
	src        io.Reader
	buf        []byte
	begin, end int // of what is buffered of this reply and after it

	// The reply that is being parsed; offsets count from begin.
	values []respValue
	at     int // what is parsed
	scan   int // from here on no line end has been looked for
	need   int // bytes that a bulk string waits for; 0: none does
	kind   byte
	stack  [maxRESPDepth]respFrame
	depth  int
	done   bool // values is a whole reply
	err    error
}

// A respValue is a reply, or an element of one. A reply's values stand in the
// order of the wire: an aggregate's elements follow it.
type respValue struct {
	kind       byte  // the type byte on the wire; respNull for every null
	n          int64 // an integer, or how many elements an aggregate has
	begin, end int   // of its text
}

const respNull = '_'

// A respFrame is an aggregate that is not complete.
type respFrame struct {
	left   int // elements to come
	values int // for an attribute: how many values to keep after it; else -1
}

// respError is a breach of the protocol. Its text tells nothing of the bytes.
type respError string

func (e respError) Error() string { return string(e) }

func newRESPReader(src io.Reader) *respReader {
	return &respReader{src: src, buf: make([]byte, minRESPBuffer)}
}

// next parses the next reply in the buffer. Where that isn't whole yet, it
// returns false, and fill reads on. The reply is good until the next call of
// next or fill.
func (r *respReader) next() (ok bool, err error) {
	if r.err != nil {
		return false, r.err
	}
	if r.done {
		r.begin += r.at
		r.at, r.scan, r.done, r.values = 0, 0, false, r.values[:0]
	}
	if r.at == 0 && r.message() {
		return true, nil
	}
	for !r.done {
		more, problem := r.step()
		if problem != "" {
			r.err = respError(problem)
			return false, r.err
		}
		if more {
			return false, nil
		}
	}
	return true, nil
}

// message parses what a subscriber is sent most, all at once: a message that is
// whole and has nothing unusual about it. Anything else is left to step.
func (r *respReader) message() bool {
	const begins = "3\r\n$7\r\nmessage\r\n" // after '*' or '>'
	in := r.buf[r.begin:r.end]
	if len(in) <= len(begins) || in[0] != '*' && in[0] != '>' || string(in[1:1+len(begins)]) != begins {
		return false
	}
	name := 1 + len("3\r\n$7\r\n")
	channel, at := plainBulk(in, 1+len(begins))
	payload, end := plainBulk(in, at)
	if end == 0 {
		return false
	}
	r.values = append(r.values,
		respValue{kind: in[0], n: 3, begin: 1, end: 2},
		respValue{kind: '$', begin: name, end: name + len("message")},
		channel, payload)
	r.at, r.scan, r.done = end, end, true
	return true
}

// plainBulk parses the bulk string at in[at:], and returns where it ends, or 0
// unless it is whole and short.
func plainBulk(in []byte, at int) (v respValue, end int) {
	if at == 0 || at >= len(in) || in[at] != '$' {
		return v, 0
	}
	n, i := 0, at+1
	for i < len(in) && in[i]-'0' <= 9 && i-at <= 6 {
		n = 10*n + int(in[i]-'0')
		i++
	}
	begin := i + 2
	end = begin + n + 2
	if i == at+1 || end > len(in) || in[i] != '\r' || in[i+1] != '\n' || in[end-2] != '\r' || in[end-1] != '\n' {
		return v, 0
	}
	return respValue{kind: '$', begin: begin, end: begin + n}, end
}

// fill reads once. After an error of the source that passes, such as a
// deadline, it may be called again.
func (r *respReader) fill() error {
	if r.err != nil {
		return r.err
	}
	if r.done {
		r.begin += r.at
		r.at, r.scan, r.done, r.values = 0, 0, false, r.values[:0]
	}
	if r.begin == r.end {
		r.begin, r.end = 0, 0
		if len(r.buf) > keepRESPBuffer {
			r.buf = make([]byte, wideRESPBuffer)
		}
	}
	if cap(r.values) > maxRESPElements && len(r.values) == 0 {
		r.values = nil
	}
	if r.end == len(r.buf) {
		if r.begin > len(r.buf)/2 {
			r.end = copy(r.buf, r.buf[r.begin:r.end])
		} else {
			buf := make([]byte, 2*len(r.buf))
			r.end = copy(buf, r.buf[r.begin:r.end])
			r.buf = buf
		}
		r.begin = 0
	}
	n, err := r.src.Read(r.buf[r.end:])
	r.end += n
	if r.begin == 0 && n == len(r.buf) && n < wideRESPBuffer { // there is more where that came from
		r.buf = append(r.buf, make([]byte, n)...)
	}
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// text returns the bytes of a value: the string, the error, the number.
func (r *respReader) text(v respValue) []byte {
	return r.buf[r.begin+v.begin : r.begin+v.end]
}

// step parses one line, or the string that follows it.
func (r *respReader) step() (more bool, problem string) {
	in := r.buf[r.begin:r.end]
	if r.need > 0 {
		if len(in) < r.at+r.need {
			return true, ""
		}
		return false, r.bulk(in)
	}
	if r.at == len(in) {
		return true, ""
	}
	if r.scan == r.at {
		if problem := typeByteProblem(in[r.at:]); problem != "" {
			return false, problem
		}
	}
	i := bytes.IndexByte(in[r.scan:], '\n')
	if i < 0 {
		r.scan = len(in)
		if len(in)-r.at > maxRESPLine {
			return false, "a line over 64 KiB"
		}
		return true, ""
	}
	end := r.scan + i
	if end-r.at > maxRESPLine {
		return false, "a line over 64 KiB"
	}
	if in[end-1] != '\r' || end-1 == r.at {
		return false, "a line that doesn't end with CR LF"
	}
	begin := r.at
	r.at, r.scan = end+1, end+1
	return false, r.line(in, begin, end-1)
}

// typeByteProblem tells what else than RESP a peer speaks.
func typeByteProblem(in []byte) (problem string) {
	switch in[0] {
	case '+', '-', ':', '$', '*', '_', '#', ',', '(', '!', '=', '%', '~', '>', '|':
		return ""
	case 'H', '<': // HTTP/1.1, or the page that some send without a header
		return "it speaks HTTP, not Redis's protocol"
	case 0x15, 0x16: // the record types alert and handshake: RFC 8446, section 5.1
		return "it speaks TLS: the URL must begin with rediss://"
	}
	return "not Redis's protocol: no type begins with " + strconv.QuoteRune(rune(in[0]))
}

// line takes in[begin:end], a type byte and what follows it.
func (r *respReader) line(in []byte, begin, end int) (problem string) {
	kind, rest := in[begin], in[begin+1:end]
	v := respValue{kind: kind, begin: begin + 1, end: end}
	switch kind {
	case '+', '-':
	case ':':
		n, ok := parseRESPInt(rest)
		if !ok {
			return "a bad integer"
		}
		v.n = n
	case '_':
		if len(rest) != 0 {
			return "a bad null"
		}
	case '#':
		if len(rest) != 1 || rest[0] != 't' && rest[0] != 'f' {
			return "a bad boolean"
		}
	case ',':
		if !isRESPDouble(rest) {
			return "a bad double"
		}
	case '(':
		digits := rest
		if len(digits) > 0 && (digits[0] == '-' || digits[0] == '+') {
			digits = digits[1:]
		}
		if len(digits) == 0 || countDigits(digits) != len(digits) {
			return "a bad number"
		}
	case '$', '!', '=':
		n, null, problem := respLength(rest, maxRESPBulk)
		switch {
		case problem != "":
			return "a string's length " + problem
		case null && kind == '$':
			v.kind, v.begin = respNull, end
		case null, kind == '=' && n < len("txt:"):
			return "a bad length of a string"
		case r.at+n+2 > maxRESPReply:
			return "a reply over the limit"
		default:
			r.need, r.kind = n+len("\r\n"), kind
			return ""
		}
	default: // '*', '%', '~', '>', '|', as typeByteProblem has seen to
		n, null, problem := respLength(rest, maxRESPElements)
		if kind == '%' || kind == '|' {
			n *= 2
		}
		switch {
		case problem == "" && n > maxRESPElements:
			problem = "is over the limit"
			fallthrough
		case problem != "":
			return "an aggregate's length " + problem
		case null && kind != '*':
			return "a bad length of an aggregate"
		case null:
			v.kind, v.begin = respNull, end
		default:
			v.n = int64(n)
			return r.aggregate(v, n)
		}
	}
	return r.add(v)
}

// respLength parses a length. Only RESP2 has nulls by length, -1.
func respLength(digits []byte, limit int) (n int, null bool, problem string) {
	if string(digits) == "-1" {
		return 0, true, ""
	}
	if len(digits) == 0 || countDigits(digits) != len(digits) {
		return 0, false, "isn't a number"
	}
	for _, c := range digits {
		if n = n*10 + int(c-'0'); n > limit {
			return 0, false, "is over the limit"
		}
	}
	return n, false, ""
}

func parseRESPInt(text []byte) (n int64, ok bool) {
	digits := text
	negative := len(digits) > 0 && digits[0] == '-'
	if negative || len(digits) > 0 && digits[0] == '+' {
		digits = digits[1:]
	}
	if len(digits) == 0 || countDigits(digits) != len(digits) {
		return 0, false
	}
	for _, c := range digits { // downwards: there is one more negative number
		d := int64(c - '0')
		if n < (-1<<63+d)/10 {
			return 0, false
		}
		n = n*10 - d
	}
	if negative {
		return n, true
	}
	return -n, n != -1<<63
}

func countDigits(b []byte) (n int) {
	for n < len(b) && b[n]-'0' <= 9 {
		n++
	}
	return n
}

// isRESPDouble takes [+-]digits[.digits][e[+-]digits], inf, -inf and nan.
func isRESPDouble(b []byte) bool {
	switch string(b) {
	case "inf", "-inf", "nan":
		return true
	}
	sign := func() {
		if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
			b = b[1:]
		}
	}
	digits := func() bool {
		n := countDigits(b)
		b = b[n:]
		return n > 0
	}
	if sign(); !digits() {
		return false
	}
	if len(b) > 0 && b[0] == '.' {
		if b = b[1:]; !digits() {
			return false
		}
	}
	if len(b) > 0 && b[0]|0x20 == 'e' {
		b = b[1:]
		if sign(); !digits() {
			return false
		}
	}
	return len(b) == 0
}

// bulk takes the string that has arrived.
func (r *respReader) bulk(in []byte) (problem string) {
	v := respValue{kind: r.kind, begin: r.at, end: r.at + r.need - 2}
	if in[v.end] != '\r' || in[v.end+1] != '\n' {
		return "a string that doesn't end where its length says"
	}
	r.at += r.need
	r.scan, r.need = r.at, 0
	if v.kind == '=' { // a verbatim string begins with its format, as in txt:
		if in[v.begin+3] != ':' {
			return "a verbatim string without a format"
		}
		v.begin += len("txt:")
	}
	return r.add(v)
}

// aggregate begins one of n elements.
func (r *respReader) aggregate(v respValue, n int) (problem string) {
	if r.depth == maxRESPDepth {
		return "aggregates nested over 8 deep"
	}
	frame := respFrame{left: n, values: -1}
	if v.kind == '|' {
		frame.values = len(r.values)
		if n == 0 {
			return r.enough()
		}
	} else if n == 0 {
		return r.add(v)
	}
	r.values = append(r.values, v)
	r.stack[r.depth] = frame
	r.depth++
	return r.enough()
}

// add takes a value that is complete, and what it completes.
func (r *respReader) add(v respValue) (problem string) {
	r.values = append(r.values, v)
	for r.depth > 0 {
		frame := &r.stack[r.depth-1]
		if frame.left--; frame.left > 0 {
			return r.enough()
		}
		r.depth--
		if frame.values >= 0 { // an attribute: the value it belongs to follows
			r.values = r.values[:frame.values]
			return r.enough()
		}
	}
	r.done = true
	return ""
}

func (r *respReader) enough() (problem string) {
	if len(r.values) > maxRESPValues || r.at > maxRESPReply {
		return "a reply over the limit"
	}
	return ""
}

// A pushKind is what a subscriber is told.
type pushKind uint8

const (
	pushOther       pushKind = iota // nothing that concerns pub/sub
	pushMessage                     // message, smessage
	pushPattern                     // pmessage
	pushSubscribe                   // subscribe, psubscribe, ssubscribe: an acknowledgement
	pushUnsubscribe                 // the reverse, also without being asked
	pushPong
	pushError
)

// A push is a reply on a subscriber's connection. Its slices are good as long
// as the reply.
type push struct {
	kind    pushKind
	pattern []byte // of a pushPattern
	channel []byte // or the pattern that is acknowledged, or the error's text
	payload []byte
}

var (
	errPushShape = respError("not what a subscriber is told: perhaps the server is no Redis")
	pushKinds    = []struct {
		name string
		kind pushKind
		len  int
	}{
		{"message", pushMessage, 3},
		{"pmessage", pushPattern, 4},
		{"smessage", pushMessage, 3},
		{"subscribe", pushSubscribe, 3},
		{"psubscribe", pushSubscribe, 3},
		{"ssubscribe", pushSubscribe, 3},
		{"unsubscribe", pushUnsubscribe, 3},
		{"punsubscribe", pushUnsubscribe, 3},
		{"sunsubscribe", pushUnsubscribe, 3},
		{"pong", pushPong, 2},
	}
)

// push reads the reply as one of a subscriber's connection: an array in
// RESP2, a push in RESP3, where replies of other commands come between.
func (r *respReader) push() (p push, err error) {
	root := r.values[0]
	switch root.kind {
	case '+':
		return push{kind: pushPong}, nil
	case '-', '!':
		return push{kind: pushError, channel: r.text(root)}, nil
	case '*', '>':
	default:
		return p, errPushShape
	}
	if len(r.values) < 2 || r.values[1].kind != '$' && r.values[1].kind != '+' {
		return p, errPushShape
	}
	name := r.text(r.values[1])
	for i := range pushKinds {
		k := &pushKinds[i]
		if string(name) != k.name {
			continue
		}
		if int(root.n) != k.len || len(r.values) != 1+k.len || !r.areStrings(k.len, k.kind) {
			return p, errPushShape
		}
		p.kind = k.kind
		switch k.kind {
		case pushPong:
		case pushMessage, pushPattern:
			p.channel, p.payload = r.text(r.values[k.len-1]), r.text(r.values[k.len])
			if k.kind == pushPattern {
				p.pattern = r.text(r.values[2])
			}
		default:
			p.channel = r.text(r.values[2])
		}
		return p, nil
	}
	if root.kind == '>' { // RESP3 has others, and more to come
		return p, nil
	}
	return p, errPushShape
}

// areStrings looks at a push's values but for the first.
func (r *respReader) areStrings(n int, kind pushKind) bool {
	values := r.values[2 : n+1]
	switch kind {
	case pushSubscribe, pushUnsubscribe: // the last is a count; the channel of an unsubscribe may be null
		return (values[0].kind == '$' || kind == pushUnsubscribe && values[0].kind == respNull) && values[1].kind == ':'
	}
	return !slices.ContainsFunc(values, func(v respValue) bool { return v.kind != '$' })
}

// appendCommand appends a command as RESP has it: an array of bulk strings.
func appendCommand(dst []byte, args ...string) []byte {
	dst = appendRESPHeader(dst, '*', len(args))
	for _, arg := range args {
		dst = appendRESPHeader(dst, '$', len(arg))
		dst = append(append(dst, arg...), "\r\n"...)
	}
	return dst
}

// appendPublish appends the command that publishes m: publish is the command's
// beginning, as publishVerb has it.
func appendPublish(dst []byte, publish string, m *Message) []byte {
	dst = append(dst, publish...)
	dst = appendRESPHeader(dst, '$', len(m.Channel))
	dst = append(append(dst, m.Channel...), "\r\n"...)
	dst = appendRESPHeader(dst, '$', len(m.Payload))
	return append(append(dst, m.Payload...), "\r\n"...)
}

// What a command of three strings begins with, up to its first one's end.
const (
	publishVerb  = "*3\r\n$7\r\nPUBLISH\r\n"
	spublishVerb = "*3\r\n$8\r\nSPUBLISH\r\n"
)

func appendRESPHeader(dst []byte, kind byte, n int) []byte {
	dst = strconv.AppendInt(append(dst, kind), int64(n), 10)
	return append(dst, "\r\n"...)
}
