// Minimal is what script/test measures: a program that publishes one type of
// event and subscribes to it. It ends when it has heard the event, or with any
// argument at an interrupt.
package main

import (
	"context"
	"os"
	"os/signal"

	"github.com/autobus-go/autobus"
)

type Ping struct {
	ID   int
	Name string
}

func (Ping) Type() string { return "Ping" }

func (p Ping) Marshal(e *autobus.Encoder) {
	e.Key("id").Int(p.ID)
	e.Key("name").String(p.Name)
}

func (p *Ping) Unmarshal(d *autobus.Decoder) error {
	for key := range d.Fields() {
		switch key {
		case "id":
			p.ID = d.Int()
		case "name":
			p.Name = d.String()
		}
	}
	return d.Err()
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	autobus.Subscribe(func(_ context.Context, p Ping) error {
		println(p.ID, p.Name)
		if len(os.Args) == 1 {
			stop()
		}
		return nil
	})
	if err := autobus.Publish(Ping{ID: 1, Name: "hello"}); err != nil {
		println(err.Error())
	}
	if err := autobus.Run(ctx); err != nil {
		println(err.Error())
		os.Exit(1)
	}
}
