// Heartbeat tells the others on the bus that it is there, and says who comes
// and goes.
//
//	heartbeat alice &
//	heartbeat bob
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/autobus-go/autobus"
)

func main() {
	log.SetFlags(0)
	bus := new(autobus.Bus)
	flag.StringVar(&bus.URL, "url", autobus.DefaultURL, "where the bus is")
	seconds := flag.Float64("every", 5, "how many seconds from beat to beat")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: heartbeat [-url URL] [-every SECONDS] NAME")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, bus, flag.Arg(0), *seconds); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, bus *autobus.Bus, name string, seconds float64) error {
	beat := Beat{Name: name, Next: time.Duration(seconds * float64(time.Second))}
	if err := beat.Validate(); err != nil {
		return err // which the others would say, and not we
	}
	beats, err := bus.Schedule(autobus.Every(seconds).Seconds(), func(context.Context) error {
		return bus.Publish(&beat)
	})
	if err != nil {
		return err // a number of seconds that makes no sense
	}
	present := newPresence(os.Stdout)
	autobus.SubscribeOn(bus, present.hear)
	if _, err := bus.Schedule(autobus.Every(1).Second(), func(context.Context) error {
		return present.miss(time.Now())
	}); err != nil {
		return err
	}
	if err := bus.Publish(&beat); err != nil { // the first one, at the start
		return err
	}
	if err := bus.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()

	beats.Cancel() // none shall follow the last one
	err = bus.Publish(&Beat{Name: name, Next: beat.Next, Last: true})
	grace, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if stopErr := bus.Stop(grace); err == nil { // sends it
		err = stopErr
	}
	return err
}

// A presence knows who is there.
type presence struct {
	out io.Writer

	mu    sync.Mutex           // guards until
	until map[string]time.Time // by name: when a beat is overdue
}

func newPresence(out io.Writer) *presence {
	return &presence{out: out, until: make(map[string]time.Time)}
}

// hear takes a beat in. One may be lost now and then, but not two in a row.
func (p *presence) hear(_ context.Context, b Beat) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, known := p.until[b.Name]
	var err error
	switch {
	case b.Last && known:
		delete(p.until, b.Name)
		_, err = fmt.Fprintln(p.out, b.Name, "has left")
	case b.Last:
	default:
		p.until[b.Name] = time.Now().Add(5 * b.Next / 2)
		if !known {
			_, err = fmt.Fprintln(p.out, b.Name, "is here")
		}
	}
	return err
}

// miss finds out who isn't there any more, though nobody said goodbye.
func (p *presence) miss(now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, until := range p.until {
		if now.After(until) {
			delete(p.until, name)
			if _, err := fmt.Fprintln(p.out, name, "is missing"); err != nil {
				return err
			}
		}
	}
	return nil
}
