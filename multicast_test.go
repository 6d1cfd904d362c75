package autobus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

var goodMulticastURLs = []struct {
	url  string
	want multicastURL
}{
	{"udp://239.255.0.1:5000", multicastURL{}},
	{"udp://", multicastURL{}},
	{"udp:///", multicastURL{}},
	{"udp://?", multicastURL{}},
	{"udp://?ttl=1", multicastURL{}},
	{"udp://239.255.0.1", multicastURL{}},
	{"udp://239.255.0.1:", multicastURL{}},
	{"UDP://239.255.0.1:5000/", multicastURL{}},
	{"udp://:6000", multicastURL{port: 6000}},
	{"udp://224.0.0.251:5353", multicastURL{group: netip.MustParseAddr("224.0.0.251"), port: 5353}},
	{"udp://239.255.0.1:65535", multicastURL{port: 65535}},
	{"udp://239.255.0.1:05000", multicastURL{}},
	{"udp://[ff02::1234]:5000", multicastURL{group: netip.MustParseAddr("ff02::1234")}},
	{"udp://[FF02::1234]", multicastURL{group: netip.MustParseAddr("ff02::1234")}},
	{"udp://[ff02::1234%eth0]:7", multicastURL{group: netip.MustParseAddr("ff02::1234"), port: 7, interfaces: []string{"eth0"}}},
	{"udp://[ff02::1234%25eth0]:7", multicastURL{group: netip.MustParseAddr("ff02::1234"), port: 7, interfaces: []string{"eth0"}}},
	{"udp://[ff02::1234%25Wi-Fi%202]", multicastURL{group: netip.MustParseAddr("ff02::1234"), interfaces: []string{"Wi-Fi 2"}}},
	{"udp://[::ffff:239.255.0.9]", multicastURL{group: netip.MustParseAddr("239.255.0.9")}},
	{"udp://?interface=eth0", multicastURL{interfaces: []string{"eth0"}}},
	{"udp://?interface=eth0,wlan0,eth0", multicastURL{interfaces: []string{"eth0", "wlan0"}}},
	{"udp://?interface=eth0%2Cwlan0", multicastURL{interfaces: []string{"eth0", "wlan0"}}},
	{"udp://?interface=Ethernet%202", multicastURL{interfaces: []string{"Ethernet 2"}}},
	{"udp://?interface=Ethernet+2", multicastURL{interfaces: []string{"Ethernet 2"}}},
	{"udp://?interf%61ce=a%2Bb", multicastURL{interfaces: []string{"a+b"}}},
	{"udp://?ttl=0", multicastURL{ttl: -1}},
	{"udp://?ttl=255&&rcvbuf=1&", multicastURL{ttl: 255, readBuffer: 1}},
	{"udp://?rcvbuf=1073741824", multicastURL{readBuffer: 1 << 30}},
	{"udp://?loopback=0", multicastURL{loopback: true}},
	{"udp://?loopback=OFF", multicastURL{loopback: true}},
	{"udp://?loopback=no", multicastURL{loopback: true}},
	{"udp://?loopback=false", multicastURL{loopback: true}},
	{"udp://?loopback=1", multicastURL{}},
	{"udp://?loopback=True", multicastURL{}},
	{"udp://?loopback=yes", multicastURL{}},
	{"udp://?loopback=on", multicastURL{}},
}

func TestMulticastURL(t *testing.T) {
	for _, test := range goodMulticastURLs {
		want := test.want
		// In the table, what is zero is the default; loopback stands for its
		// opposite and a ttl of -1 for 0.
		if !want.group.IsValid() {
			want.group = netip.MustParseAddr("239.255.0.1")
		}
		if want.port == 0 {
			want.port = 5000
		}
		switch want.ttl {
		case 0:
			want.ttl = 1
		case -1:
			want.ttl = 0
		}
		if want.readBuffer == 0 {
			want.readBuffer = 4 << 20
		}
		want.loopback = !want.loopback
		got, err := parseMulticastURL(test.url)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", test.url, got, err, want)
		}
	}
}

var badMulticastURLs = []struct{ url, want string }{
	{"", `must begin with udp://`},
	{"239.255.0.1:5000", `must begin with udp://`},
	{"udp:239.255.0.1", `must begin with udp://`},
	{"redis://239.255.0.1", `must begin with udp://`},
	{"udp://192.168.0.1:5000", `the group 192.168.0.1 isn't a multicast address: those are 224.0.0.0 to 239.255.255.255`},
	{"udp://255.255.255.255", `isn't a multicast address`},
	{"udp://[fe80::1]:5000", `the group fe80::1 isn't a multicast address`},
	{"udp://[::]", `isn't a multicast address`},
	{"udp://localhost:5000", `the group "localhost" isn't an IP address, such as 239.255.0.1 or [ff02::1234]`},
	{"udp://239.255.0.256", `isn't an IP address`},
	{"udp://239.255.0.01", `isn't an IP address`},
	{"udp://239.255.0.1 :5000", `isn't an IP address`},
	{"udp://239.255.0.1%eth0", `isn't an IP address`},
	{"udp://%32%33", `isn't an IP address`},
	{"udp://ff02::1:5000", `an IPv6 group stands in brackets`},
	{"udp://[ff02::1", `the '[' has no ']'`},
	{"udp://[ff02::1]5000", `want :PORT after the ']', not "5000"`},
	{"udp://[239.255.0.1]", `only IPv6 groups stand in brackets, not "239.255.0.1"`},
	{"udp://[]", `only IPv6 groups stand in brackets, not ""`},
	{"udp://[ff02::1%]", `the zone after the '%' must be a network interface`},
	{"udp://[ff02::1%25]", `the zone after the '%' must be a network interface`},
	{"udp://[ff02::1%25a%zz]", `the zone after the '%' must be a network interface`},
	{"udp://239.255.0.1:0", `the port must be a number from 1 to 65535, not "0"`},
	{"udp://239.255.0.1:65536", `the port must be a number from 1 to 65535, not "65536"`},
	{"udp://239.255.0.1:-1", `the port must be a number`},
	{"udp://239.255.0.1:+1", `the port must be a number`},
	{"udp://239.255.0.1:http", `the port must be a number from 1 to 65535, not "http"`},
	{"udp://239.255.0.1:5_0", `the port must be a number`},
	{"udp://239.255.0.1:5000/bus", `it can't have a path such as "/bus"`},
	{"udp://239.255.0.1:5000//", `it can't have a path`},
	{"udp://239.255.0.1:5000#x", `nothing may follow a '#'`},
	{"udp://239.255.0.1:5000?ttl=1#", `nothing may follow a '#'`},
	{"udp://me:secret@239.255.0.1:5000", `no user and no password`},
	{"udp://239.255.0.1?tll=3", `there is no option "tll"; did you mean ttl? (the options are interface, loopback, rcvbuf, ttl)`},
	{"udp://239.255.0.1?Interfaces=a", `did you mean interface?`},
	{"udp://239.255.0.1?TTL=3", `did you mean ttl?`},
	{"udp://239.255.0.1?password=x", `there is no option "password" (the options are interface, loopback, rcvbuf, ttl)`},
	{"udp://239.255.0.1?=3", `there is no option "" (the options are`},
	{"udp://239.255.0.1?ttl=1&ttl=1", `ttl= stands there twice`},
	{"udp://239.255.0.1?interface=a&interface=b", `interface= stands there twice`},
	{"udp://[ff02::1%25a]?interface=a", `interface= stands there twice (a zone counts)`},
	{"udp://239.255.0.1?interface=", `interface= must name network interfaces`},
	{"udp://239.255.0.1?interface", `interface= must name network interfaces`},
	{"udp://239.255.0.1?interface=a,,b", `interface= must name network interfaces, such as interface=eth0 or interface=eth0,wlan0, not "a,,b"`},
	{"udp://239.255.0.1?ttl=256", `ttl= must be a number from 0 to 255, not "256"`},
	{"udp://239.255.0.1?ttl=-1", `ttl= must be a number from 0 to 255`},
	{"udp://239.255.0.1?ttl=1.5", `ttl= must be a number from 0 to 255`},
	{"udp://239.255.0.1?ttl", `ttl= must be a number from 0 to 255, not ""`},
	{"udp://239.255.0.1?loopback=maybe", `loopback= must be 1, true, yes, on, 0, false, no or off, not "maybe"`},
	{"udp://239.255.0.1?rcvbuf=4MiB", `rcvbuf= must be a number of bytes from 1 to 1073741824, not "4MiB"`},
	{"udp://239.255.0.1?rcvbuf=0", `rcvbuf= must be a number of bytes`},
	{"udp://239.255.0.1?rcvbuf=99999999999999999999", `rcvbuf= must be a number of bytes`},
	{"udp://239.255.0.1?ttl=1;loopback=0", `options are separated by '&', not ';'`},
	{"udp://239.255.0.1?ttl=%zz", `a '%' in the options must start an escape such as %20`},
	{"udp://239.255.0.1?%=1", `a '%' in the options must start an escape such as %20`},
	{"udp://239.255.0.1?ttl=%2", `a '%' in the options must start an escape such as %20`},
}

