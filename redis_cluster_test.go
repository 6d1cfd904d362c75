//go:build unix

package autobus

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Redis with Sentinel, and Redis Cluster, as real processes.

// newSentinels starts three sentinels that watch a master at an address, and
// waits until they know one another and a replica. They find it dead one after
// another: if all did at once, each would vote for itself, again and again.
func newSentinels(t *testing.T, master string) (all []*redisServer, url string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(master)
	var addrs []string
	for i := range 3 {
		s := preparedServer(t)
		_, own, _ := net.SplitHostPort(s.addr)
		conf := filepath.Join(s.dir, "sentinel.conf")
		text := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\nlogfile redis.log\nsentinel monitor one %s %s 1\n"+
			"sentinel down-after-milliseconds one %d\nsentinel failover-timeout one 2000\n", own, s.dir, host, port, 500+1000*i)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.args = []string{conf, "--sentinel"}
		s.start()
		all, addrs = append(all, s), append(addrs, s.addr)
	}
	for _, s := range all {
		s.answers()
		until(t, "the sentinels' view", func() bool {
			master := fields(s.do("SENTINEL", "MASTER", "one"))
			return master["num-other-sentinels"] == "2" && master["num-slaves"] == "1" && master["flags"] == "master"
		})
		// And that the replica can be promoted.
		until(t, "the replica", func() bool {
			replica := fields(s.do("SENTINEL", "REPLICAS", "one").([]any)[0])
			return replica["flags"] == "slave" && replica["master-link-status"] == "ok"
		})
	}
	return all, "redis+sentinel://" + strings.Join(addrs, ",") + "/one"
}

// fields returns what a list of names and values says.
func fields(reply any) map[string]any {
	all := make(map[string]any)
	list, _ := reply.([]any)
	for i := 0; i+1 < len(list); i += 2 {
		all[list[i].(string)] = list[i+1]
	}
	return all
}

// masterIs waits until a sentinel says that the master is at an address, and
// it is one.
func masterIs(t *testing.T, sentinels []*redisServer, s *redisServer, addr string) time.Time {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	until(t, "the master "+addr, func() bool {
		for _, sentinel := range sentinels {
			if sentinel.process == nil {
				continue
			}
			if slices.Equal(sentinel.do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "one").([]any), []any{host, port}) &&
				s.do("ROLE").([]any)[0] == "master" {
				return true
			}
		}
		return false
	})
	return time.Now()
}

func newReplica(t *testing.T, of string) *redisServer {
	t.Helper()
	host, port, _ := net.SplitHostPort(of)
	s := newServer(t, "--replicaof", host, port, "--repl-diskless-sync-delay", "0")
	until(t, "the replica's link", func() bool { return s.do("ROLE").([]any)[3] == "connected" })
	return s
}

func TestServerSentinel(t *testing.T) {
	noLeaks(t)
	first := newServer(t, "--repl-diskless-sync-delay", "0")
	second := newReplica(t, first.addr)
	sentinels, url := newSentinels(t, first.addr)
	r := startRig(t, first, url)
	if n := second.subscribers("Tick"); n != 0 {
		t.Errorf("%d subscriptions at the replica", n)
	}

	sentinels[0].kill() // the others are enough
	first.kill()
	r.during()
	r.server = second
	r.back(masterIs(t, sentinels, second, second.addr))

	// And when the sentinels are gone too, a connection that breaks waits for
	// one of them. Alone it can elect no master, so it has to know already.
	masterIs(t, sentinels[2:], second, second.addr)
	for _, s := range sentinels {
		s.kill()
	}
	second.do("CLIENT", "KILL", "TYPE", "pubsub")
	second.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	r.during()
	sentinels[2].start()
	r.back(sentinels[2].answers())
}

