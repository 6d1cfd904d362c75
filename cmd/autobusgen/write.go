package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/format"
	"go/types"
	"slices"
	"strconv"
	"strings"
)

// generate writes the methods of all that is marked, a file for each file.
func (u *unit) generate() (outputs []output) {
	u.read()
	for _, f := range u.own {
		w := &writer{u: u, imports: make(map[string]string)}
		for _, s := range u.order {
			if s.file == f {
				w.methods(s)
			}
		}
		if w.body.Len() > 0 {
			outputs = append(outputs, output{outputName(u.names[f]), w.file(f)})
		}
	}
	return outputs
}

// A writer writes one file.
type writer struct {
	u       *unit
	body    bytes.Buffer
	imports map[string]string // names by path
	current *structure        // whose methods are being written
	rawName string            // a type that reads the type's name of an autobus.Raw
	decoder string            // the names of variables, which hide nothing that is needed
	encoder string
}

func (w *writer) printf(format string, args ...any) { fmt.Fprintf(&w.body, format, args...) }

// file is the whole file, as gofmt has it.
func (w *writer) file(source *ast.File) []byte {
	if w.rawName != "" {
		w.raw()
	}
	var head bytes.Buffer
	fmt.Fprintf(&head, "//%s; %s\n\n", generatedBy, doNotEdit)
	if line := buildLine(source); line != "" {
		fmt.Fprintf(&head, "%s\n\n", line)
	}
	fmt.Fprintf(&head, "package %s\n\nimport ", source.Name.Name)
	if len(w.imports) > 1 {
		fmt.Fprintln(&head, "(")
	}
	var standard, others []string
	for path, name := range w.imports {
		line := strconv.Quote(path)
		if name != defaultName(path) {
			line = name + " " + line
		}
		if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") {
			others = append(others, path+"\x00"+line)
		} else {
			standard = append(standard, path+"\x00"+line)
		}
	}
	for _, lines := range [][]string{standard, others} {
		slices.Sort(lines)
		for _, line := range lines {
			_, line, _ = strings.Cut(line, "\x00")
			fmt.Fprintln(&head, line)
		}
		if len(lines) > 0 {
			fmt.Fprintln(&head)
		}
	}
	if len(w.imports) > 1 {
		fmt.Fprintln(&head, ")")
	}
	head.Write(w.body.Bytes())
	text, err := format.Source(head.Bytes())
	if err != nil {
		return head.Bytes() // which the type check refuses, and says where
	}
	return text
}

// buildLine is the //go:build line of a file, which its methods need as well.
func buildLine(f *ast.File) string {
	for _, group := range f.Comments {
		if group.Pos() > f.Package {
			break
		}
		for _, c := range group.List {
			if constraint.IsGoBuild(c.Text) {
				return c.Text
			}
		}
	}
	return ""
}

// defaultName is the name that a package most often has by its path.
func defaultName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// use returns the name of an imported package in this file.
func (w *writer) use(path, name string) string {
	if known, ok := w.imports[path]; ok {
		return known
	}
	for taken := true; taken; {
		taken = len(name) == 1 || w.u.types.Scope().Lookup(name) != nil || w.u.inTests.Lookup(name) != nil || types.Universe.Lookup(name) != nil || slices.Contains(localNames, strings.TrimRight(name, "0123456789"))
		for _, other := range w.imports {
			taken = taken || other == name
		}
		if taken {
			name += "_"
		}
	}
	w.imports[path] = name
	return name
}

// std is use for a package of the standard library.
func (w *writer) std(path string) string { return w.use(path, defaultName(path)) }

// autobus is the name of package autobus in this file.
func (w *writer) autobus() string { return w.use(autobusPath, "autobus") }

// typeName is a type as this file writes it.
func (w *writer) typeName(t types.Type) string {
	return types.TypeString(t, func(p *types.Package) string {
		if p.Path() == w.u.types.Path() {
			return ""
		}
		return w.use(p.Path(), p.Name())
	})
}

// localNames are the names of what generated methods declare. An import or a
// type of the package with one of them is fine: see local.
var localNames = []string{"e", "d", "i", "n", "elem", "field", "key", "keys", "number", "text", "err", "seen", "count"}

