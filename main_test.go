package autobus

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain runs the tests, and fails if they leave goroutines behind. With a
// role in the environment the test binary is another process of a test instead.
func TestMain(m *testing.M) {
	if role := os.Getenv("AUTOBUS_TEST_ROLE"); role != "" {
		run, ok := roles[role]
		if !ok {
			fmt.Fprintln(os.Stderr, "no role", role)
			os.Exit(2)
		}
		os.Exit(run())
	}
	before := runtime.NumGoroutine()
	code := m.Run()
	for _, endless := range []string{
		"os/signal.loop",      // once anybody asked for signals; fuzzing does
		"runtime.handleEvent", // where JavaScript has the events
	} {
		if strings.Contains(string(stacks()), endless) {
			before++
		}
	}
	if code == 0 && !goroutinesEnd(before) {
		fmt.Fprintf(os.Stderr, "goroutines left after the tests: %d, before them %d\n%s\n", runtime.NumGoroutine(), before, stacks())
		code = 1
	}
	os.Exit(code)
}

// roles are what the test binary can be in a test of several processes.
var roles = map[string]func() int{}

// goroutinesEnd waits until there are no more than want goroutines; they take
// a moment to be gone after what they were waited by.
func goroutinesEnd(want int) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		if runtime.NumGoroutine() <= want {
			return true
		}
		<-tick.C
	}
	return false
}

func stacks() []byte {
	buf := make([]byte, 1<<20)
	return buf[:runtime.Stack(buf, true)]
}

// wantAll is set where every tool a test needs must be there: a missing one
// fails the test then instead of skipping it.
var wantAll = os.Getenv("AUTOBUS_TEST_ALL") == "1"

// missing ends a test that can't run here.
func missing(t testing.TB, what string) {
	t.Helper()
	if wantAll {
		t.Fatalf("%s, and AUTOBUS_TEST_ALL=1 asks for every test", what)
	}
	t.Skip(what)
}