// An old master that only the sentinels have lost still takes what is
// published, and nobody hears it: the bus has to leave by itself.
func TestServerSentinelSilent(t *testing.T) {
	noLeaks(t)
	first := newServer(t, "--repl-diskless-sync-delay", "0")
	p := newProxy(t, first)
	p.onlyFor("sentinel-") // the name that sentinels give their connections
	second := newReplica(t, p.addr)
	sentinels, url := newSentinels(t, p.addr)
	r := startRig(t, first, url)
	p.set(dropping, dropping)
	r.server = second
	r.back(masterIs(t, sentinels, second, second.addr))
	p.set(fine, fine)
	r.back(time.Now())
}

// The sentinels may come later too.
func TestServerSentinelComesLater(t *testing.T) {
	noLeaks(t)
	log := &guardedLog{t: t}
	b := &Bus{URL: "redis+sentinel://127.0.0.1:" + freeTCPPort(t) + "/one", Logger: log}
	ctx, cancel := context.WithTimeout(background, 200*time.Millisecond)
	defer cancel()
	if err := b.Start(ctx); err == nil || !strings.Contains(told(t, err), "refused") {
		t.Errorf("Start: %v", err)
	}
}

// newCluster starts six servers that are a cluster: three masters, each with a
// replica.
func newCluster(t *testing.T) []*redisServer {
	t.Helper()
	cli := redisProgram(t, "redis-cli")
	args := []string{"--cluster", "create"}
	var all []*redisServer
	for range 6 {
		s := preparedServer(t, "--cluster-enabled", "yes", "--cluster-port", freeTCPPort(t), "--cluster-node-timeout", "1000",
			"--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0")
		s.start()
		all, args = append(all, s), append(args, s.addr)
	}
	for _, s := range all {
		s.answers()
	}
	out, err := exec.Command(cli, append(args, "--cluster-replicas", "1", "--cluster-yes")...).CombinedOutput()
	if err != nil {
		t.Fatalf("redis-cli: %v\n%s", err, out)
	}
	for _, s := range all {
		until(t, "the cluster", func() bool {
			info := s.do("CLUSTER", "INFO").(string)
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:6")
		})
	}
	return all
}

