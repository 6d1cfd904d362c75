// Command autobus publishes and shows events on a bus from the command line.
//
//	autobus demo                    two processes exchange events on this machine
//	autobus pub Ping '{"id": 1}'    publish an event
//	autobus sub Ping                show the events of a type as they come
//	autobus keygen                  make a key, for an encrypted bus
//
// "autobus help" has the rest.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/autobus-go/autobus"
)

func main() {
	// A closed pipe shall be an error of the write, not the end of the process.
	// The number is POSIX's for SIGPIPE, which package syscall lacks on js.
	signal.Ignore(syscall.Signal(13))
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

const (
	exitOK    = 0
	exitError = 1 // it was tried, and failed
	exitUsage = 2 // it could not be tried
)

// stopTime bounds how long a command that is to end takes for what is under way.
const stopTime = 3 * time.Second

// A tool is one call of the program.
type tool struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer

	url       string
	urlFrom   string // where url was given: "-url", "$AUTOBUS_URL" or ""
	namespace string
	count     int           // sub's -n; 0: no limit
	period    time.Duration // sub's -for; 0: no limit

	keys       []autobus.Key
	keysFrom   string // the flag they come from; "" is the environment
	passphrase bool   // keygen's -passphrase
	salt       string // keygen's -salt

	started   func() // called once the bus is, for tests
	inProcess bool   // there are others on mem:// here: a test's
}

// A command is what its name on the command line does.
type command struct {
	name  string
	usage string
	does  string
	flags []string
	run   func(t *tool, ctx context.Context, args []string) error
}

// commands is filled by init, since help refers to it. A command that does
// nothing for a person isn't shown.
var commands []command

func init() {
	commands = []command{
		{name: "demo", usage: "demo", does: "watch two processes exchange events on this machine", flags: busFlags, run: (*tool).demo},
		{name: "pub", usage: "pub TYPE [JSON]", does: "publish an event, or one for each line of standard input", flags: slices.Concat(busFlags, keyFlags, []string{"for"}), run: (*tool).pub},
		{name: "sub", usage: "sub [TYPE ...]", does: "show events as they come: of these types, or of all", flags: slices.Concat(busFlags, keyFlags, []string{"n", "for"}), run: (*tool).sub},
		{name: "keygen", usage: "keygen", does: "make a key for an encrypted bus: a random one, or that of a passphrase", flags: []string{"passphrase", "salt"}, run: (*tool).keygen},
		{name: "version", usage: "version", does: "print the version", flags: busFlags, run: (*tool).version},
		{name: "help", usage: "help [COMMAND]", does: "print this, or how a command is used", flags: busFlags, run: (*tool).help},
		{name: demoPeer, flags: busFlags, run: (*tool).demoPeer},
	}
}

// shown reports whether the command is one for people.
func (c command) shown() bool { return c.does != "" }

var (
	busFlags = []string{"url", "namespace"}
	keyFlags = []string{"key", "key-file"}
	switches = []string{"passphrase"} // flags without a value
)

// usageError is a mistake on the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return "autobus: " + e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// errSilent ends the program with exitError when what there is to say was said.
var errSilent = errors.New("autobus: it failed")

// run is the program, but for the process around it.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return newTool(stdin, stdout, stderr).main(args)
}

func newTool(stdin io.Reader, stdout, stderr io.Writer) *tool {
	return &tool{stdin: stdin, stdout: stdout, stderr: &lockedWriter{w: stderr}, started: func() {}}
}

func (t *tool) main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // so that a second Ctrl-C kills

	err := t.dispatch(ctx, args)
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintln(t.stderr, err)
		return exitUsage
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		why := strings.TrimSuffix(err.Error(), ": "+context.Canceled.Error())
		fmt.Fprintln(t.stderr, "autobus: interrupted:", strings.TrimPrefix(why, "autobus: "))
	case err != errSilent:
		fmt.Fprintln(t.stderr, err)
	}
	return exitError
}

