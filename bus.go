package autobus

import (
	"context"
	"errors"
)

// Errors that a caller may want to tell apart, with errors.Is.
var (
	// ErrStopped is returned by Publish and Flush once the bus has been stopped.
	ErrStopped = errors.New("autobus: the bus is stopped")

	// ErrTooLarge is returned by Publish for a message over the transport's
	// limit. The error's text gives both sizes.
	ErrTooLarge = errors.New("autobus: message too large")

	// ErrBacklog is returned by Publish when the bus already holds all the
	// unsent messages it may; see [Bus.Backlog].
	ErrBacklog = errors.New("autobus: backlog full")
)

// A Transport moves messages between buses. The package has its own for the
// URLs that [Bus.URL] lists; set [Bus.Transport] to use another.
//
// The bus calls Subscribe, Unsubscribe, Size and Send at any time, also
// before and while Start runs; Send from one goroutine at a time, the others
// from any. A stopped bus may be started again: then Start follows Close.
type Transport interface {
	// Start connects, and returns once it is connected and every channel
	// subscribed so far is in force. A mistake that waiting won't mend (a
	// wrong name, a refused password) is returned at once; anything else is
	// tried again until ctx ends. ctx governs Start alone.
	//
	// From then until Close, the transport calls receive for every message on
	// a subscribed channel, once, in the order it arrives. receive keeps
	// neither slice and is safe for concurrent use. It may block if a
	// subscription asks for it (see [Block]).
	Start(ctx context.Context, receive func(channel, payload []byte), log Logger) error

	// Subscribe asks for a channel's messages from now on, and Unsubscribe
	// ends that. Neither blocks. A channel that ends in ":*" stands for every
	// channel that has exactly one non-empty name without a ':' in the place
	// of the '*'; a message is received once even if several match it.
	Subscribe(channel string)
	Unsubscribe(channel string)

	// Size returns how many bytes a message takes on this transport, and how
	// many it may take.
	Size(channel string, payload []byte) (size, limit int)

	// Send hands on a batch in order, in as few system calls as it can, and
	// returns how many of its messages were lost and why. While the transport
	// is disconnected it waits, until ctx ends. It keeps nothing of the batch.
	Send(ctx context.Context, batch []Message) (lost int, err error)

	// Flush waits until every message that Send has taken is out of the
	// transport's hands, for a server: until it has answered.
	Flush(ctx context.Context) error

	// Close disconnects and waits for the transport's goroutines. No call of
	// receive begins after it returns.
	Close() error
}

// A Message is opaque bytes on a channel, as a [Transport] moves it.
type Message struct {
	Channel string
	Payload []byte
}

// A StatsTransport is a [Transport] with counters of its own: AddStats adds
// them to s. They start from zero at each Start.
type StatsTransport interface {
	Transport
	AddStats(s *Stats)
}

// A Logger is where a bus writes what its callers can't be told by an error.
// *slog.Logger is one. The args are keys and values by turns.
type Logger interface {
	Debug(msg string, args ...any)
	Info(msg string, args ...any)
	Warn(msg string, args ...any)
	Error(msg string, args ...any)
}

// Stats counts what a bus has done since it was made.
type Stats struct {
	DroppedMalformed uint64 // input that is not a message or not the event's JSON
	Lost             uint64 // messages that a gap in a source's sequence shows to be missing
	Duplicates       uint64 // copies dropped
}

// failure is an error with the package's prefix, what went wrong, and the
// cause for errors.Is and errors.As.
type failure struct {
	text  string
	cause error
}

func (f *failure) Error() string {
	if f.cause == nil {
		return "autobus: " + f.text
	}
	return "autobus: " + f.text + ": " + f.cause.Error()
}

func (f *failure) Unwrap() error { return f.cause }

// typeProblem returns what is wrong with a type name, "" if nothing.
func typeProblem(name string) string { return "" }

type Event interface {
	Type() string
	Marshaler
}
