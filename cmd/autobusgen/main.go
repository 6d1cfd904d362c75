// Command autobusgen writes the Type, Marshal and Unmarshal methods of events.
//
// An event is a struct and a line above it:
//
//	//go:generate go run github.com/autobus-go/autobus/cmd/autobusgen
//	type Ping struct {
//		ID   int
//		Name string
//	}
//
// After "go generate", ping_autobus.go beside ping.go holds its methods. Where
// a package has several events, one such line anywhere in it will do, and each
// struct is marked:
//
//	//autobus:event
//	type Ping struct{ … }
//
//	//autobus:event Pong.v2
//	type Pong struct{ … }
//
// The second names the type on the wire; the first is named after the struct.
// Structs can also be named by -type A,B instead.
//
// It can be a tool of the module as well, and has to be where modules are
// vendored: after
// "go mod edit -tool=github.com/autobus-go/autobus/cmd/autobusgen", the line is
// "//go:generate go tool autobusgen".
//
// # Usage
//
//	autobusgen [-type A,B] [-python FILE] [DIR]
//
// It reads the package in DIR, by default the one it is run in, its tests
// included, and writes all methods that its marks ask for:
//
//	-type A,B      these structs are events, whether marked or not
//	-python FILE   write the classes for Python autobus 1.0.0 to FILE as well
//
// The methods of what ping.go declares are written to ping_autobus.go; a suffix
// that has a meaning to Go stays the last: ping_autobus_test.go,
// ping_autobus_linux.go. A file that autobusgen has not written is never
// overwritten. Files that their build constraints leave out are told of: run it
// for their system, too, by GOOS and GOARCH, or with their tags, by
// GOFLAGS=-tags=…, which "go generate -tags" doesn't hand on. If anything is wrong, nothing is written, every mistake is told
// as file:line: what, and the exit status is 1; it is 2 for a mistake on the
// command line.
//
// The package may use the methods before they are there, and those of packages
// that are yet to be generated; every other mistake in it is told as the
// compiler would. What it imports must compile, and what its fields are made of
// must have its methods.
//
// # Fields
//
//	Go                            JSON                   Python
//	bool                          true                   bool
//	int…int64, uint…uint64        7                      int, in these bounds; int's are Go's alone
//	float32, float64              7.0                    float
//	string                        "text"                 str
//	[]byte, [N]byte               "aGk=": base64         bytes
//	time.Time                     RFC 3339               datetime with a zone
//	time.Duration                 1.5: seconds           timedelta
//	any                           whatever it is         Any
//	json.RawMessage               as it stands           Any
//	[]byte with option raw        as it stands           Any
//	autobus.Raw                   {"type": …, …}         dict[str, Any]
//	*T                            null, or T             Optional[T]
//	[]T                           […]; nil is []         list[T]
//	[N]T                          […] of N elements      list[T] of N
//	map[K]T                       {…}; nil is {}         dict[K, T]
//	struct                        {…}                    a class
//	Marshal and Unmarshal         {…}                    dict[str, Any]
//	MarshalText, UnmarshalText    "text"                 str
//
// A type of one's own with one of these as its underlying type is read and
// written as that. Map keys are strings or integers, and are written in order.
// An integer that doesn't fit, a float over float32's range, an array of
// another length and a null for anything but a pointer, any or raw JSON refuse
// the event. A struct of the same package gets Marshal and Unmarshal too; one of
// another package must have them. Methods that a field's type has of its own
// (Marshal(*autobus.Encoder) and Unmarshal(*autobus.Decoder) error, or else
// MarshalText and UnmarshalText) are called. The fields of an embedded struct
// of the same package stand among those around them, unless a tag gives it a
// name.
//
// # Names and tags
//
// A field's name on the wire is its name in snake_case: a word begins at an
// upper-case letter after a lower-case letter or digit, and at the last
// upper-case letter of several before a lower-case one. ID is id, UserID is
// user_id, HTTPServer is http_server, UserIDs is user_ids, Sha256Sum is
// sha256_sum; what comes out odd (IPv4 is i_pv4) takes a tag:
//
//	autobus:"name"         the name; empty: the one it has anyhow
//	autobus:",omitempty"   left out if false, 0, "", nil, empty or the zero time
//	autobus:",required"    an event without the field is refused
//	autobus:",string"      a bool or number, written in a string; both are read
//	autobus:",raw"         a []byte that holds JSON, which is sent as it stands
//	autobus:"-"            left out, always
//
// Where there is no autobus tag, json:"name,omitempty" and json:"-" mean the
// same. An unexported field takes an autobus tag with its name, or "-". What
// no value can be read back from is a mistake, never left out: functions,
// channels, complex numbers, interfaces with methods, types that hold
// themselves, generic structs. A mistake are also two fields of one name, a
// field of an event that is named type, which carries the type's name, and a
// lock, sent or not, since events are copied.
//
// # Python
//
// The classes that -python writes are what Python autobus publishes and
// subscribes to; they take what Go writes and write what Go takes. A field that
// Go may leave out, and an Optional one, has a default. Python holds times to
// the microsecond, and durations of up to 136 years. A name that Python can't
// have for a field or class is a mistake. Where a class is there first, write
// the struct by the table above, and compare the class that comes of it.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	// So that to vendor the tool is to vendor what it writes for, also before
	// anything else imports that.
	_ "github.com/autobus-go/autobus"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

const (
	exitOK    = 0
	exitError = 1 // it was tried, and failed
	exitUsage = 2 // it could not be tried
)

