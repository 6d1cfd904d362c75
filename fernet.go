package autobus

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/scrypt"
)

// ErrToken is returned for a token that is forged, damaged, too old, or sealed
// under another key. Which of these it is, nobody is told.
var ErrToken = errors.New("autobus: invalid token")

// A Key seals and opens events: whoever has it can read them and write them.
// Printed, logged, or marshalled as text or JSON it shows no secret;
// [Key.Encode] is the one way out. What it can't help: fmt's verbs for numbers,
// such as %d, print its bytes, and so does fmt for a struct that has a Key in
// an unexported field, where it calls no methods.
type Key [keySize]byte

const (
	keySize  = 32 // half of it signs, half encrypts
	redacted = "autobus.Key(redacted)"
)

// GenerateKey returns a new random key.
func GenerateKey() (k Key) {
	rand.Read(k[:]) // never returns an error
	return k
}

// ParseKey reads a key in base64, URL-safe or standard, with its padding: what
// [Key.Encode] returns and Python's cryptography takes. White space around it
// is ignored, and so is the b'…' that Python prints around bytes. There is one
// spelling in each alphabet: of what Python takes beside it, these are refused:
// white space or another character inside or before it, anything behind its
// padding, more padding, the two alphabets mixed, and a last character with
// bits that don't count.
func ParseKey(s string) (k Key, err error) {
	s = strings.TrimSpace(s)
	if n := len(s); n > 3 && s[0] == 'b' && (s[1] == '\'' || s[1] == '"') && s[n-1] == s[1] {
		s = s[2 : n-1]
	}
	if len(s) == base64.StdEncoding.EncodedLen(keySize) { // so that no CR or LF is skipped
		for _, encoding := range []*base64.Encoding{base64.URLEncoding, base64.StdEncoding} {
			if b, err := encoding.Strict().DecodeString(s); err == nil && len(b) == keySize {
				return Key(b), nil
			}
		}
	}
	// The text stays out of the error: it is a secret, mistyped.
	return k, fail("ParseKey: want the base64 of 32 bytes, 44 characters with the padding", nil)
}

// DeriveKey returns the key that a passphrase and a salt stand for, the same
// each time, in about 0.1 s and 32 MiB. The salt needs no secrecy: the name of
// the bus will do. Python has the same key from
//
//	hashlib.scrypt(passphrase, salt=salt, n=32768, r=8, p=1, maxmem=2**26, dklen=32)
//
// A passphrase is as good as it is long: five random words are. Neither may be
// empty.
func DeriveKey(passphrase, salt string) (k Key, err error) {
	if passphrase == "" || salt == "" {
		return k, fail("DeriveKey: want a passphrase and a salt that aren't empty", nil)
	}
	b, err := scrypt.Key([]byte(passphrase), []byte(salt), 32768, 8, 1, keySize)
	if err != nil {
		return k, fail("DeriveKey", err)
	}
	return Key(b), nil
}

// Encode returns the key itself, in URL-safe base64.
func (k Key) Encode() string { return base64.URLEncoding.EncodeToString(k[:]) }

// String does not return the key: see [Key.Encode].
func (Key) String() string { return redacted }

// GoString does not return the key: see [Key.Encode].
func (Key) GoString() string { return redacted }

// MarshalText does not return the key: see [Key.Encode].
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// A Fernet seals bytes into tokens that no one without a key can read or
// forge, and opens them. Its methods may be called from any goroutine.
//
// The format is https://github.com/fernet/spec, that of Python's cryptography.
// A bus with [Bus.Keys] uses it by itself.
type Fernet struct {
	keys []*keyed
}

// NewFernet returns a Fernet whose first key seals and of which every key
// opens. Without a key it opens nothing, and Seal panics.
func NewFernet(keys ...Key) *Fernet {
	f := new(Fernet)
	if len(keys) > 0 {
		tables.Do(makeTables)
	}
	for _, key := range keys {
		f.keys = append(f.keys, newKeyed(key))
	}
	return f
}

// Seal appends the token of plaintext to dst, and allocates nothing if dst has
// room. They may overlap.
func (f *Fernet) Seal(dst, plaintext []byte) []byte {
	return f.SealAt(dst, plaintext, time.Now())
}

// Open appends to dst what was sealed in token, or returns [ErrToken]. If
// maxAge is not 0, a token is refused that was sealed longer ago, or over a
// minute ahead of our clock. It allocates nothing if dst has room, and dst may
// overlap token.
func (f *Fernet) Open(dst, token []byte, maxAge time.Duration) ([]byte, error) {
	return f.OpenAt(dst, token, maxAge, time.Now())
}

