package main

import "time"

//go:generate go run github.com/autobus-go/autobus/cmd/autobusgen

// A Beat says that somebody is there, and when to expect the next one.
//
//autobus:event
type Beat struct {
	Name string        `autobus:",required"`
	Next time.Duration `autobus:",required"`
	Last bool          // there is no next one
}
