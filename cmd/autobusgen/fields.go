package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A unit is what is compiled together: a package, with its tests or without,
// or the tests beside it.
type unit struct {
	*pkg
	own    []*ast.File // the files whose marks count
	suffix string      // "_test" for the tests beside the package
	types  *types.Package

	inTests *types.Scope // what the package's tests declare, which no import of the package may be named

	structures map[*types.TypeName]*structure
	order      []*structure // those that get methods: those they need before them
	events     []*structure
	under      []*types.Named // whose shapes are being told
	incomplete bool           // a type is missing, as the compiler will tell
	unknown    problems       // fields of such types, should it not
}

// A structure is a struct that gets methods.
type structure struct {
	name    string
	wire    string // the type's name on the wire; empty: not an event
	at      token.Position
	file    *ast.File // that declares it
	fields  []field
	working bool // its fields are being read
}

// A field is one of the JSON object that a structure is.
type field struct {
	path      string // in the struct, as "Base.ID"
	wire      string
	at        token.Position
	shape     *shape
	omitempty bool
	required  bool
	quoted    bool
}

// A shape is how a value of a type is written and read.
type shape struct {
	kind   kind
	typ    types.Type
	bits   int        // of numbers; 0: those of int, uint or uintptr
	elem   *shape     // of pointers, slices, arrays and maps
	key    *shape     // of maps
	len    int64      // of arrays
	of     *structure // of structs that get methods
	byAddr bool       // its own Marshal has a pointer receiver
}

type kind uint8

const (
	kindBool kind = iota
	kindInt
	kindUint
	kindFloat
	kindString
	kindBytes
	kindByteArray
	kindTime
	kindDuration
	kindAny
	kindJSON   // JSON text
	kindRaw    // autobus.Raw
	kindText   // by MarshalText and UnmarshalText
	kindOwn    // by its own Marshal and Unmarshal
	kindStruct // by those that are written here
	kindPointer
	kindStrings
	kindSlice
	kindArray
	kindMap
)

// isNumber reports whether a value is a number, or several of these.
func (k kind) isNumber() bool { return k == kindInt || k == kindUint || k == kindFloat }

// position is where the source has pos.
func (u *unit) position(pos token.Pos) token.Position { return u.fset.Position(pos) }

// read reads all structures that marks ask for, and those that they need.
func (u *unit) read() {
	u.structures = make(map[*types.TypeName]*structure)
	for _, f := range u.own {
		for _, decl := range f.Decls {
			decl, ok := decl.(*ast.GenDecl)
			if !ok || decl.Tok != token.TYPE {
				continue
			}
			for _, spec := range decl.Specs {
				spec := spec.(*ast.TypeSpec)
				key := spec.Name.Name
				if u.suffix != "" {
					key = "_test." + key
				}
				if m, ok := u.marks[key]; ok {
					u.readEvent(spec, m)
				}
			}
		}
	}
}

func (u *unit) readEvent(spec *ast.TypeSpec, m mark) {
	name := spec.Name.Name
	at := u.position(m.pos)
	object, _ := u.types.Scope().Lookup(name).(*types.TypeName)
	if object == nil || object.Pos() != m.pos {
		u.incomplete = true // declared twice, for one
		return
	}
	named, ok := object.Type().(*types.Named)
	if !ok {
		u.problems.add(at, "%s is an alias: mark the struct that it stands for", name)
		return
	}
	if _, ok := named.Underlying().(*types.Struct); !ok {
		if named.Underlying() == types.Typ[types.Invalid] {
			u.incomplete = true
			return
		}
		u.problems.add(at, "%s isn't a struct: an event is one, so put the %s into a field", name, name)
		return
	}
	if named.TypeParams().Len() > 0 {
		u.problems.add(at, "%s has type parameters, and an event type has one name on the wire: declare a struct without, or write its methods by hand", name)
		return
	}
	wire := m.wire
	if wire == "" {
		wire = name
	}
	if problem := wireProblem(wire); problem != "" {
		u.problems.add(at, "the name %q of %s on the wire %s", wire, name, problem)
		return
	}
	for _, method := range []string{"Type", "Marshal", "Unmarshal"} {
		if found, _ := u.method(named, method, true); found != nil {
			u.problems.add(u.position(found.Pos()), "%s has a method %s of its own: remove that, or the mark on %s", name, method, name)
			return
		}
	}
	s := u.readStructure(named)
	if s == nil {
		return
	}
	s.wire = wire
	for _, f := range s.fields {
		if f.wire == "type" {
			u.problems.add(f.at, `%s.%s is named "type" on the wire, which carries the event's type: give it another name, as in %s`, name, f.path, "`autobus:\"kind\"`")
		}
	}
	for _, goName := range methodFields(named, "Type") {
		u.problems.add(u.position(goName.Pos()), "%s.Type has the name of a method that an event needs: rename the field, to Kind for one", name)
	}
	u.events = append(u.events, s)
}

