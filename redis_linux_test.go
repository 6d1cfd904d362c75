package autobus

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// The server's packets vanish on their way, and nobody closes a connection.
func TestServerHalfOpen(t *testing.T) {
	needHosts(t)
	redisProgram(t, "redis-server")
	near, far := newHost(t), newHost(t)
	cable(t, near, "eth0", far, "eth0", 9)
	const addr = "10.0.9.2:6379"
	server := exec.Command("ip", "netns", "exec", far, "redis-server", "--bind", "10.0.9.2", "--port", "6379", "--save", "", "--protected-mode", "no", "--dir", t.TempDir())
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
	})
	peerOn := func(host string) *peer {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("ip", "netns", "exec", host, self)
		cmd.Env = append(os.Environ(), "AUTOBUS_TEST_ROLE=peer")
		p := newPeer(t, cmd)
		p.subscribe("open", "Near", "Far")
		p.start("redis://" + addr + "?health_check_interval=0.3&socket_timeout=0.5&socket_connect_timeout=0.5")
		return p
	}
	a, b := peerOn(near), peerOn(far)
	n := 0
	send := func(p *peer, name string) {
		p.publish("open", name, fmt.Sprintf(`{"n":%d}`, n))
		n++
	}
	fromNear := map[string]int{} // what b has heard
	hear := func(p *peer, name string) string {
		t.Helper()
		for {
			_, got, fields := p.next()
			text := fmt.Sprint(fields.(map[string]any)["n"])
			if p == b && got == "Near" {
				fromNear[text]++
			}
			if got == name {
				return text
			}
		}
	}
	send(a, "Near")
	hear(b, "Near")
	send(b, "Far")
	hear(a, "Far")

	on(t, far, "route add blackhole 10.0.9.1/32")
	for range 20 {
		send(a, "Near")
	}
	until(t, "the end of the connections", func() bool {
		out, err := exec.Command("ip", "netns", "exec", near, "cat", "/proc/net/tcp").Output()
		if err != nil {
			t.Fatal(err)
		}
		return !strings.Contains(string(out), " 0209000A:18EB 01 ") // established with 10.0.9.2:6379
	})
	for range 20 {
		send(a, "Near")
	}
	on(t, far, "route del blackhole 10.0.9.1/32")
	since := time.Now()
	send(a, "Near")
	for last := fmt.Sprint(n - 1); hear(b, "Near") != last; {
	}
	// And the other way: a may not be back yet, so again and again.
	heard := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			b.publish("open", "Far", `{"n":-1}`)
			select {
			case <-heard:
				return
			case <-tick.C:
			}
		}
	})
	hear(a, "Far")
	close(heard)
	wg.Wait()
	if took := time.Since(since); took > backWithin {
		t.Errorf("back %v after the network", took)
	} else {
		t.Logf("back after %v", took)
	}
	a.command(`{"do":"stats"}`)
	stats := a.await("stats")["stats"].(map[string]any)
	count := func(name string) (n int) {
		fmt.Sscan(fmt.Sprint(stats[name]), &n)
		return n
	}
	if count("Published") != 42 || count("Sent")+count("Unsent") != 42 || count("Sent") > len(fromNear) || count("Reconnects") < 2 {
		t.Errorf("%d arrived: %v", len(fromNear), stats)
	}
	t.Logf("of 42 events %d arrived, %d are said to be sent", len(fromNear), count("Sent"))
	for n, times := range fromNear {
		if times != 1 {
			t.Errorf("event %s came %d times", n, times)
		}
	}
	for _, p := range []*peer{a, b} {
		p.command(`{"do":"stop"}`)
		p.await("stopped")
	}
}
