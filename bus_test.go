package autobus

import (
	"context"
	"testing"
)

func BenchmarkPublishMem(b *testing.B) {
	ctx := context.Background()
	bus := &Bus{URL: "mem://bench"}
	done := make(chan struct{}, 1)
	n, want := 0, 0
	SubscribeOn(bus, func(_ context.Context, r reading) error {
		if n++; n == want {
			done <- struct{}{}
		}
		return nil
	})
	if err := bus.Start(ctx); err != nil {
		b.Fatal(err)
	}
	defer bus.Stop(ctx)
	b.ReportAllocs()
	b.ResetTimer()
	want = b.N
	for i := range b.N {
		if err := bus.Publish(aReading); err != nil {
			b.Fatal(err)
		}
		if i%1000 == 999 {
			bus.Flush(ctx)
		}
	}
	<-done
}
