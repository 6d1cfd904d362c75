// Package ping is the first example.
package ping

import "github.com/autobus-go/autobus"

// Ping asks whether somebody is there.
//
//go:generate go run github.com/autobus-go/autobus/cmd/autobusgen -python ping.py
type Ping struct {
	ID   int
	Name string
}

var _ autobus.Event = Ping{} // compiles only with what is generated
