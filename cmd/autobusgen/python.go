package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// pythonClasses is the source of the classes for events of package name.
func pythonClasses(name string, events []*structure) ([]byte, error) {
	w := &pythonWriter{helpers: make(map[string]bool), imports: map[string]bool{"autobus": true}, classes: make(map[string]*structure)}
	for _, s := range events {
		w.class(s)
	}
	w.checkDefaults()
	if err := w.problems.err(); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "#%s from the Go package %s. %s\n", generatedBy, name, doNotEdit)
	for _, h := range pythonHelpers {
		if w.helpers[h.name] {
			for _, i := range h.imports {
				w.imports[i] = true
			}
		}
	}
	for _, group := range [][]string{{"base64", "datetime", "typing"}, {"autobus", "pydantic"}} {
		any := false
		for _, i := range group {
			if w.imports[i] {
				if !any {
					fmt.Fprintln(&out)
				}
				any = true
				fmt.Fprintf(&out, "import %s\n", i)
			}
		}
	}
	wasClass := true
	for _, h := range pythonHelpers {
		if w.helpers[h.name] {
			isClass := strings.HasPrefix(h.text, "class") || strings.HasPrefix(h.text, "def")
			if isClass || wasClass {
				out.WriteString("\n")
			}
			if isClass {
				out.WriteString("\n")
			}
			wasClass = isClass
			out.WriteString(h.text)
		}
	}
	out.Write(w.body.Bytes())
	return out.Bytes(), nil
}

// A pythonHelper is what classes of some field types refer to.
type pythonHelper struct {
	name    string
	imports []string
	text    string
}

func pythonInteger(name, least, greatest string) pythonHelper {
	return pythonHelper{name, []string{"typing", "pydantic"}, fmt.Sprintf("%s = typing.Annotated[int, pydantic.Field(ge=%s, le=%s)]\n", name, least, greatest)}
}

// pythonHelpers stand in the order in which they are written.
var pythonHelpers = []pythonHelper{
	pythonInteger("_Int8", "-(2**7)", "2**7 - 1"),
	pythonInteger("_Int16", "-(2**15)", "2**15 - 1"),
	pythonInteger("_Int32", "-(2**31)", "2**31 - 1"),
	pythonInteger("_Int64", "-(2**63)", "2**63 - 1"),
	pythonInteger("_UInt8", "0", "2**8 - 1"),
	pythonInteger("_UInt16", "0", "2**16 - 1"),
	pythonInteger("_UInt32", "0", "2**32 - 1"),
	pythonInteger("_UInt64", "0", "2**64 - 1"),
	{"_Duration", []string{"datetime", "typing", "pydantic"}, `# A number of seconds on the wire.
_Duration = typing.Annotated[
    datetime.timedelta,
    pydantic.PlainSerializer(datetime.timedelta.total_seconds, when_used="json"),
]
`},
	{"_Bytes", []string{"base64", "typing", "pydantic"}, `# Standard base64 on the wire.
_Bytes = typing.Annotated[
    bytes,
    pydantic.BeforeValidator(lambda v: base64.b64decode(v, validate=True) if isinstance(v, str) else v),
    pydantic.PlainSerializer(lambda v: base64.b64encode(v).decode(), when_used="json"),
]
`},
	{"_Event", []string{"autobus", "pydantic"}, `class _Event(autobus.Event):
    """Publishes as JSON what autobus.Event can't: times, durations, bytes and nested classes."""

    model_config = pydantic.ConfigDict(ser_json_inf_nan="constants")  # in Any, too, where they would be null

    def __iter__(self):
        yield from self.model_dump(mode="json").items()
`},
}

// A pythonWriter writes the classes.
type pythonWriter struct {
	body     bytes.Buffer
	helpers  map[string]bool
	imports  map[string]bool
	classes  map[string]*structure // by name
	problems problems
}

// pythonTaken are names that a class or a field with a default would hide from
// what stands below it.
var pythonTaken = []string{
	"autobus", "base64", "bool", "bytes", "datetime", "dict", "float", "int", "list", "pydantic", "str", "typing",
}

