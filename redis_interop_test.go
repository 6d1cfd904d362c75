//go:build unix

package autobus

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
)

func init() {
	encryptedOn["redis"] = func(t testing.TB) string { return newServer(t).url("", "") }
}

// A URL means to Python's redis package what it means here, and each gets the
// other's bytes from the channel as they were sent.
func TestInteropRedisPackage(t *testing.T) {
	certs := newCertificates(t)
	withPassword := newServer(t, "--requirepass", secret)
	withPassword.login = []string{secret}
	withUser := newServer(t, "--user", "device", "on", ">"+secret, "~*", "&*", "+@all")
	plainSecret := newServer(t, "--requirepass", "sw0rdf1sh")
	plainSecret.login = []string{"sw0rdf1sh"}
	clientTLS := newTLSServer(t, certs, "yes")
	plain, unix := newServer(t), newUnixServer(t)
	python := newRedisPython(t)
	for _, c := range []struct{ name, url string }{
		{"plain", plain.url("", "")},
		{"database", "redis://" + plain.addr + "/3"},
		{"RESP2", plain.url("", "protocol=2")},
		{"RESP3", plain.url("", "protocol=3")},
		{"options", plain.url("", "socket_timeout=5&socket_connect_timeout=2.5&health_check_interval=10&client_name=me")},
		{"Unix", unix.url("", "")},
		{"password", withPassword.url(":"+secretInURL, "")},
		{"password option", withPassword.url("", "password="+secretInURL)},
		{"plain password", plainSecret.url(":sw0rdf1sh", "")},
		{"user", withUser.url("device:"+secretInURL, "protocol=3")},
		{"user option", withUser.url("", "username=device&password="+secretInURL)},
		{"TLS", clientTLS.url("", "ssl_cert_reqs=required&ssl_check_hostname=true&ssl_ca_certs="+certs.ca+"&ssl_certfile="+certs.client+"&ssl_keyfile="+certs.clientKey)},
		{"TLS unverified", clientTLS.url("", "ssl_cert_reqs=none&ssl_certfile="+certs.client+"&ssl_keyfile="+certs.clientKey)},
	} {
		t.Run(c.name, func(t *testing.T) {
			python.t = t
			b := startBus(t, c.url, "é x")
			// A second bus sees that what a type's own subscription gets is the same.
			typed := &Bus{URL: c.url, Namespace: "é x", Logger: noWarnings{t}}
			raws := make(chan string, 10)
			typed.SubscribeRaw("Tick", func(_ context.Context, r Raw) error { raws <- string(r.JSON); return nil })
			start(t, typed)
			channel := "autobus:é x:Tick"
			python.command(fmt.Sprintf(`{"do":"start","url":%s,"channel":%s}`, quote(c.url), quote(channel)))
			python.await("started")

			for _, payload := range []string{`{"type": "Tick", "by": 1, "n": 2}`, `{"n":NaN,"type":"Tick"}`, `{"type": "Tick", "text": "\ud83d\ude00 \u00e9"}`, `{"type":"Tick","big":"` + strings.Repeat("é", 10_000) + `"}`} {
				python.command(fmt.Sprintf(`{"do":"publish","channel":%s,"payload":%s}`, quote(channel), quote(payload)))
				if got := python.await("published")["to"]; !reflect.DeepEqual(got, pyInt("3")) {
					t.Errorf("a message to %v connections, want 3", got)
				}
				if got := python.await("message")["payload"]; got != payload {
					t.Errorf("Python got %.100v, want %.100s", got, payload)
				}
				if got := await(t, b.heard); string(got.JSON) != payload {
					t.Errorf("Go got %.100s, want %.100s", got.JSON, payload)
				}
				if got := await(t, raws); got != payload {
					t.Errorf("Go got %.100s, want %.100s", got, payload)
				}
			}
			publish(t, b.Bus, tick{3, 4})
			line := python.await("message")
			if want, err := Marshal(tick{3, 4}); err != nil || line["payload"] != string(want) || line["channel"] != channel {
				t.Errorf("Python got %v, want %s", line, want)
			}
			await(t, raws)
			b.next()
			b.nothingElse()
		})
	}
	python.t = t
	python.stop()
}

func newRedisPython(t *testing.T) *peer {
	t.Helper()
	python := os.Getenv("AUTOBUS_PYTHON")
	if python == "" {
		missing(t, "AUTOBUS_PYTHON names no Python with autobus 1.0.0; script/test installs one")
	}
	return newPeer(t, exec.Command(python, "testdata/redis_peer.py"))
}
