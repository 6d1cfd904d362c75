package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/autobus-go/autobus"
)

// maxLine bounds a line of standard input: that of a payload on any transport,
// and room for what sub writes around it.
const maxLine = 65 << 20

// pub publishes one event, or one for each line of standard input.
func (t *tool) pub(ctx context.Context, args []string) error {
	const example = `autobus pub Ping '{"id": 1}'`
	if len(args) > 2 {
		return usagef("pub takes a type and one JSON object, but here is %s too; quote the JSON: %s", quoteArg(args[2]), example)
	}
	hasInput := isStream(t.stdin)
	switch {
	case len(args) == 0 && !hasInput:
		return usagef("pub needs a type: %s", example)
	case len(args) == 2 && args[0] == "-" && isFile(args[1]):
		return usagef("pub reads standard input; to play %s back: autobus pub - <%[1]s", quoteShell(args[1]))
	case len(args) == 2 && args[0] == "-":
		return usagef("the '-' belongs behind the type: autobus pub %s -", quoteArg(args[1]))
	case len(args) > 0 && strings.HasPrefix(strings.TrimSpace(args[0]), "{"):
		return usagef("pub needs a type before the JSON: %s", example)
	case len(args) == 0 || args[0] == "-":
		return t.pubLines(ctx, parseRecord)
	}

	name := args[0]
	// With input, a plain word is the type of its lines, whatever files there are.
	if len(args) == 1 && (!hasInput || strings.ContainsAny(name, "./")) && isFile(name) {
		return usagef("%s is a file; to play it back: autobus pub - <%[1]s; for an event of that type: autobus pub %[1]s '{}'", quoteShell(name))
	}
	if err := checkType(name); err != nil {
		return err
	}
	if len(args) == 2 && args[1] == "-" || len(args) == 1 && hasInput {
		return t.pubLines(ctx, func(line []byte) (autobus.Raw, error) {
			return autobus.Raw{Name: name, JSON: line}, nil
		})
	}
	e := autobus.Raw{Name: name}
	if len(args) == 2 {
		if e.JSON = []byte(args[1]); len(bytes.TrimSpace(e.JSON)) == 0 {
			return usagef("the JSON is empty; want an object, as in: %s", example)
		}
		if isFile(args[1]) {
			return usagef("%s is a file; to publish each line of it: autobus pub %s - <%[1]s", quoteShell(args[1]), quoteShell(name))
		}
	}
	if _, err := autobus.Marshal(e); err != nil {
		return usagef("the JSON can't be published: %s; as in: %s", strings.TrimPrefix(err.Error(), "autobus: "), example)
	}
	return t.publish(ctx, func(bus *autobus.Bus) error { return bus.Publish(e) })
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// isStream reports whether v is something to read to its end: not a terminal,
// and not the null device that a program without input is given.
func isStream(v any) bool {
	f, ok := v.(*os.File)
	if !ok {
		return v != nil
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice == 0
}

// publish starts a bus, publishes on it, and stops it when all is sent.
func (t *tool) publish(ctx context.Context, send func(bus *autobus.Bus) error) error {
	if t.period > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.period)
		defer cancel()
	}
	bus := t.bus()
	if err := t.start(ctx, bus); err != nil {
		if ctx.Err() == context.DeadlineExceeded {
			err = fmt.Errorf("autobus: nothing was sent within %v: %s", t.period, strings.TrimPrefix(err.Error(), "autobus: "))
		}
		return err
	}
	t.started()
	err := send(bus)
	// However long that takes: Stop, which has less patience, then finds
	// nothing to do unless ctx has ended.
	bus.Flush(ctx)
	stopping, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if stopErr := bus.Stop(stopping); err == nil {
		err = stopErr
	}
	unsent := bus.Stats().Unsent // what this bus has heard and lost is no matter here
	t.warn(autobus.Stats{Unsent: unsent})
	if err == nil && unsent > 0 {
		err = errSilent
	}
	return err
}

// pubLines publishes the event in each line of standard input as it comes.
func (t *tool) pubLines(ctx context.Context, parse func(line []byte) (autobus.Raw, error)) error {
	return t.publish(ctx, func(bus *autobus.Bus) error {
		input := readLines(ctx, t.stdin)
		for number := 1; ; number++ {
			var line []byte
			var err error
			select {
			case l, ok := <-input:
				if !ok {
					return nil
				}
				line, err = l.text, l.err
			case <-ctx.Done():
				return nil
			}
			if err == nil && len(bytes.TrimSpace(line)) > 0 {
				var e autobus.Raw
				if e, err = parse(line); err == nil {
					err = publishWaiting(ctx, bus, e)
				}
			}
			if err != nil {
				return fmt.Errorf("autobus: standard input, line %d: %s", number, strings.TrimPrefix(err.Error(), "autobus: "))
			}
		}
	})
}

var errInterrupted = errors.New("autobus: interrupted before it could be published")

// publishWaiting publishes e, once there is room for it. After Flush there is,
// unless e alone is over the limit.
func publishWaiting(ctx context.Context, bus *autobus.Bus, e autobus.Raw) error {
	err := bus.Publish(e)
	if !errors.Is(err, autobus.ErrBacklog) {
		return err
	}
	if bus.Flush(ctx) != nil {
		return errInterrupted
	}
	return bus.Publish(e)
}

// An inputLine is a line of input, or the error in its place.
type inputLine struct {
	text []byte
	err  error
}

// readLines reads r line by line until its end or ctx's.
func readLines(ctx context.Context, r io.Reader) <-chan inputLine {
	c := make(chan inputLine)
	// Nobody waits for this goroutine: only the end of the process ends a read
	// from a terminal.
	go func() {
		defer close(c)
		scanner := bufio.NewScanner(r)
		scanner.Buffer(nil, maxLine)
		for more := true; more; {
			var l inputLine
			if more = scanner.Scan(); more {
				l.text = bytes.Clone(scanner.Bytes())
			} else if l.err = scanner.Err(); l.err == nil {
				return
			}
			select {
			case c <- l:
			case <-ctx.Done():
				return
			}
		}
	}()
	return c
}

// parseRecord reads a line that sub wrote.
func parseRecord(line []byte) (autobus.Raw, error) {
	var r record
	if err := autobus.Unmarshal(line, &r); err != nil {
		return autobus.Raw{}, err
	}
	if r.name == "" || r.event == nil {
		return autobus.Raw{}, errors.New(`without a type, pub takes lines as sub writes them: {"type": "Ping", "event": {"id": 1}}; with one, each line is an event: autobus pub Ping -`)
	}
	return autobus.Raw{Name: r.name, JSON: r.event}, nil
}

// A record is an event as sub writes it.
type record struct {
	name  string
	event []byte
}

func (r *record) Unmarshal(d *autobus.Decoder) error {
	for key := range d.Fields() {
		switch key {
		case "type":
			r.name = d.String()
		case "event":
			r.event = d.Raw()
		}
	}
	return d.Err()
}
