package autobus

import (
	"context"
	"net"
	"time"
)

// sentinelEvery is how often a sentinel is asked whether there is another
// master. Its announcements (+switch-master) would come sooner, but one that
// is missed comes never.
const sentinelEvery = time.Second

// connectMaster asks the sentinels in turn for the master, and connects to it:
// the steps of https://redis.io/docs/latest/develop/reference/sentinel-clients/.
func (s *redisSession) connectMaster(ctx context.Context) (*redisConn, error) {
	return s.tryAddrs(func(sentinel string) (*redisConn, error) {
		asked, err := s.dialSentinel(ctx, sentinel)
		if err != nil {
			return nil, err
		}
		addr, err := asked.master(ctx, s.master)
		asked.Close()
		if err != nil {
			return nil, err
		}
		c, err := dialRedis(ctx, s.redisURL, addr)
		if err != nil {
			return nil, err
		}
		if err := c.checkMaster(ctx); err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	})
}

func (s *redisSession) dialSentinel(ctx context.Context, addr string) (*redisConn, error) {
	u := *s.redisURL
	u.username, u.password, u.protocol = u.sentinelUsername, u.sentinelPassword, 2
	return dialRedis(ctx, &u, addr)
}

// master asks a sentinel for the address of the master called name.
func (c *redisConn) master(ctx context.Context, name string) (addr string, err error) {
	if err := c.ask(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name); err != nil {
		if answer, ok := find[serverError](err); ok && !answer.passes() {
			err = &mistake{"it is no sentinel, or refuses to be asked", err}
		}
		return "", fail("sentinel at "+c.addr, err)
	}
	values := c.in.values
	switch {
	case values[0].kind == respNull:
		return "", fail("sentinel at "+c.addr, &mistake{"it knows no master of that name", nil})
	case values[0].kind != '*' || len(values) != 3:
		return "", fail("sentinel at "+c.addr, respError("not an answer of a sentinel"))
	}
	return net.JoinHostPort(string(c.in.text(values[1])), string(c.in.text(values[2]))), nil
}

// checkMaster returns an error if c is to a replica: what is published there
// reaches nobody elsewhere.
func (c *redisConn) checkMaster(ctx context.Context) error {
	err := c.ask(ctx, "ROLE")
	if isA[serverError](err) {
		return nil // an ACL may deny it; then the sentinel's word must do
	}
	if err != nil {
		return fail("redis at "+c.addr, err)
	}
	if values := c.in.values; len(values) > 1 && string(c.in.text(values[1])) != "master" {
		return fail("redis at "+c.addr, &notMasterError{})
	}
	return nil
}

type notMasterError struct{}

func (*notMasterError) Error() string { return "it isn't the master, or not yet" }

// ask sends a command and waits for the answer.
func (c *redisConn) ask(ctx context.Context, args ...string) error {
	c.wire.SetReadDeadline(time.Now().Add(c.timeout))
	defer context.AfterFunc(ctx, func() { c.wire.SetDeadline(past) })()
	if _, err := c.write(ctx, appendCommand(nil, args...)); err != nil {
		return err
	}
	if err := c.reply(); err != nil {
		return err
	}
	if e, is := c.serverError(); is {
		return e
	}
	return nil
}

// watchMaster breaks connections to what is no longer the master, so that they
// are made anew. An old master that stays reachable, as a replica, would take
// messages and deliver them to nobody.
func (s *redisSession) watchMaster() {
	var sentinel *redisConn
	for i := 0; s.wait(sentinelEvery); {
		if sentinel == nil {
			c, err := s.dialSentinel(s.running, s.addrs[i%len(s.addrs)])
			if err != nil {
				i++
				continue
			}
			sentinel = c
			s.hold(sentinel)
		}
		addr, err := sentinel.master(s.running, s.master)
		if err != nil {
			s.drop(sentinel)
			sentinel = nil
			i++
			continue
		}
		if !s.isElsewhere(addr, sentinel) {
			continue
		}
		// This sentinel may be the one that is mistaken: look for a server
		// that says it is the master.
		if c, err := s.connectMaster(s.running); err == nil {
			c.Close()
			s.leave(c.addr, sentinel)
		}
	}
	if sentinel != nil {
		s.drop(sentinel)
	}
}

// isElsewhere tells whether a connection, but for the sentinel's, isn't to addr.
func (s *redisSession) isElsewhere(addr string, sentinel *redisConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		if c != sentinel && c.addr != addr {
			return true
		}
	}
	return false
}

// leave closes the connections that aren't to addr.
func (s *redisSession) leave(addr string, sentinel *redisConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		if c != sentinel && c.addr != addr {
			s.log.Warn("autobus: Redis has another master", "was", c.addr, "is", addr)
			c.Close()
		}
	}
}
