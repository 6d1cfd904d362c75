// Package fernet measures sealing and opening beside the sum of the standard
// library's parts, github.com/fernet/fernet-go and Python's cryptography.
//
//	go test -C bench -bench . ./fernet
package fernet

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/autobus-go/autobus"
	fernetgo "github.com/fernet/fernet-go"
)

var sizes = []int{100, 1 << 10, 64 << 10}

// A side is one way to seal or open a message of a size.
type side struct {
	name string
	run  func()
}

// parts does what sealing is made of, each part on its own: AES-CBC,
// HMAC-SHA256, base64 and, for sealing, an IV. Ciphers and HMACs are keyed
// beforehand, and nothing is copied, padded or checked.
type parts struct {
	key, iv []byte
	sealed  []byte // from the version on
	body    []byte // of sealed, what is encrypted
	token   []byte
	mac     interface {
		Reset()
		Write([]byte) (int, error)
		Sum([]byte) []byte
	}
	sum     []byte
	encrypt cipher.BlockMode
	decrypt cipher.BlockMode
}

func newParts(size int) *parts {
	key := make([]byte, 32)
	p := &parts{key: key, iv: make([]byte, 16), sealed: make([]byte, 25+size+16-size%16+32)}
	p.body = p.sealed[25 : len(p.sealed)-32]
	p.token = []byte(base64.URLEncoding.EncodeToString(p.sealed))
	p.mac = hmac.New(sha256.New, key[:16])
	block, err := aes.NewCipher(key[16:])
	if err != nil {
		panic(err)
	}
	p.encrypt, p.decrypt = cipher.NewCBCEncrypter(block, p.iv), cipher.NewCBCDecrypter(block, p.iv)
	return p
}

func (p *parts) seal() {
	rand.Read(p.iv)
	p.encrypt.CryptBlocks(p.body, p.body)
	p.hmac()
	base64.URLEncoding.Encode(p.token, p.sealed)
}

func (p *parts) open() {
	if _, err := base64.URLEncoding.Decode(p.sealed, p.token); err != nil {
		panic(err)
	}
	p.hmac()
	p.decrypt.CryptBlocks(p.body, p.body)
}

func (p *parts) hmac() {
	p.mac.Reset()
	p.mac.Write(p.sealed[:len(p.sealed)-32])
	p.sum = p.mac.Sum(p.sum[:0])
}

// sides returns who seals, or opens, a message of a size; autobus first, then
// the parts.
func sides(open bool, size int) []side {
	plaintext := make([]byte, size)
	rand.Read(plaintext)
	key := autobus.GenerateKey()
	other := fernetgo.Key(key)
	f := autobus.NewFernet(key)
	p := newParts(size)
	token := f.Seal(nil, plaintext)
	dst := make([]byte, 0, 2*len(token))
	if !open {
		return []side{
			{"autobus", func() { dst = f.Seal(dst[:0], plaintext) }},
			{"parts", p.seal},
			{"fernet-go", func() {
				if _, err := fernetgo.EncryptAndSign(plaintext, &other); err != nil {
					panic(err)
				}
			}},
		}
	}
	return []side{
		{"autobus", func() {
			if _, err := f.Open(dst[:0], token, time.Hour); err != nil {
				panic(err)
			}
		}},
		{"parts", p.open},
		{"fernet-go", func() {
			if fernetgo.VerifyAndDecrypt(token, time.Hour, []*fernetgo.Key{&other}) == nil {
				panic("refused")
			}
		}},
	}
}

var verbs = []struct {
	name string
	open bool
}{{"Seal", false}, {"Open", true}}

func BenchmarkFernet(b *testing.B) {
	for _, verb := range verbs {
		for _, size := range sizes {
			for _, s := range sides(verb.open, size) {
				b.Run(fmt.Sprintf("%s/%d/%s", verb.name, size, s.name), func(b *testing.B) {
					b.SetBytes(int64(size))
					b.ReportAllocs()
					for b.Loop() {
						s.run()
					}
				})
			}
			b.Run(fmt.Sprintf("%s/%d/cryptography", verb.name, size), func(b *testing.B) { python(b, verb.open, size) })
		}
	}
}

// BenchmarkRatio compares in turns, so that what else the machine does meets
// all alike. How many times the sum of the parts autobus takes is told by the
// best turn of each; how many times autobus fernet-go takes by all of them, since
// it leaves the collector work that comes later.
func BenchmarkRatio(b *testing.B) {
	for _, verb := range verbs {
		for _, size := range sizes {
			b.Run(fmt.Sprintf("%s/%d", verb.name, size), func(b *testing.B) {
				all := sides(verb.open, size)
				best, total := make([]time.Duration, len(all)), make([]time.Duration, len(all))
				turn := 1 + 20_000/(size+100)
				for b.Loop() {
					for i, s := range all {
						begin := time.Now()
						for range turn {
							s.run()
						}
						took := time.Since(begin)
						if total[i] += took; best[i] == 0 || took < best[i] {
							best[i] = took
						}
					}
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(best[0])/float64(turn), "ns/autobus")
				b.ReportMetric(float64(best[1])/float64(turn), "ns/parts")
				b.ReportMetric(float64(best[0])/float64(best[1]), "x-parts")
				b.ReportMetric(float64(total[2])/float64(total[0]), "x-fernet-go")
			})
		}
	}
}

// python measures Python's cryptography, with the interpreter that
// AUTOBUS_PYTHON names.
func python(b *testing.B, open bool, size int) {
	interpreter := os.Getenv("AUTOBUS_PYTHON")
	if interpreter == "" {
		b.Skip("AUTOBUS_PYTHON names no Python")
	}
	const program = `
import os, sys, timeit
from cryptography.fernet import Fernet
f = Fernet(Fernet.generate_key())
plaintext = os.urandom(int(sys.argv[2]))
token = f.encrypt(plaintext)
run = (lambda: f.decrypt(token, ttl=3600)) if sys.argv[1] == "true" else (lambda: f.encrypt(plaintext))
print(min(timeit.repeat(run, number=200, repeat=20)) / 200 * 1e9)
`
	out, err := exec.Command(interpreter, "-c", program, strconv.FormatBool(open), strconv.Itoa(size)).Output()
	if err != nil {
		b.Fatal(err)
	}
	ns, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(ns, "ns/op")
	b.ReportMetric(float64(size)/ns*1e3, "MB/s")
}
