package main

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/autobus-go/autobus"
)

// TestPresence tests handlers by events, on a bus within the process: when
// Stop returns, they have handled all of them.
func TestPresence(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	bus := &autobus.Bus{URL: "mem://" + t.Name()}
	var out bytes.Buffer
	present := newPresence(&out)
	autobus.SubscribeOn(bus, present.hear)
	if err := bus.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for _, beat := range []Beat{
		{Name: "alice", Next: time.Second},
		{Name: "bob", Next: time.Minute},
		{Name: "alice", Next: time.Second},
		{Name: "bob", Next: time.Minute, Last: true},
		{Name: "carol", Next: time.Minute, Last: true},
	} {
		if err := bus.Publish(beat); err != nil {
			t.Fatal(err)
		}
	}
	if err := bus.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	for _, later := range []time.Duration{0, 10 * time.Second, 10 * time.Second} {
		if err := present.miss(time.Now().Add(later)); err != nil {
			t.Fatal(err)
		}
	}
	const want = "alice is here\nbob is here\nbob has left\nalice is missing\n"
	if out.String() != want {
		t.Errorf("have %q, want %q", out.String(), want)
	}
}

// TestRequired: a beat without a name, or with one that would clear the screen,
// reaches no handler, and is counted.
func TestRequired(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	bus := &autobus.Bus{URL: "mem://" + t.Name(), Logger: slog.New(slog.DiscardHandler)}
	var out bytes.Buffer
	autobus.SubscribeOn(bus, newPresence(&out).hear)
	if err := bus.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for _, json := range []string{
		`{"next": 1}`, `{"name": "", "next": 1}`, `{"name": "\u001b[2J", "next": 1}`, `{"name": "dave", "next": 0}`, `{"name": "eve", "next": 9e9}`,
	} {
		if err := bus.Publish(autobus.Raw{Name: "Beat", JSON: []byte(json)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := bus.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if s := bus.Stats(); s.DroppedMalformed+s.DroppedInvalid != 5 || out.Len() > 0 {
		t.Errorf("%+v, output %q", s, out.String())
	}
}
