//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"

	"github.com/autobus-go/autobus"
	"github.com/autobus-go/autobus/bench/load"
	"github.com/gomodule/redigo/redis"
	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
)

// pipeline is how many messages those publish at once that have to be told.
const pipeline = 100

// A contender is a way to publish, and to hear.
type contender struct {
	name      string
	publisher func(addr string, size int) (publisher, error)
	subscribe func(addr string, heard func(at int64)) error // returns once subscribed
}

type publisher interface {
	burst(n int) error  // publishes n events, and waits for the server's answers
	one(at int64) error // publishes one now
}

var contenders = []contender{
	{"autobus", newOurs, hearOurs},
	{"raw", newRaw, hearRaw},
	{"rueidis DoMulti", newRueidis, hearRueidis},
	{"rueidis 64 goroutines", newRueidis64, hearRueidis},
	{"go-redis", newGoRedis, hearGoRedis},
	{"redigo", newRedigo, hearRedigo},
}

var background = context.Background()

type ours struct {
	bus   *autobus.Bus
	event load.Bench
}

func newOurs(addr string, size int) (publisher, error) {
	o := &ours{&autobus.Bus{URL: "redis://" + addr}, load.New(size)}
	return o, o.bus.Start(background)
}

func (o *ours) burst(n int) error {
	for range n {
		for {
			err := o.bus.Publish(&o.event)
			if err == nil {
				break
			}
			if !errors.Is(err, autobus.ErrBacklog) {
				return err
			}
			if err := o.bus.Flush(background); err != nil {
				return err
			}
		}
	}
	return load.Sent(o.bus)
}

func (o *ours) one(at int64) error {
	o.event.At = at
	return o.bus.Publish(&o.event)
}

func hearOurs(addr string, heard func(at int64)) error {
	bus := &autobus.Bus{URL: "redis://" + addr}
	autobus.SubscribeOn(bus, func(_ context.Context, e load.Bench) error {
		heard(e.At)
		return nil
	}, autobus.Queue(65536, autobus.Block))
	return bus.Start(background)
}

// raw copies ready commands into a buffer, and counts the lines that come back.
type raw struct {
	conn     net.Conn
	payload  []byte
	replies  chan int
	buffered []byte
}

func newRaw(addr string, size int) (publisher, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	r := &raw{conn: conn, payload: load.Payload(size), replies: make(chan int, 1024)}
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				close(r.replies)
				return
			}
			r.replies <- bytes.Count(buf[:n], []byte{'\n'})
		}
	}()
	return r, nil
}

func (r *raw) add() {
	b := r.buffered
	b = append(b, "*3\r\n$7\r\nPUBLISH\r\n$"...)
	b = strconv.AppendInt(b, int64(len(channel)), 10)
	b = append(b, "\r\n"+channel+"\r\n$"...)
	b = strconv.AppendInt(b, int64(len(r.payload)), 10)
	b = append(b, "\r\n"...)
	b = append(b, r.payload...)
	r.buffered = append(b, "\r\n"...)
}

func (r *raw) flush() error {
	_, err := r.conn.Write(r.buffered)
	r.buffered = r.buffered[:0]
	return err
}

func (r *raw) burst(n int) error {
	answered := make(chan error)
	go func() {
		for left := n; left > 0; {
			count, ok := <-r.replies
			if !ok {
				answered <- io.ErrUnexpectedEOF
				return
			}
			left -= count
		}
		answered <- nil
	}()
	for range n {
		if r.add(); len(r.buffered) > 63<<10 {
			if err := r.flush(); err != nil {
				return err
			}
		}
	}
	if err := r.flush(); err != nil {
		return err
	}
	return <-answered
}

func (r *raw) one(at int64) error {
	load.Stamp(r.payload, at)
	r.add()
	err := r.flush()
	<-r.replies
	return err
}

func hearRaw(addr string, heard func(at int64)) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Fprintf(conn, "SUBSCRIBE %s\r\n", channel)
	in := bufio.NewReaderSize(conn, 64<<10)
	for range 6 { // *3 $9 subscribe $14 autobus::Bench :1
		if _, err := in.ReadSlice('\n'); err != nil {
			return err
		}
	}
	go func() {
		for {
			var line []byte
			for range 6 { // *3 $7 message $14 autobus::Bench $100
				line, err = in.ReadSlice('\n')
				load.Check(err)
			}
			size := 0
			for _, c := range line[1 : len(line)-2] {
				size = 10*size + int(c-'0')
			}
			payload, err := in.Peek(size + 2)
			load.Check(err)
			heard(load.Stamped(payload))
			in.Discard(size + 2)
		}
	}()
	return nil
}

