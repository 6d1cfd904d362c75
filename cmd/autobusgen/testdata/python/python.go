// Package python has names that Python can't have.
package python

//autobus:event
type Fields struct {
	First  int `autobus:"first-name"`
	From   int
	Json   int
	Under  int    `autobus:"_under"`
	List   []int  `autobus:",omitempty"`
	Accent string `autobus:"é"`
	Digit  int    `autobus:"1st"`
	Fine   []Ping
	Ping2  *Ping `autobus:"Ping2"`
}

//autobus:event class
type Class struct{}

//autobus:event a.b
type Dotted struct{}

//autobus:event str
type Str struct{}

//autobus:event Ping
type Pong struct{}

type Ping struct{ X int }

//autobus:event Ping2
type Ping2 struct{ X int }
