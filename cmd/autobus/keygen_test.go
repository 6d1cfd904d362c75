package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autobus-go/autobus"
)

func TestKeygen(t *testing.T) {
	code, first, stderr := call("", "keygen")
	_, second, _ := call("", "keygen")
	if code != exitOK || stderr != "" || first == second || len(first) != 45 {
		t.Errorf("status %d, %q, then %q, errors %q", code, first, second, stderr)
	}
	if _, err := autobus.ParseKey(first); err != nil {
		t.Error(err)
	}
}

// A passphrase from a pipe gives the key of DeriveKey, and Python's too.
func TestKeygenPassphrase(t *testing.T) {
	const passphrase = "pässwörd😀 '\"\\$"
	for _, salt := range []string{"autobus", `it's "é" \x $HOME` + "\n"} {
		want, err := autobus.DeriveKey(passphrase, salt)
		if err != nil {
			t.Fatal(err)
		}
		for i, input := range []string{passphrase, passphrase + "\n", passphrase + "\r\nmore\n"} {
			if i > 0 && salt != "autobus" {
				continue
			}
			code, stdout, stderr := call(input, "-passphrase", "keygen", "-salt", salt)
			if code != exitOK || stdout != want.Encode()+"\n" || strings.Contains(stderr, passphrase) {
				t.Errorf("%q: status %d, output %q, errors %q", input, code, stdout, stderr)
			}
			if i > 0 {
				continue
			}
			python := os.Getenv("AUTOBUS_PYTHON")
			if python == "" {
				t.Log("AUTOBUS_PYTHON names no Python to run what keygen prints")
				continue
			}
			command := stderr[strings.Index(stderr, "python3 "):]
			sh := exec.Command("sh", "-c", `"$PYTHON"`+strings.TrimPrefix(command, "python3"))
			sh.Env = append(os.Environ(), "PYTHON="+python, "PYTHONIOENCODING=utf-8")
			sh.Stdin = strings.NewReader(passphrase + "\n")
			sh.SysProcAttr = noTerminal // getpass would ask there
			out, err := sh.Output()
			if err != nil || string(out) != want.Encode()+"\n" {
				t.Errorf("%s: %q, %v", command, out, err)
			}
		}
	}
}

