package autobus

import (
	"slices"
	"strconv"
	"sync"
)

// What the standard library has short enough to be inlined, kept out of line:
// where it is used in many places, and in none for each message, a call is
// smaller, by 100 to 200 bytes with the tables that go with code.

// A mutex is a [sync.Mutex] for what isn't locked for each message.
type mutex struct{ sync.Mutex }

//go:noinline
func (m *mutex) Lock() { m.Mutex.Lock() }

//go:noinline
func (m *mutex) Unlock() { m.Mutex.Unlock() }

// quoted is [strconv.Quote].
//
//go:noinline
func quoted(s string) string { return strconv.Quote(s) }

// contains is [slices.Contains].
//
//go:noinline
func contains(list []string, s string) bool { return slices.Contains(list, s) }

// fail makes a failure; cause may be nil.
//
//go:noinline
func fail(text string, cause error) error { return &failure{text, cause} }