// local is a name for a variable which hides no declaration of the package; of
// those that are nested in one another each has a depth of its own.
func (w *writer) local(name string, depth int) string {
	if depth > 1 {
		name += strconv.Itoa(depth)
	}
	for w.u.types.Scope().Lookup(name) != nil {
		name += "_"
	}
	return name
}

// receiver is the name of a receiver: the first letter of its type.
func (w *writer) receiver(s *structure) string {
	letter := strings.ToLower(string([]rune(s.name)[:1]))
	if letter == "_" || slices.Contains(localNames, letter) || types.Universe.Lookup(letter) != nil {
		letter = "v"
	}
	return w.local(letter, 0)
}

// methods writes the methods of a structure.
func (w *writer) methods(s *structure) {
	w.current = s
	receiver := w.receiver(s)
	w.encoder, w.decoder = w.local("e", 0), w.local("d", 0)
	if s.wire != "" {
		w.printf("// Type returns the name of the event type.\nfunc (%s) Type() string { return %q }\n\n", s.name, s.wire)
	}

	w.printf("// Marshal writes the fields.\n")
	if len(s.fields) == 0 {
		w.printf("func (%s) Marshal(*%s.Encoder) {}\n\n", s.name, w.autobus())
	} else {
		w.printf("func (%s %s) Marshal(%s *%s.Encoder) {\n", receiver, s.name, w.encoder, w.autobus())
		for _, f := range s.fields {
			w.marshalField(f, receiver+"."+f.path)
		}
		w.printf("}\n\n")
	}

	w.printf("// Unmarshal reads the fields, and passes over others.\n")
	if len(s.fields) == 0 {
		w.printf("func (*%s) Unmarshal(%s *%s.Decoder) error {\nfor range %s.Fields() {\n}\nreturn %s.Err()\n}\n\n",
			s.name, w.decoder, w.autobus(), w.decoder, w.decoder)
		return
	}
	d, key, seen := w.decoder, w.local("field", 0), w.local("seen", 0)
	w.printf("func (%s *%s) Unmarshal(%s *%s.Decoder) error {\n", receiver, s.name, d, w.autobus())
	var required []string
	for _, f := range s.fields {
		if f.required {
			required = append(required, f.wire)
		}
	}
	if len(required) > 0 {
		w.printf("var %s [%d]bool // of the required fields\n", seen, len(required))
	}
	w.printf("for %s := range %s.Fields() {\nswitch %s {\n", key, d, key)
	for _, f := range s.fields {
		w.printf("case %q:\n", f.wire)
		w.unmarshalField(f, receiver+"."+f.path)
		if f.required {
			w.printf("%s[%d] = true\n", seen, slices.Index(required, f.wire))
		}
	}
	w.printf("}\n}\n")
	for i, name := range required {
		w.printf("if !%s[%d] {\n%s.Fail(%s.New(%#q))\n}\n", seen, i, d, w.std("errors"), "the required field "+strconv.Quote(name)+" is missing")
	}
	w.printf("return %s.Err()\n}\n\n", d)
}

// marshalField writes how a field is written; from is the expression for it.
func (w *writer) marshalField(f field, from string) {
	if f.omitempty {
		w.printf("if %s {\n", w.notEmpty(f.shape, from))
		defer w.printf("}\n")
	}
	to := fmt.Sprintf("%s.Key(%q)", w.encoder, f.wire)
	if f.quoted {
		w.printf("%s.String(%s)\n", to, w.quoted(f.shape, from))
		return
	}
	if f.omitempty && f.shape.kind == kindPointer {
		w.marshal(f.shape.elem, to, "*"+from, 1, true) // it isn't nil
		return
	}
	w.marshal(f.shape, to, from, 1, f.omitempty)
}

// notEmpty is the condition under which omitempty doesn't leave out a value.
func (w *writer) notEmpty(s *shape, from string) string {
	switch s.kind {
	case kindBool:
		return from
	case kindInt, kindUint, kindFloat, kindDuration:
		return from + " != 0"
	case kindString:
		return from + ` != ""`
	case kindTime:
		return "!" + from + ".IsZero()"
	case kindAny, kindPointer:
		return from + " != nil"
	}
	return "len(" + from + ") > 0"
}