// SealAt is Seal at another time, of which a token keeps the whole seconds.
func (f *Fernet) SealAt(dst, plaintext []byte, now time.Time) []byte {
	var iv [aes.BlockSize]byte
	rand.Read(iv[:])
	return f.seal(dst, plaintext, now, iv)
}

// OpenAt is Open at another time. A token has whole seconds, and so it is in
// whole seconds that its age is counted: it is too old when the second of now
// is over the token's plus maxAge.
func (f *Fernet) OpenAt(dst, token []byte, maxAge time.Duration, now time.Time) ([]byte, error) {
	dst, _, problem := f.open(dst, token, maxAge, now)
	if problem != "" {
		return nil, ErrToken
	}
	return dst, nil
}

// A token is the base64 of version, time, IV, ciphertext and HMAC of all these
// (Fernet spec, Token Format).
const (
	version   = 0x80
	timeAt    = 1
	ivAt      = timeAt + 8
	bodyAt    = ivAt + aes.BlockSize
	minSealed = bodyAt + aes.BlockSize + sha256.Size

	// maxSkew is how many seconds a sender's clock may be ahead of ours, where
	// age matters (cryptography's _MAX_CLOCK_SKEW).
	maxSkew = 60
)

func (f *Fernet) seal(dst, plaintext []byte, now time.Time, iv [aes.BlockSize]byte) []byte {
	if len(f.keys) == 0 {
		panic("autobus: Seal: the Fernet has no key")
	}
	k := f.keys[0]
	e := k.engine()
	defer k.put(e)
	padding := aes.BlockSize - len(plaintext)%aes.BlockSize // PKCS #7, RFC 5652 section 6.3
	b := e.room(bodyAt + len(plaintext) + padding + sha256.Size)
	b = append(b, version)
	b = binary.BigEndian.AppendUint64(b, unixSeconds(now))
	b = append(b, iv[:]...)
	b = append(b, plaintext...)
	b = append(b, paddings[padding][:padding]...)
	e.encrypt(b[bodyAt:], iv)
	e.mac.Reset()
	e.mac.Write(b)
	b = e.mac.Sum(b)
	return appendToken(dst, b)
}

// tokenLen is the length of the token that seal makes of n bytes.
func tokenLen(n int) int {
	return base64.URLEncoding.EncodedLen(bodyAt + n + aes.BlockSize - n%aes.BlockSize + sha256.Size)
}

// paddings has each padding by its length.
var paddings = func() (p [aes.BlockSize + 1][aes.BlockSize]byte) {
	for n := range p {
		for i := range p[n] {
			p[n][i] = byte(n)
		}
	}
	return p
}()

// stamp is what tells a token from others: its HMAC, or enough of that, which
// nobody without the key can choose, and when it was sealed.
type stamp struct{ time, tag uint64 }

// open is OpenAt. The problem is for debugging alone: told to a sender, it
// would help a forger.
func (f *Fernet) open(dst, token []byte, maxAge time.Duration, now time.Time) (_ []byte, s stamp, problem string) {
	if len(f.keys) == 0 {
		return nil, s, "there is no key"
	}
	first := f.keys[0]
	e := first.engine()
	defer first.put(e)
	b := e.room(base64.URLEncoding.DecodedLen(len(token)) + 8)
	n, ok := decodeToken(b[:cap(b)], token)
	if !ok {
		return nil, s, "not in canonical base64"
	}
	b = b[:n]
	if n < minSealed || (n-minSealed)%aes.BlockSize != 0 || b[0] != version {
		return nil, s, "not a token"
	}
	signed, tag := b[:n-sha256.Size], b[n-sha256.Size:]

	// Nothing is decrypted, and no field believed, before the HMAC holds.
	k, with := f.signer(e, signed, tag)
	if k == nil {
		return nil, s, "sealed under another key, or damaged"
	}
	if with != e {
		defer k.put(with)
	}
	s = stamp{binary.BigEndian.Uint64(b[timeAt:]), binary.BigEndian.Uint64(tag)}
	if problem := ageProblem(s.time, maxAge, now); problem != "" {
		return nil, s, problem
	}
	plaintext := with.decrypt(signed[ivAt:])
	padding := int(plaintext[len(plaintext)-1])
	if padding == 0 || padding > aes.BlockSize || !bytes.HasSuffix(plaintext, paddings[padding][:padding]) {
		return nil, s, "wrong padding"
	}
	return append(dst, plaintext[:len(plaintext)-padding]...), s, ""
}

