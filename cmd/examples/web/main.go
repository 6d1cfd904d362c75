// Web is an HTTP server that lives with the bus: it starts after it and ends
// before it. What is posted to one server can be read from all.
//
//	web -listen localhost:8001 &
//	web -listen localhost:8002 &
//	curl -d 'hello' localhost:8001
//	curl localhost:8002
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/autobus-go/autobus"
)

func main() {
	log.SetFlags(0)
	bus := new(autobus.Bus)
	flag.StringVar(&bus.URL, "url", autobus.DefaultURL, "where the bus is")
	listen := flag.String("listen", "localhost:8001", "where the server is")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, bus, *listen); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, bus *autobus.Bus, addr string) error {
	board := newBoard(bus, addr)
	if err := bus.Start(ctx); err != nil {
		return err
	}
	err := serve(ctx, addr, board)

	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(err, bus.Stop(grace))
}

// serve serves until ctx ends, and then until the requests under way are done:
// they may still publish.
func serve(ctx context.Context, addr string, handler http.Handler) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	log.Print("listening on http://", l.Addr())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return server.Shutdown(grace)
}

// A board is where the notes are.
type board struct {
	bus  *autobus.Bus
	name string

	mu    sync.Mutex // guards notes
	notes []Note
}

const maxNotes = 100 // the newest ones

func newBoard(bus *autobus.Bus, name string) *board {
	b := &board{bus: bus, name: name}
	autobus.SubscribeOn(bus, b.pin) // our own notes come this way too
	return b
}

func (b *board) pin(_ context.Context, n Note) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.notes) == maxNotes {
		b.notes = append(b.notes[:0], b.notes[1:]...)
	}
	b.notes = append(b.notes, n)
	return nil
}

func (b *board) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
		b.mu.Lock()
		notes := slices.Clone(b.notes) // pin doesn't wait for a slow reader
		b.mu.Unlock()
		// What came by the bus is nobody's HTML.
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		for _, n := range notes {
			fmt.Fprintf(w, "%s: %s\n", n.Server, n.Text)
		}
	case http.MethodPost:
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1000))
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		if err := b.bus.Publish(&Note{Server: b.name, Text: string(text)}); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted) // on its way: nobody promises more
	default:
		http.Error(w, "GET or POST", http.StatusMethodNotAllowed)
	}
}
