package autobus

import (
	"bytes"
	"errors"
	"net"
	"net/url"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// FuzzRESP reads any bytes whole and split: never a panic, the same replies
// both ways, and no more memory than a small multiple of the bytes.
func FuzzRESP(f *testing.F) {
	for _, c := range respCases(f) {
		f.Add([]byte(c.Wire), uint8(1))
		f.Add([]byte(c.Wire+"+OK\r\n"), uint8(3))
	}
	f.Fuzz(func(t *testing.T, wire []byte, step uint8) {
		in := bytes.Clone(wire)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		whole := newRESPReader(bytes.NewReader(wire))
		split := newRESPReader(&once{src: splitter{wire, max(1, int(step))}})
		for {
			err, splitErr := readReply(whole), readReply(split)
			var breach respError
			if errors.As(err, &breach) != errors.As(splitErr, &breach) || (err == nil) != (splitErr == nil) {
				t.Fatalf("whole: %v; split: %v", err, splitErr)
			}
			if err != nil {
				break
			}
			if !reflect.DeepEqual(whole.values, split.values) {
				t.Fatalf("whole: %v; split: %v", whole.values, split.values)
			}
			for i := range whole.values {
				if !bytes.Equal(whole.text(whole.values[i]), split.text(split.values[i])) {
					t.Fatalf("value %d differs", i)
				}
			}
			a, err := whole.push()
			b, splitErr := split.push()
			if err != splitErr || a.kind != b.kind || !bytes.Equal(a.channel, b.channel) || !bytes.Equal(a.payload, b.payload) {
				t.Fatalf("whole: %v %v; split: %v %v", a, err, b, splitErr)
			}
		}
		runtime.ReadMemStats(&after)
		if n, most := after.TotalAlloc-before.TotalAlloc, uint64(1<<20+64*len(wire)); n > most {
			t.Fatalf("%d bytes allocated for %d", n, len(wire))
		}
		if !bytes.Equal(wire, in) {
			t.Fatal("the input was changed")
		}
	})
}

// FuzzRedisURL: a URL that is taken is one that net/url takes the same way,
// where it does at all, and an error has no part of a password.
func FuzzRedisURL(f *testing.F) {
	for _, test := range goodRedisURLs {
		f.Add(test.url)
	}
	for _, test := range badRedisURLs {
		f.Add(test.url)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := parseRedisURL(text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "autobus: bad Redis URL: ") {
				t.Fatalf("the error is %q", err)
			}
			// A password of the right form is nowhere in an error.
			const secret = "s3cr3t-0f-m1ne"
			if scheme, rest, ok := strings.Cut(text, "://"); ok && !strings.Contains(scheme, secret) && !strings.Contains(rest, secret) {
				_, err := parseRedisURL(scheme + "://user:" + secret + "@" + rest)
				if err != nil && strings.Contains(err.Error(), secret) {
					t.Fatalf("the password is in %q", err)
				}
			}
			return
		}
		if len(u.addrs) == 0 || u.socketTimeout <= 0 || u.connectTimeout <= 0 || u.healthCheck < 0 || u.protocol != 2 && u.protocol != 3 {
			t.Fatalf("taken as %+v", u)
		}
		if u.sentinel != (u.master != "") || u.sharded && (u.sentinel || u.network == "unix") {
			t.Fatalf("taken as %+v", u)
		}
		for _, addr := range u.addrs {
			if u.network == "unix" {
				continue
			}
			if _, port, err := net.SplitHostPort(addr); err == nil && port == "" {
				t.Fatalf("no port in %q", addr)
			}
		}
		std, err := url.Parse(text)
		if err != nil || std.User == nil || strings.ContainsAny(std.RawQuery, "%+") {
			return
		}
		if name := std.User.Username(); name != "" && name != u.username {
			t.Fatalf("the user is %q, net/url has %q", u.username, name)
		}
		if password, _ := std.User.Password(); password != "" && password != u.password {
			t.Fatalf("the password is %q, net/url has %q", u.password, password)
		}
		if host := std.Hostname(); len(u.addrs) == 1 && host != "" && u.network == "tcp" && !strings.Contains(host, "%") {
			if got, _, err := net.SplitHostPort(u.addrs[0]); err == nil && got != host {
				t.Fatalf("the host is %q, net/url has %q", got, host)
			}
		}
	})
}