func (t *tool) dispatch(ctx context.Context, args []string) error {
	t.url = autobus.DefaultURL
	if url := os.Getenv("AUTOBUS_URL"); url != "" {
		t.url, t.urlFrom = url, "$AUTOBUS_URL"
	}
	t.namespace = os.Getenv("AUTOBUS_NAMESPACE")

	name, args, err := t.commandName(args)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(commands, func(c command) bool { return c.name == name })
	if i < 0 {
		return unknownCommand(name)
	}
	c := commands[i]
	args, help, err := t.parse(args, c)
	switch {
	case err != nil:
		return err
	case help:
		return t.help(ctx, []string{c.name})
	case slices.Contains(c.flags, "key"):
		if err := t.environmentKeys(); err != nil {
			return err
		}
	}
	return c.run(t, ctx, args)
}

// commandName takes the command out of the arguments, where flags may stand
// before it.
func (t *tool) commandName(args []string) (name string, rest []string, err error) {
	var known []string
	for _, c := range commands {
		for _, flag := range c.flags {
			if !slices.Contains(known, flag) {
				known = append(known, flag)
			}
		}
	}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		name, _, hasValue := cutFlag(arg)
		switch {
		case name == "" && i > 0 && strings.TrimLeft(args[i-1], "-") == "passphrase" && arg != "keygen":
			return "", nil, usagef("-passphrase takes no value, it asks") // arg isn't shown: it may be one
		case name == "":
			return arg, slices.Concat(args[:i], args[i+1:]), nil
		case name == "h" || name == "help":
			return "help", nil, nil
		case name == "version":
			return "version", nil, nil
		case !slices.Contains(known, name):
			return "", nil, unknownFlag(arg, name, known)
		case !hasValue && !slices.Contains(switches, name):
			i++
		}
	}
	return "", nil, usagef(`a command is missing: demo, pub, sub, keygen or version; "autobus help" tells more`)
}

// cutFlag takes a flag apart: its name, "" if arg isn't one, and its value if
// that follows a '='.
func cutFlag(arg string) (name, value string, hasValue bool) {
	if len(arg) < 2 || arg[0] != '-' || arg == "--" {
		return "", "", false
	}
	name = strings.TrimPrefix(arg[1:], "-")
	return strings.Cut(name, "=")
}

// parse takes the flags out of the arguments, wherever they stand. Package
// flag would stop at the first argument that isn't one.
func (t *tool) parse(args []string, c command) (rest []string, help bool, err error) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(rest, args[i+1:]...), false, nil
		}
		name, value, hasValue := cutFlag(arg)
		switch {
		case name == "":
			rest = append(rest, arg)
			continue
		case name == "h" || name == "help":
			return nil, true, nil
		case !slices.Contains(c.flags, name):
			return nil, false, unknownFlag(arg, name, c.flags)
		case slices.Contains(switches, name):
			if hasValue {
				return nil, false, usagef("-%s takes no value", name)
			}
		case !hasValue:
			i++
			if i == len(args) {
				return nil, false, usagef("-%s needs a value: -%s %s", name, name, flagValue[name])
			}
			value = args[i]
		}
		if err := t.set(name, value); err != nil {
			return nil, false, err
		}
	}
	return rest, false, nil
}

// flagValue is what a flag's value may look like.
var flagValue = map[string]string{"url": autobus.DefaultURL, "namespace": "kitchen", "n": "10", "for": "30s", "key": "KEY", "key-file": "FILE", "salt": "NAME"}

func (t *tool) set(name, value string) error {
	switch name {
	case "url":
		if t.url, t.urlFrom = value, "-url"; value == "" {
			return usagef("-url is empty; leave it out for %s", autobus.DefaultURL)
		}
	case "namespace":
		t.namespace = value
	case "n":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return usagef("-n %s: want a number of events, 1 or more", quoteArg(value))
		}
		t.count = n
	case "for":
		period, err := time.ParseDuration(value)
		if err != nil || period <= 0 {
			hint := "want a time with its unit, as 10s, 500ms or 1h30m"
			if n, err := strconv.ParseFloat(value, 64); err == nil && n > 0 {
				hint += "; did you mean " + value + "s?"
			}
			return usagef("-for %s: %s", quoteArg(value), hint)
		}
		t.period = period
	case "key", "key-file":
		return t.setKeys(name, value)
	case "passphrase":
		t.passphrase = true
	case "salt":
		if t.salt = value; value == "" {
			return usagef("-salt is empty; the name of the bus will do")
		}
	}
	return nil
}

