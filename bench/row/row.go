// Package row is how the programs below bench/ tell the one that runs them all
// what they have measured.
package row

import (
	"encoding/json"
	"log"
	"os"
	"slices"
)

// Env names the file that rows are appended to; without it, they are dropped.
const Env = "AUTOBUS_BENCH_ROWS"

// A Row is a figure of ours beside a peer's, in the same unit.
type Row struct {
	Part, What   string
	Ours, Theirs float64
	Peer         string
	Unit         string
	More         bool   // is better
	Allocs       string `json:",omitempty"` // ours beside theirs
}

// Times is how many times better ours is.
func (r Row) Times() float64 {
	if r.More {
		return r.Ours / r.Theirs
	}
	return r.Theirs / r.Ours
}

// Median is 0 of nothing.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	values = slices.Sorted(slices.Values(values))
	return values[len(values)/2]
}

// Add reports a row.
func Add(r Row) {
	name := os.Getenv(Env)
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err == nil {
		err = json.NewEncoder(f).Encode(r)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		log.Fatal(err)
	}
}