func TestMulticastURLErrors(t *testing.T) {
	for _, test := range badMulticastURLs {
		_, err := newMulticast(test.url)
		if err == nil {
			t.Errorf("%q is taken", test.url)
			continue
		}
		if text := err.Error(); !strings.Contains(text, test.want) || !strings.HasPrefix(text, "autobus: ") || strings.Contains(text, "secret") {
			t.Errorf("%q:\n got %s\nwant …%s…", test.url, text, test.want)
		}
	}
}

// goodEnvelopes and badEnvelopes seed FuzzEnvelope besides.
var goodEnvelopes = []struct {
	in            string
	channel, data string
	src, seq      uint64
}{
	{`{"channel":"autobus::Ping","data":"{}","src":"0123456789abcdef","seq":7}`, "autobus::Ping", "{}", 0x0123456789abcdef, 7},
	{`{"channel": "autobus::Ping", "data": "{\"id\": 1, \"type\": \"Ping\"}"}`, "autobus::Ping", `{"id": 1, "type": "Ping"}`, 0, 0},
	{`{"data":"d","seq":7,"src":"0123456789ABCDEF","channel":"c"}`, "c", "d", 0x0123456789abcdef, 7},
	{" \t\r\n{ \"channel\" : \"c\" , \"data\" : \"d\" } \t\r\n   ", "c", "d", 0, 0},
	{`{"channel":"","data":""}`, "", "", 0, 0},
	{`{"channel":"a","channel":"b","data":"x","data":"y"}`, "b", "y", 0, 0},
	{`{"channel":1,"channel":"c","data":null,"data":"d"}`, "c", "d", 0, 0},
	{`{"ch\u0061nnel":"c","d\u0061ta":"d"}`, "c", "d", 0, 0},
	{`{"channel":"\ud83d\ude00é\/","data":"\ud800"}`, "😀é/", "\ufffd", 0, 0},
	{`{"x":{"y":[1,2.5e3,null,true,{"z":NaN}]},"channel":"c","data":"d","":-Infinity}`, "c", "d", 0, 0},
	// A src or seq that is none is as good as absent.
	{`{"channel":"c","data":"d","src":"0123456789abcdef"}`, "c", "d", 0x0123456789abcdef, 0},
	{`{"channel":"c","data":"d","seq":7}`, "c", "d", 0, 0},
	{`{"channel":"c","data":"d","src":"0123456789abcde","seq":7}`, "c", "d", 0, 0},
	{`{"channel":"c","data":"d","src":"0123456789abcdef0","seq":7}`, "c", "d", 0, 0},
	{`{"channel":"c","data":"d","src":"0123456789abcdeg","seq":7}`, "c", "d", 0, 0},
	{`{"channel":"c","data":"d","src":"0000000000000000","seq":7}`, "c", "d", 0, 0},
	{`{"channel":"c","data":"d","src":["0123456789abcde"],"seq":7}`, "c", "d", 0, 0},
	{`{"channel":"c","data":"d","src":null,"seq":7}`, "c", "d", 0, 0},
	{`{"channel":"c","data":"d","src":"0123456789abcdef","seq":0}`, "c", "d", 0x0123456789abcdef, 0},
	{`{"channel":"c","data":"d","src":"0123456789abcdef","seq":-7}`, "c", "d", 0x0123456789abcdef, 0},
	{`{"channel":"c","data":"d","src":"0123456789abcdef","seq":7.0}`, "c", "d", 0x0123456789abcdef, 0},
	{`{"channel":"c","data":"d","src":"0123456789abcdef","seq":1e3}`, "c", "d", 0x0123456789abcdef, 0},
	{`{"channel":"c","data":"d","src":"0123456789abcdef","seq":"7"}`, "c", "d", 0x0123456789abcdef, 0},
	{`{"channel":"c","data":"d","src":"0123456789abcdef","seq":9223372036854775808}`, "c", "d", 0x0123456789abcdef, 1 << 63},
	{`{"channel":"c","data":"d","src":"0123456789abcdef","seq":9223372036854775809}`, "c", "d", 0x0123456789abcdef, 0},
	{`{"channel":"c","data":"d","src":"0123456789abcdef","seq":18446744073709551617}`, "c", "d", 0x0123456789abcdef, 0},
	{`{"channel":"c","data":"d","src":"0123456789abcdef","seq":7,"src":1}`, "c", "d", 0, 0},
	{`{"channel":"c","data":"d","src":"0123456789abcdef","seq":7,"seq":8}`, "c", "d", 0x0123456789abcdef, 8},
}