// wireProblem says why a type can't have this name on the wire: the rules of
// Publish, and that a space would end a mark.
func wireProblem(name string) string {
	switch {
	case strings.ContainsFunc(name, unicode.IsSpace):
		return "has a space: want //autobus:event Name"
	case name == "*":
		return "stands for all types"
	case strings.Contains(name, ":"):
		return "has a ':', which ends a namespace"
	case !utf8.ValidString(name):
		return "isn't valid UTF-8"
	}
	return ""
}

// method finds a method of a type or of a pointer to it; own leaves out those
// of embedded fields.
func (u *unit) method(t types.Type, name string, own bool) (f *types.Func, byAddr bool) {
	object, index, _ := types.LookupFieldOrMethod(t, true, u.types, name)
	f, ok := object.(*types.Func)
	if !ok || own && len(index) > 1 {
		return nil, false
	}
	_, byAddr = f.Signature().Recv().Type().(*types.Pointer)
	return f, byAddr
}

// methodFields are the fields of a struct with the name of a method.
func methodFields(named *types.Named, methods ...string) (vars []*types.Var) {
	st := named.Underlying().(*types.Struct)
	for i := range st.NumFields() {
		if f := st.Field(i); slices.Contains(methods, f.Name()) {
			vars = append(vars, f)
		}
	}
	return vars
}

// readStructure reads a struct of this package, and is nil if it holds itself.
func (u *unit) readStructure(named *types.Named) *structure {
	object := named.Obj()
	if s := u.structures[object]; s != nil {
		if s.working {
			return nil
		}
		return s
	}
	st := named.Underlying().(*types.Struct)
	s := &structure{name: object.Name(), at: u.position(object.Pos()), working: true}
	for _, f := range u.own {
		if f.FileStart <= object.Pos() && object.Pos() < f.FileEnd {
			s.file = f
		}
	}
	u.structures[object] = s
	for _, f := range methodFields(named, "Marshal", "Unmarshal") {
		u.problems.add(u.position(f.Pos()), "%s.%s has the name of a method that is to be written: rename the field", s.name, f.Name())
	}
	if st.NumFields() > 0 && st.Field(0).Pkg() != u.types {
		u.problems.add(s.at, "%s has the fields of another package's struct: declare the fields here, or write Marshal and Unmarshal of %s by hand", s.name, s.name)
	} else {
		u.readFields(s, st, "")
	}
	byName := make(map[string]field)
	for _, f := range s.fields {
		if other, ok := byName[f.wire]; ok {
			u.problems.add(f.at, "%s.%s and %s.%s are both named %q on the wire: give one another name, as in %s", s.name, other.path, s.name, f.path, f.wire, "`autobus:\"name\"`")
		}
		byName[f.wire] = f
	}
	s.working = false
	u.order = append(u.order, s)
	return s
}

