package main

import "time"

//go:generate go run github.com/autobus-go/autobus/cmd/autobusgen

// A Reading is what a device measures.
//
//autobus:event
type Reading struct {
	Device  string `autobus:",required"`
	Celsius float64
	At      time.Time
}