// pythonKeywords are those of Python 3, with None and its like.
var pythonKeywords = []string{
	"False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del", "elif",
	"else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal", "not", "or",
	"pass", "raise", "return", "try", "while", "with", "yield",
}

// pythonName says why a name can't be one in Python, where NFKC makes others of
// some letters beyond ASCII.
func pythonName(name string) string {
	for i, c := range name {
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (i == 0 || c < '0' || c > '9') {
			return "want ASCII letters, digits and underscores"
		}
	}
	switch {
	case name == "":
		return "it is empty"
	case slices.Contains(pythonKeywords, name):
		return "it is a keyword of Python"
	case strings.HasPrefix(name, "_"):
		return "pydantic keeps names that begin with an underscore to itself"
	}
	return ""
}

// className is the name of a structure's class: the bus goes by it.
func className(s *structure) string {
	if s.wire != "" {
		return s.wire
	}
	return s.name
}

// class writes the class of a structure after those that it needs.
func (w *pythonWriter) class(s *structure) {
	name := className(s)
	if other := w.classes[name]; other != nil {
		if other != s {
			w.problems.add(s.at, "two classes in Python would be named %s: rename %s, or give the event another name by //autobus:event Name", name, s.name)
		}
		return
	}
	w.classes[name] = s
	problem := pythonName(name)
	if problem == "" && slices.Contains(pythonTaken, name) {
		problem = "the classes need it themselves"
	}
	if problem != "" {
		w.problems.add(s.at, "%s can't be a class in Python: %s; rename it, or leave out -python", name, problem)
	}
	plain := true
	for _, f := range s.fields {
		w.needs(f.shape)
		plain = plain && isPlain(f.shape)
	}
	base := "autobus.Event"
	switch {
	case s.wire == "":
		base = "pydantic.BaseModel"
		w.imports["pydantic"] = true
	case !plain:
		base = "_Event"
		w.helpers[base] = true
	}
	var body bytes.Buffer
	for _, f := range s.fields {
		problem := pythonName(f.wire)
		hasDefault := hasDefault(f)
		switch {
		case problem != "":
		case pydanticNames[f.wire]:
			problem = "pydantic has a member of that name"
		case hasDefault && slices.Contains(pythonTaken, f.wire):
			problem = "with a default it would hide what the classes need"
		}
		if problem != "" {
			w.problems.add(f.at, "%s.%s: %q can't be a field in Python: %s; give it another name in its tag, or leave out -python", s.name, f.path, f.wire, problem)
		}
		fmt.Fprintf(&body, "    %s: %s", f.wire, w.annotation(f.shape))
		if hasDefault {
			fmt.Fprintf(&body, " = %s", w.empty(f.shape))
		}
		fmt.Fprintln(&body)
	}
	if len(s.fields) == 0 {
		body.WriteString("    pass\n")
	}
	fmt.Fprintf(&w.body, "\n\nclass %s(%s):\n%s", name, base, body.Bytes())
}

// checkDefaults finds fields that would hide a class: with a default, a name
// stands for that in the rest of its own class.
func (w *pythonWriter) checkDefaults() {
	for _, name := range slices.Sorted(maps.Keys(w.classes)) {
		s := w.classes[name]
		for _, f := range s.fields {
			if hasDefault(f) && w.classes[f.wire] != nil {
				w.problems.add(f.at, "%s.%s: %q can't be a field in Python: with a default it would hide the class of that name; give it another name in its tag, or leave out -python", s.name, f.path, f.wire)
			}
		}
	}
}

// hasDefault reports whether a field may be missing in Python.
func hasDefault(f field) bool { return f.omitempty || f.shape.kind == kindPointer && !f.required }