// readFields appends the fields of st, which stands at path in s.
func (u *unit) readFields(s *structure, st *types.Struct, path string) {
	for i := range st.NumFields() {
		v := st.Field(i)
		f := field{path: path + v.Name(), at: u.position(v.Pos())}
		if v.Name() == "_" {
			continue // holds nothing that could be read or written
		}
		fail := func(format string, args ...any) {
			u.problems.add(f.at, "%s.%s: %s", s.name, f.path, fmt.Sprintf(format, args...))
		}
		t, problem := parseTag(st.Tag(i))
		if problem != "" {
			fail("%s", problem)
			continue
		}
		if u.holdsLock(v.Type()) {
			fail("it holds a lock, which may not be copied, as events are: want a pointer to it, or to keep it elsewhere")
			continue
		}
		if t.skip {
			continue
		}
		if v.Embedded() && t.name == "" {
			if inner := u.promoted(v.Type()); inner != nil {
				if t.omitempty || t.required || t.quoted || t.raw {
					fail("its fields stand among those around them, and options are for each of them: give it a name in its tag, or put the options there")
					continue
				}
				u.readFields(s, inner, f.path+".")
				continue
			}
			if problem := u.embedProblem(v.Type()); problem != "" {
				fail("%s", problem)
				continue
			}
		}
		if !v.Exported() && t.name == "" {
			fail("it isn't exported: say by its tag whether it is sent, `autobus:%q`, or not, `autobus:\"-\"`", snake(v.Name()))
			continue
		}
		if !v.Exported() && t.fromJSON {
			fail("it isn't exported, and encoding/json leaves it out: say by an autobus tag whether it is sent, `autobus:%q`, or not, `autobus:\"-\"`", t.name)
			continue
		}
		if f.wire = t.name; f.wire == "" {
			f.wire = snake(v.Name())
		}
		if f.shape, problem = u.shape(v.Type()); problem != "" {
			fail("%s", problem)
			continue
		}
		if f.shape == nil {
			u.incomplete = true
			u.unknown.add(f.at, "%s.%s: its type isn't known here, as those of cgo aren't: want a type that Go declares", s.name, f.path)
			continue
		}
		if t.raw {
			if f.shape.kind != kindBytes {
				fail("the option raw is for JSON text in a []byte, and not for %s: remove it", f.shape.what())
				continue
			}
			f.shape.kind = kindJSON
		}
		f.omitempty, f.required, f.quoted = t.omitempty, t.required, t.quoted
		switch {
		case f.omitempty && f.required:
			fail("omitempty leaves out what required asks for: keep one of them")
			continue
		case f.omitempty && !f.shape.hasEmpty():
			fail("omitempty never leaves out %s: make it a pointer, which is left out where it is nil", f.shape.what())
			continue
		case f.quoted && !f.shape.kind.isNumber() && f.shape.kind != kindBool:
			fail("the option string is for bools and numbers, and not for %s: remove it", f.shape.what())
			continue
		}
		s.fields = append(s.fields, f)
	}
}

// holdsLock reports whether a value of type t has a lock in it, as go vet sees
// one: what has the methods Lock and Unlock by its address alone.
func (u *unit) holdsLock(t types.Type) bool {
	if _, ok := t.Underlying().(*types.Interface); ok {
		return false
	}
	if _, ok := t.Underlying().(*types.Pointer); ok {
		return false
	}
	lock, lockByAddr := u.method(t, "Lock", false)
	unlock, unlockByAddr := u.method(t, "Unlock", false)
	if lock != nil && unlock != nil && lockByAddr && unlockByAddr {
		return true
	}
	switch t := t.Underlying().(type) {
	case *types.Array:
		return u.holdsLock(t.Elem())
	case *types.Struct:
		for f := range t.Fields() {
			if u.holdsLock(f.Type()) {
				return true
			}
		}
	}
	return false
}

// promoted is the embedded struct whose fields stand among those around it.
func (u *unit) promoted(t types.Type) *types.Struct {
	named, ok := types.Unalias(t).(*types.Named)
	if !ok || named.Obj().Pkg() != u.types {
		return nil
	}
	st, ok := named.Underlying().(*types.Struct)
	if !ok {
		return nil
	}
	for _, name := range []string{"Marshal", "Unmarshal", "MarshalText", "UnmarshalText", "MarshalJSON", "UnmarshalJSON"} {
		if f, _ := u.method(named, name, true); f != nil {
			return nil
		}
	}
	return st
}

