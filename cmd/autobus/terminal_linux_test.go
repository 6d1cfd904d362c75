package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/autobus-go/autobus"
)

// Asked on a terminal, a passphrase isn't shown, and afterwards the terminal is
// as it was: also after Ctrl-C.
func TestKeygenTerminal(t *testing.T) {
	want, err := autobus.DeriveKey("open sesame", "x")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		first, second string
		code          int
		output        string
		shown         string
	}{
		{"open sesame\n", "open sesame\n", exitOK, want.Encode() + "\n", "The same key in Python"},
		{"open sesame\n", "open sesam\n", exitError, "", "these were two different passphrases"},
		{"open sesame\n", "\x03", exitError, "", "Again: \r\n"},
		{"\n", "", exitError, "", "the passphrase is empty"},
	} {
		t.Run(fmt.Sprintf("%q", c.second), func(t *testing.T) {
			keyboard, terminal := newTerminal(t)
			cmd := exec.Command(os.Args[0], "keygen", "-passphrase", "-salt", "x")
			cmd.Env = append(os.Environ(), asProgram+"=1")
			var stdout strings.Builder
			cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, &stdout, terminal
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { cmd.Process.Kill() })

			screen := bufio.NewReader(keyboard)
			shown := ""
			await := func(text string) {
				for !strings.HasSuffix(shown, text) {
					b, err := screen.ReadByte()
					if err != nil {
						t.Fatalf("%v, after %q", err, shown)
					}
					shown += string(b)
				}
			}
			echo := func() bool {
				var settings syscall.Termios
				if err := termios(terminal, getTermios, &settings); err != nil {
					t.Fatal(err)
				}
				return settings.Lflag&syscall.ECHO != 0
			}
			for _, typed := range []struct{ prompt, text string }{{"Passphrase: ", c.first}, {"Again: ", c.second}} {
				if typed.text == "" {
					continue
				}
				await(typed.prompt)
				if echo() {
					t.Error("the terminal shows what is typed")
				}
				fmt.Fprint(keyboard, typed.text)
			}
			cmd.Wait()
			if !echo() {
				t.Error("the terminal still shows nothing of what is typed")
			}
			fmt.Fprintln(terminal, "END")
			await("END\r\n")
			if code := cmd.ProcessState.ExitCode(); code != c.code || stdout.String() != c.output || !strings.Contains(shown, c.shown) || strings.Contains(shown, "sesam") {
				t.Errorf("status %d, output %q, and on the terminal %q", code, &stdout, shown)
			}
		})
	}
}

// newTerminal returns the two ends of a pseudo-terminal (pty(7)).
func newTerminal(t *testing.T) (keyboard, terminal *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	var number, unlock int32
	for request, argument := range map[uintptr]*int32{syscall.TIOCGPTN: &number, syscall.TIOCSPTLCK: &unlock} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, keyboard.Fd(), request, uintptr(unsafe.Pointer(argument))); errno != 0 {
			t.Fatal(errno)
		}
	}
	terminal, err = os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return keyboard, terminal
}
