package autobus

import (
	"slices"
	"strconv"
	"testing"
)

// A node that is gone doesn't make a later message of a channel overtake an
// earlier one, which waits for another node.
func TestShardOrderWithoutANode(t *testing.T) {
	seen := make(chan string, 10)
	url := scripted(t, func(s *script, first []string) {
		for c := first; c != nil; c = s.command() {
			if c[0] == "SPUBLISH" {
				seen <- c[2]
				s.say(":1\r\n")
			}
		}
	})
	r, _ := startRedis(t, url+"?sharded=1")
	const channel = "autobus::A"
	r.sender.(*shardPublisher).slots.set(slotOf(channel), "127.0.0.1:1") // where nobody listens
	var messages []Message
	want := []string{"1", "2", "3"}
	for _, text := range want {
		messages = append(messages, Message{channel, []byte(text)})
	}
	if lost, err := r.Send(t.Context(), messages); lost != 0 || err != nil {
		t.Fatal(lost, err)
	}
	var got []string
	for range want {
		got = append(got, <-seen)
	}
	if !slices.Equal(got, want) {
		t.Errorf("published %v", got)
	}
}

// Neither a channel that is given up before its acknowledgement, nor one that
// can't be, has the publisher wait for subscriptions.
func TestShardSubscriptionsInForce(t *testing.T) {
	url := scripted(t, func(s *script, first []string) {
		for c := first; c != nil; c = s.command() { // none is acknowledged
		}
	})
	r, _ := startRedis(t, url+"?sharded=1")
	receiver := r.receiver.(*shardSubscriber)
	inForce := func() bool {
		receiver.mu.Lock()
		defer receiver.mu.Unlock()
		return isClosed(receiver.inForce)
	}
	if !inForce() {
		t.Error("Start returned before")
	}
	r.Subscribe("autobus::A")
	if inForce() {
		t.Error("in force without an acknowledgement")
	}
	r.Unsubscribe("autobus::A")
	if !inForce() {
		t.Error("not in force without a channel")
	}
	r.Subscribe("autobus::*")
	if !inForce() {
		t.Error("a pattern is waited for, which there can't be")
	}
}

// Send's error tells why messages are lost, also where a node can't be reached
// afterwards that is in the way of none.
func TestShardLossAndAnotherNode(t *testing.T) {
	const lostOn, sentOn = "autobus::Lost", "autobus::Sent"
	url := scripted(t, func(s *script, first []string) {
		moved := false
		for c := first; c != nil; c = s.command() {
			switch {
			case c[0] != "SPUBLISH":
			case c[1] == lostOn:
				s.say("-ERR not this one\r\n")
			case !moved:
				moved = true
				s.say("-MOVED " + strconv.Itoa(int(slotOf(sentOn))) + " 127.0.0.1:1\r\n") // where nobody listens
			default:
				s.say(":1\r\n")
			}
		}
	})
	r, _ := startRedis(t, url+"?sharded=1")
	lost, err := r.Send(t.Context(), []Message{{lostOn, []byte("1")}, {sentOn, []byte("2")}})
	if lost != 1 || errorText(err) != "autobus: redis: send: the server says: ERR not this one" {
		t.Error(lost, err)
	}
}