const usage = `usage: autobusgen [-type A,B] [-python FILE] [DIR]

Writes the Type, Marshal and Unmarshal methods of the events in the package in
DIR, by default the one it is run in, to NAME_autobus.go beside each NAME.go.
Events are structs with //autobus:event (and maybe a name) right above them, or
with a //go:generate line that runs autobusgen.

  -type A,B      these structs are events, whether marked or not
  -python FILE   write the classes for Python autobus to FILE as well

"go doc github.com/autobus-go/autobus/cmd/autobusgen" tells of fields, names and tags.
`

// run is the program, but for the process around it.
func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("autobusgen", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	types := flags.String("type", "", "")
	python := flags.String("python", "", "")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return exitOK
	case err == nil && flags.NArg() > 1:
		err = fmt.Errorf("one directory, not %q; flags come before it", flags.Args())
	}
	var names []string
	if err == nil {
		names, err = typeNames(flags, *types)
	}
	if err != nil {
		fmt.Fprintf(stderr, "autobusgen: %v\n\n%s", err, usage)
		return exitUsage
	}
	dir := "."
	if flags.NArg() == 1 {
		dir = flags.Arg(0)
	}
	if err := generate(newLoader(), dir, names, *python, stderr); err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			fmt.Fprintf(stderr, "%s\n", line)
		}
		return exitError
	}
	return exitOK
}

// typeNames splits the value of -type.
func typeNames(flags *flag.FlagSet, list string) (names []string, err error) {
	given := false
	flags.Visit(func(f *flag.Flag) { given = given || f.Name == "type" })
	if !given {
		return nil, nil
	}
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name == "" {
			return nil, fmt.Errorf("-type %q: want names of structs, as in -type Ping,Pong", list)
		}
		names = append(names, name)
	}
	return names, nil
}

// An output is a file to be written.
type output struct {
	name string
	text []byte
}

// generate does what the command line asks for, or nothing and tells why. To
// notes it tells what else there would be.
func generate(l *loader, dir string, names []string, python string, notes io.Writer) error {
	p, err := l.load(dir, names)
	if err != nil {
		return err
	}
	for _, name := range p.notBuilt {
		fmt.Fprintf(notes, "%s: its build constraints leave this file out, and so are its events: set GOOS and GOARCH for it, or GOFLAGS=-tags=…\n", name)
	}
	outputs, events, err := p.generate()
	if err != nil {
		return err
	}
	if python != "" {
		text, err := pythonClasses(p.name, events)
		if err != nil {
			return err
		}
		outputs = slices.Insert(outputs, 0, output{python, text}) // the one whose folder may be missing
	}
	var mistakes []error
	var changed []output
	for _, o := range outputs {
		old, err := os.ReadFile(o.name)
		switch {
		case err == nil && bytes.Equal(old, o.text):
			continue // the file keeps its time, and nobody builds anew
		case err == nil && len(old) > 0 && !isOurs(old):
			mistakes = append(mistakes, fmt.Errorf("%s: autobusgen did not write this file, and doesn't overwrite it: rename it, or remove it", o.name))
		case err == nil: // it may be for reading alone
			var f *os.File
			if f, err = os.OpenFile(o.name, os.O_WRONLY, 0); err == nil {
				err = f.Close()
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			mistakes = append(mistakes, fmt.Errorf("autobusgen: %w", err))
		}
		changed = append(changed, o)
	}
	if len(mistakes) > 0 {
		return errors.Join(mistakes...)
	}
	for _, o := range changed {
		if err := os.WriteFile(o.name, o.text, 0o666); err != nil {
			return fmt.Errorf("autobusgen: %w", err)
		}
	}
	return nil
}

// What autobusgen writes begins with a line that begins and ends so, after the
// comment sign: what go.dev/s/generatedcode asks for.
const (
	generatedBy = " Code generated by autobusgen"
	doNotEdit   = "DO NOT EDIT."
)

// isOurs reports whether autobusgen has written a file, in Go or Python.
func isOurs(text []byte) bool {
	for line := range strings.Lines(string(text[:min(len(text), 4096)])) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "//") && !strings.HasPrefix(line, "#") && line != "" {
			return false
		}
		if strings.HasPrefix(strings.TrimLeft(line, "/#"), generatedBy) && strings.HasSuffix(line, doNotEdit) {
			return true
		}
	}
	return false
}

// outputName is the name of the file for the methods of what a file declares.
// What Go reads from the end of a file's name stays there.
func outputName(source string) string {
	dir, base := filepath.Split(source)
	parts := strings.Split(strings.TrimSuffix(base, ".go"), "_")
	end := len(parts)
	if end > 1 && parts[end-1] == "test" {
		end--
	}
	if end > 1 && slices.Contains(knownArch, parts[end-1]) {
		end--
	}
	if end > 1 && slices.Contains(knownOS, parts[end-1]) {
		end--
	}
	return dir + strings.Join(slices.Insert(parts, end, "autobus"), "_") + ".go"
}

// What a file's name may end in for Go to build it for one system only: all of
// "go tool dist list", and what go/build reserves.
var (
	knownOS = []string{
		"aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "nacl",
		"netbsd", "openbsd", "plan9", "solaris", "wasip1", "windows", "zos",
	}
	knownArch = []string{
		"386", "amd64", "amd64p32", "arm", "armbe", "arm64", "arm64be", "loong64", "mips", "mipsle", "mips64",
		"mips64le", "mips64p32", "mips64p32le", "ppc", "ppc64", "ppc64le", "riscv", "riscv64", "s390", "s390x",
		"sparc", "sparc64", "wasm",
	}
)
