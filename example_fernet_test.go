package autobus_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/autobus-go/autobus"
)

// An encrypted bus: only who has the key hears its events.
func ExampleBus_encrypted() {
	key := autobus.GenerateKey() // or autobus.ParseKey(os.Getenv("AUTOBUS_KEY"))
	bus := &autobus.Bus{
		URL:    "mem://example",
		Keys:   []autobus.Key{key},
		MaxAge: time.Minute, // no older events, and none twice
	}
	heard := make(chan struct{})
	bus.SubscribeRaw("Ping", func(_ context.Context, e autobus.Raw) error {
		fmt.Printf("%s\n", e.JSON)
		close(heard)
		return nil
	})
	ctx := context.Background()
	if err := bus.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	defer bus.Stop(ctx)
	if err := bus.Publish(autobus.Raw{Name: "Ping", JSON: []byte(`{"id": 1}`)}); err != nil {
		fmt.Println(err)
	}
	<-heard
	// Output: {"type":"Ping","id":1}
}

func ExampleParseKey() {
	// As Python prints it.
	key, err := autobus.ParseKey("b'cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4='")
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println(key)
	fmt.Println(key.Encode())
	// Output:
	// autobus.Key(redacted)
	// cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=
}

func ExampleDeriveKey() {
	key, err := autobus.DeriveKey("correct horse battery staple", "autobus")
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println(key.Encode())
	// Output: l-xGEG7vLhCctynrqrbZuWMbCJZXsA7Px6LgT__grLM=
}

// The first key seals and every one opens, so that keys can be changed while
// both are in use.
func ExampleNewFernet() {
	old, key := autobus.GenerateKey(), autobus.GenerateKey()
	before, during, after := autobus.NewFernet(old), autobus.NewFernet(key, old), autobus.NewFernet(key)

	token := before.Seal(nil, []byte("hello"))
	text, err := during.Open(nil, token, time.Minute)
	fmt.Printf("%s %v\n", text, err)
	_, err = after.Open(nil, token, time.Minute)
	fmt.Println(err, errors.Is(err, autobus.ErrToken))
	// Output:
	// hello <nil>
	// autobus: invalid token true
}

func ExampleFernet_OpenAt() {
	f := autobus.NewFernet(autobus.GenerateKey())
	sealed := time.Unix(1_700_000_000, 0)
	token := f.SealAt(nil, []byte("hello"), sealed)
	for _, age := range []time.Duration{60 * time.Second, 61 * time.Second} {
		text, err := f.OpenAt(nil, token, time.Minute, sealed.Add(age))
		fmt.Printf("%q %v\n", text, err)
	}
	// Output:
	// "hello" <nil>
	// "" autobus: invalid token
}
