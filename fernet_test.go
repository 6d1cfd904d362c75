package autobus

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/scrypt"
)

// fernetVectors is testdata/fernet.json: the spec's vectors, and what Python's
// cryptography makes of many more tokens and keys.
type fernetVectors struct {
	Tokens []tokenCase
	Keys   []struct {
		Name, Key string
		Accepted  bool
		Raw       string `json:"raw_hex"`
	}
	Scrypt []struct {
		Name       string
		Passphrase string `json:"pass_utf8"`
		Salt       string `json:"salt_utf8"`
		N, R, P    int
		Length     int `json:"dklen"`
		Hex        string
		FernetKey  string `json:"fernet_key"`
		Token      string
		Slow       bool
	}
}

type tokenCase struct {
	Name, Kind, Token string
	Key               string
	Keys              []string // in place of Key
	Now               int64
	TTL               *int64
	Valid             bool
	Plaintext         string `json:"plaintext_hex"`
	Canonical         bool   `json:"canonical_base64"`
	IV                string `json:"iv_hex"`
	Generated         int64  `json:"gen_time"`
	Input             string `json:"plaintext_in_hex"`
}

func readFernet(t testing.TB) (v fernetVectors) {
	t.Helper()
	data, err := os.ReadFile("testdata/fernet.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parseKey(t testing.TB, s string) Key {
	t.Helper()
	k, err := ParseKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (c tokenCase) fernet(t testing.TB) *Fernet {
	var keys []Key
	for _, key := range c.Keys {
		keys = append(keys, parseKey(t, key))
	}
	if keys == nil {
		keys = append(keys, parseKey(t, c.Key))
	}
	return NewFernet(keys...)
}

// Every token is taken and refused as Python does; but where its base64 has
// other spellings, we refuse it.
func TestFernetVectors(t *testing.T) {
	for _, c := range readFernet(t).Tokens {
		t.Run(c.Name, func(t *testing.T) {
			f := c.fernet(t)
			var maxAge time.Duration
			if c.TTL != nil {
				// Python has no "any age" but None, and so its 0 means this second.
				maxAge = max(1, time.Duration(*c.TTL)*time.Second)
			}
			got, err := f.OpenAt([]byte("before"), []byte(c.Token), maxAge, time.Unix(c.Now, 0))
			if !c.Valid || !c.Canonical {
				if err != ErrToken || got != nil {
					t.Errorf("got %q, %v; want ErrToken", got, err)
				}
				return
			}
			if want := "before" + string(unhex(t, c.Plaintext)); err != nil || string(got) != want {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
			if c.Kind == "generate" {
				sealed := f.seal([]byte("before"), unhex(t, c.Input), time.Unix(c.Generated, 0), [16]byte(unhex(t, c.IV)))
				if want := "before" + c.Token; string(sealed) != want {
					t.Errorf("sealed\n%s, want\n%s", sealed, want)
				}
			}
		})
	}
}

func TestParseKeyVectors(t *testing.T) {
	// What Python takes of these has other characters in it, or too much padding.
	strict := []string{"extra padding", "inner space", "garbage after =", "garbage before"}
	for _, c := range readFernet(t).Keys {
		key, err := ParseKey(c.Key)
		switch {
		case !c.Accepted || slices.Contains(strict, c.Name):
			if err == nil || key != (Key{}) {
				t.Errorf("%s: taken", c.Name)
			} else if len(c.Key) > 5 && strings.Contains(err.Error(), strings.TrimSpace(c.Key)[2:]) {
				t.Errorf("%s: the error tells it: %v", c.Name, err)
			}
		case err != nil || !bytes.Equal(key[:], unhex(t, c.Raw)):
			t.Errorf("%s: %v", c.Name, err)
		case key.Encode() != strings.TrimSpace(c.Key):
			t.Errorf("%s: Encode gives %s", c.Name, key.Encode())
		}
	}
}

func TestParseKey(t *testing.T) {
	key := Key(bytes.Repeat([]byte{0xFB, 0xFF, 0xBF, 0xFE}, 8))
	url, std := base64.URLEncoding.EncodeToString(key[:]), base64.StdEncoding.EncodeToString(key[:])
	for _, s := range []string{url, std, " " + url + "\r\n", "\t" + std, "b'" + url + "'\n", `b"` + url + `"`} {
		if got, err := ParseKey(s); err != nil || got != key {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{
		"b'" + url, "b'" + url + `"`, "b''", "b'", "b", "'" + url + "'", "b'" + url[:43] + "'",
		url[:43], url + "=", url[:43] + "x", url[:42] + "==", url[:20] + "\n" + url[20:43], url[:20] + "\n" + url[20:42] + "==",
		url[:20] + " " + url[20:], url + url, url[:20] + std[20:], url[:42] + "5=", strings.Repeat("A", 44), strings.Repeat("A", 42) + "B=",
	} {
		if key, err := ParseKey(s); err == nil || key != (Key{}) {
			t.Errorf("%q was taken", s)
		}
	}
	if a, b := GenerateKey(), GenerateKey(); a == b || a == (Key{}) {
		t.Error("GenerateKey gives the same key again")
	}
	generated := GenerateKey()
	if got, err := ParseKey(generated.Encode()); err != nil || got != generated {
		t.Errorf("what Encode gives, ParseKey takes: %v", err)
	}
}

func TestDeriveKey(t *testing.T) {
	for _, c := range readFernet(t).Scrypt {
		if c.Slow || raceEnabled && c.N > 32768 {
			continue // a gigabyte, or half a minute
		}
		raw, err := scrypt.Key([]byte(c.Passphrase), []byte(c.Salt), c.N, c.R, c.P, c.Length)
		if err != nil || hex.EncodeToString(raw) != c.Hex {
			t.Errorf("%s: %x, %v", c.Name, raw, err)
		}
		if c.N != 32768 || c.Length != keySize {
			continue
		}
		key, err := DeriveKey(c.Passphrase, c.Salt)
		if c.Passphrase == "" || c.Salt == "" {
			if err == nil {
				t.Errorf("%q with %q was taken", c.Passphrase, c.Salt)
			}
			continue
		}
		if err != nil || key.Encode() != c.FernetKey {
			t.Errorf("%q with %q: %v", c.Passphrase, c.Salt, err)
		}
		if _, err := NewFernet(key).Open(nil, []byte(c.Token), 0); c.Token != "" && err != nil {
			t.Errorf("%q with %q: its token: %v", c.Passphrase, c.Salt, err)
		}
	}
	for _, empty := range [][2]string{{"", "salt"}, {"passphrase", ""}, {"", ""}} {
		if key, err := DeriveKey(empty[0], empty[1]); err == nil || key != (Key{}) {
			t.Errorf("%q was taken", empty)
		}
	}
}

// No way of printing a key shows it, but %d and its kin, which ask for numbers:
// without importing fmt there is no telling it how to print these.
func TestKeyIsRedacted(t *testing.T) {
	key := GenerateKey()
	f := NewFernet(key)
	bus := &Bus{Keys: []Key{key}}
	var secrets []string
	for _, part := range [][]byte{key[:], key[:16], key[16:]} {
		secrets = append(secrets, string(part), base64.StdEncoding.EncodeToString(part)[:20], base64.URLEncoding.EncodeToString(part)[:20],
			hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)), fmt.Sprintf("%d", part)[1:30],
			strings.ReplaceAll(fmt.Sprintf("%d", part)[1:30], " ", ","), fmt.Sprintf("%#v", part)[10:40], fmt.Sprintf("% x", part))
	}
	check := func(how, text string) {
		t.Helper()
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows the key: %s", how, text)
			}
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%#x", "%#q", "%T"} {
		for _, v := range []any{key, &key, []Key{key}, map[string]Key{"k": key}, struct{ K Key }{key}, bus, f, any(f.keys)} {
			check(fmt.Sprintf("%s of %T", verb, v), fmt.Sprintf(verb, v))
		}
	}
	check("Print", fmt.Sprint(key, &key))
	check("an error", fmt.Errorf("bad key %v", key).Error())
	for _, handler := range []func(*bytes.Buffer) slog.Handler{
		func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var log bytes.Buffer
		slog.New(handler(&log)).Info("a key", "key", key, "pointer", &key, "keys", []Key{key}, "fernet", f)
		check("slog", log.String())
		if !strings.Contains(log.String(), redacted) {
			t.Errorf("slog wrote %s", &log)
		}
	}
	check("logLine", string(logLine("a key", []any{"key", key, "keys", []Key{key}})))
	text, err := json.Marshal(struct{ Keys []Key }{[]Key{key}})
	check("JSON", string(text))
	if err != nil || !strings.Contains(string(text), redacted) {
		t.Errorf("JSON: %s, %v", text, err)
	}
	// The limits that Key states: fmt calls no methods of unexported fields, nor
	// for the verbs of numbers. If these lines fail one day, so much the better.
	numbers := fmt.Sprint(key[:])
	if text := fmt.Sprintf("%+v", struct{ key Key }{key}); text != "{key:"+numbers+"}" {
		t.Errorf("in an unexported field: %s", text)
	}
	if text := fmt.Sprintf("%d", key); text != numbers {
		t.Errorf("as a number: %s", text)
	}
	if text := fmt.Sprint(key, " ", []Key{key}); text != redacted+" ["+redacted+"]" {
		t.Errorf("printed %s", text)
	}
}

// What is sealed opens again, whatever its size, and each token is another.
func TestFernetRoundTrip(t *testing.T) {
	f := NewFernet(GenerateKey())
	seen := map[string]bool{}
	for n := range 300 {
		plaintext := make([]byte, n)
		crand.Read(plaintext)
		token := f.Seal([]byte("before"), plaintext)
		if string(token[:6]) != "before" || seen[string(token)] {
			t.Fatalf("%s", token)
		}
		seen[string(token)] = true
		if len(token[6:]) != tokenLen(n) {
			t.Errorf("%d bytes: %d, tokenLen says %d", n, len(token[6:]), tokenLen(n))
		}
		got, err := f.Open([]byte("and"), token[6:], time.Minute)
		if err != nil || string(got) != "and"+string(plaintext) {
			t.Fatalf("%d bytes: %x, %v", n, got, err)
		}
	}
	// The token may follow its plaintext in one buffer.
	buf := append(make([]byte, 0, 500), "plaintext"...)
	buf = f.Seal(buf, buf)
	if got, err := f.Open(nil, buf[9:], 0); err != nil || string(got) != "plaintext" {
		t.Errorf("%q, %v", got, err)
	}
	// So may they begin at one place.
	buf = append(make([]byte, 0, 500), "plaintext"...)
	buf = f.Seal(buf[:0], buf)
	if got, err := f.Open(buf[:0], buf, 0); err != nil || string(got) != "plaintext" {
		t.Errorf("%q, %v", got, err)
	}
	buf = f.Seal(nil, nil)
	if _, err := new(Fernet).Open(nil, buf, 0); err != ErrToken {
		t.Errorf("without a key: %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("sealed without a key")
		}
	}()
	new(Fernet).Seal(nil, nil)
}

// An age is exact, and nothing wraps, whatever the two clocks say.
func TestFernetAge(t *testing.T) {
	f := NewFernet(GenerateKey())
	const sealed = 1_700_000_000
	for _, c := range []struct {
		sealed uint64
		now    time.Time
		maxAge time.Duration
		ok     bool
	}{
		{sealed, time.Unix(sealed+60, 0), time.Minute, true},
		{sealed, time.Unix(sealed+60, 999_999_999), time.Minute, true},
		{sealed, time.Unix(sealed+61, 0), time.Minute, false},
		{sealed, time.Unix(sealed, 999_999_999), time.Nanosecond, true},
		{sealed, time.Unix(sealed+1, 0), time.Nanosecond, false},
		{sealed, time.Unix(sealed+1, 0), 1500 * time.Millisecond, true},
		{sealed, time.Unix(sealed+2, 0), 1500 * time.Millisecond, false},
		{sealed, time.Unix(sealed-60, 0), time.Minute, true},
		{sealed, time.Unix(sealed-61, 0), time.Minute, false},
		{sealed, time.Unix(sealed-61, 0), math.MaxInt64, false},
		{sealed, time.Unix(sealed-61, 0), 0, true},
		{sealed, time.Unix(sealed*5, 0), math.MaxInt64, true},
		{sealed, time.Unix(sealed*6.5, 0), math.MaxInt64, false},
		{sealed, time.Unix(sealed, 0), -time.Second, false},
		{0, time.Unix(60, 0), time.Minute, true},
		{0, time.Unix(61, 0), time.Minute, false},
		{0, time.Time{}, time.Minute, true},
		{60, time.Unix(-1000, 0), time.Minute, true},
		{61, time.Unix(-1000, 0), time.Minute, false},
		{1<<63 - 1, time.Unix(sealed, 0), time.Minute, false},
		{1 << 63, time.Unix(sealed, 0), time.Minute, false},
		{1<<64 - 1, time.Unix(sealed, 0), time.Minute, false},
		{1<<64 - 59, time.Unix(0, 0), time.Minute, false},
		{1<<64 - 1, time.Unix(-1, 0), math.MaxInt64, false},
		{1<<64 - 1, time.Unix(math.MaxInt64, 0), math.MaxInt64, false},
		{1<<64 - 1, time.Unix(sealed, 0), 0, true},
		{1 << 63, time.Unix(sealed, 0), 0, true},
	} {
		token := sign(f, append(binary.BigEndian.AppendUint64([]byte{version}, c.sealed), encrypted(f, "x")...))
		if _, err := f.OpenAt(nil, token, c.maxAge, c.now); (err == nil) != c.ok {
			t.Errorf("sealed at %d, opened at %v with %v: %v", c.sealed, c.now, c.maxAge, err)
		}
	}
	// SealAt keeps the second, and none before 1970.
	for at, want := range map[time.Time]uint64{time.Unix(5, 999_999_999): 5, time.Unix(-5, 0): 0, {}: 0} {
		if _, s, problem := f.open(nil, f.SealAt(nil, nil, at), 0, at); problem != "" || s.time != want {
			t.Errorf("sealed at %v: %d %s", at, s.time, problem)
		}
	}
}

// sign makes a token of any bytes: what f would, if it were out of its mind.
func sign(f *Fernet, b []byte) []byte {
	e := f.keys[0].engine()
	defer f.keys[0].put(e)
	e.mac.Reset()
	e.mac.Write(b)
	return []byte(base64.URLEncoding.EncodeToString(e.mac.Sum(slices.Clip(b))))
}

// encrypted returns an IV and the ciphertext of text.
func encrypted(f *Fernet, text string) []byte {
	b, err := base64.URLEncoding.DecodeString(string(f.Seal(nil, []byte(text))))
	if err != nil {
		panic(err)
	}
	return b[ivAt : len(b)-sha256.Size]
}

// A token with any bit changed, anything cut off or put in, is refused.
func TestFernetDamage(t *testing.T) {
	f := NewFernet(GenerateKey(), GenerateKey())
	for n := range 34 { // every padding, and every end of base64
		token := f.Seal(nil, make([]byte, n))
		if _, err := f.Open(nil, token, time.Hour); err != nil {
			t.Fatal(err)
		}
		refused := func(how string, damaged []byte) {
			t.Helper()
			for _, maxAge := range []time.Duration{0, time.Hour} {
				if got, err := f.Open(nil, damaged, maxAge); err != ErrToken || got != nil {
					t.Errorf("%d bytes, %s: got %x, %v", n, how, got, err)
				}
			}
		}
		raw, err := base64.URLEncoding.DecodeString(string(token))
		if err != nil {
			t.Fatal(err)
		}
		for bit := range 8 * len(raw) {
			damaged := bytes.Clone(raw)
			damaged[bit/8] ^= 1 << (bit % 8)
			refused(fmt.Sprint("bit ", bit), []byte(base64.URLEncoding.EncodeToString(damaged)))
		}
		for bit := range 8 * len(token) {
			damaged := bytes.Clone(token)
			damaged[bit/8] ^= 1 << (bit % 8)
			refused(fmt.Sprint("bit of the text ", bit), damaged)
		}
		for i := range raw {
			refused(fmt.Sprint("bytes to ", i), []byte(base64.URLEncoding.EncodeToString(raw[:i])))
			refused(fmt.Sprint("bytes from ", i+1), []byte(base64.URLEncoding.EncodeToString(raw[i+1:])))
		}
		for i := range token {
			refused(fmt.Sprint("text to ", i), token[:i])
			refused(fmt.Sprint("text from ", i+1), token[i+1:])
		}
		for i := range len(token) + 1 {
			for _, c := range []string{"\n", "\r", "\r\n", " ", "=", "==", "A", "AAAA", "\x00", "\xFF", "+", "\n\n\n\n"} {
				refused(fmt.Sprintf("%q at %d", c, i), slices.Concat(token[:i], []byte(c), token[i:]))
			}
		}
		refused("twice", slices.Concat(token, token))
	}
}

// Bytes that are signed but were never sealed: by a peer that has the key and
// no sense.
func TestFernetSignedGarbage(t *testing.T) {
	random := rand.New(rand.NewPCG(4, 4))
	f := NewFernet(GenerateKey())
	head := binary.BigEndian.AppendUint64([]byte{version}, uint64(time.Now().Unix()))
	for n := range 200 {
		for range 20 {
			body := make([]byte, n)
			for i := range body {
				body[i] = byte(random.Uint32())
			}
			// Random padding is right one time in 256.
			for _, garbage := range [][]byte{body, slices.Concat(head, body)} {
				if got, err := f.Open(nil, sign(f, garbage), time.Hour); err == nil && (n < 32 || n%16 != 0) {
					t.Errorf("%x was taken, as %x", garbage, got)
				}
			}
		}
	}
}

// Nothing is decrypted before its HMAC holds, nor if it is too old.
func TestFernetDecryptsLast(t *testing.T) {
	key, other := GenerateKey(), GenerateKey()
	f := NewFernet(key, other)
	decrypted := 0
	for _, k := range f.keys {
		inner := k.engines.New
		k.engines.New = func() any {
			e := inner().(*engine)
			e.decrypter = countBlocks{e.decrypter, &decrypted}
			return e
		}
	}
	now := time.Now()
	open := func(token []byte, maxAge time.Duration, want int) {
		t.Helper()
		decrypted = 0
		if _, err := f.OpenAt(nil, token, maxAge, now); (err == nil) != (want > 0) || decrypted != want {
			t.Errorf("%v, and %d calls to decrypt; want %d", err, decrypted, want)
		}
	}
	for _, by := range []*Fernet{NewFernet(key), NewFernet(other)} {
		token := by.SealAt(nil, []byte("some text"), now)
		open(token, 0, 1)
		open(token, time.Minute, 1)
		open(by.SealAt(nil, []byte("some text"), now.Add(-2*time.Minute)), time.Minute, 0)
		open(by.SealAt(nil, []byte("some text"), now.Add(2*time.Minute)), time.Minute, 0)
		for i := range token {
			damaged := bytes.Clone(token)
			damaged[i] ^= 1
			open(damaged, 0, 0)
		}
	}
	open(NewFernet(GenerateKey()).Seal(nil, []byte("some text")), 0, 0)
}

type countBlocks struct {
	cipher.BlockMode
	calls *int
}

func (c countBlocks) CryptBlocks(dst, src []byte) {
	*c.calls++
	c.BlockMode.CryptBlocks(dst, src)
}

// The cipher and HMAC that are kept give what new ones do.
func TestFernetByParts(t *testing.T) {
	key := GenerateKey()
	f := NewFernet(key)
	for n := range 100 {
		plaintext := make([]byte, 3*n)
		crand.Read(plaintext)
		var iv [16]byte
		crand.Read(iv[:])
		at := time.Unix(int64(n)*1e8, 0)

		block, err := aes.NewCipher(key[16:])
		if err != nil {
			t.Fatal(err)
		}
		padding := 16 - len(plaintext)%16
		body := append(bytes.Clone(plaintext), bytes.Repeat([]byte{byte(padding)}, padding)...)
		cipher.NewCBCEncrypter(block, iv[:]).CryptBlocks(body, body)
		want := binary.BigEndian.AppendUint64([]byte{0x80}, uint64(at.Unix()))
		want = append(append(want, iv[:]...), body...)
		mac := hmac.New(sha256.New, key[:16])
		mac.Write(want)
		token := base64.URLEncoding.EncodeToString(mac.Sum(want))
		if got := string(f.seal(nil, plaintext, at, iv)); got != token {
			t.Fatalf("%d bytes: sealed\n%s, want\n%s", len(plaintext), got, token)
		}
		if got, err := f.OpenAt(nil, []byte(token), time.Minute, at); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("%d bytes: opened %x, %v", len(plaintext), got, err)
		}
	}
}

// Our base64 is that of encoding/base64, but that CR and LF are refused.
func TestFernetBase64(t *testing.T) {
	random := rand.New(rand.NewPCG(6, 4))
	makeTables()
	const letters = "ABYZabyz0189-_-_==\r\n+/ \x00\x80\xFF"
	for n := range 300 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		text := appendToken([]byte("x"), b)
		if want := "x" + base64.URLEncoding.EncodeToString(b); string(text) != want {
			t.Fatalf("%x: %s, want %s", b, text, want)
		}
		text = text[1:]
		for i := range len(text) + 1 {
			damaged := bytes.Clone(text)
			if i < len(text) {
				damaged[i] = letters[random.IntN(len(letters))]
			}
			into := make([]byte, base64.URLEncoding.DecodedLen(len(text))+8)
			n, ok := decodeToken(into, damaged)
			want, err := strictBase64.DecodeString(string(damaged))
			if wantOK := err == nil && !bytes.ContainsAny(damaged, "\r\n"); ok != wantOK || ok && !bytes.Equal(into[:n], want) {
				t.Fatalf("%q: %x %v, want %x %v", damaged, into[:n], ok, want, err)
			}
		}
	}
}

