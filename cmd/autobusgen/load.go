package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/scanner"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const autobusPath = "github.com/autobus-go/autobus"

// A loader reads packages. What they import it reads from the export data that
// the go command makes as it compiles, so that it works wherever a build does:
// offline, in vendored modules, with replaced ones.
type loader struct {
	exports map[string]string // by import path, the file with the export data
}

func newLoader() *loader { return &loader{exports: make(map[string]string)} }

// A pkg is a package whose events are to get their methods.
type pkg struct {
	loader *loader
	dir    string
	path   string
	name   string
	goes   string // the version of the language, as "go1.25"
	fset   *token.FileSet
	wanted []string // by -type

	files, tests, external []*ast.File // external: package name_test
	names                  map[*ast.File]string
	ours                   []string // files that autobusgen wrote before
	notBuilt               []string // files with marks, and build constraints that leave them out
	problems               problems
	marks                  map[string]mark // by the struct's name, "_test." before those of package name_test
}

// A mark is what asks for the methods of a struct.
type mark struct {
	wire string // the type's name on the wire; empty: the struct's
	pos  token.Pos
}

// listed is what "go list" tells of a package.
type listed struct {
	ImportPath   string
	Name         string
	GoFiles      []string
	CgoFiles     []string
	TestGoFiles  []string
	XTestGoFiles []string

	IgnoredGoFiles []string // not built here: for another system, say

	Module *struct{ GoVersion string }
	Error  *struct{ Err string }
}

// load reads the package in dir, but for what autobusgen has written.
func (l *loader) load(dir string, wanted []string) (*pkg, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("autobusgen: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("autobusgen: %s isn't a directory: name the one that the package is in", dir)
	}
	out, err := goList(dir, "-json=ImportPath,Name,GoFiles,CgoFiles,TestGoFiles,XTestGoFiles,IgnoredGoFiles,Module,Error", ".")
	if err != nil {
		return nil, err
	}
	var about listed
	if err := json.Unmarshal(out, &about); err != nil {
		return nil, fmt.Errorf("autobusgen: go list: %w", err)
	}
	all := slices.Concat(about.GoFiles, about.CgoFiles, about.TestGoFiles, about.XTestGoFiles)
	switch {
	case len(all) == 0 && about.Error != nil:
		return nil, fmt.Errorf("autobusgen: %s", about.Error.Err)
	case len(all) == 0:
		return nil, fmt.Errorf("autobusgen: no Go files in %s", dir)
	case about.ImportPath == autobusPath:
		return nil, errors.New("autobusgen: package autobus can't have events of its own")
	}
	p := &pkg{
		loader: l, dir: dir, path: about.ImportPath, fset: token.NewFileSet(), wanted: wanted,
		names: make(map[*ast.File]string), marks: make(map[string]mark),
	}
	if about.Module != nil && about.Module.GoVersion != "" {
		p.goes = "go" + about.Module.GoVersion
	}
	var problems problems
	parse := func(names []string) (files []*ast.File) {
		for _, name := range names {
			name = filepath.Join(dir, name)
			text, err := os.ReadFile(name)
			if err != nil {
				problems.add(token.Position{}, "autobusgen: %v", err)
				continue
			}
			if isOurs(text) {
				p.ours = append(p.ours, name)
				continue
			}
			f, err := parser.ParseFile(p.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
			if list := (scanner.ErrorList)(nil); errors.As(err, &list) {
				for _, e := range list {
					problems.add(e.Pos, "%s", e.Msg)
				}
				continue
			}
			files = append(files, f)
			p.names[f] = name
		}
		return files
	}
	p.files = parse(slices.Concat(about.GoFiles, about.CgoFiles))
	p.tests = parse(about.TestGoFiles)
	p.external = parse(about.XTestGoFiles)
	for _, f := range slices.Concat(p.files, p.tests) {
		p.name = f.Name.Name // the go command checks that they agree
	}
	if p.name == "" {
		for _, f := range p.external {
			p.name = strings.TrimSuffix(f.Name.Name, "_test")
		}
	}
	if len(problems) > 0 {
		return nil, problems.err()
	}
	for _, name := range about.IgnoredGoFiles {
		name = filepath.Join(dir, name)
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err == nil && hasMark(f) {
			p.notBuilt = append(p.notBuilt, name)
		}
	}
	p.findMarks()
	if len(p.marks) == 0 && len(p.problems) == 0 {
		p.problems.add(token.Position{}, "autobusgen: nothing in package %s is marked as an event: put //autobus:event right above a struct, or name it with -type", p.name)
	}
	return p, nil
}

// goList runs "go list -e" in dir.
func goList(dir string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", append([]string{"list", "-e"}, args...)...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if text := bytes.TrimSpace(stderr.Bytes()); len(text) > 0 {
			return nil, fmt.Errorf("autobusgen: go list: %s", text)
		}
		return nil, fmt.Errorf("autobusgen: go list: %w", err)
	}
	return out, nil
}