// embedProblem says why an embedded field needs a name, if it does.
func (u *unit) embedProblem(t types.Type) string {
	if p, ok := types.Unalias(t).(*types.Pointer); ok {
		if _, ok := p.Elem().Underlying().(*types.Struct); ok {
			return "an embedded pointer may be nil: embed the struct itself, or give the field a name in its tag"
		}
	}
	if _, ok := t.Underlying().(*types.Struct); ok {
		return "an embedded struct of another package, or with methods that write it: give the field a name in its tag"
	}
	return ""
}

// A tag is what the tag of a field says.
type tag struct {
	name                              string
	skip, omitempty, required, quoted bool
	raw                               bool
	fromJSON                          bool
}

// parseTag reads the tag of a field.
func parseTag(text string) (t tag, problem string) {
	value, ok := reflect.StructTag(text).Lookup("autobus")
	if !ok && strings.Contains(text, "autobus:") {
		return t, fmt.Sprintf("the tag %s isn't key:\"value\" pairs with a space between: want `autobus:\"name,option\"`", text)
	}
	key := "autobus"
	if !ok {
		key = "json"
		if value, ok = reflect.StructTag(text).Lookup("json"); !ok {
			if strings.Contains(text, "json:") {
				return t, fmt.Sprintf("the tag %s isn't key:\"value\" pairs with a space between: want `json:\"name,option\"`", text)
			}
			return t, ""
		}
		t.fromJSON = true
	}
	if value == "-" {
		t.skip = true
		return t, ""
	}
	name, options, more := strings.Cut(value, ",")
	if !utf8.ValidString(name) {
		return t, fmt.Sprintf("the name %q isn't valid UTF-8", name)
	}
	t.name = name
	for more {
		var option string
		option, options, more = strings.Cut(options, ",")
		switch {
		case option == "" && key == "json": // json:"-," names a field "-"
		case option == "omitempty":
			t.omitempty = true
		case option == "required" && key == "autobus":
			t.required = true
		case option == "string":
			t.quoted = true
		case option == "raw" && key == "autobus":
			t.raw = true
		case key == "json":
			return t, fmt.Sprintf("the option %q of its json tag isn't known here, where omitempty and string are: add an autobus tag, which counts instead", option)
		default:
			return t, fmt.Sprintf("the option %q of its tag isn't known: there are omitempty, required, string and raw", option)
		}
	}
	return t, ""
}

// snake is a Go name in snake_case.
func snake(name string) string {
	letters := []rune(name)
	at := func(i int) rune {
		if i < 0 || i >= len(letters) {
			return 0
		}
		return letters[i]
	}
	var out []rune
	for i, c := range letters {
		if unicode.IsUpper(c) && i > 0 && at(i-1) != '_' {
			// IDs and URLsByName: an s that makes a plural of capitals is one with them.
			plural := at(i+1) == 's' && !unicode.IsLower(at(i+2))
			if !unicode.IsUpper(at(i-1)) || unicode.IsLower(at(i+1)) && !plural {
				out = append(out, '_')
			}
		}
		out = append(out, unicode.ToLower(c))
	}
	return string(out)
}

