// Bridge has two buses in one process, and carries every event of the first to
// the second: from the devices' multicast, say, to the office's Redis.
//
//	bridge -from 'udp://239.255.0.1:5000?interface=eth1' -to redis://office
//
// One way only: two of them, back to back, would carry an event round and
// round. Let each direction have a namespace of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/autobus-go/autobus"
)

func main() {
	log.SetFlags(0)
	var from, to autobus.Bus
	flag.StringVar(&from.URL, "from", autobus.DefaultURL, "the bus to listen to")
	flag.StringVar(&from.Namespace, "from-namespace", "", "its namespace")
	flag.StringVar(&to.URL, "to", "redis://localhost:6379", "the bus to publish on")
	flag.StringVar(&to.Namespace, "to-namespace", "", "its namespace")
	flag.Parse()
	if from.URL == to.URL && from.Namespace == to.Namespace {
		log.Fatal("-from and -to are the same bus")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &from, &to); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, from, to *autobus.Bus) error {
	from.SubscribeRaw("*", func(_ context.Context, e autobus.Raw) error {
		return to.Publish(e)
	})
	// What comes before the other one is connected waits in its backlog.
	err := from.Start(ctx)
	if err == nil {
		err = to.Start(ctx)
	}
	if err == nil {
		log.Print("carrying events")
		<-ctx.Done()
	}

	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err = errors.Join(err, from.Stop(grace), to.Stop(grace)) // what has been received is carried over
	log.Printf("carried %d of %d events", to.Stats().Sent, from.Stats().Received)
	return err
}