// problems are mistakes in the sources.
type problems []problem

type problem struct {
	at   token.Position
	text string
}

func (p *problems) add(at token.Position, format string, args ...any) {
	*p = append(*p, problem{at, fmt.Sprintf(format, args...)})
}

// err tells all problems in the order of the sources, each once.
func (p problems) err() error {
	slices.SortStableFunc(p, func(a, b problem) int {
		return cmp.Or(strings.Compare(a.at.Filename, b.at.Filename), cmp.Compare(a.at.Line, b.at.Line), cmp.Compare(a.at.Column, b.at.Column))
	})
	var errs []error
	for _, each := range slices.Compact(p) {
		text := each.text
		if each.at.IsValid() {
			text = fmt.Sprintf("%s:%d: %s", each.at.Filename, each.at.Line, text)
		}
		errs = append(errs, errors.New(text))
	}
	return errors.Join(errs...)
}

var (
	// markLine is a line that marks a struct, or tries to.
	markLine = regexp.MustCompile(`^//(\s*)autobus:(\S*)(?:\s+(.*?))?\s*$`)
	// generateLine is one that runs autobusgen, by whatever path.
	generateLine = regexp.MustCompile(`^//go:generate\s(?:.*[\s/])?autobusgen(?:@\S+)?(?:\s+(.*))?$`)
	// typeFlag is its -type, where a word may stand in quotes.
	typeFlag = regexp.MustCompile(`(?:^|\s)(?:"--?type=([^"]*)"|--?type\s+"([^"]*)"|--?type(?:\s+|=)([^\s"]+))`)
)

// hasMark reports whether a file would ask for methods.
func hasMark(f *ast.File) bool {
	for _, group := range f.Comments {
		for _, c := range group.List {
			if m := markLine.FindStringSubmatch(c.Text); m != nil && m[1] == "" && m[2] == "event" || generateLine.MatchString(c.Text) {
				return true
			}
		}
	}
	return false
}

// findMarks finds what asks for methods: marks, lines of go generate, -type.
// All of them count however autobusgen was started, so that what it writes
// depends on the package alone.
func (p *pkg) findMarks() {
	type named struct {
		name string
		at   token.Position
	}
	var names []named
	for _, name := range p.wanted {
		names = append(names, named{name: name})
	}
	for _, f := range slices.Concat(p.files, p.tests, p.external) {
		consumed := make(map[*ast.Comment]bool)
		prefix := ""
		if slices.Contains(p.external, f) {
			prefix = "_test."
		}
		for _, decl := range f.Decls {
			decl, ok := decl.(*ast.GenDecl)
			if !ok || decl.Tok != token.TYPE {
				continue
			}
			for _, spec := range decl.Specs {
				spec := spec.(*ast.TypeSpec)
				doc := spec.Doc
				if doc == nil && !decl.Lparen.IsValid() {
					doc = decl.Doc
				}
				if doc == nil {
					continue
				}
				for _, c := range doc.List {
					wire := ""
					if m := markLine.FindStringSubmatch(c.Text); m != nil && m[1] == "" && m[2] == "event" {
						wire = m[3]
					} else if m := generateLine.FindStringSubmatch(c.Text); m == nil || typeFlag.MatchString(m[1]) {
						continue
					} else if _, ok := spec.Type.(*ast.StructType); !ok {
						continue // the line is for the package
					}
					consumed[c] = true
					old := p.marks[prefix+spec.Name.Name]
					if wire != "" && old.wire != "" {
						p.problems.add(p.fset.Position(c.Pos()), "%s has two names on the wire, %s and %s", spec.Name.Name, old.wire, wire)
					}
					p.marks[prefix+spec.Name.Name] = mark{cmp.Or(wire, old.wire), spec.Name.Pos()}
				}
			}
		}
		for _, group := range f.Comments {
			for _, c := range group.List {
				at := p.fset.Position(c.Pos())
				if m := generateLine.FindStringSubmatch(c.Text); m != nil {
					if list := typeFlag.FindStringSubmatch(m[1]); list != nil {
						for name := range strings.SplitSeq(strings.Join(list[1:], ""), ",") {
							names = append(names, named{strings.TrimSpace(name), at})
						}
					}
				}
				m := markLine.FindStringSubmatch(c.Text)
				switch {
				case m == nil || consumed[c]:
				case m[1] != "" && m[2] != "event":
					// Prose.
				case m[1] != "":
					p.problems.add(at, "a mark has no space: want //autobus:event")
				case m[2] != "event":
					p.problems.add(at, "//autobus:%s isn't known: want //autobus:event", m[2])
				default:
					p.problems.add(at, "//autobus:event stands above no struct: put it right above one, outside functions, without an empty line between")
				}
			}
		}
	}
	for _, n := range names {
		name, found := n.name, false
		for _, f := range slices.Concat(p.files, p.tests, p.external) {
			if object := declaredType(f, n.name); object != nil {
				if slices.Contains(p.external, f) {
					name = "_test." + name
				}
				found = true
				if _, marked := p.marks[name]; !marked {
					p.marks[name] = mark{pos: object.Name.Pos()}
				}
				break
			}
		}
		if !found {
			text := "-type %s: package %s has no such type"
			if n.at.Filename == "" {
				text = "autobusgen: " + text
			}
			p.problems.add(n.at, text, n.name, p.name)
		}
	}
}