// quoted is a bool or number as the expression of a string.
func (w *writer) quoted(s *shape, from string) string {
	strconv := w.std("strconv")
	switch s.kind {
	case kindBool:
		return fmt.Sprintf("%s.FormatBool(%s)", strconv, w.convert(s, "bool", from))
	case kindInt:
		return fmt.Sprintf("%s.FormatInt(%s, 10)", strconv, w.convert(s, "int64", from))
	case kindUint:
		return fmt.Sprintf("%s.FormatUint(%s, 10)", strconv, w.convert(s, "uint64", from))
	}
	return fmt.Sprintf("%s.FormatFloat(%s, 'g', -1, %d)", strconv, w.convert(s, "float64", from), s.bits)
}

// convert converts an expression of a shape's type to a basic type, if it isn't
// of that.
func (w *writer) convert(s *shape, to, from string) string {
	if b, ok := types.Unalias(s.typ).(*types.Basic); ok && b.Name() == to {
		return from
	}
	return to + "(" + from + ")"
}

// selected is an expression to which a selector can be put: it goes through a
// pointer by itself.
func selected(from string) string { return strings.TrimPrefix(from, "*") }

// operand is an expression to which an index can be put.
func operand(from string) string {
	if strings.HasPrefix(from, "*") {
		return "(" + from + ")"
	}
	return from
}

// address is a pointer to what an expression stands for.
func address(from string) string {
	if pointer, ok := strings.CutPrefix(from, "*"); ok {
		return pointer
	}
	return "&" + from
}

// marshal writes how a value is written: to is the encoder, with the key if
// there is one, and from is the expression for the value. Where inBlock is
// false, others are written beside it, and its variables need a block.
func (w *writer) marshal(s *shape, to, from string, depth int, inBlock bool) {
	e := w.encoder
	switch s.kind {
	case kindBool:
		w.printf("%s.Bool(%s)\n", to, w.convert(s, "bool", from))
	case kindInt:
		if s.bits == 0 {
			w.printf("%s.Int(%s)\n", to, w.convert(s, "int", from))
		} else {
			w.printf("%s.Int64(%s)\n", to, w.convert(s, "int64", from))
		}
	case kindUint:
		w.printf("%s.Uint64(%s)\n", to, w.convert(s, "uint64", from))
	case kindFloat:
		w.printf("%s.Float64(%s)\n", to, w.convert(s, "float64", from))
	case kindString:
		w.printf("%s.String(%s)\n", to, w.convert(s, "string", from))
	case kindStrings:
		w.printf("%s.Strings(%s)\n", to, from)
	case kindBytes:
		w.printf("%s.Bytes(%s)\n", to, from)
	case kindByteArray:
		w.printf("%s.Bytes(%s[:])\n", to, operand(from))
	case kindTime:
		w.printf("%s.Time(%s)\n", to, from)
	case kindDuration:
		w.printf("%s.Duration(%s)\n", to, from)
	case kindAny:
		w.printf("%s.Any(%s)\n", to, from)
	case kindJSON:
		w.printf("if len(%s) == 0 {\n%s.Null()\n} else {\n%s.Raw(%s)\n}\n", from, to, to, from)
	case kindRaw:
		w.printf("%s.BeginObject().Key(\"type\").String(%s.Name)\n%s.Marshal(%s)\n%s.EndObject()\n", to, selected(from), selected(from), e, e)
	case kindText:
		text, err := w.local("text", 0), w.local("err", 0)
		w.printf("if %s, %s := %s.MarshalText(); %s != nil {\n%s.Fail(%s)\n} else {\n%s.String(string(%s))\n}\n",
			text, err, selected(from), err, e, err, to, text)
	case kindOwn:
		if s.byAddr || strings.HasPrefix(from, "*") {
			from = address(from)
		}
		w.printf("%s.Object(%s)\n", to, from)
	case kindStruct:
		// As Object does, but that would put the struct on the heap.
		w.printf("%s.BeginObject()\n%s.Marshal(%s)\n%s.EndObject()\n", to, selected(from), e, e)
	case kindPointer:
		w.printf("if %s == nil {\n%s.Null()\n} else {\n", from, to)
		w.marshal(s.elem, to, "*"+from, depth, true)
		w.printf("}\n")
	case kindSlice, kindArray:
		elem := w.local("elem", depth)
		w.printf("%s.BeginArray()\nfor _, %s := range %s {\n", to, elem, from)
		w.marshal(s.elem, e, elem, depth+1, true)
		w.printf("}\n%s.EndArray()\n", e)
	case kindMap:
		w.marshalMap(s, to, from, depth, inBlock)
	}
}

