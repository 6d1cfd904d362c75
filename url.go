package autobus

import (
	"strconv"
	"strings"
)

// What the transports' URLs have in common, without net/url.

// splitHost splits HOST[:PORT]; the port keeps its colon, and brackets around
// the host are taken off. What is in the port besides is the caller's to see.
func splitHost(s string) (host, port string, bracketed bool, problem string) {
	if !strings.HasPrefix(s, "[") {
		i := strings.IndexByte(s, ':')
		if i < 0 {
			i = len(s)
		}
		return s[:i], s[i:], false, ""
	}
	i := strings.LastIndexByte(s, ']')
	if i < 0 {
		return "", "", true, "the '[' has no ']'"
	}
	return s[1:i], s[i+1:], true, ""
}

func parsePort(s string) (port uint16, ok bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n != 0
}

// lower makes ASCII letters small, which spares a program Unicode's tables.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// unescapeURL undoes percent-encoding, and in a query '+' for a space. A '%'
// that starts no escape stands for itself, as Python's urllib has it; ok says
// that there is none.
func unescapeURL(s string, inQuery bool) (text string, ok bool) {
	b := make([]byte, 0, len(s))
	ok = true
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '+' && inQuery:
			c = ' '
		case c == '%':
			n, err := strconv.ParseUint(s[i+1:min(i+3, len(s))], 16, 8)
			if err != nil || i+2 >= len(s) {
				ok = false
				break
			}
			c = byte(n)
			i += 2
		}
		b = append(b, c)
	}
	return string(b), ok
}

// unescapeLoosely is unescapeURL outside a query, whatever '%' there is.
func unescapeLoosely(s string) string {
	s, _ = unescapeURL(s, false)
	return s
}

// parseQuery gives the options of a query to set, and returns their names.
func parseQuery(query string, known []string, set func(name, value string) (problem string)) (given []string, problem string) {
	for query != "" {
		var part string
		if part, query, _ = strings.Cut(query, "&"); part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, _ = unescapeURL(name, true)
		value, _ = unescapeURL(value, true)
		if !contains(known, name) {
			return nil, unknownOption(clip(name), known)
		}
		if problem = set(name, value); problem != "" {
			return nil, problem
		}
		if contains(given, name) {
			return nil, name + "= stands there twice"
		}
		given = append(given, name)
	}
	return given, ""
}

// wrongOption says what an option must be.
func wrongOption(name, want, value string) (problem string) {
	return name + "= must be " + want + ", not " + quoted(clip(value))
}

// unknownOption names the options there are, and the one that was meant.
func unknownOption(name string, known []string) (problem string) {
	problem = "there is no option " + quoted(name)
	best := 3 // typing errors
	for _, k := range known {
		if d := editDistance(lower(name), k); d < best && d < len(k) {
			best = d
			problem = "there is no option " + quoted(name) + "; did you mean " + k + "?"
		}
	}
	return problem + " (the options are " + strings.Join(known, ", ") + ")"
}

// editDistance counts the letters to change, add or leave out.
func editDistance(a, b string) int {
	if len(a) > 32 { // an attacker's, or worse
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