// declaredType is the declaration of a type in a file, nil if there is none.
func declaredType(f *ast.File, name string) *ast.TypeSpec {
	for _, decl := range f.Decls {
		if decl, ok := decl.(*ast.GenDecl); ok && decl.Tok == token.TYPE {
			for _, spec := range decl.Specs {
				if spec := spec.(*ast.TypeSpec); spec.Name.Name == name {
					return spec
				}
			}
		}
	}
	return nil
}

// generate makes the files of all methods, and checks that the package compiles
// with them. It returns the events, in the order of their names, too.
func (p *pkg) generate() (outputs []output, events []*structure, err error) {
	var written []*ast.File // what was made for the files before
	tests, _ := p.check(p.path, p.tests, nil)
	for _, part := range []struct {
		files  []*ast.File // read with
		own    []*ast.File // marks of these
		suffix string
	}{
		{p.files, p.files, ""},
		{slices.Concat(p.files, p.tests), p.tests, ""},
		{p.external, p.external, "_test"},
	} {
		if !p.hasMarks(part.own, part.suffix) {
			continue
		}
		if err := p.loader.findExports(p.dir, p.path, part.files); err != nil {
			return nil, nil, err
		}
		imports := p.importer()
		if part.suffix != "" {
			// The package under test is read with its tests, which may lend it more.
			under, _ := p.check(p.path, slices.Concat(p.files, p.tests, written), imports)
			if under.Name() != "" {
				imports = with{imports, under}
			}
			written = nil
		}
		u := &unit{pkg: p, own: part.own, suffix: part.suffix, inTests: tests.Scope()}
		u.types, _ = p.check(p.path+part.suffix, slices.Concat(part.files, written), imports)
		made := u.generate()
		outputs = append(outputs, made...)
		events = append(events, u.events...)
		for _, o := range made {
			f, err := parser.ParseFile(p.fset, o.name, o.text, parser.SkipObjectResolution)
			if err != nil {
				return nil, nil, fmt.Errorf("autobusgen: a mistake of its own: %w", err)
			}
			written = append(written, f)
		}
		if len(p.problems) > 0 {
			continue // what else is wrong may follow from that
		}
		_, errs := p.check(p.path+part.suffix, slices.Concat(part.files, written), imports)
		// Where what the tests import imports the package in its turn, there are two
		// of it here, whose types differ. Let the compiler tell what else is wrong.
		twoOfSelf := part.suffix != "" && p.loader.exports[p.path] != ""
		for _, err := range errs {
			at := p.fset.Position(err.Pos)
			if slices.ContainsFunc(made, func(o output) bool { return o.name == at.Filename }) {
				if u.incomplete {
					continue // for want of a type that is told of elsewhere
				}
				err.Msg = "autobusgen wrote what doesn't compile, a mistake of its own: " + err.Msg
			} else if missingMethod.MatchString(err.Msg) || twoOfSelf {
				continue
			}
			p.problems.add(at, "%s", err.Msg)
		}
		if len(p.problems) == 0 {
			p.problems = append(p.problems, u.unknown...)
		}
	}
	slices.SortFunc(events, func(a, b *structure) int { return strings.Compare(a.wire, b.wire) })
	for _, name := range p.ours {
		if !slices.ContainsFunc(outputs, func(o output) bool { return o.name == name }) && len(p.problems) == 0 {
			p.problems.add(token.Position{}, "%s: nothing asks for this file any more: remove it, or mark or name the structs that it was written for", name)
		}
	}
	for i := 1; i < len(events); i++ {
		if a, b := events[i-1], events[i]; a.wire == b.wire {
			p.problems.add(b.at, "%s and %s are both named %s on the wire: give one another name, as in //autobus:event Name", a.name, b.name, b.wire)
		}
	}
	return outputs, events, p.problems.err()
}