var badEnvelopes = []struct {
	in, problem string
	at          int
}{
	{``, wantObject, 0},
	{`  `, wantObject, 2},
	{`[]`, wantObject, 0},
	{`"channel"`, wantObject, 0},
	{"\ufeff{}", wantObject, 0},
	{`{`, endless, 1},
	{`{}`, wantChannel, 2},
	{`{"channel":"c"}`, wantData, 15},
	{`{"data":"d"}`, wantChannel, 12},
	{`{"channel":1,"data":"d"}`, wantChannel, 24},
	{`{"channel":"c","data":{}}`, wantData, 25},
	{`{"channel":"c","data":null}`, wantData, 27},
	{`{"channel":"c","data":"d","data":[]}`, wantData, 36},
	{`{"channel":"c","data":"d"`, endless, 25},
	{`{"channel":"c","data":"d",`, endless, 26},
	{`{"channel":"c","data":"d",}`, wantName, 26},
	{`{"channel":"c","data":"d"]`, wantComma, 25},
	{`{"channel":"c" "data":"d"}`, wantComma, 15},
	{`{"channel":"c","data":"d"}{`, wantEnd, 26},
	{`{"channel":"c","data":"d"}` + "\x00", wantEnd, 26},
	{`{channel:"c","data":"d"}`, wantName, 1},
	{`{,"channel":"c","data":"d"}`, wantName, 1},
	{`{"channel"`, endless, 10},
	{`{"channel"="c"}`, "want ':' after a field name", 10},
	{`{"channel":`, endless, 11},
	{`{"channel":"c`, endless, 13},
	{`{"x":[1,],"channel":"c","data":"d"}`, "want a JSON value", 8},
	{`{"x":tru,"channel":"c","data":"d"}`, "want true", 5},
	{"{\"channel\":\"c\xff\",\"data\":\"d\"}", "the string isn't valid UTF-8", 12},
	{"{\"channel\":\"c\n\",\"data\":\"d\"}", "a raw control character in a string", 13},
	{`{"x":` + strings.Repeat("[", 60000), tooDeep, 5 + maxDepth - 1},
}

func TestParseEnvelope(t *testing.T) {
	for _, test := range goodEnvelopes {
		e, at, problem := parseEnvelope([]byte(test.in))
		if problem != "" {
			t.Errorf("%s: %s at %d", test.in, problem, at)
			continue
		}
		if channel, data := e.text(); channel != test.channel || data != test.data || e.src != test.src || e.seq != test.seq {
			t.Errorf("%s: got %q %q %x %d", test.in, channel, data, e.src, e.seq)
		}
	}
	for _, test := range badEnvelopes {
		if _, at, problem := parseEnvelope([]byte(test.in)); problem != test.problem || at != test.at {
			t.Errorf("%.100s: got %q at %d, want %q at %d", test.in, problem, at, test.problem, test.at)
		}
	}
}

// text returns what a receiver would hand on.
func (e *envelope) text() (channel, data string) {
	return string(appendUnquoted(nil, e.channel)), string(appendUnquoted(nil, e.data))
}

// What is sent is received, but for what isn't UTF-8.
func TestEnvelopeRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	src := [16]byte([]byte("0123456789abcdef"))
	for range 20000 {
		channel, payload := randomText(r, 40), randomText(r, 400)
		seq := 1 + r.Uint64()>>(1+r.IntN(63))
		datagram := appendEnvelope(nil, channel, []byte(payload), &src, seq)
		if !json.Valid(datagram) {
			t.Fatalf("not JSON: %q", datagram)
		}
		e, at, problem := parseEnvelope(datagram)
		if problem != "" {
			t.Fatalf("%q: %s at %d", datagram, problem, at)
		}
		gotChannel, gotData := e.text()
		if gotChannel != strictUTF8(channel) || gotData != strictUTF8(payload) || e.src != 0x0123456789abcdef || e.seq != seq {
			t.Fatalf("%q %q %d became %q: %q %q %x %d", channel, payload, seq, datagram, gotChannel, gotData, e.src, e.seq)
		}
	}
}

func strictUTF8(s string) string { return string([]rune(s)) }

// randomText has what needs escapes more often than what doesn't.
func randomText(r *rand.Rand, n int) string {
	b := make([]byte, 0, 4*n)
	for range r.IntN(n) {
		switch r.IntN(5) {
		case 0:
			b = append(b, byte(r.IntN(256)))
		case 1:
			b = utf8.AppendRune(b, rune(r.IntN(0x110000)))
		case 2:
			b = append(b, `"\/{}:`[r.IntN(6)])
		default:
			b = append(b, byte(' '+r.IntN(95)))
		}
	}
	return string(b)
}

// Size never says less than what Send makes of a message that could be too
// large, and no more than a short seq explains.
func TestMulticastSize(t *testing.T) {
	m, err := newMulticast("udp://")
	if err != nil {
		t.Fatal(err)
	}
	var src [16]byte
	r := rand.New(rand.NewPCG(3, 4))
	for _, unit := range []string{"a", `"`, "\x00", "\n", "é", "\xff", "😀", `{"k":1.5}`, "\u007f"} {
		for _, around := range []int{1, 100, 10700, 10800, 10900, 32000, 64000, 65000, 70000} {
			payload := strings.Repeat(unit, max(0, around+r.IntN(200)-100)/len(unit))
			channel := randomText(r, 50)
			size, limit := m.Size(channel, []byte(payload))
			longest := len(appendEnvelope(nil, channel, []byte(payload), &src, 1<<64-1))
			if limit != 65000 {
				t.Fatalf("limit %d", limit)
			}
			if (size > limit) != (longest > limit) {
				t.Errorf("%d times %q: Size says %d, longest is %d", len(payload)/len(unit), unit, size, longest)
			}
			if 6*size > limit && size > len(channel)+len(payload)+envelopeSize && size != longest {
				t.Errorf("%d times %q: Size says %d, longest is %d", len(payload)/len(unit), unit, size, longest)
			}
		}
	}
}

func TestPythonDatagrams(t *testing.T) {
	text, err := os.ReadFile("testdata/python_wire.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name      string
		Channel   string
		WireRedis string `json:"wire_redis"`
		WireUDP   string `json:"wire_udp"`
	}
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	longest := 0
	for _, test := range cases {
		if test.WireUDP == "" {
			continue // Python 1.0.0 fails to send those
		}
		longest = max(longest, len(test.WireUDP))
		e, at, problem := parseEnvelope([]byte(test.WireUDP))
		if problem != "" {
			t.Errorf("%s: %s at %d", test.Name, problem, at)
			continue
		}
		if channel, data := e.text(); channel != test.Channel || data != test.WireRedis || e.seq != 0 {
			t.Errorf("%s: got %q %q", test.Name, channel, data)
		}
	}
	if longest != maxDatagram {
		t.Errorf("the longest is %d bytes, not %d", longest, maxDatagram)
	}
}

