package autobus

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"testing"
	"time"
)

// FuzzOpen opens any text: none is taken but what was sealed. And it opens
// what is sealed by someone who has the key and seals anything: that is taken
// when it is what the standard library makes of the same bytes.
func FuzzOpen(f *testing.F) {
	key := Key(bytes.Repeat([]byte("key!"), keySize/4))
	fernet := NewFernet(GenerateKey(), key)
	by := NewFernet(key)
	now := time.Unix(1_700_000_000, 0)
	sealed := map[string]bool{}
	for n := range 20 {
		token := by.seal(nil, make([]byte, n), now, [16]byte{1, 2, 3})
		sealed[string(token)] = true
		raw, err := base64.URLEncoding.DecodeString(string(token))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(token, raw[:len(raw)-32])
	}
	for _, c := range readFernet(f).Tokens {
		raw, _ := base64.URLEncoding.DecodeString(c.Token)
		f.Add([]byte(c.Token), raw[:max(0, len(raw)-32)])
	}
	f.Fuzz(func(t *testing.T, token, body []byte) {
		for _, maxAge := range []time.Duration{0, time.Minute} {
			in := bytes.Clone(token)
			got, err := fernet.OpenAt([]byte("x"), token, maxAge, now)
			if !bytes.Equal(token, in) {
				t.Fatal("the token was changed")
			}
			if (err == nil) != sealed[string(token)] || (err == nil) != (got != nil) {
				t.Fatalf("%v, and sealed: %v", err, sealed[string(token)])
			}

			signed := sign(by, body)
			got, err = fernet.OpenAt([]byte("x"), signed, maxAge, now)
			want, ok := openByParts(key, body, maxAge != 0, now)
			if (err == nil) != ok || ok && string(got) != "x"+string(want) {
				t.Fatalf("%x: got %x, %v; want %x, %v", body, got, err, want, ok)
			}
		}
	})
}

// openByParts opens a token but for its base64 and its HMAC. If aged, it may be
// a minute old or early.
func openByParts(key Key, b []byte, aged bool, now time.Time) ([]byte, bool) {
	if len(b) < 25+16 || (len(b)-25)%16 != 0 || b[0] != 0x80 {
		return nil, false
	}
	sealed, at := binary.BigEndian.Uint64(b[1:]), uint64(now.Unix())
	if aged && (sealed < at-60 || sealed > at+60) {
		return nil, false
	}
	block, err := aes.NewCipher(key[16:])
	if err != nil {
		panic(err)
	}
	plaintext := make([]byte, len(b)-25)
	cipher.NewCBCDecrypter(block, b[9:25]).CryptBlocks(plaintext, b[25:])
	padding := int(plaintext[len(plaintext)-1])
	if padding < 1 || padding > 16 {
		return nil, false
	}
	plaintext, end := plaintext[:len(plaintext)-padding], plaintext[len(plaintext)-padding:]
	return plaintext, bytes.Equal(end, bytes.Repeat([]byte{byte(padding)}, padding))
}
