// Worker is a service in Go with a worker in Python, on an encrypted bus on
// Redis. The service reads a text a line, the worker counts its words.
//
// In this folder, with the Python package autobus[all]:
//
//	export AUTOBUS_URL=redis://localhost:6379 AUTOBUS_KEY=$(autobus keygen)
//	python3 worker.py &
//	echo 'to be or not to be' | go run .
//
// The events' Python classes, in events.py, are generated with their methods.
// A second worker would do the same work again: a bus isn't a queue.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx); err != nil {
		log.Fatal(err)
	}
}

func serve(ctx context.Context) error {
	key, err := autobus.ParseKey(os.Getenv("AUTOBUS_KEY"))
	if err != nil {
		return fmt.Errorf("AUTOBUS_KEY: %w", err)
	}
	bus := &autobus.Bus{URL: os.Getenv("AUTOBUS_URL"), Keys: []autobus.Key{key}, MaxAge: time.Minute}
	asking, done := context.WithCancel(ctx)
	defer done()
	answers := make(chan Count)
	autobus.SubscribeOn(bus, func(_ context.Context, c Count) error {
		select {
		case answers <- c:
		case <-asking.Done(): // a second answer, which Stop needn't wait for
		}
		return nil
	})
	if err := bus.Start(ctx); err != nil {
		return err
	}
	defer func() {
		done()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := bus.Stop(ctx); err != nil {
			log.Print(err)
		}
	}()

	lines, failed := readLines(os.Stdin)
	// Other services ask, too, and this one may have before it was started anew:
	// an ID that is begun with at random is nobody else's.
	for id := rand.Int(); ; id++ {
		select {
		case line, ok := <-lines:
			if !ok {
				return <-failed
			}
			count, err := ask(ctx, bus, answers, Text{ID: id, Text: line})
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			fmt.Println(count.Words)
		case <-ctx.Done():
			return nil
		}
	}
}

// readLines reads lines as they come, so that Ctrl-C needn't wait for one. No
// context ends a read: what waits in one ends with the program.
func readLines(r io.Reader) (lines <-chan string, failed <-chan error) {
	out, end := make(chan string), make(chan error, 1)
	go func() {
		in := bufio.NewScanner(r)
		for in.Scan() {
			out <- in.Text()
		}
		end <- in.Err()
		close(out)
	}()
	return out, end
}

// ask publishes a text until it is answered: it may be that no worker is there
// yet, and nothing is kept for one.
func ask(ctx context.Context, bus *autobus.Bus, answers <-chan Count, text Text) (Count, error) {
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		if err := bus.Publish(text); err != nil {
			return Count{}, err
		}
		for waiting := true; waiting; {
			select {
			case answer := <-answers:
				if answer.ID == text.ID { // else to one that was asked twice
					return answer, nil
				}
			case <-again.C:
				log.Print("no answer yet: is worker.py running?")
				waiting = false
			case <-ctx.Done():
				return Count{}, ctx.Err()
			}
		}
	}
}