// Ctrl-C ends keygen also while it waits for a pipe.
func TestKeygenInterrupted(t *testing.T) {
	input, output := io.Pipe()
	defer output.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	ended := make(chan error, 1)
	go func() {
		tool := newTool(input, io.Discard, io.Discard)
		tool.passphrase, tool.salt = true, "x"
		ended <- tool.keygen(ctx, nil)
	}()
	select {
	case err := <-ended:
		if err != errSilent {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it goes on")
	}
}

func TestKeygenErrors(t *testing.T) {
	for _, c := range []struct {
		args  []string
		input string
		code  int
		want  string
	}{
		{[]string{"keygen", "x"}, "", exitUsage, "keygen takes no argument; -passphrase takes no value, it asks"},
		{[]string{"keygen", "-passphrase"}, "p\n", exitUsage, "-passphrase needs a salt too"},
		{[]string{"keygen", "-salt", "x"}, "p\n", exitUsage, "-salt goes with -passphrase: autobus keygen -passphrase -salt x"},
		{[]string{"keygen", "-passphrase=p"}, "", exitUsage, "-passphrase takes no value"},
		{[]string{"keygen", "-salt", ""}, "", exitUsage, "-salt is empty"},
		{[]string{"keygen", "-salt"}, "", exitUsage, "-salt needs a value: -salt NAME"},
		{[]string{"keygen", "-passphrase", "-salt", "x"}, "", exitUsage, "there is no passphrase on standard input"},
		{[]string{"keygen", "-passphrase", "-salt", "x"}, "\n", exitError, "the passphrase is empty"},
		{[]string{"keygen", "-namespace", "x"}, "", exitUsage, "there is no flag -namespace here; there are -passphrase, -salt"},
		{[]string{"-verbose", "sub"}, "", exitUsage, "there is no flag -verbose here; there are -url, -namespace, -key, -key-file, -for, -n, -passphrase, -salt\n"},
		{[]string{"sub", "-keyfile", "x"}, "", exitUsage, "there is no flag -keyfile here; did you mean -key-file?"},
		{[]string{"sub", "-passphrase"}, "", exitUsage, "there is no flag -passphrase here"},
		{[]string{"demo", "-key", "x"}, "", exitUsage, "there is no flag -key here"},
		{[]string{"sub", "-key"}, "", exitUsage, "-key needs a value: -key KEY"},
		{[]string{"sub", "-key", ""}, "", exitUsage, `-key has no key; "autobus keygen" makes one`},
		{[]string{"sub", "-key", "hunter2"}, "", exitUsage, "-key: key 1: want the base64 of 32 bytes"},
		{[]string{"sub", "-key-file", os.DevNull}, "", exitUsage, "-key-file has no key"},
		{[]string{"sub", "-key-file", "/no/such/file"}, "", exitError, "-key-file: read the file: "},
		{[]string{"sub", "-key", autobus.GenerateKey().Encode(), "-key-file", os.DevNull}, "", exitUsage, "-key and -key-file exclude each other"},
	} {
		code, stdout, stderr := call(c.input, c.args...)
		if code != c.code || stdout != "" || !strings.Contains(stderr, c.want) || strings.Contains(stderr, "hunter2") {
			t.Errorf("%q: status %d, output %q, errors %q; want %q", c.args, code, stdout, stderr, c.want)
		}
	}
}

// A key or passphrase that is mistyped, or in the wrong place, is told to nobody.
func TestSecretsAreHidden(t *testing.T) {
	good := autobus.GenerateKey().Encode()
	file := filepath.Join(t.TempDir(), "keys")
	for _, secret := range []string{
		good[:43],                   // without its padding
		good[:20] + " " + good[20:], // broken by a space
		good + good,
		strings.Repeat("0123456789abcdef", 4), // in hex
		"open sesame, 4 times",
	} {
		if err := os.WriteFile(file, []byte(good+"\n"+secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			want string
			args []string
		}{
			{"-key: key 1: want the base64 of 32 bytes, 44 characters with the padding", []string{"sub", "-key", secret}},
			{"-key: key 1: want", []string{"-key=" + secret, "pub", "Ping"}},
			{"-key: key 2: want", []string{"pub", "Ping", "-key", good + "," + secret}},
			{"$AUTOBUS_KEY: key 1: want", []string{"sub"}},
			{"-key-file: key 2: want", []string{"sub", "-key-file", file}},
			{"-key-file: read the file: ", []string{"sub", "-key-file", secret}},
			{"-key-file: read the file: ", []string{"sub", "-key-file=" + secret}},
			{"there is no flag -key…", []string{"sub", "-key" + secret}},
			{"there is no flag --key…", []string{"sub", "--key" + secret}},
			{"there is no flag -key-file…", []string{"-key-file" + secret, "sub"}},
			{"there is no flag -passphrase…", []string{"keygen", "-passphrase" + secret, "-salt", "x"}},
			{"there is no flag -keys here; did you mean -key?", []string{"sub", "-keys", secret}},
			{"there is no flag -key here", []string{"keygen", "-key", secret}},
			{"there is no flag -key here", []string{"demo", "-key=" + secret}},
			{"keygen takes no argument", []string{"keygen", secret}},
			{"keygen takes no argument", []string{"keygen", "-salt", "x", secret}},
			{"-passphrase takes no value", []string{"keygen", "-passphrase", secret, "-salt", "x"}},
			{"-passphrase takes no value", []string{"keygen", "-passphrase=" + secret}},
			{"-passphrase takes no value", []string{"-passphrase", secret, "keygen"}},
			{"-passphrase takes no value", []string{"--passphrase", secret}},
		} {
			if strings.HasPrefix(c.want, "$") {
				t.Setenv("AUTOBUS_KEY", secret)
			}
			code, stdout, stderr := call("", c.args...)
			unsetenv(t, "AUTOBUS_KEY")
			if code == exitOK || stdout != "" || !strings.Contains(stderr, c.want) {
				t.Errorf("%q: status %d, output %q, errors %q; want %q", c.args, code, stdout, stderr, c.want)
			}
			for i := range len(secret) - 7 {
				if strings.Contains(stderr, secret[i:i+8]) {
					t.Errorf("%q: errors %q", c.args, stderr)
					break
				}
			}
		}
	}
	// A key in the place of a file, and the other way round.
	for want, args := range map[string][]string{
		"-key-file wants a file's name, and here is a key":           {"sub", "-key-file", good},
		"-key wants a key, and here is a file's name: try -key-file": {"sub", "-key", file},
	} {
		if code, _, stderr := call("", args...); code != exitUsage || !strings.Contains(stderr, want) || strings.Contains(stderr, good[:8]) {
			t.Errorf("%q: status %d, errors %q; want %q", args, code, stderr, want)
		}
	}
}

// Keys come from a flag, a file or the environment, also in the course of a
// rotation. Who has none of them hears nothing, and is told.
func TestKeys(t *testing.T) {
	url := ownURL()
	old, key := autobus.GenerateKey().Encode(), autobus.GenerateKey().Encode()
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte("b'"+key+"'\n\n "+old+" ,\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	both := listen(t, "-n", "3", "-url", url, "-key-file", file)
	t.Setenv("AUTOBUS_KEY", key+","+old)
	environment := listen(t, "-n", "3", "-url", url)
	onlyNew := listen(t, "-n", "2", "-url", url, "-key", key)
	unsetenv(t, "AUTOBUS_KEY")
	without := listen(t, "-n", "1", "-url", url)

	mustCall(t, "", "pub", "Ping", `{"n":1}`, "-url", url, "-key-file", file)
	code, _, stderr := call("", "pub", "-key="+old, "Ping", `{"n":2}`, "-url", url, "-key="+old)
	if code != exitOK || strings.Count(stderr, "warning: others on this machine can see a key") != 1 || strings.Count(stderr, "\n") != 1 {
		t.Errorf("status %d, errors %q", code, stderr)
	}
	t.Setenv("AUTOBUS_KEY", key)
	mustCall(t, "", "pub", "Ping", `{"n":3}`, "-url", url)
	unsetenv(t, "AUTOBUS_KEY")
	mustCall(t, "", "pub", "Ping", `{"n":4}`, "-url", url)

	for _, c := range []struct {
		who  string
		sub  *listener
		want []string
	}{
		{"both keys", both, []string{`{"type":"Ping","n":1}`, `{"type":"Ping","n":2}`, `{"type":"Ping","n":3}`}},
		{"the environment", environment, []string{`{"type":"Ping","n":1}`, `{"type":"Ping","n":2}`, `{"type":"Ping","n":3}`}},
		{"the new key", onlyNew, []string{`{"type":"Ping","n":1}`, `{"type":"Ping","n":3}`}},
		{"no key", without, []string{`{"type":"Ping","n":4}`}},
	} {
		if got := events(t, c.sub.rest(t)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.who, got, c.want)
		}
	}
	if stderr := without.stderr.String(); !strings.Contains(stderr, "3 messages dropped: not what a bus sends, or encrypted, or bad JSON") {
		t.Errorf("without a key: %s", stderr)
	}
	if stderr := onlyNew.stderr.String(); !strings.Contains(stderr, "dropped: not encrypted with the key") {
		t.Errorf("with one key: %s", stderr)
	}
	for _, sub := range []*listener{both, environment, onlyNew, without} {
		if stderr := sub.stderr.String(); strings.Contains(stderr, key) || strings.Contains(stderr, old) {
			t.Errorf("a key is told: %s", stderr)
		}
	}
}

// unsetenv takes a variable out of the environment, until the test ends.
func unsetenv(t *testing.T, name string) {
	t.Helper()
	t.Setenv(name, "") // which has it put back
	os.Unsetenv(name)
}
