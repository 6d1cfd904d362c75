package autobus

import (
	"bufio"
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestReadme has the compiler read every Go block of the README, in a module
// that requires this one. A whole program stands as it is; a fragment gets a
// package, the imports it names, and what readmeGiven gives it. Tests are run.
func TestReadme(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		missing(t, "the go command isn't there")
	}
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	blocks := codeBlocks(string(readme), "go")
	if len(blocks) < 10 {
		t.Fatalf("only %d Go blocks found", len(blocks))
	}
	for _, b := range blocks {
		source, err := b.source()
		if err != nil {
			t.Fatalf("README.md:%d: %v", b.line, err)
		}
		writeFile(t, filepath.Join(dir, b.name(), b.name()+b.suffix()), source)
	}

	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	goDirective := regexp.MustCompile(`(?m)^go .*$`).FindString(string(mod))
	writeFile(t, filepath.Join(dir, "go.mod"), fmt.Sprintf("module readme\n\n%s\n\nrequire github.com/autobus-go/autobus v0.0.0\n\nreplace github.com/autobus-go/autobus => %s\n", goDirective, root))
	if sum, err := os.ReadFile("go.sum"); err == nil {
		writeFile(t, filepath.Join(dir, "go.sum"), string(sum))
	}
	for _, args := range [][]string{{"build", "-mod=mod", "./..."}, {"vet", "-mod=mod", "./..."}, {"test", "-mod=mod", "./..."}} {
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	formatted, err := exec.Command("gofmt", "-l", dir).CombinedOutput()
	if err != nil {
		missing(t, "gofmt isn't there")
	}
	if len(formatted) > 0 {
		t.Errorf("gofmt would change:\n%s", formatted)
	}
}

// TestReadmePython runs the README's two Python programs, on a group of their
// own: the first hears, and the second is heard.
func TestReadmePython(t *testing.T) {
	python := os.Getenv("AUTOBUS_PYTHON")
	if python == "" {
		missing(t, "AUTOBUS_PYTHON names no Python with autobus 1.0.0; script/test installs one")
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := codeBlocks(string(readme), "python")
	if len(blocks) != 2 {
		t.Fatalf("%d Python programs, want 2", len(blocks))
	}
	url := ownURL(t)
	program := func(b codeBlock) *exec.Cmd {
		if !strings.Contains(b.text, DefaultURL) {
			t.Fatalf("README.md:%d doesn't name %s", b.line, DefaultURL)
		}
		cmd := exec.CommandContext(t.Context(), python, "-u", "-c", strings.ReplaceAll(b.text, DefaultURL, url))
		cmd.Stderr = os.Stderr
		return cmd
	}
	bus := startBus(t, url, "")

	hears := program(blocks[0])
	output, err := hears.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := hears.Start(); err != nil {
		t.Fatal(err)
	}
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(output).ReadString('\n')
		line <- text
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for said := false; !said; { // nobody knows when Python is there
		publish(t, bus.Bus, Raw{Name: "Ping", JSON: []byte(`{"id": 1, "name": "go"}`)})
		bus.next()
		select {
		case text := <-line:
			if text != "heard ping 1 of go\n" {
				t.Errorf("the first program says %q", text)
			}
			said = true
		case <-tick.C:
		}
	}
	if err := hears.Process.Kill(); err != nil {
		t.Error(err)
	}
	hears.Wait()

	if err := program(blocks[1]).Run(); err != nil {
		t.Fatal(err)
	}
	if name, fields := bus.next(); name != "Ping" || fmt.Sprint(fields) != "map[id:7 name:python]" {
		t.Errorf("from the second program came %s %v", name, fields)
	}
}

// TestReadmeEncryption runs the README's way to an encrypted bus, less the
// installing, on a group of its own.
func TestReadmeEncryption(t *testing.T) {
	python := os.Getenv("AUTOBUS_PYTHON")
	if python == "" {
		missing(t, "AUTOBUS_PYTHON names no Python with autobus 1.0.0; script/test installs one")
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := codeBlocks(string(readme), "sh")
	i := slices.IndexFunc(blocks, func(b codeBlock) bool { return strings.Contains(b.text, "$(autobus keygen)") })
	if i < 0 {
		t.Fatal("README.md has no walk-through")
	}
	commands := regexp.MustCompile(`(?m)^(go install|python3 -m venv|export AUTOBUS_KEY=|venv/bin/python -c|autobus pub)`)
	if len(commands.FindAllString(blocks[i].text, -1)) != 5 {
		t.Fatalf("README.md:%d hasn't five commands", blocks[i].line)
	}
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "./cmd/autobus").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.SplitAfter(blocks[i].text, "\n")
	url := ownURL(t)
	script := strings.Join(lines[2:len(lines)-2], "")
	script = strings.Replace(script, "venv/bin/python", `"$AUTOBUS_PYTHON"`, 1)
	script = strings.Replace(script, "autobus.run(", `autobus.run(url="`+url+`", `, 1)
	// The last command runs once a line of input: nobody knows when Python is there.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script+"while read line; do "+strings.TrimSpace(lines[len(lines)-2])+"; done; kill $!")
	cmd.Env = append(os.Environ(), "AUTOBUS_URL="+url, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	cmd.Stderr = t.Output()
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(output).ReadString('\n')
		line <- text
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for said := false; !said; {
		fmt.Fprintln(input)
		select {
		case text := <-line:
			if text != "Python heard id=1\n" {
				t.Errorf("Python says %q", text)
			}
			said = true
		case <-deadline:
			t.Error("Python says nothing")
			said = true
		case <-tick.C:
		}
	}
	input.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

// A codeBlock is code in the README.
type codeBlock struct {
	line int // of its first line
	text string
}

func codeBlocks(readme, language string) (blocks []codeBlock) {
	var b *codeBlock
	number := 0
	for line := range strings.Lines(readme) {
		number++
		switch fence := strings.TrimSpace(line); {
		case b == nil && fence == "```"+language:
			b = &codeBlock{line: number + 1}
		case b != nil && fence == "```":
			blocks = append(blocks, *b)
			b = nil
		case b != nil:
			b.text += line
		}
	}
	return blocks
}

func (b codeBlock) name() string { return fmt.Sprintf("line%d", b.line) }

func (b codeBlock) suffix() string {
	if strings.Contains(b.text, "*testing.T") {
		return "_test.go"
	}
	return ".go"
}

// readmeGiven is what fragments may use without saying what it is, by name.
var readmeGiven = map[string]string{
	"ctx":           "var ctx context.Context\n",
	"bus":           "var bus *autobus.Bus\n",
	"Ping":          readmeEvent("Ping"),
	"Pong":          readmeEvent("Pong"),
	"Reading":       "type Reading struct {\n\tPing\n\tSensor string\n}\n",
	"readings":      "var readings []Reading\n",
	"serve":         "func serve(ctx context.Context) error { return ctx.Err() }\n",
	"handlePing":    "func handlePing(ctx context.Context, p Ping) error { return ctx.Err() }\n",
	"berlin":        "var berlin *time.Location\n",
	"backup":        "func backup(ctx context.Context) error { return ctx.Err() }\n",
	"handler":       "var handler http.Handler\n",
	"newSerialLine": "func newSerialLine(name string) autobus.Transport { return nil }\n",
}

func readmeEvent(name string) string {
	return strings.ReplaceAll(`type Ping struct{ ID int }

func (Ping) Type() string                 { return "Ping" }
func (p Ping) Marshal(e *autobus.Encoder) { e.Key("id").Int(p.ID) }
func (p *Ping) Unmarshal(d *autobus.Decoder) error {
	for range d.Fields() {
		p.ID = d.Int()
	}
	return d.Err()
}
`, "Ping", name)
}

var readmeImports = []string{
	"context", "errors", "fmt", "log", "log/slog", "math", "net/http", "os", "os/signal", "testing", "time",
	"github.com/autobus-go/autobus",
}

// source makes a file of the block.
func (b codeBlock) source() (string, error) {
	fset := token.NewFileSet()
	if _, err := parser.ParseFile(fset, "", b.text, parser.PackageClauseOnly); err == nil {
		return b.text, nil
	}
	body := b.text
	if _, err := parser.ParseFile(fset, "", "package readme\n"+body, 0); err != nil {
		if body, err = b.function(fset); err != nil {
			return "", err
		}
	}
	body, err := withGiven(fset, body)
	if err != nil {
		return "", err
	}
	var imports bytes.Buffer
	for _, path := range readmeImports {
		if regexp.MustCompile(`\b` + path[strings.LastIndex(path, "/")+1:] + `\.[A-Z]`).MatchString(body) {
			if strings.Contains(path, ".") && imports.Len() > 0 {
				imports.WriteString("\n")
			}
			fmt.Fprintf(&imports, "\t%q\n", path)
		}
	}
	return fmt.Sprintf("package readme\n\nimport (\n%s)\n\n%s", imports.String(), body), nil
}

// function makes a function of a fragment that is statements.
func (b codeBlock) function(fset *token.FileSet) (string, error) {
	const head = "func _() error {\n"
	indented := "\t" + strings.TrimSuffix(strings.ReplaceAll(b.text, "\n", "\n\t"), "\t")
	indented = strings.ReplaceAll(indented, "\n\t\n", "\n\n")
	f, err := parser.ParseFile(fset, "", "package readme\n"+head+indented+"}\n", 0)
	if err != nil {
		return "", err
	}
	statements := f.Decls[0].(*ast.FuncDecl).Body.List
	if _, ends := statements[len(statements)-1].(*ast.ReturnStmt); !ends {
		indented += "\treturn nil\n"
	}
	return head + indented + "}\n", nil
}

// withGiven adds to a file, less its package clause, what it uses of
// readmeGiven and doesn't declare, and what that uses.
func withGiven(fset *token.FileSet, body string) (string, error) {
	for {
		f, err := parser.ParseFile(fset, "", "package readme\n"+body, 0)
		if err != nil {
			return "", err
		}
		declared := make(map[string]bool)
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					declared[d.Name.Name] = true
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						declared[spec.Name.Name] = true
					case *ast.ValueSpec:
						declared[spec.Names[0].Name] = true
					}
				}
			}
		}
		var need []string
		ast.Inspect(f, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && readmeGiven[id.Name] != "" && !declared[id.Name] && !slices.Contains(need, id.Name) {
				need = append(need, id.Name)
			}
			return true
		})
		if len(need) == 0 {
			return body, nil
		}
		for _, name := range need {
			body += "\n" + readmeGiven[name]
		}
	}
}