// marshalMap writes the fields of a map in the order of its keys.
func (w *writer) marshalMap(s *shape, to, from string, depth int, inBlock bool) {
	e, key, keys, elem := w.encoder, w.local("key", depth), w.local("keys", depth), w.local("elem", depth)
	if !inBlock {
		w.printf("{\n")
		defer w.printf("}\n")
	}
	w.printf("%s := make([]%s, 0, len(%s))\nfor %s := range %s {\n%s = append(%s, %s)\n}\n",
		keys, w.typeName(s.key.typ), from, key, from, keys, keys, key)
	w.printf("%s.Sort(%s)\n%s.BeginObject()\nfor _, %s := range %s {\n", w.std("slices"), keys, to, key, keys)
	var name string
	switch s.key.kind {
	case kindString:
		name = w.convert(s.key, "string", key)
	case kindInt:
		name = fmt.Sprintf("%s.FormatInt(%s, 10)", w.std("strconv"), w.convert(s.key, "int64", key))
	case kindUint:
		name = fmt.Sprintf("%s.FormatUint(%s, 10)", w.std("strconv"), w.convert(s.key, "uint64", key))
	}
	value := operand(from) + "[" + key + "]"
	switch s.elem.kind {
	case kindPointer, kindByteArray, kindText, kindOwn, kindJSON, kindRaw, kindStruct, kindMap: // look it up once, and have its address
		w.printf("%s := %s\n", elem, value)
		value = elem
	}
	w.marshal(s.elem, fmt.Sprintf("%s.Key(%s)", e, name), value, depth+1, true)
	w.printf("}\n%s.EndObject()\n", e)
}

// bounds are the least and the greatest integer of a shape, not for uint64.
func bounds(s *shape) (least, greatest string) {
	if s.kind == kindInt {
		return strconv.FormatInt(-1<<(s.bits-1), 10), strconv.FormatInt(1<<(s.bits-1)-1, 10)
	}
	return "0", strconv.FormatUint(1<<s.bits-1, 10)
}

// wantInteger is the error for an integer that doesn't fit.
func wantInteger(s *shape) string {
	switch {
	case s.bits == 0 && s.kind == kindUint:
		return "want an integer from 0 to the greatest uint"
	case s.bits == 0:
		return "want an integer that fits in an int"
	case s.bits == 64 && s.kind == kindUint:
		return "want an integer from 0 to 18446744073709551615"
	}
	least, greatest := bounds(s)
	return "want an integer from " + least + " to " + greatest
}

// wantFloat is the error for a float that doesn't fit.
func wantFloat(s *shape) string { return fmt.Sprintf("want a number that fits in %d bits", s.bits) }

// read is the expression that reads a value, where there is one. What it needs
// to be checked first is written.
func (w *writer) read(s *shape) string {
	d, n := w.decoder, w.local("n", 0)
	switch s.kind {
	case kindBool:
		return w.as(s, "bool", d+".Bool()")
	case kindString:
		return w.as(s, "string", d+".String()")
	case kindBytes:
		return d + ".Bytes()"
	case kindStrings:
		return d + ".Strings()"
	case kindTime:
		return d + ".Time()"
	case kindDuration:
		return d + ".Duration()"
	case kindAny:
		return d + ".Any()"
	case kindJSON:
		return d + ".Raw()"
	case kindFloat:
		if s.bits == 64 {
			return w.as(s, "float64", d+".Float64()")
		}
		math := w.std("math")
		w.printf("%s := %s.Float64()\nif %s.IsInf(float64(float32(%s)), 0) && !%s.IsInf(%s, 0) {\n", n, d, math, n, math, n)
		w.refuse(wantFloat(s))
		return w.as(s, "float64", n)
	case kindInt:
		if s.bits == 0 {
			return w.as(s, "int", d+".Int()")
		}
		if s.bits == 64 {
			return w.as(s, "int64", d+".Int64()")
		}
	case kindUint:
		if s.bits == 64 {
			return w.as(s, "uint64", d+".Uint64()")
		}
		if s.bits == 0 { // a uint or uintptr
			w.printf("%s := %s.Uint64()\nif uint64(%s) != %s {\n", n, d, w.as(s, "uint64", n), n)
			w.refuse(wantInteger(s))
			return w.as(s, "uint64", n)
		}
	default:
		return ""
	}
	least, greatest := bounds(s)
	w.printf("%s := %s.Int64()\nif %s < %s || %s > %s {\n", n, d, n, least, n, greatest)
	w.refuse(wantInteger(s))
	return w.as(s, "int64", n)
}