// The laws of gaps: what is counted as lost from one source, message by message.
func TestSources(t *testing.T) {
	type step struct {
		seq  uint64
		lost int // the sum after it
	}
	for name, steps := range map[string][]step{
		"in order":                 {{1, 0}, {2, 0}, {3, 0}},
		"first sight":              {{1000, 0}, {1001, 0}},
		"a gap":                    {{1, 0}, {4, 2}, {5, 2}},
		"late":                     {{1, 0}, {4, 2}, {3, 1}, {2, 0}, {5, 0}},
		"late twice":               {{1, 0}, {3, 1}, {2, 0}, {2, 0}, {2, 0}},
		"again":                    {{1, 0}, {3, 1}, {3, 1}, {1, 1}},
		"older than first sight":   {{500, 0}, {499, 0}, {498, 0}, {501, 0}},
		"behind the window":        {{1, 0}, {1026, 1024}, {2, 0}, {1027, 1024}},
		"late at the window's end": {{1, 0}, {1025, 1023}, {2, 1022}},
		"two gaps":                 {{1, 0}, {3, 1}, {5, 2}, {4, 1}, {2, 0}},
		"a long gap":               {{1, 0}, {1 + 1<<20, 1<<20 - 1}},
		"too long a gap":           {{1, 0}, {2 + 1<<20, 0}, {3 + 1<<20, 0}, {5 + 1<<20, 1}},
		"begins anew":              {{1 << 40, 0}, {1, 0}, {2, 0}, {4, 1}},
		"near the end":             {{1<<63 - 1, 0}, {1 << 63, 0}, {1, 0}, {1 << 63, 0}},
		// Whoever overhears a src can forge its numbers. The next true one
		// puts the count right.
		"forged ahead, near": {{1, 0}, {5, 3}, {2, 2}, {3, 1}, {4, 0}, {5, 0}, {6, 0}},
		"forged ahead, far":  {{1, 0}, {1000000, 999998}, {2, 0}, {3, 0}},
		"forged for ever":    {{1, 0}, {1 << 62, 0}, {2, 0}, {3, 0}},
		"forged behind":      {{1 << 30, 0}, {5, 0}, {1<<30 + 1, 0}, {1<<30 + 3, 1}},
		"forged and late":    {{100, 0}, {2000, 1899}, {1999, 1898}, {101, 0}, {102, 0}},
	} {
		m, lost := newSources(), 0
		for _, s := range steps {
			lost += m.count(1, s.seq)
			if lost != s.lost {
				t.Errorf("%s: after %d it is %d, want %d", name, s.seq, lost, s.lost)
				break
			}
		}
	}
}

// Whatever comes, nobody counts below 0, and a source that loses nothing and
// is let alone counts nothing.
func TestSourcesNeverBelowZero(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		m, lost, seq := newSources(), 0, uint64(1+r.IntN(5000))
		for range 2000 {
			switch r.IntN(10) {
			case 0:
				seq = uint64(1 + r.Uint64()>>(1+r.IntN(63)))
			case 1:
				seq += uint64(r.IntN(3000))
			case 2:
				seq -= min(seq-1, uint64(r.IntN(3000)))
			default:
				seq++
			}
			if lost += m.count(uint64(r.IntN(2)), seq); lost < 0 {
				t.Fatalf("%d after %d", lost, seq)
			}
		}
	}
	// Shuffled by less than the window, all there: nothing is lost.
	m, lost := newSources(), 0
	lost += m.count(1, 1)
	for base := uint64(2); base < 100000; base += 500 {
		for _, i := range r.Perm(500) {
			lost += m.count(1, base+uint64(i))
		}
	}
	if lost != 0 {
		t.Errorf("%d of shuffled messages counted as lost", lost)
	}
}

func TestSourcesAreBounded(t *testing.T) {
	m := newSources()
	for src := range uint64(100000) {
		if lost := m.count(src+1, 1+src%7); lost != 0 {
			t.Fatalf("first sight of %d: %d lost", src, lost)
		}
	}
	if len(m) != maxSources {
		t.Errorf("%d sources are kept, want %d", len(m), maxSources)
	}
}

// The laws of copies.
func TestCopies(t *testing.T) {
	c := newCopies()
	message := func(src, seq uint64, channel, data string) *envelope {
		return &envelope{src: src, seq: seq, channel: []byte(channel), data: []byte(data)}
	}
	for i, test := range []struct {
		e    *envelope
		seen bool
	}{
		{message(1, 1, "c", "d"), false},
		{message(1, 1, "c", "d"), true},
		{message(1, 2, "c", "d"), false},
		{message(2, 1, "c", "d"), false},
		{message(1, 1, "c", "e"), false},
		{message(1, 1, "cd", ""), false},
		{message(1, 1, "", "cd"), false},
		{message(1, 1, "c", "d"), true},
		{message(1, 3, "c", "forged in advance"), false},
		{message(1, 3, "c", "true"), false},
	} {
		if got := c.seen(test.e); got != test.seen {
			t.Errorf("%d: %v", i, got)
		}
	}
	for i := range uint64(3 * maxRecent) {
		if c.seen(message(3, i, "c", "d")) {
			t.Fatalf("%d: seen", i)
		}
		if back := uint64(maxRecent - 1); i >= back && !c.seen(message(3, i-back, "c", "d")) {
			t.Fatalf("%d: the message %d before it is forgotten", i, back)
		}
		if c.count > maxRecent {
			t.Fatalf("%d are remembered, besides the older ones", c.count)
		}
	}
}

func TestChannelSet(t *testing.T) {
	var c channelSet
	want := func(channel string, want bool) {
		t.Helper()
		if got := c.has([]byte(channel)); got != want {
			t.Errorf("%s: %v", channel, got)
		}
	}
	want("autobus::Ping", false)
	c.add("autobus::Ping")
	c.add("autobus:x:*")
	want("autobus::Ping", true)
	want("autobus::Pin", false)
	want("autobus:x:Ping", true)
	want("autobus:x:*", true)
	want("autobus:x:", false)
	want("autobus:x:a:b", false)
	want("autobus:x", false)
	want("Ping", false)
	want("", false)
	c.remove("autobus::Ping")
	c.remove("autobus::Ping")
	want("autobus::Ping", false)
	c.remove("autobus:x:*")
	want("autobus:x:Ping", false)
}

// From here on, the tests use the network, but for ttl=0 they keep to this host.

