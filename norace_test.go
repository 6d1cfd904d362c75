//go:build !race

package autobus

const raceEnabled = false
