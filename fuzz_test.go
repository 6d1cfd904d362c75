package autobus

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzEnvelope holds parseEnvelope against encoding/json. It differs in taking
// NaN and Infinity, and in refusing what isn't UTF-8 or nests over 1000 deep.
func FuzzEnvelope(f *testing.F) {
	for _, test := range goodEnvelopes {
		f.Add([]byte(test.in))
	}
	for _, test := range badEnvelopes {
		f.Add([]byte(test.in))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		e, at, problem := parseEnvelope(b)
		if !bytes.Equal(b, in) {
			t.Fatal("the input was changed")
		}
		if at < 0 || at > len(b) {
			t.Fatalf("offset %d of %d", at, len(b))
		}
		var fields map[string]json.RawMessage
		err := json.Unmarshal(b, &fields)
		wantChannel, isChannel := jsonString(fields["channel"])
		wantData, isData := jsonString(fields["data"])
		if problem != "" {
			if err == nil && isChannel && isData && utf8.Valid(b) && problem != tooDeep {
				t.Fatalf("refused: %s at %d", problem, at)
			}
			return
		}
		if err != nil {
			if !bytes.Contains(b, []byte("NaN")) && !bytes.Contains(b, []byte("Infinity")) {
				t.Fatalf("taken, but json says %v", err)
			}
			return
		}
		if !utf8.Valid(b) {
			t.Fatal("taken, but it isn't UTF-8")
		}
		channel, data := e.text()
		if !isChannel || !isData || channel != wantChannel || data != wantData {
			t.Fatalf("got %q %q, want %q %q", channel, data, wantChannel, wantData)
		}
		src, seq := jsonSrc(fields["src"]), jsonSeq(fields["seq"])
		if src == 0 {
			seq = 0
		}
		if e.src != src || e.seq != seq {
			t.Fatalf("got src %x seq %d, want %x %d", e.src, e.seq, src, seq)
		}
		// What is sent on is received as the same.
		id := [16]byte([]byte("00000000000000aa"))
		again, at, problem := parseEnvelope(appendEnvelope(nil, channel, []byte(data), &id, 1))
		if problem != "" {
			t.Fatalf("sent on: %s at %d", problem, at)
		}
		if c, d := again.text(); c != channel || d != data {
			t.Fatalf("sent on: %q %q", c, d)
		}
	})
}

func jsonString(value json.RawMessage) (s string, ok bool) {
	if len(value) == 0 || value[0] != '"' || json.Unmarshal(value, &s) != nil {
		return "", false
	}
	return s, true
}

func jsonSrc(value json.RawMessage) uint64 {
	if len(value) != 18 || value[0] != '"' || bytes.ContainsAny(value, "_+-") {
		return 0
	}
	src, err := strconv.ParseUint(string(value[1:17]), 16, 64)
	if err != nil {
		return 0
	}
	return src
}

func jsonSeq(value json.RawMessage) uint64 {
	seq, err := strconv.ParseUint(string(value), 10, 64)
	if err != nil || seq > 1<<63 {
		return 0
	}
	return seq
}

// FuzzURL holds parseMulticastURL against net/url. It differs in taking a zone
// as people write it, and more characters unescaped.
func FuzzURL(f *testing.F) {
	for _, test := range goodMulticastURLs {
		f.Add(test.url)
	}
	for _, test := range badMulticastURLs {
		f.Add(test.url)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseMulticastURL(text)
		if err != nil && !strings.HasPrefix(err.Error(), "autobus: bad multicast URL") {
			t.Fatalf("the error is %q", err)
		}
		want, problem := netURL(text)
		switch {
		case problem == "" && err != nil:
			t.Fatalf("refused: %v", err)
		case problem == "" && !reflect.DeepEqual(got, want):
			t.Fatalf("got  %+v\nwant %+v", got, want)
		case problem != "" && err == nil && !lenient(text):
			t.Fatalf("taken as %+v, but: %s", got, problem)
		}
		if err == nil {
			if !got.group.IsMulticast() || got.port == 0 || got.ttl < 0 || got.ttl > 255 || got.readBuffer < 1 || slices.Contains(got.interfaces, "") {
				t.Fatalf("taken as %+v", got)
			}
		}
	})
}

// lenient tells whether text has what net/url refuses and we need not.
func lenient(text string) bool {
	return strings.Contains(text, "[") && strings.Contains(text, "%") ||
		strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// netURL is parseMulticastURL by means of net/url.
func netURL(text string) (want multicastURL, problem string) {
	want = multicastURL{ttl: 1, loopback: true, readBuffer: 4 << 20, port: 5000, group: netip.MustParseAddr("239.255.0.1")}
	u, err := url.Parse(text)
	if err != nil {
		return want, err.Error()
	}
	if u.Scheme != "udp" || u.Opaque != "" || !strings.HasPrefix(strings.ToLower(text), "udp://") || u.User != nil || u.Path != "" && u.Path != "/" || strings.Contains(text, "#") {
		return want, "it isn't a URL for multicast"
	}
	// url.Parse takes an escaped @ or / in a host.
	if host := u.Hostname(); host != "" {
		addr, err := netip.ParseAddr(host)
		if err != nil {
			return want, err.Error()
		}
		if strings.Contains(u.Host, "[") != strings.Contains(host, ":") {
			return want, "the brackets are wrong"
		}
		if zone := addr.Zone(); zone != "" {
			want.interfaces = []string{zone}
		}
		if want.group = addr.WithZone("").Unmap(); !want.group.IsMulticast() {
			return want, "not multicast"
		}
	} else if strings.Contains(u.Host, "[") {
		return want, "no address in the brackets"
	}
	if port := u.Port(); port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return want, "bad port"
		}
		want.port = uint16(n)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return want, err.Error()
	}
	for name, values := range query {
		if len(values) > 1 {
			return want, "twice"
		}
		n, err := strconv.Atoi(values[0])
		switch name {
		case "interface":
			if want.interfaces != nil {
				return want, "twice"
			}
			for _, name := range strings.Split(values[0], ",") {
				if name == "" {
					return want, "no interface"
				}
				if !slices.Contains(want.interfaces, name) {
					want.interfaces = append(want.interfaces, name)
				}
			}
		case "loopback":
			i := slices.Index([]string{"0", "1", "false", "true", "no", "yes", "off", "on"}, strings.ToLower(values[0]))
			if i < 0 {
				return want, "bad loopback"
			}
			want.loopback = i%2 == 1
		case "rcvbuf":
			if err != nil || n < 1 || n > 1<<30 {
				return want, "bad rcvbuf"
			}
			want.readBuffer = n
		case "ttl":
			if err != nil || n < 0 || n > 255 {
				return want, "bad ttl"
			}
			want.ttl = n
		default:
			return want, "unknown option"
		}
	}
	return want, ""
}