// refuse writes the body of an if that refuses a value, and its end.
func (w *writer) refuse(why string) {
	w.printf("%s.Fail(%s.New(%q))\n}\n", w.decoder, w.std("errors"), why)
}

// as converts an expression of a basic type to a shape's type, if it isn't that.
func (w *writer) as(s *shape, basic, value string) string {
	if b, ok := types.Unalias(s.typ).(*types.Basic); ok && b.Name() == basic {
		return value
	}
	return w.typeName(s.typ) + "(" + value + ")"
}

// unmarshalField writes how a field is read into the variable target.
func (w *writer) unmarshalField(f field, target string) {
	if !f.quoted {
		w.unmarshal(f.shape, target, "=", 1, false)
		return
	}
	w.printf("if %s.Kind() == %s.KindString {\n", w.decoder, w.autobus())
	w.unquote(f.shape, target)
	w.printf("} else {\n")
	w.unmarshal(f.shape, target, "=", 1, false)
	w.printf("}\n")
}

// unmarshal writes how a value is read into the variable target. Where assign
// is ":=", it is declared there. A fresh one is zero.
func (w *writer) unmarshal(s *shape, target, assign string, depth int, fresh bool) {
	d := w.decoder
	if value := w.read(s); value != "" {
		w.printf("%s %s %s\n", target, assign, value)
		return
	}
	if assign == ":=" && s.kind != kindSlice && s.kind != kindMap {
		w.printf("var %s %s\n", target, w.typeName(s.typ))
		fresh = true
	}
	n := w.local("n", 0)
	switch s.kind {
	case kindByteArray:
		w.printf("%s := %s.Bytes()\nif len(%s) != len(%s) {\n", n, d, n, target)
		w.refuse(fmt.Sprintf("want %d bytes in base64", s.len))
		w.printf("copy(%s[:], %s)\n", operand(target), n)
	case kindRaw:
		at := selected(target)
		if !fresh {
			w.printf("%s.Name = \"\"\n", at)
		}
		w.printf("if %s.JSON = %s.Raw(); %s.Err() == nil {\n%s.Fail(%s.Unmarshal(%s.JSON, (*%s)(&%s.Name)))\n}\n",
			at, d, d, d, w.autobus(), at, w.rawType(), at)
	case kindText:
		w.clear(s, target, fresh)
		w.printf("%s.Fail(%s.UnmarshalText([]byte(%s.String())))\n", d, selected(target), d)
	case kindOwn, kindStruct:
		w.clear(s, target, fresh)
		w.printf("%s.Object(%s)\n", d, address(target))
	case kindPointer:
		if fresh {
			w.printf("if !%s.Null() {\n", d)
		} else {
			w.printf("if %s.Null() {\n%s = nil\n} else {\n", d, target)
		}
		w.printf("%s = new(%s)\n", target, w.typeName(s.elem.typ))
		w.unmarshal(s.elem, "*"+target, "=", depth, true)
		w.printf("}\n")
	case kindSlice:
		w.unmarshalSlice(s, target, assign, depth)
	case kindArray:
		w.unmarshalArray(s, target, depth)
	case kindMap:
		w.unmarshalMap(s, target, assign, depth)
	}
}

// clear empties what a method of its own reads into, unless it is fresh: of a
// name that comes twice, the last value counts.
func (w *writer) clear(s *shape, target string, fresh bool) {
	if fresh {
		return
	}
	zero := "*new(%s)"
	if _, ok := s.typ.Underlying().(*types.Struct); ok {
		zero = "%s{}"
	}
	w.printf("%s = "+zero+"\n", target, w.typeName(s.typ))
}

