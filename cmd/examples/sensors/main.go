// Sensors is for a LAN with devices that measure and a display that shows. No
// server, no addresses: they may start and end in any order, on any machine.
//
//	sensors device kitchen
//	sensors device attic
//	sensors display
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/autobus-go/autobus"
)

func main() {
	log.SetFlags(0)
	flag.StringVar(&autobus.Default.URL, "url", autobus.DefaultURL, "where the bus is")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	var err error
	switch {
	case flag.Arg(0) == "device" && flag.NArg() == 2:
		err = measure(flag.Arg(1))
	case flag.Arg(0) == "display" && flag.NArg() == 1:
		show()
	default:
		log.Fatal("usage: sensors [-url URL] device NAME | display")
	}
	if err == nil {
		err = autobus.Run(ctx)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// measure has a device publish a reading each second.
func measure(device string) error {
	celsius := 15 + 10*rand.Float64()
	_, err := autobus.Schedule(autobus.Every(1).Second(), func(context.Context) error {
		celsius += rand.Float64() - 0.5
		return autobus.Publish(&Reading{Device: device, Celsius: celsius, At: time.Now()})
	})
	return err
}

// show prints what any device measures. Were it too slow, it would rather
// miss old readings than new ones.
func show() {
	autobus.Subscribe(func(_ context.Context, r Reading) error {
		// Quoted: anybody on the network may send a name that clears the screen.
		_, err := fmt.Printf("%s  %-14q %5.1f °C\n", r.At.Local().Format(time.TimeOnly), r.Device, r.Celsius)
		return err
	}, autobus.Queue(100, autobus.DropOldest))
}
