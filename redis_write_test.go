package autobus

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A takingConn takes so many bytes and then breaks. It is no more than what a
// publisher writes to.
type takingConn struct {
	net.Conn        // nil: nothing else is called
	room     int    // bytes that it takes
	taken    []byte // of these
	wrote    func() // if not nil, is called by each Write that takes all
	closed   func() // if not nil, is called by the first Close

	mu       sync.Mutex // guards deadline
	deadline time.Time  // of writes
}

func (c *takingConn) Write(b []byte) (n int, err error) {
	c.mu.Lock()
	late := !c.deadline.IsZero() && c.deadline.Before(time.Now())
	c.mu.Unlock()
	if late {
		return 0, os.ErrDeadlineExceeded
	}
	if n = min(len(b), c.room); n < len(b) {
		err = errors.New("broken")
	}
	c.taken = append(c.taken, b[:n]...)
	c.room -= n
	if c.wrote != nil && err == nil {
		c.wrote()
	}
	return n, err
}

func (c *takingConn) Close() error {
	if c.closed != nil {
		c.closed()
		c.closed = nil
	}
	return nil
}

func (c *takingConn) SetReadDeadline(time.Time) error { return nil }
func (c *takingConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return nil
}

// use has p write to c, as serve does.
func (p *publisher) use(c *takingConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conn = &redisConn{wire: c, raw: c, timeout: time.Hour}
	p.change.tell()
}

// Wherever a connection breaks in a batch, what went into it whole is not sent
// again, and everything from the message on that it has in part goes to the
// next one.
func TestRedisPartialWrite(t *testing.T) {
	var messages []Message
	var ends []int // of the messages on the wire
	var wire []byte
	for i, size := range []int{1, 10, 0, 400 << 10, 3, 100} { // one is over a chunk of write
		m := Message{"autobus::A", []byte(strings.Repeat(strconv.Itoa(i), size))}
		messages, wire = append(messages, m), appendPublish(wire, publishVerb, &m)
		ends = append(ends, len(wire))
	}
	room := []int{redisWriteChunk - 1, redisWriteChunk, redisWriteChunk + 1, len(wire)}
	for n := range ends[1] { // every byte of two messages
		room = append(room, n)
	}
	for _, end := range ends {
		room = append(room, end-3, end-1, end)
	}
	for _, room := range room {
		p := new(publisher)
		first, second := &takingConn{room: room}, &takingConn{room: len(wire)}
		first.closed = func() { p.use(second) }
		p.use(first)
		if lost, err := p.Send(t.Context(), messages); lost != 0 || err != nil {
			t.Fatal(lost, err)
		}
		whole := 0 // where the last whole message ends in the first
		if i, found := slices.BinarySearch(ends, room); found {
			whole = room
		} else if i > 0 {
			whole = ends[i-1]
		}
		if string(second.taken) != string(wire[whole:]) {
			t.Fatalf("cut after %d bytes: %d went into the next connection, want %d", room, len(second.taken), len(wire)-whole)
		}
		if p.written != uint64(len(messages)) {
			t.Fatalf("cut after %d bytes: %d messages count as written", room, p.written)
		}
	}
}

// A context that ends between two chunks ends the write too, also where the
// next one would wait for socket_timeout.
func TestRedisWriteAborted(t *testing.T) {
	p := new(publisher)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := &takingConn{room: 1 << 20}
	c.wrote = func() {
		c.wrote = nil
		cancel()
		for done := false; !done; runtime.Gosched() { // until abort has been
			c.mu.Lock()
			done = c.deadline.Equal(past)
			c.mu.Unlock()
		}
	}
	p.use(c)
	lost, err := p.Send(ctx, []Message{{"autobus::A", make([]byte, 2*redisWriteChunk)}})
	if lost != 1 || !errors.Is(err, context.Canceled) {
		t.Errorf("Send: %d lost, %v", lost, err)
	}
	if len(c.taken) != redisWriteChunk {
		t.Errorf("%d bytes were written", len(c.taken))
	}
}
