//go:build unix

package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestSubSignal(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		url := ownURL()
		cmd := program(t, "sub", "-url", url)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		first, rest := make(chan struct{}), make(chan error, 1)
		go func() {
			r := bufio.NewReader(out)
			if _, err := r.ReadString('\n'); err == nil {
				close(first)
			}
			_, err := io.Copy(io.Discard, r)
			rest <- err
		}()
		publishUntil(t, url, first)
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := <-rest; err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
			t.Errorf("%v: %v, errors %q", sig, err, stderr.String())
		}
	}
}

// TestPubSignal has pub wait for a second line that never comes.
func TestPubSignal(t *testing.T) {
	url := ownURL()
	l := listen(t, "-url", url, "-n", "1")
	cmd := program(t, "pub", "-url", url, "Ping")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := io.WriteString(in, "{\"id\":1}\n"); err != nil {
		t.Fatal(err)
	}
	if got := events(t, l.rest(t)); len(got) != 1 || got[0] != `{"type":"Ping","id":1}` {
		t.Errorf("have %q", got)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || output.Len() > 0 {
		t.Errorf("%v, output %q", err, output.String())
	}
}

// TestPubInterrupted has pub wait for a server that isn't there.
func TestPubInterrupted(t *testing.T) {
	cmd := program(t, "pub", "-url", "redis://127.0.0.1:1", "Ping", "{}")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(stderr)
	if line, err := r.ReadString('\n'); !strings.Contains(line, "trying again") {
		t.Errorf("have %q, %v", line, err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	const want = "autobus: interrupted: redis: not connected (redis at 127.0.0.1:1: connect: connection refused)\n"
	if rest, _ := io.ReadAll(r); string(rest) != want {
		t.Errorf("have %q, want %q", rest, want)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitError {
		t.Errorf("have %v, want exit status %d", err, exitError)
	}
}

// TestClosedPipe is "autobus sub | head -1".
func TestClosedPipe(t *testing.T) {
	url := ownURL()
	cmd := program(t, "sub", "-url", url)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	first, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || !strings.Contains(line, `"Ping"`) {
			t.Errorf("have %q, %v", line, err)
		}
		r.Close()
		close(first)
	}()
	publishUntil(t, url, first)
	go func() { ended <- cmd.Wait() }()
	if runtime.GOOS != "linux" {
		// Elsewhere only a write tells that nobody reads.
		again := make(chan struct{})
		go func() {
			err := <-ended
			ended <- err
			close(again)
		}()
		publishUntil(t, url, again)
	}
	if err := <-ended; err != nil || stderr.Len() > 0 {
		t.Errorf("%v, errors %q", err, stderr.String())
	}
}