func unknownCommand(name string) error {
	var names []string
	for _, c := range commands {
		if c.shown() {
			names = append(names, c.name)
		}
	}
	return usagef("there is no command %s%s", quoteArg(name), suggestion(name, names, ""))
}

func unknownFlag(arg, name string, known []string) error {
	if before, _, hasValue := strings.Cut(arg, "="); hasValue { // which may be a secret
		arg = before
	}
	for _, secret := range []string{"passphrase", "key-file", "key"} {
		if strings.HasPrefix(name, secret) && len(name) > max(len(secret), len("key-file"))+1 { // with a value behind it
			arg = arg[:len(arg)-len(name)+len(secret)] + "…"
			break
		}
	}
	return usagef("there is no flag %s here%s", quoteArg(arg), suggestion(name, known, "-"))
}

// quoteArg is an argument as it was typed, where that is harmless to print.
func quoteArg(arg string) string {
	if quoted := strconv.Quote(arg); quoted[1:len(quoted)-1] != arg || arg == "" || strings.ContainsAny(arg, " ;,") {
		return quoted
	}
	return arg
}

// suggestion names what was probably meant, or else what there is.
func suggestion(name string, known []string, prefix string) string {
	best, least := "", 3
	name = strings.ToLower(name)
	for _, k := range known {
		distance := editDistance(name, k)
		if strings.HasPrefix(name, k) && len(k) > 1 || strings.HasPrefix(k, name) {
			distance = min(distance, 2)
		}
		if distance < least && distance < max(2, len(k)) {
			best, least = k, distance
		}
	}
	if best != "" {
		return "; did you mean " + prefix + best + "?"
	}
	return "; there are " + prefix + strings.Join(known, ", "+prefix)
}

// editDistance is how many letters must be added, left out or replaced to make
// a of b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

func (t *tool) version(_ context.Context, args []string) error {
	if len(args) > 0 {
		return usagef("version takes no argument, but here is %s", quoteArg(args[0]))
	}
	version := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = cmp.Or(info.Main.Version, version)
	}
	fmt.Fprintln(t.stdout, "autobus", version, runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH)
	return nil
}

func (t *tool) help(_ context.Context, args []string) error {
	if len(args) == 0 {
		fmt.Fprint(t.stdout, "autobus publishes and shows events on a bus.\n\nUsage: autobus COMMAND [FLAGS] [ARGUMENTS]\n\n")
		for _, c := range commands {
			if c.shown() {
				fmt.Fprintf(t.stdout, "  %-18s %s\n", c.usage, c.does)
			}
		}
		fmt.Fprint(t.stdout, "\n", helpFlags, helpBusFlags, "  ...                and those of a command: autobus help COMMAND\n\n", helpExit)
		return nil
	}
	for _, c := range commands {
		if c.name == args[0] && c.shown() {
			fmt.Fprintf(t.stdout, "Usage: autobus %s [FLAGS]\n\n%s\n%s", c.usage, helpFor[c.name], helpFlags)
			if slices.Contains(c.flags, "url") {
				fmt.Fprint(t.stdout, helpBusFlags)
			}
			if slices.Contains(c.flags, "key") {
				fmt.Fprint(t.stdout, helpKeyFlags)
			}
			if slices.Contains(c.flags, "salt") {
				fmt.Fprint(t.stdout, helpKeygenFlags)
			}
			if slices.Contains(c.flags, "n") {
				fmt.Fprint(t.stdout, helpSubFlags)
			} else if slices.Contains(c.flags, "for") {
				fmt.Fprint(t.stdout, helpPubFlags)
			}
			return nil
		}
	}
	return unknownCommand(args[0])
}

const helpFlags = "Flags, before or behind the arguments:\n"

