package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/autobus-go/autobus"
)

// sub shows events until it is told to end, or has shown enough.
func (t *tool) sub(ctx context.Context, types []string) error {
	for _, name := range types {
		if name == "*" {
			types = nil
			break
		}
		if err := checkType(name); err != nil {
			return err
		}
	}
	slices.Sort(types)
	types = slices.Compact(types)

	interrupted := ctx.Done()
	if t.period > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.period)
		defer cancel()
	}
	bus := t.bus()
	p := &printer{w: t.stdout, terminal: isTerminal(t.stdout), prefix: "autobus:" + t.namespace + ":", left: t.count, done: make(chan struct{})}
	// One subscription, also to several types: across subscriptions there is no order.
	name := "*"
	if len(types) == 1 {
		name = types[0]
	}
	bus.SubscribeRaw(name, func(_ context.Context, e autobus.Raw) error {
		if len(types) < 2 || slices.Contains(types, e.Name) {
			p.print(time.Now(), e)
		}
		return nil
	})
	if err := bus.Start(ctx); err != nil {
		if isClosed(interrupted) {
			return nil
		}
		return err
	}
	if p.terminal {
		what := "all types"
		if len(types) > 0 {
			what = strings.Join(types, ", ")
		}
		fmt.Fprintf(t.stderr, "Listening on %s for %s. Ctrl-C ends.\n", string(appendPrintable(nil, t.shownURL())), string(appendPrintable(nil, what)))
	}
	t.started()

	ended, unwatch := watchPipe(t.stdout)
	select {
	case <-ctx.Done():
	case <-p.done:
	case <-ended:
		p.end(nil)
	}
	unwatch()

	stopping, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if err := bus.Stop(stopping); err != nil {
		fmt.Fprintln(t.stderr, err)
	}
	t.warn(bus.Stats())
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil && !isClosedPipe(p.err) {
		return fmt.Errorf("autobus: write: %w", p.err)
	}
	if p.left > 0 && !isClosed(p.done) && !isClosed(interrupted) {
		return fmt.Errorf("autobus: after %v, %d of %d events had come", t.period, t.count-p.left, t.count)
	}
	return nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A printer shows events, one a line.
type printer struct {
	w        io.Writer
	terminal bool
	prefix   string        // of the channels
	done     chan struct{} // closed when no more is to be shown

	mu   sync.Mutex // guards the rest
	left int        // events that may be shown yet; 0: any number
	line []byte
	err  error // of the write that failed
}

func (p *printer) print(now time.Time, e autobus.Raw) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if isClosed(p.done) {
		return
	}
	if p.terminal {
		p.line = appendReadable(p.line[:0], now, e)
	} else {
		p.line = appendRecord(p.line[:0], now, p.prefix, e)
	}
	if _, err := p.w.Write(p.line); err != nil {
		p.err = err
		close(p.done)
	} else if p.left > 0 {
		if p.left--; p.left == 0 {
			close(p.done)
		}
	}
}

// end makes the printer show nothing more.
func (p *printer) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !isClosed(p.done) {
		p.err = err
		close(p.done)
	}
}

// appendRecord appends an event as a line of JSON, which pub takes back.
func appendRecord(b []byte, now time.Time, prefix string, e autobus.Raw) []byte {
	b = append(b, `{"time":"`...)
	b = now.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","channel":`...)
	b = appendJSON(b, prefix+e.Name)
	b = append(b, `,"type":`...)
	b = appendJSON(b, e.Name)
	b = append(b, `,"event":`...)
	b = appendCompact(b, e.JSON)
	return append(b, "}\n"...)
}

func appendJSON(b []byte, s string) []byte {
	text, _ := json.Marshal(s) // a string has no error
	return append(b, text...)
}

// appendReadable appends an event as a line for a person.
func appendReadable(b []byte, now time.Time, e autobus.Raw) []byte {
	b = now.AppendFormat(b, "15:04:05.000")
	b = append(b, "  "...)
	b = appendPrintable(b, e.Name)
	b = append(b, "  "...)
	b = appendPrintable(b, string(appendCompact(nil, e.JSON)))
	return append(b, '\n')
}

// appendCompact appends a JSON text without the white space between its
// tokens. It is valid, but for NaN and the infinities, which json.Compact
// doesn't take.
func appendCompact(b, text []byte) []byte {
	inString := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			b = append(b, c)
			i++
		case c == '"':
			inString = !inString
		case !inString && (c == ' ' || c == '\n' || c == '\t' || c == '\r'):
			continue
		}
		b = append(b, text[i])
	}
	return b
}

// appendPrintable appends s with every character escaped as JSON does that
// could do more to a terminal than show itself: controls (C1 and DEL
// included, which JSON lets pass), line separators, and what turns the
// direction of text around or is invisible. Joiners stay: emoji and many
// languages need them.
func appendPrintable(b []byte, s string) []byte {
	for _, r := range s {
		switch {
		case r == '\u200c' || r == '\u200d':
			b = utf8.AppendRune(b, r)
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp):
			if r > 0xFFFF {
				// As a pair of surrogates, see RFC 8259 section 7.
				r -= 0x10000
				b = fmt.Appendf(b, `\u%04x\u%04x`, 0xD800+r>>10, 0xDC00+r&0x3FF)
			} else {
				b = fmt.Appendf(b, `\u%04x`, r)
			}
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return b
}

// isClosedPipe reports whether a write failed since nobody reads any more.
func isClosedPipe(err error) bool {
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) {
		return true
	}
	var errno syscall.Errno
	// ERROR_BROKEN_PIPE and ERROR_NO_DATA, Windows system error codes.
	return runtime.GOOS == "windows" && errors.As(err, &errno) && (errno == 109 || errno == 232)
}

// watchPipe returns a channel that is closed once nobody reads w any more, if
// w is a pipe and the system tells: "autobus sub | head -1" shall not wait for
// a second event. The function ends the watch.
func watchPipe(w io.Writer) (ended <-chan struct{}, unwatch func()) {
	if f, ok := w.(*os.File); ok && f == os.Stdout {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
			return watchFile(f)
		}
	}
	return nil, func() {}
}
