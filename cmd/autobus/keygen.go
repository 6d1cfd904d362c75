package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/autobus-go/autobus"
)

// keygen prints a key.
func (t *tool) keygen(ctx context.Context, args []string) error {
	switch {
	case len(args) > 0: // which isn't shown: it may be a passphrase, or a key
		return usagef("keygen takes no argument; -passphrase takes no value, it asks")
	case t.passphrase && t.salt == "":
		return usagef("-passphrase needs a salt too, the same on all machines: autobus keygen -passphrase -salt kitchen")
	case !t.passphrase && t.salt != "":
		return usagef("-salt goes with -passphrase: autobus keygen -passphrase -salt %s", quoteArg(t.salt))
	}
	key := autobus.GenerateKey()
	if t.passphrase {
		passphrase, err := t.readPassphrase(ctx)
		if err != nil {
			return err
		}
		if key, err = autobus.DeriveKey(passphrase, t.salt); err != nil {
			return err
		}
		fmt.Fprintf(t.stderr, "The same key in Python:\n%s\n", pythonDerive(t.salt))
	}
	if _, err := fmt.Fprintln(t.stdout, key.Encode()); err != nil {
		return fmt.Errorf("autobus: %w", err) // which says what it did
	}
	return nil
}

// pythonDerive is a command that asks for the passphrase and prints its key.
func pythonDerive(salt string) string {
	var literal strings.Builder // a Python literal, which a shell's quotes may stand around
	for _, c := range []byte(salt) {
		if c-'0' <= 9 || c|0x20-'a' < 26 || strings.IndexByte(" -_.:@/", c) >= 0 {
			literal.WriteByte(c)
		} else {
			fmt.Fprintf(&literal, `\x%02x`, c)
		}
	}
	return `python3 -c 'import base64, getpass, hashlib; print(base64.urlsafe_b64encode(hashlib.scrypt(getpass.getpass("Passphrase: ").encode(), salt=b"` +
		literal.String() + `", n=32768, r=8, p=1, maxmem=2**26, dklen=32)).decode())'`
}

// readPassphrase asks for a passphrase on the terminal, twice, since it isn't
// seen; or it reads the first line of a pipe.
func (t *tool) readPassphrase(ctx context.Context) (string, error) {
	if t.stdin == nil {
		return "", usagef("there is no passphrase on standard input")
	}
	lines := 1
	if isTerminal(t.stdin) {
		lines = 2
		restore, err := echoOff(t.stdin.(*os.File))
		if err != nil {
			return "", fmt.Errorf("autobus: the terminal would show the passphrase (%w); give it by a pipe", err)
		}
		defer restore()
	}
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, lines)
	// Nobody waits for this goroutine: only the end of the process ends a read
	// from a terminal, or from a pipe that stays open.
	go func() {
		r := bufio.NewReader(t.stdin)
		for range lines {
			text, err := firstLine(r)
			answers <- answer{text, err}
		}
	}()
	ask := func(prompt string) (string, error) {
		if lines == 2 {
			fmt.Fprint(t.stderr, prompt)
			defer fmt.Fprintln(t.stderr) // the terminal shows no line's end either
		}
		select {
		case a := <-answers:
			return a.text, a.err
		case <-ctx.Done():
			return "", errSilent
		}
	}
	first, err := ask("Passphrase: ")
	if err != nil || lines == 1 {
		return first, err
	}
	second, err := ask("Again: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", fmt.Errorf("autobus: these were two different passphrases")
	}
	return first, nil
}

// firstLine reads a line, without its end.
func firstLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil && err != io.EOF {
		return "", fmt.Errorf("autobus: passphrase: %w", err)
	}
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	if line == "" {
		return "", fmt.Errorf("autobus: the passphrase is empty")
	}
	return line, nil
}

// setKeys takes the keys of a flag. Errors don't show them.
func (t *tool) setKeys(flag, value string) error {
	if t.keysFrom != "" && t.keysFrom != flag {
		return usagef("-key and -key-file exclude each other")
	}
	text := value
	if flag == "key-file" {
		content, err := os.ReadFile(value)
		if _, keyErr := autobus.ParseKey(value); err != nil && keyErr == nil {
			return usagef("-key-file wants a file's name, and here is a key")
		}
		if err != nil {
			if p, ok := err.(*os.PathError); ok {
				err = p.Err // without the name: it may be a key, mistyped
			}
			return fmt.Errorf("autobus: -key-file: read the file: %w", err)
		}
		text = string(content)
	} else if t.keysFrom == "" {
		fmt.Fprintln(t.stderr, "autobus: warning: others on this machine can see a key on the command line; use -key-file or $AUTOBUS_KEY")
	}
	t.keysFrom = flag
	return t.parseKeys("-"+flag, text)
}

// environmentKeys takes the keys of the environment, if no flag gave any.
func (t *tool) environmentKeys() error {
	// Set but empty, it is a mistake that would publish secrets in the clear.
	if text, set := os.LookupEnv("AUTOBUS_KEY"); set && t.keysFrom == "" {
		return t.parseKeys("$AUTOBUS_KEY", text)
	}
	return nil
}

func (t *tool) parseKeys(from, text string) error {
	t.keys = nil
	for i, part := range strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == '\n' || c == '\r' }) {
		if strings.TrimSpace(part) == "" {
			continue
		}
		key, err := autobus.ParseKey(part)
		if err != nil {
			if _, err := os.Stat(text); err == nil && from != "-key-file" {
				return usagef("%s wants a key, and here is a file's name: try -key-file", from)
			}
			return usagef("%s: key %d: %s", from, i+1, strings.TrimPrefix(err.Error(), "autobus: ParseKey: "))
		}
		t.keys = append(t.keys, key)
	}
	if t.keys == nil {
		return usagef(`%s has no key; "autobus keygen" makes one`, from)
	}
	return nil
}
