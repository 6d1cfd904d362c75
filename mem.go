package autobus

import (
	"context"
	"strings"
	"sync"
)

// hubs has the started mem transports of each name.
var hubs struct {
	mu     sync.RWMutex // guards byName; the slices in it are never changed in place
	byName map[string][]*mem
}

// mem is the transport of mem://name: the buses of this process that name it.
// The one that sends calls the others' receive itself.
type mem struct {
	name    string
	channel []byte // of the message that Send is at

	mu       sync.RWMutex    // guards channels
	channels map[string]bool // "autobus:ns:" stands for all types of it

	gate    sync.RWMutex // held for reading during receive
	receive func(ctx context.Context, channel, payload []byte)
}

func newMem(url string) (*mem, error) {
	_, name, _ := strings.Cut(url, "://")
	if name == "" {
		return nil, fail("URL "+quoted(url)+": want mem://name, with any name", nil)
	}
	return &mem{name: name}, nil
}

func (t *mem) Start(_ context.Context, receive func(context.Context, []byte, []byte), _ Logger) error {
	t.gate.Lock()
	t.receive = receive
	t.gate.Unlock()
	hubs.mu.Lock()
	defer hubs.mu.Unlock()
	if hubs.byName == nil {
		hubs.byName = make(map[string][]*mem)
	}
	others := hubs.byName[t.name]
	hubs.byName[t.name] = append(others[:len(others):len(others)], t)
	return nil
}

func (t *mem) Subscribe(channel string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.channels == nil {
		t.channels = make(map[string]bool)
	}
	t.channels[memKey(channel)] = true
}

func (t *mem) Unsubscribe(channel string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.channels, memKey(channel))
}

func memKey(channel string) string {
	if strings.HasSuffix(channel, ":*") {
		return channel[:len(channel)-1]
	}
	return channel
}

func (t *mem) Size(_ string, payload []byte) (size, limit int) { return len(payload), maxMessage }

func (t *mem) Send(ctx context.Context, messages []Message) (lost int, err error) {
	hubs.mu.RLock()
	members := hubs.byName[t.name]
	hubs.mu.RUnlock()
	for i, m := range messages {
		if err := ctx.Err(); err != nil {
			return len(messages) - i, err
		}
		t.channel = append(t.channel[:0], m.Channel...)
		for _, member := range members {
			member.deliver(ctx, m.Channel, t.channel, m.Payload)
		}
	}
	return 0, nil
}

func (t *mem) deliver(ctx context.Context, name string, channel, payload []byte) {
	t.gate.RLock()
	defer t.gate.RUnlock()
	t.mu.RLock()
	wanted := t.channels[name] || t.channels[name[:strings.LastIndexByte(name, ':')+1]]
	t.mu.RUnlock()
	if wanted && t.receive != nil {
		t.receive(ctx, channel, payload)
	}
}

func (t *mem) Flush(context.Context) error { return nil }

func (t *mem) Close() error {
	hubs.mu.Lock()
	var left []*mem
	for _, member := range hubs.byName[t.name] {
		if member != t {
			left = append(left, member)
		}
	}
	if hubs.byName[t.name] = left; left == nil {
		delete(hubs.byName, t.name)
	}
	hubs.mu.Unlock()
	t.gate.Lock()
	t.receive = nil
	t.gate.Unlock()
	t.mu.Lock()
	t.channels = nil
	t.mu.Unlock()
	return nil
}