// missingMethod is what the compiler says of events in other packages that are
// yet to be generated.
var missingMethod = regexp.MustCompile(`(\(missing method |has no field or method )(Type|Marshal|Unmarshal)\)$`)

// hasMarks reports whether a struct of these files is marked.
func (p *pkg) hasMarks(files []*ast.File, suffix string) bool {
	for name := range p.marks {
		external := strings.HasPrefix(name, "_test.")
		if external != (suffix != "") {
			continue
		}
		for _, f := range files {
			if declaredType(f, strings.TrimPrefix(name, "_test.")) != nil {
				return true
			}
		}
	}
	return false
}

// check checks the types of a package, as far as it goes.
func (p *pkg) check(path string, files []*ast.File, imports types.Importer) (*types.Package, []types.Error) {
	var errs []types.Error
	config := types.Config{
		GoVersion:   p.goes,
		Importer:    imports,
		FakeImportC: true,
		Error:       func(err error) { errs = append(errs, err.(types.Error)) },
	}
	checked, _ := config.Check(path, p.fset, files, nil) // its error is the first of errs
	return checked, errs
}

// importer reads what a package imports.
func (p *pkg) importer() types.Importer {
	return importer.ForCompiler(p.fset, "gc", func(path string) (io.ReadCloser, error) {
		name := p.loader.exports[path]
		if name == "" {
			return nil, errors.New("there is no such package, or it doesn't compile")
		}
		return os.Open(name)
	})
}

// with is an importer that has one package already.
type with struct {
	types.Importer
	has *types.Package
}

func (w with) Import(path string) (*types.Package, error) {
	if path == w.has.Path() {
		return w.has, nil
	}
	return w.Importer.Import(path)
}

// generatedImports are the packages that generated code may need.
var generatedImports = []string{autobusPath, "errors", "math", "slices", "strconv"}

// findExports has the go command compile what files of the package self import,
// and notes where the export data is.
func (l *loader) findExports(dir, self string, files []*ast.File) error {
	paths := make(map[string]bool)
	for _, p := range generatedImports {
		paths[p] = true
	}
	for _, f := range files {
		for _, spec := range f.Imports {
			if p, err := strconv.Unquote(spec.Path.Value); err == nil && p != "C" && p != "unsafe" && p != self {
				paths[p] = true
			}
		}
	}
	maps.DeleteFunc(paths, func(p string, _ bool) bool { return l.exports[p] != "" })
	if len(paths) == 0 {
		return nil
	}
	args := append([]string{"-export", "-deps", "-json=ImportPath,Export,Error", "--"}, slices.Sorted(maps.Keys(paths))...)
	out, err := goList(dir, args...)
	if err != nil {
		return err
	}
	var problems problems
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var about struct {
			ImportPath string
			Export     string
			Error      *struct{ Err string }
		}
		if err := d.Decode(&about); err != nil {
			return fmt.Errorf("autobusgen: go list: %w", err)
		}
		l.exports[about.ImportPath] = about.Export
		if about.Error != nil && about.Export == "" {
			problems.add(token.Position{}, "autobusgen: what the package imports must compile: %s: %s", path.Base(about.ImportPath), strings.TrimSpace(about.Error.Err))
		}
	}
	return problems.err()
}