// One Fernet serves many goroutines.
func TestFernetConcurrent(t *testing.T) {
	old, key := GenerateKey(), GenerateKey()
	f, before := NewFernet(key, old), NewFernet(old)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			var token, got []byte
			for n := range 300 {
				plaintext := bytes.Repeat([]byte{byte(g), byte(n)}, n)
				by := f
				if n%2 == 1 {
					by = before
				}
				token = by.Seal(token[:0], plaintext)
				var err error
				if got, err = f.Open(got[:0], token, time.Minute); err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("got %x, %v", got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// With room in dst, neither allocates.
func TestFernetAllocations(t *testing.T) {
	if raceEnabled {
		return // sync.Pool drops things under the race detector
	}
	old := GenerateKey()
	f, before := NewFernet(GenerateKey(), old), NewFernet(old)
	for _, size := range []int{0, 100, 1 << 10, 64 << 10, 500 << 10} {
		plaintext := make([]byte, size)
		token := f.Seal(nil, plaintext)
		rotated := before.Seal(nil, plaintext)
		to, from := make([]byte, 0, len(token)), make([]byte, 0, size)
		damaged := bytes.Clone(token)
		damaged[len(damaged)/2] ^= 1
		for what, run := range map[string]func(){
			"Seal":        func() { f.Seal(to, plaintext) },
			"Open":        func() { f.Open(from, token, time.Hour) },
			"an old key":  func() { f.Open(from, rotated, 0) },
			"a wrong one": func() { f.Open(from, damaged, 0) },
		} {
			if n := testing.AllocsPerRun(100, run); n > 0 {
				t.Errorf("%s: %v allocations at %d bytes", what, n, size)
			}
		}
	}
}

// A token is taken once; what is forgotten, never again.
func TestReplays(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	var r replays
	taken := map[uint64]bool{}
	var tokens []stamp
	const window = 50
	for now := uint64(1000); now < 3000; now++ {
		for range 20 {
			s := stamp{now + random.Uint64N(20) - 10, random.Uint64()}
			if random.IntN(2) == 0 && len(tokens) > 0 {
				s = tokens[random.IntN(len(tokens))]
			} else {
				tokens = append(tokens, s)
			}
			if s.time < now-window {
				continue // Open refuses it
			}
			if fresh := r.fresh(s, now-window); fresh != !taken[s.tag] {
				t.Fatalf("at %d: %v of %v, which was taken: %v", now, fresh, s, taken[s.tag])
			}
			taken[s.tag] = true
		}
		if len(r.heap) != len(r.known) || len(r.heap) > 20*(window+20) {
			t.Fatalf("%d and %d are remembered", len(r.heap), len(r.known))
		}
	}
	// A clock that goes back, or a longer MaxAge, brings back nothing.
	for _, s := range tokens {
		if r.fresh(s, 0) && taken[s.tag] {
			t.Fatalf("%v was taken twice", s)
		}
	}
}

// However many tokens there are within the age, the memory is bounded, and no
// token is taken twice.
func TestReplaysFull(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var r replays
	const perSecond = maxReplays / 16
	tag := uint64(1)
	token := func(n uint64) stamp { return stamp{n / perSecond, n * 0x9E3779B97F4A7C15} }
	for ; tag < 3*maxReplays; tag++ {
		if !r.fresh(token(tag), 0) {
			t.Fatalf("token %d was refused", tag)
		}
	}
	if len(r.heap) != maxReplays || len(r.known) != maxReplays {
		t.Errorf("%d and %d are remembered", len(r.heap), len(r.known))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	size := after.HeapAlloc - before.HeapAlloc
	t.Logf("%d tokens take %d bytes, %d each", maxReplays, size, size/maxReplays)
	if size > 14<<20 && !raceEnabled { // as Bus.MaxAge and README.md say
		t.Errorf("%d bytes", size)
	}
	for n := range tag {
		if r.fresh(token(n), 0) {
			t.Fatalf("token %d was taken twice", n)
		}
	}
	if !r.fresh(token(tag), 0) {
		t.Error("those refused made room for themselves")
	}
	// New, but older than all that it has room to remember: of a sender whose
	// clock is right, when those of the others are ahead.
	if r.fresh(stamp{token(tag).time - 30, 1}, 0) {
		t.Error("one was taken that can't be told from a replay")
	}
	runtime.KeepAlive(&r)
}

// What has grown too old is forgotten a few at a time: a call that comes after a
// burst, and holds up what comes behind it, does no more than another.
func TestReplaysForgets(t *testing.T) {
	var r replays
	const burst = 100 * maxForget
	for n := range uint64(burst) {
		if !r.fresh(stamp{1000, n}, 1000) {
			t.Fatal("refused", n)
		}
	}
	for calls := range uint64(200) {
		before := len(r.heap)
		if !r.fresh(stamp{2000, burst + calls}, 1940) {
			t.Fatal("refused", calls)
		}
		if forgotten := before + 1 - len(r.heap); forgotten > maxForget || forgotten < maxForget && len(r.heap) != int(calls)+1 {
			t.Fatalf("call %d forgets %d of %d", calls, forgotten, before)
		}
		if len(r.known) != len(r.heap) {
			t.Fatalf("%d and %d are remembered", len(r.heap), len(r.known))
		}
	}
	// Those that it has forgotten, and those that it hasn't yet, it takes no more.
	if r.fresh(stamp{1000, 0}, 0) || r.fresh(stamp{1000, burst - 1}, 0) || r.fresh(stamp{2000, burst}, 0) {
		t.Error("taken twice")
	}
}

// A pyFernet is Python's cryptography: testdata/fernet_peer.py.
type pyFernet struct {
	t    *testing.T
	to   *bufio.Writer
	from *bufio.Reader
}

func newPyFernet(t *testing.T, keys ...Key) *pyFernet {
	t.Helper()
	python := os.Getenv("AUTOBUS_PYTHON")
	if python == "" {
		missing(t, "AUTOBUS_PYTHON names no Python with cryptography; script/test installs one")
	}
	args := []string{"testdata/fernet_peer.py"}
	for _, key := range keys {
		args = append(args, key.Encode())
	}
	cmd := exec.Command(python, args...)
	cmd.Stderr = t.Output()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return &pyFernet{t, bufio.NewWriter(stdin), bufio.NewReaderSize(stdout, 1<<17)}
}

// ask returns the words of Python's answer.
func (p *pyFernet) ask(words ...any) []string {
	p.t.Helper()
	fmt.Fprintln(p.to, words...)
	if err := p.to.Flush(); err != nil {
		p.t.Fatal(err)
	}
	line, err := p.from.ReadString('\n')
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.Fields(line)
}

func sha(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// 2,000 tokens each way.
func TestInteropFernet(t *testing.T) {
	random := rand.New(rand.NewPCG(20, 26))
	key := GenerateKey()
	f := NewFernet(key)
	python := newPyFernet(t, key)
	var token, got []byte
	for range 2000 {
		plaintext := make([]byte, random.IntN(64<<10+1))
		crand.Read(plaintext)
		token = f.Seal(token[:0], plaintext)
		if answer := python.ask("open", string(token)); answer[0] != sha(plaintext) {
			t.Fatalf("%d bytes: Python opened %v", len(plaintext), answer)
		}
		answer := python.ask("seal", random.IntN(64<<10+1))
		var err error
		if got, err = f.Open(got[:0], []byte(answer[0]), time.Hour); err != nil || sha(got) != answer[1] {
			t.Fatalf("%d bytes of Python's: %v", len(got), err)
		}
	}
}

// Keys are rotated with MultiFernet on the other side.
func TestInteropFernetRotation(t *testing.T) {
	old, key := GenerateKey(), GenerateKey()
	before, during, after := NewFernet(old), NewFernet(key, old), NewFernet(key)
	python := newPyFernet(t, key, old)
	for n := range 50 {
		plaintext := make([]byte, 7*n)
		crand.Read(plaintext)
		for _, f := range []*Fernet{before, during, after} {
			token := f.Seal(nil, plaintext)
			if answer := python.ask("open", string(token)); answer[0] != sha(plaintext) {
				t.Errorf("%d bytes: Python opened %v", len(plaintext), answer)
			}
			rotated := []byte(python.ask("rotate", string(token))[0])
			for _, f := range []*Fernet{during, after} {
				if got, err := f.Open(nil, rotated, time.Hour); err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("%d bytes, rotated: %x, %v", len(plaintext), got, err)
				}
			}
			if _, err := before.Open(nil, rotated, time.Hour); !errors.Is(err, ErrToken) {
				t.Errorf("%d bytes, rotated: the old key opens them", len(plaintext))
			}
		}
	}
	if answer := python.ask("open", string(NewFernet(GenerateKey()).Seal(nil, nil))); answer[0] != "refused" {
		t.Errorf("Python opened another key's: %v", answer)
	}
	for _, c := range [][2]string{{"correct horse battery staple", "autobus"}, {"pässwörd😀", "é"}, {" \x00\xFF", "\n"}} {
		key, err := DeriveKey(c[0], c[1])
		if err != nil {
			t.Fatal(err)
		}
		if answer := python.ask("derive", hex.EncodeToString([]byte(c[0])), hex.EncodeToString([]byte(c[1]))); answer[0] != key.Encode() {
			t.Errorf("%q: Python derives another key", c)
		}
	}
}

// After the clock was put back, new tokens are taken, and old ones still once.
func TestReplaysAfterClockStep(t *testing.T) {
	const now = 1_000_000
	var r replays
	for n := range uint64(100) { // an hour ahead
		if !r.fresh(stamp{now + 3600 + n, n}, now+3540+n) {
			t.Fatal("refused", n)
		}
	}
	for n := range uint64(200) {
		if !r.fresh(stamp{now + n, 1000 + n}, now-60+n) {
			t.Fatal("refused after the step, ", n)
		}
	}
	for n := range uint64(200) {
		if r.fresh(stamp{now + n, 1000 + n}, 0) || n < 100 && r.fresh(stamp{now + 3600 + n, n}, 0) {
			t.Fatal("taken twice", n)
		}
	}
	for n := range uint64(1000) { // a clock that never settles
		r.fresh(stamp{now - 10*n, 5000 + n}, now+1)
		r.fresh(stamp{now + 10, 9000 + n}, now+5)
	}
	if len(r.spans) > maxSpans {
		t.Error(len(r.spans))
	}
}