// shape tells how values of a type are written and read, or why they can't be.
// It is nil for a type that is missing, as the compiler will tell.
func (u *unit) shape(t types.Type) (s *shape, problem string) {
	s = &shape{typ: t}
	switch t := types.Unalias(t).(type) {
	case *types.TypeParam:
		return nil, "its type is a parameter: want a type that is known now"
	case *types.Named:
		if slices.Contains(u.under, t) {
			return nil, fmt.Sprintf("%s holds itself, and could be nested without end: want a type that ends, or write Marshal and Unmarshal of %s by hand", u.show(t), u.show(t))
		}
		u.under = append(u.under, t)
		defer func() { u.under = u.under[:len(u.under)-1] }()
		if done, problem := u.namedShape(s, t); done || problem != "" {
			return s, problem
		}
	}
	switch t := t.Underlying().(type) {
	case *types.Basic:
		return basicShape(s, t)
	case *types.Pointer:
		if _, ok := types.Unalias(s.typ).(*types.Pointer); !ok {
			return nil, fmt.Sprintf("%s is a named pointer, which has no methods: want %s", u.show(s.typ), u.show(t))
		}
		elem, problem := u.shape(t.Elem())
		if elem == nil || problem != "" {
			return nil, problem
		}
		switch elem.kind {
		case kindPointer, kindAny, kindJSON:
			return nil, fmt.Sprintf("null could be %s or what it points to, which can be null itself: want %s", u.show(s.typ), u.show(t.Elem()))
		}
		s.kind, s.elem = kindPointer, elem
	case *types.Slice:
		if isBasic(t.Elem(), types.Uint8) {
			s.kind = kindBytes
			break
		}
		elem, problem := u.shape(t.Elem())
		if elem == nil || problem != "" {
			return nil, problem
		}
		s.kind, s.elem = kindSlice, elem
		if isBasic(t.Elem(), types.String) {
			s.kind = kindStrings
		}
	case *types.Array:
		s.len = t.Len()
		if isBasic(t.Elem(), types.Uint8) {
			s.kind = kindByteArray
			break
		}
		elem, problem := u.shape(t.Elem())
		if elem == nil || problem != "" {
			return nil, problem
		}
		s.kind, s.elem = kindArray, elem
	case *types.Map:
		return u.mapShape(s, t)
	case *types.Interface:
		if !t.Empty() {
			return nil, fmt.Sprintf("nothing says which type to read for the interface %s: want any, or a type that isn't an interface", u.show(s.typ))
		}
		s.kind = kindAny
	case *types.Struct:
		if _, ok := types.Unalias(s.typ).(*types.Named); ok {
			return nil, fmt.Sprintf("%s is of another package and has no methods to write and read it: want Marshal(*autobus.Encoder) and Unmarshal(*autobus.Decoder) error there, generated before this package or by hand, or a struct of this package", u.show(s.typ))
		}
		return nil, "a struct without a name can't have methods: declare a type for it"
	case *types.Chan:
		return nil, "a channel isn't a value that can be sent: remove it, or leave it out by `autobus:\"-\"`"
	case *types.Signature:
		return nil, "a function isn't a value that can be sent: remove it, or leave it out by `autobus:\"-\"`"
	default:
		return nil, fmt.Sprintf("%s can't be sent: remove it, or leave it out by `autobus:\"-\"`", u.show(s.typ))
	}
	return s, ""
}

// isBasic reports whether t is a basic type and not one named after it.
func isBasic(t types.Type, kind types.BasicKind) bool {
	b, ok := types.Unalias(t).(*types.Basic)
	return ok && b.Kind() == kind
}

func basicShape(s *shape, t *types.Basic) (*shape, string) {
	switch t.Kind() {
	case types.Invalid:
		return nil, ""
	case types.Bool:
		s.kind = kindBool
	case types.String:
		s.kind = kindString
	case types.Int:
		s.kind = kindInt
	case types.Int8, types.Int16, types.Int32, types.Int64:
		s.kind, s.bits = kindInt, 8<<(t.Kind()-types.Int8)
	case types.Uint, types.Uintptr:
		s.kind = kindUint
	case types.Uint8, types.Uint16, types.Uint32, types.Uint64:
		s.kind, s.bits = kindUint, 8<<(t.Kind()-types.Uint8)
	case types.Float32:
		s.kind, s.bits = kindFloat, 32
	case types.Float64:
		s.kind, s.bits = kindFloat, 64
	case types.Complex64, types.Complex128:
		return nil, "JSON has no complex numbers: want two floats"
	default:
		return nil, "an unsafe.Pointer means nothing elsewhere: remove it, or leave it out by `autobus:\"-\"`"
	}
	return s, ""
}