// pydanticNames are members of pydantic.BaseModel that a field may not replace.
var pydanticNames = map[string]bool{
	"construct": true, "copy": true, "dict": true, "from_orm": true, "json": true, "parse_file": true, "parse_obj": true,
	"parse_raw": true, "schema": true, "schema_json": true, "update_forward_refs": true, "validate": true,
	"model_computed_fields": true, "model_config": true, "model_construct": true, "model_copy": true, "model_dump": true,
	"model_dump_json": true, "model_extra": true, "model_fields": true, "model_fields_set": true, "model_json_schema": true,
	"model_parametrized_name": true, "model_post_init": true, "model_rebuild": true, "model_validate": true,
	"model_validate_json": true, "model_validate_strings": true,
}

// needs writes the classes that a shape refers to.
func (w *pythonWriter) needs(s *shape) {
	if s == nil {
		return
	}
	if s.of != nil {
		w.class(s.of)
	}
	w.needs(s.elem)
}

// isPlain reports whether Python autobus 1.0.0 can publish a value itself.
func isPlain(s *shape) bool {
	switch s.kind {
	case kindBytes, kindByteArray, kindTime, kindDuration, kindStruct:
		return false
	}
	return s.elem == nil || isPlain(s.elem)
}

// annotation is the type of a field.
func (w *pythonWriter) annotation(s *shape) string {
	switch s.kind {
	case kindBool:
		return "bool"
	case kindInt, kindUint:
		return w.integer(s)
	case kindFloat:
		return "float"
	case kindString, kindText:
		return "str"
	case kindBytes:
		w.helpers["_Bytes"] = true
		return "_Bytes"
	case kindByteArray:
		w.helpers["_Bytes"] = true
		return w.ofLength("_Bytes", s.len)
	case kindTime:
		w.imports["pydantic"] = true
		return "pydantic.AwareDatetime"
	case kindDuration:
		w.helpers["_Duration"] = true
		return "_Duration"
	case kindRaw, kindOwn:
		w.imports["typing"] = true
		return "dict[str, typing.Any]"
	case kindStruct:
		return className(s.of)
	case kindPointer:
		w.imports["typing"] = true
		return "typing.Optional[" + w.annotation(s.elem) + "]"
	case kindStrings, kindSlice:
		return "list[" + w.annotation(s.elem) + "]"
	case kindArray:
		return w.ofLength("list["+w.annotation(s.elem)+"]", s.len)
	case kindMap:
		key := "str"
		if s.key.kind != kindString {
			key = w.integer(s.key)
		}
		return "dict[" + key + ", " + w.annotation(s.elem) + "]"
	}
	w.imports["typing"] = true
	return "typing.Any"
}

// integer is the type of an integer: a Go int is a Python one, and others have
// their bounds.
func (w *pythonWriter) integer(s *shape) string {
	if s.kind == kindInt && s.bits == 0 {
		return "int"
	}
	bits := s.bits
	if bits == 0 {
		bits = 64
	}
	name := "_Int" + strconv.Itoa(bits)
	if s.kind == kindUint {
		name = "_UInt" + strconv.Itoa(bits)
	}
	w.helpers[name] = true
	return name
}

// ofLength is an annotation with a length.
func (w *pythonWriter) ofLength(annotation string, n int64) string {
	w.imports["typing"], w.imports["pydantic"] = true, true
	return fmt.Sprintf("typing.Annotated[%s, pydantic.Field(min_length=%d, max_length=%d)]", annotation, n, n)
}

// empty is what a field has that was left out.
func (w *pythonWriter) empty(s *shape) string {
	switch s.kind {
	case kindBool:
		return "False"
	case kindInt, kindUint:
		return "0"
	case kindFloat:
		return "0.0"
	case kindString:
		return `""`
	case kindBytes:
		return `b""`
	case kindTime:
		w.imports["datetime"] = true
		return "datetime.datetime(1, 1, 1, tzinfo=datetime.timezone.utc)"
	case kindDuration:
		return "datetime.timedelta()"
	case kindStrings, kindSlice:
		return "[]"
	case kindMap:
		return "{}"
	}
	return "None"
}