// testMulticast returns a transport for a URL on a group and port that only
// this test uses, unless url names them.
func testMulticast(t testing.TB, url string) *multicast {
	t.Helper()
	m, err := newMulticast(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// ownURL returns a URL that no other test has.
func ownURL(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("udp://239.255.%d.%d:%d?ttl=0", rand.IntN(256), 1+rand.IntN(254), freePort(t))
}

func freePort(t testing.TB) int {
	t.Helper()
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).Port
}

// heard receives, and waits in tests.
type heard chan Message

func (h heard) receive(_ context.Context, channel, payload []byte) {
	h <- Message{string(channel), bytes.Clone(payload)}
}

// next fails the test unless the next message is that.
func (h heard) next(t testing.TB, channel, payload string) {
	t.Helper()
	select {
	case m := <-h:
		if m.Channel != channel || string(m.Payload) != payload {
			t.Fatalf("heard %q %.100q, want %q %.100q", m.Channel, m.Payload, channel, payload)
		}
	case <-time.After(patience):
		t.Fatalf("heard nothing, want %q %.100q", channel, payload)
	}
}

// logLines is a Logger that keeps what it is told.
type logLines struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (l *logLines) add(level, msg string, args []any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, level+" "+msg+" "+fmt.Sprintln(args...))
}

func (l *logLines) Debug(msg string, args ...any) { l.add("DEBUG", msg, args) }
func (l *logLines) Info(msg string, args ...any)  { l.add("INFO", msg, args) }
func (l *logLines) Warn(msg string, args ...any)  { l.add("WARN", msg, args) }
func (l *logLines) Error(msg string, args ...any) { l.add("ERROR", msg, args) }

func (l *logLines) with(text string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

func startMulticast(t testing.TB, m *multicast, receive func(ctx context.Context, channel, payload []byte)) *logLines {
	t.Helper()
	log := new(logLines)
	if err := m.Start(t.Context(), receive, log); err != nil {
		t.Fatal(err)
	}
	return log
}

func sendMulticast(t testing.TB, m *multicast, channel, payload string) {
	t.Helper()
	if lost, err := m.Send(t.Context(), []Message{{channel, []byte(payload)}}); lost != 0 || err != nil {
		t.Fatalf("lost %d: %v", lost, err)
	}
}

func (m *multicast) stats() (s Stats) {
	m.AddStats(&s)
	return s
}

func TestMulticastTwoTransports(t *testing.T) {
	url := ownURL(t)
	a, b := testMulticast(t, url), testMulticast(t, url)
	fromA, fromB := make(heard, 100), make(heard, 100)
	a.Subscribe("c")
	b.Subscribe("c")
	a.Subscribe("x:*")
	startMulticast(t, a, fromA.receive)
	startMulticast(t, b, fromB.receive)
	sendMulticast(t, a, "c", "1")
	sendMulticast(t, b, "c", "2")
	sendMulticast(t, b, "x:y", "for a")
	batch := make([]Message, 20)
	for i := range batch {
		batch[i] = Message{"c", fmt.Append(nil, "batch \x01 \"é😀\" ", i)}
	}
	if lost, err := a.Send(t.Context(), batch); lost != 0 || err != nil {
		t.Fatal(lost, err)
	}
	for _, h := range []heard{fromA, fromB} {
		h.next(t, "c", "1")
		h.next(t, "c", "2")
		if reflect.ValueOf(h).Pointer() == reflect.ValueOf(fromA).Pointer() {
			h.next(t, "x:y", "for a")
		}
		for i := range batch {
			h.next(t, "c", string(batch[i].Payload))
		}
	}
	if got := b.stats(); got != (Stats{}) {
		t.Errorf("b's stats are %+v", got)
	}
	if err := a.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}

// A transport without subscriptions isn't woken by others' datagrams.
func TestMulticastJoinsForSubscribersOnly(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	h := make(heard, 10)
	startMulticast(t, m, h.receive)
	raw := sender(t, m)
	for range 2 {
		raw("garbage that nobody hears")
		m.Subscribe("c")
		raw(`{"channel":"c","data":"heard"}`)
		h.next(t, "c", "heard")
		m.Unsubscribe("c")
	}
	if got := m.stats().DroppedMalformed; got != 0 {
		t.Errorf("%d datagrams came while nobody listened", got)
	}
}

// What is sent while nobody listens isn't lost.
func TestMulticastNoGapWhileNobodyListens(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	h := make(heard, 10)
	startMulticast(t, m, h.receive)
	raw := sender(t, m)
	for seq := 0; seq < 1000; seq += 100 {
		m.Subscribe("c")
		raw(fmt.Sprintf(`{"channel":"c","data":"1","src":"00000000000000aa","seq":%d}`, seq+1))
		h.next(t, "c", "1")
		raw(fmt.Sprintf(`{"channel":"c","data":"2","src":"00000000000000aa","seq":%d}`, seq+3))
		h.next(t, "c", "2")
		m.Unsubscribe("c")
	}
	if got := m.stats().Lost; got != 10 {
		t.Errorf("%d counted as lost, want 10", got)
	}
}

// subscribing subscribes in the middle of Start, where that logs something.
type subscribing struct {
	*logLines
	once func()
}

func (s subscribing) Debug(string, ...any) { s.once() }
func (s subscribing) Info(string, ...any)  { s.once() }

func TestMulticastSubscribeWhileStarting(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	h := make(heard, 10)
	if err := m.Start(t.Context(), h.receive, subscribing{new(logLines), sync.OnceFunc(func() { m.Subscribe("c") })}); err != nil {
		t.Fatal(err)
	}
	sendMulticast(t, m, "c", "1")
	h.next(t, "c", "1")
}

// Subscriptions may change at any time; messages for nobody go unheard.
func TestMulticastSubscribeWhileRunning(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	h := make(heard, 100)
	startMulticast(t, m, h.receive)
	m.Subscribe("mark")
	for range 3 {
		sendMulticast(t, m, "c", "for nobody")
		sendMulticast(t, m, "mark", "1")
		h.next(t, "mark", "1")
		m.Subscribe("c")
		sendMulticast(t, m, "c", "for us")
		h.next(t, "c", "for us")
		m.Unsubscribe("c")
	}
}

func TestMulticastOtherGroupIsNotHeard(t *testing.T) {
	port := freePort(t)
	a := testMulticast(t, fmt.Sprintf("udp://239.255.77.1:%d?ttl=0", port))
	b := testMulticast(t, fmt.Sprintf("udp://239.255.77.2:%d?ttl=0", port))
	fromA, fromB := make(heard, 100), make(heard, 100)
	a.Subscribe("c")
	b.Subscribe("c")
	startMulticast(t, a, fromA.receive)
	startMulticast(t, b, fromB.receive)
	for range 5 {
		sendMulticast(t, a, "c", "in a's group")
		sendMulticast(t, b, "c", "in b's group")
		fromA.next(t, "c", "in a's group")
		fromB.next(t, "c", "in b's group")
	}
}

func TestMulticastIPv6(t *testing.T) {
	needIPv6(t)
	for _, form := range []string{"udp://[ff05::a0b:1]:%d?ttl=0", "udp://[ff02::a0b:1]:%d?ttl=0", "udp://[ff01::a0b:1]:%d"} {
		url := fmt.Sprintf(form, freePort(t))
		t.Run(url, func(t *testing.T) {
			a, b := testMulticast(t, url), testMulticast(t, url)
			other := testMulticast(t, strings.Replace(url, ":1", ":2", 1))
			fromA, fromB, fromOther := make(heard, 100), make(heard, 100), make(heard, 100)
			a.Subscribe("c")
			b.Subscribe("c")
			other.Subscribe("c")
			startMulticast(t, a, fromA.receive)
			startMulticast(t, b, fromB.receive)
			startMulticast(t, other, fromOther.receive)
			for i := range 3 {
				sendMulticast(t, a, "c", fmt.Sprint(i))
				fromA.next(t, "c", fmt.Sprint(i))
				fromB.next(t, "c", fmt.Sprint(i))
				sendMulticast(t, other, "c", "other")
				fromOther.next(t, "c", "other")
			}
		})
	}
}

func needIPv6(t *testing.T) {
	t.Helper()
	conn, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		missing(t, "no IPv6 here: "+err.Error())
	}
	conn.Close()
}

