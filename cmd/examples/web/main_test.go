package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/autobus-go/autobus"
)

// TestHostile: anybody on the network may be another server, and none of them
// gets a script into a browser.
func TestHostile(t *testing.T) {
	b := newBoard(new(autobus.Bus), "here")
	if err := b.pin(t.Context(), Note{Server: "<script>alert(1)</script>", Text: "hello"}); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	b.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if have := w.Result().Header.Get("Content-Type"); have != "text/plain; charset=utf-8" {
		t.Errorf("notes are sent as %s", have)
	}
}

// slowWriter is a reader that doesn't go on before more notes are there.
type slowWriter struct {
	*httptest.ResponseRecorder
	wait func()
}

func (w slowWriter) Write(text []byte) (int, error) {
	w.wait()
	return w.ResponseRecorder.Write(text)
}

// TestSlow: a reader who is slow keeps nobody's notes from the board.
func TestSlow(t *testing.T) {
	b := newBoard(new(autobus.Bus), "here")
	pin := func() {
		if err := b.pin(t.Context(), Note{Text: "hello"}); err != nil {
			t.Error(err)
		}
	}
	pin()
	b.ServeHTTP(slowWriter{httptest.NewRecorder(), pin}, httptest.NewRequest(http.MethodGet, "/", nil))
}
