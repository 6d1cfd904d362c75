package autobus

import (
	"strings"
	"testing"
)

// The package compiles for WebAssembly, where there is mem:// to use.
func TestMulticastIsNotThere(t *testing.T) {
	err := new(Bus).Start(background)
	if err == nil || !strings.Contains(err.Error(), "multicast: there is none on ") || !strings.Contains(err.Error(), "/wasm") {
		t.Fatal(err)
	}
	b := memBus(t)
	start(t, b)
	publish(t, b, tick{})
}