// signer returns the key under which tag is the HMAC of signed, and an engine
// of it, which is e if it is the first key; nil if there is none.
func (f *Fernet) signer(e *engine, signed, tag []byte) (*keyed, *engine) {
	if e.verify(signed, tag) {
		return f.keys[0], e
	}
	for _, k := range f.keys[1:] {
		e := k.engine()
		if e.verify(signed, tag) {
			return k, e
		}
		k.put(e)
	}
	return nil, nil
}

// pairs has the two base64 characters of 12 bits, and values the 6 bits of a
// character at each place among four, or notBase64. With encoding/base64 a third
// of the time of sealing goes into base64, with these it is a fifth.
var (
	pairs  [1 << 12]uint16
	values [4][256]uint32
)

const notBase64 = 1 << 31

var tables sync.Once // for makeTables

// makeTables is called when there is a first key, since many a program has none.
func makeTables() {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" // RFC 4648 section 5
	for i := range pairs {
		pairs[i] = uint16(alphabet[i>>6])<<8 | uint16(alphabet[i&63])
	}
	for place := range values {
		for c := range values[place] {
			values[place][c] = notBase64
		}
		for i := range len(alphabet) {
			values[place][alphabet[i]] = uint32(i) << (18 - 6*place)
		}
	}
}

// appendToken appends the URL-safe base64 of b, with padding.
func appendToken(dst, b []byte) []byte {
	n := len(dst) + base64.URLEncoding.EncodedLen(len(b))
	dst = slices.Grow(dst, n-len(dst))
	to := dst[len(dst):n]
	for len(b) >= 8 && len(to) >= 8 { // 6 bytes at a time
		x := binary.BigEndian.Uint64(b)
		binary.BigEndian.PutUint64(to, uint64(pairs[x>>52])<<48|uint64(pairs[x>>40&0xFFF])<<32|
			uint64(pairs[x>>28&0xFFF])<<16|uint64(pairs[x>>16&0xFFF]))
		b, to = b[6:], to[8:]
	}
	base64.URLEncoding.Encode(to, b)
	return dst[:n]
}

// decodeToken decodes canonical URL-safe base64, with padding, into b, which
// is to have room for 8 bytes more.
func decodeToken(b, token []byte) (n int, ok bool) {
	wrong := uint32(0)
	to := b
	for len(token) >= 12 && len(to) >= 8 { // 8 characters at a time, but for the last
		x := values[0][token[0]] | values[1][token[1]] | values[2][token[2]] | values[3][token[3]]
		y := values[0][token[4]] | values[1][token[5]] | values[2][token[6]] | values[3][token[7]]
		wrong |= x | y
		binary.BigEndian.PutUint64(to, uint64(x)<<40|uint64(y)<<16)
		token, to = token[8:], to[6:]
	}
	padding := len(token) - len(bytes.TrimRight(token, "="))
	rest, err := strictBase64.Decode(to, token)
	// Decode skips CR and LF, and then it comes out short.
	whole := rest == base64.URLEncoding.DecodedLen(len(token))-padding
	return len(b) - len(to) + rest, err == nil && whole && len(token)%4 == 0 && wrong < notBase64
}

var strictBase64 = base64.URLEncoding.Strict()

// ageProblem says why a token of a time is too old, or too new. Without a
// maxAge clocks don't matter, as in Python: a device may have none.
func ageProblem(sealed uint64, maxAge time.Duration, now time.Time) string {
	if maxAge == 0 {
		return ""
	}
	// sealed is any number, and no sum with it is safe.
	switch at := unixSeconds(now); {
	case sealed > at+maxSkew:
		return "sealed in the future"
	case maxAge < 0 || at > sealed && at-sealed > uint64(maxAge/time.Second):
		return "too old"
	}
	return ""
}

// unixSeconds is a token's time; before 1970 there is none.
func unixSeconds(t time.Time) uint64 { return uint64(max(0, t.Unix())) }

// keyed has the engines of one key.
type keyed struct{ engines sync.Pool }

// An engine is one key's cipher and HMAC, keyed already: that takes longer
// than sealing a small event. It serves one goroutine at a time.
type engine struct {
	mac       hash.Hash
	sum       [sha256.Size]byte
	encrypter cipher.BlockMode
	last      [aes.BlockSize]byte // the last block that encrypter made
	decrypter cipher.BlockMode
	scratch   []byte
}

// keepScratch is the largest scratch that an engine keeps.
const keepScratch = 1 << 20

func newKeyed(key Key) *keyed {
	// The first half signs (Fernet spec, Key Format).
	block, err := aes.NewCipher(key[keySize/2:])
	if err != nil {
		panic(err) // not for 16 bytes
	}
	return &keyed{sync.Pool{New: func() any {
		e := &engine{mac: hmac.New(sha256.New, key[:keySize/2])}
		e.encrypter = cipher.NewCBCEncrypter(block, e.last[:])
		e.decrypter = cipher.NewCBCDecrypter(block, e.last[:])
		return e
	}}}
}