func TestServerCluster(t *testing.T) {
	noLeaks(t)
	nodes := newCluster(t)
	live := func() *redisServer {
		for _, n := range slices.Backward(nodes) {
			if n.process != nil {
				return n
			}
		}
		return nil
	}
	t.Run("plain", func(t *testing.T) {
		// Through any node, and when it dies through another.
		noLeaks(t)
		r := startRig(t, nodes[5], "redis://"+nodes[0].addr+","+nodes[1].addr)
		nodes[0].signal(syscall.SIGSTOP) // that another takes its place is none of this test's business
		nodes[0].kill()
		r.back(time.Now())
		nodes[0].run()
	})
	t.Run("sharded", func(t *testing.T) {
		noLeaks(t)
		until(t, "the cluster", func() bool {
			return strings.Contains(live().do("CLUSTER", "INFO").(string), "cluster_state:ok")
		})
		url := "redis://" + nodes[5].addr + "," + nodes[1].addr + "?sharded=1"
		b := &Bus{URL: url, Logger: &guardedLog{t: t}}
		const types = 50
		var mu sync.Mutex
		heard := map[string][]int{}
		for i := range types {
			b.SubscribeRaw(fmt.Sprint("Type", i), func(_ context.Context, r Raw) error {
				mu.Lock()
				defer mu.Unlock()
				heard[r.Name] = append(heard[r.Name], numberIn(t, r.JSON))
				return nil
			})
		}
		start(t, b)
		n := 0
		// all publishes an event of every type, again and again until all come,
		// and then ten of each that must.
		all := func(what string, within time.Duration) {
			t.Helper()
			begin, first := time.Now(), n
			until(t, what, func() bool {
				for i := range types {
					publish(t, b, &numbered{fmt.Sprint("Type", i), n})
				}
				n++
				mu.Lock()
				defer mu.Unlock()
				for i := range types {
					if h := heard[fmt.Sprint("Type", i)]; len(h) == 0 || h[len(h)-1] < first {
						return false
					}
				}
				return true
			})
			if took := time.Since(begin); took > within {
				t.Errorf("%s: back after %v", what, took)
			} else {
				t.Logf("%s: back after %v", what, took)
			}
			first = n
			for range 10 {
				for i := range types {
					publish(t, b, &numbered{fmt.Sprint("Type", i), n})
				}
				n++
			}
			if err := b.Flush(soon(t)); err != nil {
				t.Fatal(told(t, err))
			}
			until(t, what+", all of what followed", func() bool {
				mu.Lock()
				defer mu.Unlock()
				for i := range types {
					h := heard[fmt.Sprint("Type", i)]
					if len(h) == 0 || h[len(h)-1] < n-1 {
						return false
					}
				}
				return true
			})
			if s := b.Stats(); s.Published != s.Sent+s.Unsent || s.Backlog != 0 {
				t.Errorf("%s: %+v", what, s)
			}
			mu.Lock()
			defer mu.Unlock()
			for i := range types {
				h := heard[fmt.Sprint("Type", i)]
				for j := 1; j < len(h); j++ {
					if h[j] <= h[j-1] || h[j] > first && h[j] != h[j-1]+1 {
						t.Errorf("%s: Type%d: event %d came after %d", what, i, h[j], h[j-1])
					}
				}
				heard[fmt.Sprint("Type", i)] = h[len(h)-1:]
			}
		}
		all("start", patience)
		shards := 0
		for _, node := range nodes {
			shards += len(node.do("PUBSUB", "SHARDCHANNELS").([]any))
			if channels := node.do("PUBSUB", "CHANNELS").([]any); len(channels) > 0 {
				t.Errorf("subscribed without sharding: %v", channels)
			}
		}
		if shards != types {
			t.Errorf("%d subscriptions of shards, want %d", shards, types)
		}

		// The slot of a channel moves to another master.
		slot := fmt.Sprint(live().do("CLUSTER", "KEYSLOT", "autobus::Type7"))
		owner, other := masters(t, live(), slot)
		byID := map[string]*redisServer{}
		for _, node := range nodes {
			byID[node.do("CLUSTER", "MYID").(string)] = node
		}
		byID[other].do("CLUSTER", "SETSLOT", slot, "IMPORTING", owner)
		byID[owner].do("CLUSTER", "SETSLOT", slot, "MIGRATING", other)
		byID[other].do("CLUSTER", "SETSLOT", slot, "NODE", other)
		byID[owner].do("CLUSTER", "SETSLOT", slot, "NODE", other)
		all("a slot that moved", backWithin)

		// A master dies, and its replica takes its place.
		byID[owner].kill()
		until(t, "the failover", func() bool {
			now, _ := masters(t, byID[other], fmt.Sprint(live().do("CLUSTER", "KEYSLOT", "autobus::Type7")))
			return now == other && !strings.Contains(liveMasters(byID[other]), owner) &&
				strings.Contains(byID[other].do("CLUSTER", "INFO").(string), "cluster_slots_ok:16384")
		})
		all("a master that died", backWithin)
	})
}

// masters returns the ids of the master that has a slot, and of another.
func masters(t *testing.T, s *redisServer, slot string) (owner, other string) {
	t.Helper()
	for _, r := range s.do("CLUSTER", "SLOTS").([]any) {
		r := r.([]any)
		id := r[2].([]any)[2].(string)
		var n int
		fmt.Sscan(slot, &n)
		if r[0].(int) <= n && n <= r[1].(int) {
			owner = id
		} else {
			other = id
		}
	}
	if owner == "" {
		t.Fatalf("nobody has slot %s", slot)
	}
	return owner, other
}

// liveMasters returns the lines of CLUSTER NODES about masters that live.
func liveMasters(s *redisServer) string {
	var all []string
	for line := range strings.Lines(s.do("CLUSTER", "NODES").(string)) {
		if strings.Contains(line, "master") && !strings.Contains(line, "fail") {
			all = append(all, line)
		}
	}
	return strings.Join(all, "")
}