type goRedis struct {
	c       *goredis.Client
	payload []byte
}

func newGoRedis(addr string, size int) (publisher, error) {
	return &goRedis{goredis.NewClient(&goredis.Options{Addr: addr}), load.Payload(size)}, nil
}

func (g *goRedis) burst(n int) error {
	for n > 0 {
		pipe := g.c.Pipeline()
		for range min(n, pipeline) {
			pipe.Publish(background, channel, g.payload)
		}
		n -= pipe.Len()
		if _, err := pipe.Exec(background); err != nil {
			return err
		}
	}
	return nil
}

func (g *goRedis) one(at int64) error {
	load.Stamp(g.payload, at)
	return g.c.Publish(background, channel, g.payload).Err()
}

func hearGoRedis(addr string, heard func(at int64)) error {
	c := goredis.NewClient(&goredis.Options{Addr: addr})
	sub := c.Subscribe(background, channel)
	if _, err := sub.Receive(background); err != nil {
		return err
	}
	go func() {
		for m := range sub.Channel(goredis.WithChannelSize(65536)) {
			heard(load.Stamped([]byte(m.Payload)))
		}
	}()
	return nil
}

type ruei struct {
	c       rueidis.Client
	payload string
	size    int
	many    bool
}

func newRueidis(addr string, size int) (publisher, error) {
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true})
	return &ruei{c, string(load.Payload(size)), size, false}, err
}

func newRueidis64(addr string, size int) (publisher, error) {
	p, err := newRueidis(addr, size)
	if err == nil {
		p.(*ruei).many = true
	}
	return p, err
}

func (r *ruei) burst(n int) error {
	if r.many {
		const goroutines = 64
		var wg sync.WaitGroup
		var failed error
		var mu sync.Mutex // guards failed
		for i := range goroutines {
			wg.Go(func() {
				for range (n + goroutines - 1 - i) / goroutines {
					if err := r.c.Do(background, r.c.B().Publish().Channel(channel).Message(r.payload).Build()).Error(); err != nil {
						mu.Lock()
						failed = err
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		return failed
	}
	cmds := make([]rueidis.Completed, 0, pipeline)
	for n > 0 {
		cmds = cmds[:0]
		for range min(n, pipeline) {
			cmds = append(cmds, r.c.B().Publish().Channel(channel).Message(r.payload).Build())
		}
		n -= len(cmds)
		for _, reply := range r.c.DoMulti(background, cmds...) {
			if err := reply.Error(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *ruei) one(at int64) error {
	payload := load.Payload(r.size)
	load.Stamp(payload, at)
	return r.c.Do(background, r.c.B().Publish().Channel(channel).Message(rueidis.BinaryString(payload)).Build()).Error()
}

func hearRueidis(addr string, heard func(at int64)) error {
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true})
	if err != nil {
		return err
	}
	subscribed := make(chan struct{})
	ctx := rueidis.WithOnSubscriptionHook(background, func(rueidis.PubSubSubscription) { close(subscribed) })
	go func() {
		load.Check(c.Receive(ctx, c.B().Subscribe().Channel(channel).Build(), func(m rueidis.PubSubMessage) {
			heard(load.Stamped([]byte(m.Message)))
		}))
	}()
	<-subscribed
	return nil
}

type redi struct {
	c       redis.Conn
	payload []byte
}

func newRedigo(addr string, size int) (publisher, error) {
	c, err := redis.Dial("tcp", addr)
	return &redi{c, load.Payload(size)}, err
}

func (r *redi) burst(n int) error {
	for n > 0 {
		now := min(n, pipeline)
		for range now {
			if err := r.c.Send("PUBLISH", channel, r.payload); err != nil {
				return err
			}
		}
		if err := r.c.Flush(); err != nil {
			return err
		}
		for range now {
			if _, err := r.c.Receive(); err != nil {
				return err
			}
		}
		n -= now
	}
	return nil
}

func (r *redi) one(at int64) error {
	load.Stamp(r.payload, at)
	_, err := r.c.Do("PUBLISH", channel, r.payload)
	return err
}

func hearRedigo(addr string, heard func(at int64)) error {
	c, err := redis.Dial("tcp", addr)
	if err != nil {
		return err
	}
	sub := redis.PubSubConn{Conn: c}
	if err := sub.Subscribe(channel); err != nil {
		return err
	}
	if err, failed := sub.Receive().(error); failed {
		return err
	}
	go func() {
		for {
			switch m := sub.Receive().(type) {
			case redis.Message:
				heard(load.Stamped(m.Data))
			case error:
				load.Check(m)
			}
		}
	}()
	return nil
}
