package main

import (
	"errors"
	"strconv"
	"time"
)

//go:generate go run github.com/autobus-go/autobus/cmd/autobusgen

// A Beat says that somebody is there, and when to expect the next one.
//
//autobus:event
type Beat struct {
	Name string        `autobus:",required"`
	Next time.Duration `autobus:",required"`
	Last bool          // there is no next one
}

// Validate refuses what would make a mess: anybody on the network may send a
// Beat, with a name that clears the screen, or one that is never missed.
func (b Beat) Validate() error {
	switch {
	case b.Name == "" || len(b.Name) > 100 || strconv.Quote(b.Name) != `"`+b.Name+`"`:
		return errors.New("want a name of 1 to 100 printable bytes, without quotes and backslashes")
	case b.Next <= 0 || b.Next > 24*time.Hour:
		return errors.New("want the next beat within a day")
	}
	return nil
}
