package every

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"testing"
	"time"

	"github.com/autobus-go/autobus"
)

// patience is for what should happen at once.
const patience = 30 * time.Second

// The generated classes and the generated methods take what the others write:
// what Go publishes comes back from Python the same, and what Python makes of
// its own values is what Go reads.
func TestInteropPython(t *testing.T) {
	python := os.Getenv("AUTOBUS_PYTHON")
	if python == "" {
		if os.Getenv("AUTOBUS_TEST_ALL") == "1" {
			t.Fatal("AUTOBUS_PYTHON names no Python with autobus 1.0.0, and AUTOBUS_TEST_ALL=1 asks for every test")
		}
		t.Skip("AUTOBUS_PYTHON names no Python with autobus 1.0.0; script/test installs one")
	}
	url := fmt.Sprintf("udp://239.255.%d.%d:%d?ttl=0", rand.IntN(256), 1+rand.IntN(254), 20000+rand.IntN(12000))
	out := &autobus.Bus{URL: url}
	back := &autobus.Bus{URL: url, Namespace: "back"}
	heard := make(chan autobus.Event, 16)
	hear[Every](back, heard)
	hear[Options](back, heard)
	hear[Common](back, heard)
	hear[Reading](back, heard)
	hear[Nothing](back, heard)
	for _, b := range []*autobus.Bus{out, back} {
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := b.Stop(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	next := func() autobus.Event {
		t.Helper()
		select {
		case e := <-heard:
			return e
		case <-time.After(patience):
			t.Fatalf("nothing from Python; %+v", back.Stats())
		}
		return nil
	}

	cmd := exec.Command(python, "testdata/peer.py", url, ".")
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		late := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		defer late.Stop()
		if err := cmd.Wait(); err != nil || complaints.Len() > 0 {
			t.Errorf("Python: %v\n%s", err, complaints.Bytes())
		}
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("Python says %q, %v", line, err)
	}

	one := map[string]int{"a": 1}
	own := map[string]autobus.Event{} // order is kept within a subscription alone
	for range 3 {
		e := next()
		own[e.Type()] = e
	}
	for _, want := range []autobus.Event{
		Nothing{},
		Options{
			ID: 1, SomeBytes: []byte{0, 255, 254}, SomeTook: -24*time.Hour + time.Microsecond,
			SomeTime: time.Date(2026, 1, 2, 1, 4, 5, 6000, time.UTC),
			SomeRoom: &Room{"hall", -128, []Door{{true, "oak"}}}, SomeMap: one, SomeAny: []any{int64(1), 2.5, nil, math.Inf(-1)},
			SomeList: []int{}, SomeWords: []string{}, SomeText: []byte("null"), QuotedBool: true, QuotedInt: -7, QuotedInt8: 127,
			QuotedInt64: math.MinInt64, QuotedUint: math.MaxUint, QuotedFloat32: 0.5, QuotedFloat64: math.Inf(1),
		},
		Reading{
			ID: 1, Name: "é", On: true, Value: 3, Tags: []string{"a"}, Level: 255, Worst: &Point{1, math.Inf(-1)},
			Track: []Point{{1.5, 2}}, Limit: map[string]int{},
		},
	} {
		got := own[want.Type()]
		if o, ok := got.(Options); ok {
			o.SomeTime = o.SomeTime.UTC()
			got = o
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("Python's own came as\n%+v, want\n%+v", got, want)
		}
	}

	const rounds = 50
	random := filler{rand.New(rand.NewPCG(1, 1)), time.Microsecond}
	for range rounds {
		var every Every
		random.fill(reflect.ValueOf(&every).Elem())
		every.hidden = 5
		var options Options
		random.fill(reflect.ValueOf(&options).Elem())
		var common Common
		random.fill(reflect.ValueOf(&common).Elem())
		for _, sent := range []autobus.Event{every, options, common, aReading, Nothing{}} {
			if err := out.Publish(sent); err != nil {
				t.Fatal(err)
			}
			if got := next(); canonical(t, got) != canonical(t, sent) {
				t.Fatalf("from Go by Python to Go came\n%s, want\n%s", canonical(t, got), canonical(t, sent))
			}
		}
	}

	// Not a number, and the greatest and the least that a field takes.
	edges := Every{
		Int8: math.MinInt8, Int64: math.MinInt64, Uint64: math.MaxUint64, Uint: math.MaxUint, Uintptr: math.MaxUint,
		Float64: math.NaN(), Float32: float32(math.Inf(-1)), Took: 100*365*24*time.Hour + time.Microsecond,
		Time: time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC), Addr: netip.IPv6Unspecified(),
		Raw: autobus.Raw{Name: "Ping", JSON: []byte(`{"type":"Ping","id":7}`)},
	}
	if err := out.Publish(edges); err != nil {
		t.Fatal(err)
	}
	got := next().(Every)
	if !math.IsNaN(got.Float64) || !math.IsInf(float64(got.Float32), -1) || got.Raw.Name != "Ping" || got.Took != edges.Took ||
		!got.Time.Equal(edges.Time) || got.Uint64 != edges.Uint64 || got.Uint != edges.Uint || got.Int64 != edges.Int64 {
		t.Errorf("at the edges came %+v", got)
	}
	if s := back.Stats(); s.DroppedMalformed+s.DroppedType > 0 {
		t.Errorf("Go refused what Python sent: %+v", s)
	}
}

func hear[T autobus.Event, P autobus.EventPtr[T]](b *autobus.Bus, heard chan<- autobus.Event) {
	autobus.SubscribeOn[T, P](b, func(_ context.Context, v T) error { heard <- v; return nil })
}

// canonical is an event as JSON, its raw parts written in one way.
func canonical(t *testing.T, e autobus.Event) string {
	t.Helper()
	data, err := autobus.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	if data, err = json.Marshal(v); err != nil {
		t.Fatal(err)
	}
	return string(data)
}