const helpBusFlags = `  -url URL           the bus; otherwise $AUTOBUS_URL, otherwise ` + autobus.DefaultURL + `
  -namespace NAME    the namespace; otherwise $AUTOBUS_NAMESPACE, otherwise none
`

const helpKeyFlags = `  -key KEY           the key of an encrypted bus; otherwise $AUTOBUS_KEY, otherwise
                     none. Of several, KEY,KEY, the first seals and all open
  -key-file FILE     the same from a file, with a comma or a line's end between
`

const helpKeygenFlags = `  -passphrase        ask for a passphrase, or read one from a pipe
  -salt NAME         goes with it: the same on all machines, and no secret
`

const helpSubFlags = `  -n COUNT           end after this many events
  -for TIME          end after this time, as 10s or 1h30m
`

const helpPubFlags = `  -for TIME          give up after this time, as 10s, a Redis server that can't be
                     reached; input that is slow is waited for all the same
`

const helpExit = `The exit status is 0, 1 when something failed, or 2 for a mistake on the
command line or in the URL. Ctrl-C (or SIGTERM) ends every command in good
order, sub and pub with status 0, demo with 1; a second one kills it.
`

var helpFor = map[string]string{
	"demo": `The program starts itself a second time. One process publishes Ping, the other
hears it and publishes Pong, and both say so. It ends within 5 seconds, with
status 0 if events crossed, or with advice and status 1 if none did. Ctrl-C
ends it early, with status 1. The namespace is "demo", if none is given. It is
in plaintext, with or without $AUTOBUS_KEY.
`,
	"pub": `It publishes one event of the type and ends when it is sent:

  autobus pub Ping '{"id": 1}'
  autobus pub Ping                        the same as with '{}'

With '-' in the place of the JSON, or when standard input is a pipe or a file
and there is no JSON, each line of it is an object, and so an event:

  autobus pub Ping - <pings.jsonl

(In a script whose own input is a pipe, write '{}' for an event without fields.)

Without a type, the lines are those that "autobus sub" writes into a pipe or
file, so that events can be recorded and played back, or carried to another
bus:

  autobus sub >events.jsonl               and later: autobus pub - <events.jsonl
  autobus sub | ssh elsewhere autobus pub -

They go out at once, not in the time they were recorded in, and in the
namespace that -namespace names, not in the one they came from.

At a line that can't be published it stops, says which, and ends with status 1;
the lines before it are published. Ctrl-C ends it with status 0 once those
that were read are sent, or with status 1 if one could not be published.
`,
	"sub": `It shows every event of these types, or of all, until Ctrl-C. A type is a whole
name, not a pattern. On a terminal a line has the time, the type and the JSON;
characters that could change what the terminal shows are escaped. In a pipe or file a line is a JSON object:

  {"time":"2026-01-02T15:04:05.123456789Z","channel":"autobus::Ping","type":"Ping","event":{"type":"Ping","id":1}}

With -n and -for together, the status is 1 if the time is up before the events
are there. Ctrl-C ends it with status 0 in any case.
`,
	"keygen": `It prints a new random key, alone on a line:

  (umask 077; autobus keygen >bus.key)
  autobus sub -key-file bus.key

With -passphrase it prints the key that belongs to a passphrase and a salt, the
same each time and on each machine. Choose a long passphrase: who records
the bus can try out many. To standard error goes the Python that gives the same
key.

  autobus keygen -passphrase -salt kitchen
`,
	"version": "It prints the version, that of Go, and the system it was built for.\n",
	"help":    "It prints how a command is used.\n",
}

// bus is the bus that flags and environment name.
func (t *tool) bus() *autobus.Bus {
	return &autobus.Bus{URL: t.url, Namespace: t.namespace, Keys: t.keys, Logger: logger{t.stderr}}
}

