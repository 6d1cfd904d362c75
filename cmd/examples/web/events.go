package main

//go:generate go run github.com/autobus-go/autobus/cmd/autobusgen

// A Note is what somebody has posted to one of the servers.
//
//autobus:event
type Note struct {
	Server string
	Text   string `autobus:",required"`
}