func (u *unit) mapShape(s *shape, t *types.Map) (*shape, string) {
	key, problem := u.shape(t.Key())
	if key == nil && problem == "" {
		return nil, ""
	}
	if problem != "" || key.kind != kindString && key.kind != kindInt && key.kind != kindUint {
		return nil, fmt.Sprintf("the names in a JSON object are strings: want a string or an integer as a map's key, and not %s", u.show(t.Key()))
	}
	elem, problem := u.shape(t.Elem())
	if elem == nil || problem != "" {
		return nil, problem
	}
	s.kind, s.key, s.elem = kindMap, key, elem
	return s, ""
}

// namedShape is shape for what a type's name tells; it isn't done where the
// underlying type decides.
func (u *unit) namedShape(s *shape, t *types.Named) (done bool, problem string) {
	object := t.Obj()
	name := object.Name()
	if object.Pkg() != nil {
		name = object.Pkg().Path() + "." + name
	}
	switch name {
	case "time.Time":
		s.kind = kindTime
		return true, ""
	case "time.Duration":
		s.kind = kindDuration
		return true, ""
	case "encoding/json.RawMessage":
		s.kind = kindJSON
		return true, ""
	case autobusPath + ".Raw":
		s.kind = kindRaw
		return true, ""
	}
	if !u.canName(object) {
		if alias, ok := s.typ.(*types.Alias); !ok || !u.canName(alias.Obj()) {
			return false, fmt.Sprintf("%s isn't exported by its package, or that is internal elsewhere: want a type that can be named here", u.show(s.typ))
		}
	}
	if _, ok := t.Underlying().(*types.Interface); ok {
		return false, ""
	}
	local := object.Pkg() == u.types
	_, isStruct := t.Underlying().(*types.Struct)
	// A method that a struct of this package has from an embedded one leaves
	// out the struct's own fields.
	own := local && isStruct
	if done, problem := u.ownMethods(s, t, own); done || problem != "" {
		return done, problem
	}
	if !local || !isStruct {
		return false, ""
	}
	if t.TypeParams().Len() > 0 {
		return false, fmt.Sprintf("%s is generic, and can't get methods for one of its types: give it Marshal and Unmarshal of its own, or declare a struct without type parameters", u.show(t))
	}
	if s.of = u.readStructure(t); s.of == nil {
		return false, fmt.Sprintf("%s holds itself there, and could be nested without end: write Marshal and Unmarshal of %s by hand, or send what it refers to by a name or number", object.Name(), object.Name())
	}
	if s.of.file == nil {
		return false, fmt.Sprintf("%s is declared outside the tests, and needs methods there: mark it as an event, or write its Marshal and Unmarshal by hand", object.Name())
	}
	s.kind = kindStruct
	return true, ""
}

// canName reports whether the package may use the name of a type: "go help
// importpath" says who may import what is internal.
func (u *unit) canName(object *types.TypeName) bool {
	if object.Pkg() == nil || object.Pkg() == u.types {
		return true
	}
	path := "/" + object.Pkg().Path() + "/"
	i := strings.LastIndex(path, "/internal/")
	return object.Exported() && (i < 0 || strings.HasPrefix("/"+u.path+"/", path[:i+1]) && i > 0)
}