// start starts the bus. What is wrong with the URL is a mistake on the command
// line, and the error says where.
func (t *tool) start(ctx context.Context, bus *autobus.Bus) error {
	if scheme, _, _ := strings.Cut(t.url, "://"); strings.EqualFold(scheme, "mem") && !t.inProcess {
		return usagef("%s: mem:// stays within one process, and here nobody else is in it; try it without, for UDP multicast", t.urlFrom)
	}
	if !utf8.ValidString(t.namespace) {
		return usagef("the namespace %s isn't valid UTF-8", quoteArg(t.namespace))
	}
	err := bus.Start(ctx)
	if err == nil || t.urlFrom == "" || ctx.Err() != nil {
		return err
	}
	problem := strings.TrimPrefix(err.Error(), "autobus: ")
	// No type tells these errors from those of the system, but their text
	// begins with what it is about.
	if about, _, _ := strings.Cut(problem, ":"); strings.Contains(about, "URL") {
		return usagef("%s: %s", t.urlFrom, problem)
	}
	return errors.New("autobus: " + t.urlFrom + ": " + problem)
}

// shownURL is the bus's URL without the passwords that may be in it, before
// the host or in an option. The library takes raw characters there and lists
// of hosts, which net/url doesn't.
func (t *tool) shownURL() string {
	scheme, rest, ok := strings.Cut(t.url, "://")
	if !ok {
		return "a bus" // Start tells what is wrong with the URL
	}
	rest, query, hasQuery := strings.Cut(rest, "?")
	host, path, hasPath := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		if user, _, ok := strings.Cut(host[:i], ":"); ok {
			host = user + ":xxxxx" + host[i:]
		}
	}
	shown := scheme + "://" + host
	if hasPath {
		shown += "/" + path
	}
	if hasQuery {
		options := strings.Split(query, "&")
		for i, option := range options {
			name, _, _ := strings.Cut(option, "=")
			if plain, err := url.QueryUnescape(name); err != nil || strings.Contains(plain, "password") {
				options[i] = name + "=xxxxx"
			}
		}
		shown += "?" + strings.Join(options, "&")
	}
	return shown
}

// checkType returns what is wrong with the name of a type.
func checkType(name string) error {
	if _, err := autobus.Marshal(autobus.Raw{Name: name}); err != nil {
		return usagef("%s", strings.TrimPrefix(err.Error(), "autobus: "))
	}
	return nil
}

// warn tells what the bus has dropped or lost.
func (t *tool) warn(s autobus.Stats) {
	for _, w := range []struct {
		n    uint64
		text string
	}{
		{s.Lost, "of any type lost on the way: their senders' numbering has gaps"},
		{s.DroppedOverflow, "dropped: they came faster than they could be written"},
		{s.DroppedAbandoned, "not handled any more at the end"},
		{s.DroppedMalformed, "dropped: not what a bus sends, or encrypted, or bad JSON"},
		{s.DroppedToken, "dropped: not encrypted with the key"},
		{s.DroppedType, "dropped: their type isn't that of their channel"},
		{s.DroppedInvalid, "dropped: invalid"},
		{s.DroppedOversized, "dropped: too large"},
		{s.Unsent, "not sent"},
	} {
		switch w.n {
		case 0:
		case 1:
			fmt.Fprintf(t.stderr, "autobus: warning: 1 message %s\n", w.text)
		default:
			fmt.Fprintf(t.stderr, "autobus: warning: %d messages %s\n", w.n, w.text)
		}
	}
}

// logger shows what a bus logs, one line each.
type logger struct{ w io.Writer }

func (logger) Debug(string, ...any)            {}
func (logger) Info(string, ...any)             {}
func (l logger) Warn(msg string, args ...any)  { l.write("warning: ", msg, args) }
func (l logger) Error(msg string, args ...any) { l.write("", msg, args) }

func (l logger) write(level, msg string, args []any) {
	line := "autobus: " + level + strings.TrimPrefix(msg, "autobus: ")
	for i := 0; i+1 < len(args); i += 2 {
		// Quoted, since it may come from anyone on the network.
		line += fmt.Sprintf(" %v=%s", args[i], quoteArg(fmt.Sprint(args[i+1])))
	}
	fmt.Fprintln(l.w, line)
}

// isTerminal reports whether v is a terminal.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// lockedWriter lets a bus's goroutines write beside the program's.
type lockedWriter struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
