package main

//go:generate go run github.com/autobus-go/autobus/cmd/autobusgen -python events.py

// A Text asks for a count of its words.
//
//autobus:event
type Text struct {
	ID   int    `autobus:",required"`
	Text string `autobus:",required"`
}

// A Count answers.
//
//autobus:event
type Count struct {
	ID    int `autobus:",required"`
	Words map[string]int
}
