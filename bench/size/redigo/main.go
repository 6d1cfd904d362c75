// Redigo is a program that publishes and subscribes by redigo: raw bytes, one
// transport, nothing else.
package main

import (
	"os"
	"os/signal"

	"github.com/gomodule/redigo/redis"
)

func main() {
	addr := "redis://localhost:6379"
	if len(os.Args) > 2 {
		addr = os.Args[2]
	}
	if err := run(addr); err != nil {
		println(err.Error())
		os.Exit(1)
	}
}

func run(addr string) error {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	hears, err := redis.DialURL(addr)
	if err != nil {
		return err
	}
	sub := redis.PubSubConn{Conn: hears}
	if err := sub.Subscribe("ping"); err != nil {
		return err
	}
	heard := make(chan error, 1)
	go func() {
		for {
			switch m := sub.Receive().(type) {
			case error:
				heard <- m
				return
			case redis.Message:
				println(m.Channel, string(m.Data))
				if len(os.Args) == 1 {
					heard <- nil
					return
				}
			}
		}
	}()
	says, err := redis.DialURL(addr)
	if err != nil {
		return err
	}
	if _, err := says.Do("PUBLISH", "ping", `{"type":"Ping","id":1,"name":"hello"}`); err != nil {
		return err
	}
	select {
	case err := <-heard:
		return err
	case <-interrupted:
		return nil
	}
}
