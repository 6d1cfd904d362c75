//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/autobus-go/autobus"
	"github.com/autobus-go/autobus/bench/load"
)

// A contender is a way to publish, and to hear.
type contender struct {
	name    string
	command []string // of its program; none: this one's
	publish func(to netip.AddrPort, ttl int) (publisher, error)
	hear    func(to netip.AddrPort, ttl int, heard func(at int64)) error // returns once subscribed
}

// A publisher publishes an event with a time in it, 19 digits.
type publisher interface {
	publish(at int64) error
	flush() error
}

var background = context.Background()

type ours struct {
	bus   *autobus.Bus
	event load.Bench
}

func busURL(to netip.AddrPort, ttl int) string { return fmt.Sprintf("udp://%s?ttl=%d", to, ttl) }

func newOurs(to netip.AddrPort, ttl int) (publisher, error) {
	o := &ours{&autobus.Bus{URL: busURL(to, ttl)}, load.New(size)}
	return o, o.bus.Start(background)
}

func (o *ours) publish(at int64) error {
	o.event.At = at
	for {
		err := o.bus.Publish(&o.event)
		if !errors.Is(err, autobus.ErrBacklog) {
			return err
		}
		if err := o.bus.Flush(background); err != nil {
			return err
		}
	}
}

func (o *ours) flush() error {
	return load.Sent(o.bus)
}

func hearOurs(to netip.AddrPort, ttl int, heard func(at int64)) error {
	bus := &autobus.Bus{URL: busURL(to, ttl), Logger: slog.New(slog.DiscardHandler)} // losses are looked for
	autobus.SubscribeOn(bus, func(_ context.Context, e load.Bench) error {
		heard(e.At)
		return nil
	})
	return bus.Start(background)
}

// bare is a loop of WriteToUDPAddrPort, with the payload alone.
type bare struct {
	conn    *net.UDPConn
	to      netip.AddrPort
	payload []byte
}

func newBare(to netip.AddrPort, ttl int) (publisher, error) {
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var setErr error
	if err := raw.Control(func(fd uintptr) {
		setErr = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_MULTICAST_TTL, ttl)
	}); err != nil {
		return nil, err
	}
	return &bare{conn, to, load.Payload(size)}, setErr
}

func (b *bare) publish(at int64) error {
	load.Stamp(b.payload, at)
	_, err := b.conn.WriteToUDPAddrPort(b.payload, b.to)
	return err
}

func (b *bare) flush() error { return nil }

func hearBare(to netip.AddrPort, _ int, heard func(at int64)) error {
	conn, err := net.ListenMulticastUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return err
	}
	if err := conn.SetReadBuffer(4 << 20); err != nil {
		return err
	}
	var once sync.Once
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, _, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				once.Do(func() { load.Check(err) })
			}
			if n == size {
				heard(load.Stamped(buf[:n]))
			}
		}
	}()
	return nil
}