func (k *keyed) engine() *engine { return k.engines.Get().(*engine) }

func (k *keyed) put(e *engine) {
	if cap(e.scratch) > keepScratch {
		e.scratch = nil
	}
	k.engines.Put(e)
}

// room returns the scratch, empty, with room for n bytes.
func (e *engine) room(n int) []byte {
	e.scratch = slices.Grow(e.scratch[:0], n)
	return e.scratch
}

// encrypt encrypts whole blocks in place. A BlockMode has no way to set an IV,
// but goes on from its last block: with that taken out of the first one, and
// the IV put in, it is as if it began there.
func (e *engine) encrypt(b []byte, iv [aes.BlockSize]byte) {
	subtle.XORBytes(e.last[:], e.last[:], iv[:])
	subtle.XORBytes(b, b, e.last[:])
	e.encrypter.CryptBlocks(b, b)
	copy(e.last[:], b[len(b)-aes.BlockSize:])
}

// decrypt decrypts an IV and what follows it in place, and returns what
// follows: CBC needs but the block before, and only the IV comes out as noise.
func (e *engine) decrypt(b []byte) []byte {
	e.decrypter.CryptBlocks(b, b)
	return b[aes.BlockSize:]
}

// verify says whether tag is the HMAC of b, in a time that doesn't tell more.
func (e *engine) verify(b, tag []byte) bool {
	e.mac.Reset()
	e.mac.Write(b)
	return hmac.Equal(e.mac.Sum(e.sum[:0]), tag)
}

// maxReplays is how many tokens replays remembers: up to 14 MiB of them, and a
// minute's at 4,369 a second.
const maxReplays = 1 << 18

// maxForget is how many tokens one call of fresh forgets for their age, so that
// none takes long after a burst: all at once they take some 30 ms.
const maxForget = 64

// maxSpans bounds the spans of time that replays has forgotten: each time the
// clock is put back begins another.
const maxSpans = 16

// replays knows the tokens that were opened, to tell when one comes again. It
// never takes a token twice: those that are as old as one that it has
// forgotten, it takes no more.
type replays struct {
	mu    sync.Mutex          // guards the rest
	known map[uint64]struct{} // by tag: 64 bits, which no one can choose
	heap  []stamp             // the known, each no older than its parent's
	spans []span              // whose tokens it may have forgotten, in the order it did
}

// A span is some seconds: from, and up to but without to.
type span struct{ from, to uint64 }

// fresh says whether it is the first time that s comes. Those before the second
// of oldest, which are refused for their age, it forgets, a few at each call.
func (r *replays) fresh(s stamp, oldest uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := 0; n < maxForget && len(r.heap) > 0 && r.heap[0].time < oldest; n++ {
		r.forget()
	}
	if _, ok := r.known[s.tag]; ok {
		return false
	}
	for _, span := range r.spans {
		if span.from <= s.time && s.time < span.to {
			return false
		}
	}
	if len(r.heap) == maxReplays {
		if s.time <= r.heap[0].time {
			return false // it can't be remembered, and so it can't be taken
		}
		r.forget()
	}
	if r.known == nil {
		r.known = make(map[uint64]struct{})
	}
	r.known[s.tag] = struct{}{}
	i := len(r.heap)
	r.heap = append(r.heap, s)
	for i > 0 && s.time < r.heap[(i-1)/2].time {
		r.heap[i] = r.heap[(i-1)/2]
		i = (i - 1) / 2
	}
	r.heap[i] = s
	return true
}

// forget forgets the oldest.
func (r *replays) forget() {
	delete(r.known, r.heap[0].tag)
	t, last := r.heap[0].time, len(r.spans)-1
	switch {
	case last >= 0 && t >= r.spans[last].from:
		r.spans[last].to = max(r.spans[last].to, t+1)
	case last+1 < maxSpans: // the first, or the clock was put back
		r.spans = append(r.spans, span{t, t + 1})
	default:
		r.spans[last].from = t
	}
	n := len(r.heap) - 1
	s := r.heap[n]
	r.heap = r.heap[:n]
	i := 0
	for child := 1; child < n; child = 2*i + 1 {
		if child+1 < n && r.heap[child+1].time < r.heap[child].time {
			child++
		}
		if s.time <= r.heap[child].time {
			break
		}
		r.heap[i] = r.heap[child]
		i = child
	}
	if n > 0 {
		r.heap[i] = s
	}
}