// unquote writes how a bool or number is read from a string.
func (w *writer) unquote(s *shape, target string) {
	n, err, strconv := w.local("n", 0), w.local("err", 0), w.std("strconv")
	var parse, basic, want string
	switch s.kind {
	case kindBool:
		parse, basic, want = "ParseBool(%s)", "bool", "want true or false"
	case kindInt:
		parse, basic, want = fmt.Sprintf("ParseInt(%%s, 10, %d)", s.bits), "int64", wantInteger(s)
	case kindUint:
		parse, basic, want = fmt.Sprintf("ParseUint(%%s, 10, %d)", s.bits), "uint64", wantInteger(s)
	case kindFloat:
		parse, basic, want = fmt.Sprintf("ParseFloat(%%s, %d)", s.bits), "float64", wantFloat(s)
	}
	w.printf("%s, %s := %s.%s\nif %s != nil {\n", n, err, strconv, fmt.Sprintf(parse, w.decoder+".String()"), err)
	w.refuse(want + ", in a string or not")
	w.printf("%s = %s\n", target, w.as(s, basic, n))
}

func (w *writer) unmarshalSlice(s *shape, target, assign string, depth int) {
	w.printf("%s %s %s{}\nfor range %s.Elems() {\n", target, assign, w.typeName(s.typ), w.decoder)
	if s.elem.kind == kindStruct { // read where it will be, and not on the heap
		w.printf("%s = append(%s, %s{})\n", target, target, w.typeName(s.elem.typ))
		w.printf("%s.Object(&%s[len(%s)-1])\n}\n", w.decoder, operand(target), target)
		return
	}
	elem := w.read(s.elem)
	if elem == "" {
		elem = w.local("elem", depth)
		w.unmarshal(s.elem, elem, ":=", depth+1, true)
	}
	w.printf("%s = append(%s, %s)\n}\n", target, target, elem)
}

func (w *writer) unmarshalArray(s *shape, target string, depth int) {
	i, count, d := w.local("i", depth), w.local("count", depth), w.decoder
	w.printf("%s := 0\nfor %s := range %s.Elems() {\nif %s++; %s > len(%s) {\nbreak\n}\n", count, i, d, count, count, target)
	w.unmarshal(s.elem, operand(target)+"["+i+"]", "=", depth+1, false)
	w.printf("}\nif %s != len(%s) {\n", count, target)
	w.refuse(fmt.Sprintf("want %d elements", s.len))
}

func (w *writer) unmarshalMap(s *shape, target, assign string, depth int) {
	d, key := w.decoder, w.local("key", depth)
	w.printf("%s %s make(%s)\nfor %s := range %s.Fields() {\n", target, assign, w.typeName(s.typ), key, d)
	if s.key.kind == kindString {
		key = w.as(s.key, "string", key)
	} else {
		number, err := w.local("number", depth), w.local("err", depth)
		parse, basic := "ParseInt", "int64"
		if s.key.kind == kindUint {
			parse, basic = "ParseUint", "uint64"
		}
		w.printf("%s, %s := %s.%s(%s, 10, %d)\nif %s != nil {\n", number, err, w.std("strconv"), parse, key, s.key.bits, err)
		w.refuse(wantInteger(s.key) + " as the name")
		key = w.as(s.key, basic, number)
	}
	elem := w.read(s.elem)
	if elem == "" {
		elem = w.local("elem", depth)
		w.unmarshal(s.elem, elem, ":=", depth+1, true)
	}
	w.printf("%s[%s] = %s\n}\n", operand(target), key, elem)
}

// rawType is the name of a type that reads the "type" of an object: after the
// structure that first needs it, since other files may need one, too.
func (w *writer) rawType() string {
	if w.rawName == "" {
		w.rawName = w.local("typeOfRawIn"+w.current.name, 0)
	}
	return w.rawName
}

// raw declares rawType.
func (w *writer) raw() {
	d, key, n, seen, text := w.local("d", 0), w.local("key", 0), w.local("n", 0), w.local("seen", 0), w.local("text", 0)
	w.decoder = d
	w.printf("// %s is the name of a nested event's type.\ntype %s string\n\n", w.rawName, w.rawName)
	w.printf("func (%s *%s) Unmarshal(%s *%s.Decoder) error {\n%s := false\nfor %s := range %s.Fields() {\nif %s == \"type\" {\n",
		n, w.rawName, d, w.autobus(), seen, key, d, key)
	w.printf("%s := %s(%s.String())\nif %s && %s != *%s {\n", text, w.rawName, d, seen, text, n)
	w.refuse("want one type, have two")
	w.printf("*%s, %s = %s, true\n}\n}\nreturn %s.Err()\n}\n", n, seen, text, d)
}