func TestMulticastOnOneInterface(t *testing.T) {
	url := ownURL(t) + "&interface=" + loopbackName(t)
	a, b := testMulticast(t, url), testMulticast(t, url)
	fromA, fromB := make(heard, 100), make(heard, 100)
	a.Subscribe("c")
	b.Subscribe("c")
	log := startMulticast(t, a, fromA.receive)
	startMulticast(t, b, fromB.receive)
	sendMulticast(t, a, "c", "1")
	fromA.next(t, "c", "1")
	fromB.next(t, "c", "1")
	if joined := log.with("joined the group"); len(joined) != 1 {
		t.Errorf("joined %q", joined)
	}
}

func TestMulticastUnknownInterface(t *testing.T) {
	m := testMulticast(t, "udp://?interface="+loopbackName(t)+",nosuch0")
	err := m.Start(t.Context(), nil, new(logLines))
	if err == nil || !strings.Contains(err.Error(), `no network interface "nosuch0" here; there are `) {
		t.Fatal(err)
	}
}

// Somebody who doesn't share the port has it.
func TestMulticastPortTaken(t *testing.T) {
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	m := testMulticast(t, fmt.Sprintf("udp://:%d?ttl=0", conn.LocalAddr().(*net.UDPAddr).Port))
	err = m.Start(t.Context(), nil, new(logLines))
	if err == nil || !strings.Contains(err.Error(), "another program has the port and doesn't share it") || !errors.Is(err, errAddrInUse) {
		t.Fatal(err)
	}
}

func TestMulticastLoopbackOff(t *testing.T) {
	url := ownURL(t)
	quiet, loud := testMulticast(t, url+"&loopback=0"), testMulticast(t, url)
	h := make(heard, 100)
	loud.Subscribe("c")
	startMulticast(t, quiet, nil)
	startMulticast(t, loud, h.receive)
	sendMulticast(t, quiet, "c", "for others")
	sendMulticast(t, loud, "c", "for all")
	h.next(t, "c", "for all")
}

func TestMulticastLargest(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	h := make(heard, 10)
	m.Subscribe("c")
	startMulticast(t, m, h.receive)
	payload := []byte(strings.Repeat("ab\"\\cé\n😀", 4000))
	size, limit := m.Size("c", payload)
	payload = append(payload, strings.Repeat("x", limit-size)...)
	if size, _ = m.Size("c", payload); size != limit {
		t.Fatalf("size %d, limit %d", size, limit)
	}
	sendMulticast(t, m, "c", string(payload))
	h.next(t, "c", string(payload))

	// Size counts the longest seq; what fits for now goes through, too.
	room := strings.Repeat("x", len("18446744073709551615")-len("2"))
	sendMulticast(t, m, "c", string(payload)+room)
	h.next(t, "c", string(payload)+room)

	lost, err := m.Send(t.Context(), []Message{{"c", append(payload, room+"x"...)}, {"c", []byte("next")}})
	if lost != 1 || !errors.Is(err, ErrTooLarge) {
		t.Errorf("lost %d: %v", lost, err)
	}
	h.next(t, "c", "next")
}

// What Python sends at its limit comes through whole.
func TestMulticastPythonAtItsLimit(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	h := make(heard, 10)
	m.Subscribe("autobus::Ping")
	startMulticast(t, m, h.receive)
	datagram := `{"channel": "autobus::Ping", "data": "` + strings.Repeat("p", 65000-40) + `"}`
	if len(datagram) != maxDatagram {
		t.Fatal(len(datagram))
	}
	sender(t, m)(datagram)
	h.next(t, "autobus::Ping", strings.Repeat("p", 65000-40))
}

// sender sends to m's group what isn't a transport's.
func sender(t testing.TB, m *multicast) func(datagram string) {
	t.Helper()
	conn := dialPatiently(t, newMulticastSession(m), card{})
	return func(datagram string) {
		t.Helper()
		if _, err := conn.WriteToUDPAddrPort([]byte(datagram), m.to); err != nil {
			t.Fatal(err)
		}
	}
}

