package autobus_test

import (
	"context"
	"fmt"
	"time"

	"github.com/autobus-go/autobus"
)

func ExampleEvery() {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		fmt.Println(err)
		return
	}
	now := time.Date(2024, time.March, 29, 12, 0, 0, 0, berlin)
	for _, r := range []autobus.Recurrence{
		autobus.Every(10).Minutes(),
		autobus.Every(0.25).Seconds(),
		autobus.Every(1).Hour().At(":30"),
		autobus.Every(2).Days().At("10:30").In(berlin),
		autobus.Every(1).Monday().At("09:00").In(time.UTC),
		autobus.Every(5).To(1),
	} {
		next, ok := r.Next(now)
		fmt.Println(r, "|", next.Format("Jan 2 15:04:05.99 MST"), ok)
	}
	// Output:
	// every 10 minutes | Mar 29 12:10:00 CET true
	// every 0.25 seconds | Mar 29 12:00:00.25 CET true
	// every hour at :30 | Mar 29 12:30:00 CET true
	// every 2 days at 10:30 in Europe/Berlin | Mar 31 10:30:00 CEST true
	// every Monday at 09:00 in UTC | Apr 1 09:00:00 UTC true
	// never (autobus: Every(5): To(1) is below it) | Jan 1 00:00:00 UTC false
}

// The clocks of Berlin jump from 02:00 to 03:00 on 31 March 2024. There is no
// 02:30 on that day: the run comes later by the gap, and the next is back on
// its time.
func ExampleRecurrence_Next() {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		fmt.Println(err)
		return
	}
	r := autobus.Every(1).Day().At("02:30").In(berlin)
	t := time.Date(2024, time.March, 29, 12, 0, 0, 0, berlin)
	for range 3 {
		t, _ = r.Next(t)
		fmt.Println(t)
	}
	// Output:
	// 2024-03-30 02:30:00 +0100 CET
	// 2024-03-31 03:30:00 +0200 CEST
	// 2024-04-01 02:30:00 +0200 CEST
}

func ExampleScheduler() {
	var s autobus.Scheduler
	ctx, stop := context.WithCancel(context.Background())
	left := 3
	_, err := s.Schedule(autobus.Every(0.01).Seconds(), func(context.Context) error {
		fmt.Println(left)
		if left--; left > 0 {
			return nil
		}
		stop()
		return autobus.ErrCancelJob
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := s.Run(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 3
	// 2
	// 1
}

// A test says what time it is.
func ExampleScheduler_RunPending() {
	ctx := context.Background()
	now := time.Date(2024, time.January, 15, 10, 20, 30, 0, time.UTC)
	var s autobus.Scheduler
	s.RunPending(ctx, now)
	job, err := s.Schedule(autobus.Every(1).Hour().At(":30").In(time.UTC), func(context.Context) error {
		fmt.Println("backup")
		return nil
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	job.Tag("disk")

	fmt.Println(s.NextRun().UTC())
	fmt.Println(s.RunPending(ctx, now.Add(9*time.Minute)))
	fmt.Println(s.RunPending(ctx, now.Add(10*time.Minute)))
	fmt.Println(job, "next at", job.Next())
	// Output:
	// 2024-01-15 10:30:00 +0000 UTC
	// 0
	// backup
	// 1
	// every hour at :30 in UTC [disk] next at 2024-01-15 11:30:00 +0000 UTC
}