// ownMethods looks whether a type has methods that write and read it.
func (u *unit) ownMethods(s *shape, t *types.Named, own bool) (done bool, problem string) {
	marshal, byAddr := u.method(t, "Marshal", own)
	unmarshal, _ := u.method(t, "Unmarshal", own)
	canMarshal := marshal != nil && u.isMethod(marshal, "Encoder", false)
	canUnmarshal := unmarshal != nil && u.isMethod(unmarshal, "Decoder", true)
	switch {
	case canMarshal && canUnmarshal:
		s.kind, s.byAddr = kindOwn, byAddr
		return true, ""
	case canMarshal:
		return false, fmt.Sprintf("%s has Marshal(*autobus.Encoder), but not Unmarshal(*autobus.Decoder) error: want both", u.show(t))
	case canUnmarshal:
		return false, fmt.Sprintf("%s has Unmarshal(*autobus.Decoder) error, but not Marshal(*autobus.Encoder): want both", u.show(t))
	case own && (marshal != nil || unmarshal != nil):
		return false, fmt.Sprintf("%s has a Marshal or Unmarshal of another kind: want Marshal(*autobus.Encoder) and Unmarshal(*autobus.Decoder) error", u.show(t))
	}
	marshal, _ = u.method(t, "MarshalText", own)
	unmarshal, _ = u.method(t, "UnmarshalText", own)
	switch {
	case marshal != nil && unmarshal != nil && u.isText(marshal, unmarshal):
		s.kind = kindText
		return true, ""
	case marshal != nil || unmarshal != nil:
		return false, fmt.Sprintf("%s has one of the methods MarshalText and UnmarshalText, but not both as package encoding has them: want both, or Marshal(*autobus.Encoder) and Unmarshal(*autobus.Decoder) error", u.show(t))
	}
	for _, name := range []string{"MarshalJSON", "UnmarshalJSON"} {
		if f, _ := u.method(t, name, own); f != nil {
			return false, fmt.Sprintf("%s has %s, which isn't called here, and would come out another way: want Marshal(*autobus.Encoder) and Unmarshal(*autobus.Decoder) error, too", u.show(t), name)
		}
	}
	return false, ""
}

// isMethod reports whether f is func(*autobus.of), with an error as its result
// or without any.
func (u *unit) isMethod(f *types.Func, of string, withError bool) bool {
	sig := f.Signature()
	if sig.Params().Len() != 1 || sig.Variadic() {
		return false
	}
	pointer, ok := types.Unalias(sig.Params().At(0).Type()).(*types.Pointer)
	if !ok || !isNamed(pointer.Elem(), autobusPath, of) {
		return false
	}
	if !withError {
		return sig.Results().Len() == 0
	}
	return sig.Results().Len() == 1 && isNamed(sig.Results().At(0).Type(), "", "error")
}

// isText reports whether the two are those of package encoding.
func (u *unit) isText(marshal, unmarshal *types.Func) bool {
	m, un := marshal.Signature(), unmarshal.Signature()
	bytes := types.NewSlice(types.Typ[types.Byte])
	return m.Params().Len() == 0 && m.Results().Len() == 2 &&
		types.Identical(m.Results().At(0).Type(), bytes) && isNamed(m.Results().At(1).Type(), "", "error") &&
		un.Params().Len() == 1 && types.Identical(un.Params().At(0).Type(), bytes) &&
		un.Results().Len() == 1 && isNamed(un.Results().At(0).Type(), "", "error")
}

// isNamed reports whether t is the type of that name; the path of what Go
// declares itself is empty.
func isNamed(t types.Type, path, name string) bool {
	named, ok := types.Unalias(t).(*types.Named)
	if !ok || named.Obj().Name() != name {
		return false
	}
	if named.Obj().Pkg() == nil {
		return path == ""
	}
	return named.Obj().Pkg().Path() == path
}

// show is a type's name for an error.
func (u *unit) show(t types.Type) string {
	return types.TypeString(t, func(p *types.Package) string {
		if p == u.types {
			return ""
		}
		return p.Name()
	})
}

// hasEmpty reports whether omitempty means something for a shape.
func (s *shape) hasEmpty() bool {
	switch s.kind {
	case kindByteArray, kindArray, kindRaw, kindText, kindOwn, kindStruct:
		return false
	}
	return true
}

// what is a shape for an error.
func (s *shape) what() string {
	return map[kind]string{
		kindBool: "a bool", kindInt: "an integer", kindUint: "an integer", kindFloat: "a float", kindString: "a string",
		kindBytes: "bytes", kindByteArray: "an array", kindTime: "a time", kindDuration: "a duration", kindAny: "any",
		kindJSON: "raw JSON", kindRaw: "an autobus.Raw", kindText: "a value with MarshalText", kindOwn: "a value with Marshal",
		kindStruct: "a struct", kindPointer: "a pointer", kindStrings: "a slice", kindSlice: "a slice", kindArray: "an array", kindMap: "a map",
	}[s.kind]
}