// dialPatiently returns a socket to send from whose writes have no deadline.
func dialPatiently(t testing.TB, s *multicastSession, c card) *net.UDPConn {
	t.Helper()
	conn, err := s.dial(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestMulticastHostileDatagrams(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	h := make(heard, 10)
	m.Subscribe("c")
	log := startMulticast(t, m, h.receive)
	raw := sender(t, m)
	const secret = "payload that no log may show"
	raw(`{"channel":"c","data":"` + secret + `"`)
	raw(``)
	for _, test := range badEnvelopes {
		raw(test.in)
	}
	raw(`{"channel":"c","data":"last"}`)
	h.next(t, "c", "last")
	if got, want := m.stats().DroppedMalformed, uint64(2+len(badEnvelopes)); got != want {
		t.Errorf("%d counted as malformed, want %d", got, want)
	}
	lines := log.with("isn't a message")
	if len(lines) == 0 || len(lines) > 3 || len(log.with(secret)) > 0 {
		t.Errorf("the log says %q", lines)
	}
	if !strings.HasPrefix(lines[0], "WARN ") || !strings.Contains(lines[0], "offset 52") || !strings.Contains(lines[0], "bytes 52") {
		t.Errorf("the log says %q", lines[0])
	}
}

func TestMulticastDuplicatesAndGaps(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	h := make(heard, 10)
	m.Subscribe("c")
	startMulticast(t, m, h.receive)
	raw := sender(t, m)
	datagram := func(seq int, data string) string {
		channel := "c"
		if data == "for nobody" {
			channel = "elsewhere"
		}
		return fmt.Sprintf(`{"channel":"%s","data":"%s","src":"00000000000000aa","seq":%d}`, channel, data, seq)
	}
	raw(datagram(1, "one"))
	raw(datagram(1, "one"))
	raw(datagram(1, "one") + "      ") // padded, as in a batch
	raw(datagram(3, "three, forged"))
	raw(datagram(2, "for nobody"))
	raw(datagram(3, "three"))
	raw(datagram(6, "six"))
	raw(`{"channel":"c","data":"python's"}`)
	raw(`{"channel":"c","data":"python's"}`)
	for _, want := range []string{"one", "three, forged", "three", "six", "python's", "python's"} {
		h.next(t, "c", want)
	}
	if got := m.stats(); got.Duplicates != 2 || got.Lost != 2 || got.DroppedMalformed != 0 {
		t.Errorf("%+v", got)
	}
}

// Close ends the context of a receive that waits, and waits for it.
func TestMulticastCloseWaitsForReceive(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	m.Subscribe("c")
	began := make(chan struct{})
	calls, ended := 0, false
	startMulticast(t, m, func(ctx context.Context, _, _ []byte) {
		if calls++; calls == 1 {
			close(began)
			<-ctx.Done()
			ended = true
		}
	})
	sendMulticast(t, m, "c", "1")
	await(t, began)
	sendMulticast(t, m, "c", "2") // waits in the socket, for nobody
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if calls != 1 || !ended {
		t.Errorf("%d calls, ended: %v", calls, ended)
	}
}

func TestMulticastLifecycle(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	if err := m.Close(); err != nil {
		t.Fatal("Close before Start:", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if lost, err := m.Send(ctx, make([]Message, 3)); lost != 3 || !errors.Is(err, context.Canceled) {
		t.Fatal("Send before Start, given up:", lost, err)
	}
	h := make(heard, 10)
	var src [16]byte
	for range 3 {
		m.Subscribe("c") // Close forgets it
		sent := make(chan error)
		go func() {
			_, err := m.Send(t.Context(), []Message{{"c", []byte("early")}})
			sent <- err
		}()
		startMulticast(t, m, h.receive)
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		h.next(t, "c", "early")
		if m.session().src == src {
			t.Error("a second Start has the first one's src")
		}
		src = m.session().src
		if err := m.Start(t.Context(), h.receive, new(logLines)); err == nil {
			t.Fatal("started twice")
		}
		sendMulticast(t, m, "c", "1")
		h.next(t, "c", "1")
		sender(t, m)("?")
		sendMulticast(t, m, "c", "2")
		h.next(t, "c", "2")
		if got := m.stats().DroppedMalformed; got != 1 {
			t.Errorf("%d malformed since Start", got)
		}
		for range 2 {
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestMulticastSendWhileClosing(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	for range 20 {
		startMulticast(t, m, func(context.Context, []byte, []byte) {})
		ctx, cancel := context.WithCancel(t.Context())
		var senders sync.WaitGroup
		begun := make(chan struct{}, 1)
		senders.Go(func() {
			batch := []Message{{"c", []byte("1")}, {"c", []byte("2")}}
			for ctx.Err() == nil {
				lost, err := m.Send(ctx, batch)
				if (lost == 0) != (err == nil) || err != nil && !errors.Is(err, ErrStopped) && !errors.Is(err, context.Canceled) {
					t.Error(lost, err)
					return
				}
				select {
				case begun <- struct{}{}:
				default:
				}
			}
		})
		<-begun
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		cancel()
		senders.Wait()
	}
}

// A full send buffer holds a write up until its deadline, which is then set anew.
func TestMulticastWriteDeadline(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	h := make(heard, 10)
	m.Subscribe("c")
	startMulticast(t, m, h.receive)
	s := m.session()
	if err := s.routed.conn.SetWriteDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	sendMulticast(t, m, "c", "late")
	h.next(t, "c", "late")

	if err := s.routed.conn.SetWriteDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	lost, err := m.Send(ctx, []Message{{"c", nil}, {"c", nil}})
	if lost != 2 || !errors.Is(err, context.Canceled) {
		t.Errorf("lost %d: %v", lost, err)
	}
}

// What needs no waiting is sent though ctx ended after Send began, and nothing
// is lost without an error.
func TestMulticastSendAfterTheEnd(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	h := make(heard, 1000)
	m.Subscribe("c")
	startMulticast(t, m, h.receive)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	batch := make([]Message, 200)
	for i := range batch {
		batch[i] = Message{"c", fmt.Append(nil, i)}
	}
	if lost, err := m.session().send(ctx, batch); lost != 0 || err != nil {
		t.Fatal(lost, err)
	}
	for i := range batch {
		h.next(t, "c", string(batch[i].Payload))
	}
}

// A write has a deadline from the first one on: a network that takes nothing,
// as a radio link may for minutes, holds up neither the end of ctx nor Close.
func TestMulticastFirstWriteDeadline(t *testing.T) {
	s := newMulticastSession(testMulticast(t, ownURL(t)))
	conn, err := s.dial(card{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for began := time.Now(); err == nil && time.Since(began) < patience; {
		_, err = conn.WriteToUDPAddrPort(nil, s.of.to)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v, want that the deadline has passed", err)
	}
}

func TestMulticastLeavesNothingBehind(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	h := make(heard, 1)
	goroutines, descriptors := runtime.NumGoroutine(), openFiles(t)
	for range 100 {
		m.Subscribe("c")
		startMulticast(t, m, h.receive)
		s := m.session()
		s.noRoute = true // use the other sockets, too
		sendMulticast(t, m, "c", "x")
		h.next(t, "c", "x")
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !goroutinesEnd(goroutines) {
		t.Errorf("%d goroutines, before it %d\n%s", runtime.NumGoroutine(), goroutines, stacks())
	}
	if now := openFiles(t); now > descriptors {
		t.Errorf("%d descriptors, before it %d", now, descriptors)
	}
}

func TestMulticastReadBuffer(t *testing.T) {
	small := testMulticast(t, ownURL(t)+"&rcvbuf=10000")
	if log := startMulticast(t, small, nil); len(log.with("receive buffer bytes ")) != 1 {
		t.Errorf("the log says %q", log.lines)
	}
	m := testMulticast(t, ownURL(t)+"&rcvbuf=1073741824")
	log := startMulticast(t, m, nil)
	if lines := log.with("smaller receive buffer"); len(lines) > 1 || len(lines) == 1 && !strings.HasPrefix(lines[0], "INFO ") {
		t.Errorf("the log says %q", lines)
	} else if len(lines) == 0 && len(log.with("receive buffer")) != 1 {
		t.Error("the log says nothing of the receive buffer")
	}
}

// The laws of a bundle: its segments hold the envelopes in order, padded with
// spaces, and padding never costs more than the sends that it saves.
func TestBundle(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		var u bundle
		var want [][]byte
		limit, spread := r.IntN(3000), 1+r.IntN(1+r.IntN(1000))
		check := func() {
			t.Helper()
			if u.count != len(want) || u.end > maxSend && u.count > 1 || u.count > maxSegments || u.count > 1 && u.segment > limit {
				t.Fatalf("%d envelopes of %d, %d bytes, %d in all, limit %d", u.count, len(want), u.segment, u.end, limit)
			}
			all := u.buf[:u.end]
			padding := len(all)
			for i, envelope := range want {
				segment := all[:min(u.segment, len(all))]
				all = all[len(segment):]
				if !bytes.Equal(bytes.TrimRight(segment, " "), envelope) {
					t.Fatalf("segment %d is %q, want %q", i, segment, envelope)
				}
				padding -= len(envelope)
			}
			if len(all) > 0 || padding > paddingWorth*(len(want)-1) {
				t.Fatalf("%d bytes left, %d of padding for %d envelopes", len(all), padding, len(want))
			}
		}
		base := 1 + r.IntN(1500)
		for i := range 1 + r.IntN(200) {
			at := u.next()
			envelope := bytes.Repeat([]byte{'a' + byte(i%26)}, base+r.IntN(spread))
			u.buf = append(u.buf, envelope...)
			if u.takes(len(envelope), limit) {
				u.add(len(envelope))
				want = append(want, envelope)
				continue
			}
			check()
			u.beginWith(at)
			want = [][]byte{envelope}
		}
		check()
	}
}

// What stands in a bundle when the next envelope doesn't fit is as it was.
func TestMulticastMixedBatch(t *testing.T) {
	m := testMulticast(t, ownURL(t))
	h := make(heard, 1000)
	m.Subscribe("c")
	startMulticast(t, m, h.receive)
	r := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		var batch []Message
		size := 0
		for size < 50_000 {
			n := []int{r.IntN(100), r.IntN(100), r.IntN(100), r.IntN(1500), r.IntN(5000), r.IntN(40000)}[r.IntN(6)]
			size += n
			batch = append(batch, Message{"c", []byte(fmt.Sprint(strings.Repeat("m", n), len(batch)))})
		}
		tooLarge := r.IntN(len(batch))
		with := slices.Insert(slices.Clone(batch), tooLarge, Message{"c", make([]byte, maxDatagram)})
		if lost, err := m.Send(t.Context(), with); lost != 1 || !errors.Is(err, ErrTooLarge) {
			t.Fatal(lost, err)
		}
		for i := range batch {
			h.next(t, "c", string(batch[i].Payload))
		}
	}
	if got := m.stats(); got.DroppedMalformed > 0 || got.Lost > 20 {
		t.Errorf("%+v", got)
	}
}

// Neither sending nor receiving takes memory, once the buffers are there.
func TestMulticastAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	m := testMulticast(t, ownURL(t))
	m.Subscribe("autobus::Ping")
	got := make(chan struct{}, 100)
	startMulticast(t, m, func(context.Context, []byte, []byte) { got <- struct{}{} })
	batch := []Message{{"autobus::Ping", []byte(`{"id":1,"name":"a \"b\" c","type":"Ping"}`)}, {"autobus::Ping", []byte(`{"type":"Ping"}`)}}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	both := func() {
		if lost, err := m.Send(t.Context(), batch); lost != 0 || err != nil {
			t.Fatal(lost, err)
		}
		for range batch {
			select {
			case <-got:
			case <-timeout.C:
				t.Fatal("nothing heard")
			}
		}
	}
	for range 3 * maxRecent / len(batch) { // fills what remembers
		both()
	}
	ctx := t.Context()
	_ = ctx
	if n := testing.AllocsPerRun(1000, both); n != 0 {
		t.Errorf("%v allocations for two messages there and back", n)
	}

	r := newReceiver(background, m, func(context.Context, []byte, []byte) {})
	var src [16]byte
	var datagrams [][]byte
	for i := range 3 * maxRecent {
		appendHex(src[:0], uint64(1+i%(2*maxSources))) // more sources than are kept
		datagrams = append(datagrams, appendEnvelope(nil, batch[0].Channel, batch[0].Payload, &src, uint64(i+1)))
	}
	i := 0
	receive := func() {
		r.datagram(datagrams[i%len(datagrams)])
		i++
	}
	for range datagrams {
		receive()
	}
	if n := testing.AllocsPerRun(len(datagrams), receive); n != 0 {
		t.Errorf("%v allocations a datagram", n)
	}
}

func BenchmarkMulticastSend(b *testing.B) {
	m := testMulticast(b, ownURL(b))
	startMulticast(b, m, func(context.Context, []byte, []byte) {})
	batch := []Message{{"autobus::Ping", []byte(benchmarkPayload)}}
	b.ReportAllocs()
	for b.Loop() {
		if lost, err := m.Send(b.Context(), batch); lost != 0 || err != nil {
			b.Fatal(lost, err)
		}
	}
}

const benchmarkPayload = `{"id":123456,"name":"living room","on":true,"value":21.5,"tags":["a","b","c"],"type":"Ping"}`

// BenchmarkBareWriteTo is what BenchmarkMulticastSend can't be faster than: the
// same bytes, ready made, with a transport that hears them as there.
func BenchmarkBareWriteTo(b *testing.B) {
	m := testMulticast(b, ownURL(b))
	startMulticast(b, m, func(context.Context, []byte, []byte) {})
	conn := dialPatiently(b, m.session(), card{})
	src := m.session().src
	datagram := appendEnvelope(nil, "autobus::Ping", []byte(benchmarkPayload), &src, 1000000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.WriteToUDPAddrPort(datagram, m.to); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReceiveDatagram(b *testing.B) {
	m := testMulticast(b, ownURL(b))
	m.Subscribe("autobus::Ping")
	r := newReceiver(background, m, func(context.Context, []byte, []byte) {})
	src := [16]byte([]byte("00000000000000aa"))
	datagram := make([]byte, 0, 1000)
	seq := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		seq++
		datagram = appendEnvelope(datagram[:0], "autobus::Ping", []byte(benchmarkPayload), &src, seq)
		r.datagram(datagram)
	}
}
