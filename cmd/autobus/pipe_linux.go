package main

import (
	"os"
	"sync"
	"syscall"
	"time"
)

// watchFile watches the writing end of a pipe with select(2), which on Linux
// reports it as readable once the reading end is closed (POLLERR belongs to
// the read set).
func watchFile(f *os.File) (<-chan struct{}, func()) {
	fd := int(f.Fd())
	if fd >= 31 {
		return nil, func() {}
	}
	ended, enough := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for !isClosed(enough) {
			var set syscall.FdSet
			set.Bits[0] = 1 << fd
			// Select can't be interrupted, so it looks up now and then.
			timeout := syscall.NsecToTimeval(int64(200 * time.Millisecond))
			n, err := syscall.Select(fd+1, &set, nil, nil, &timeout)
			if n > 0 && err == nil {
				close(ended)
				return
			}
			if err != nil && err != syscall.EINTR {
				return
			}
		}
	})
	return ended, func() {
		close(enough)
		wg.Wait()
	}
}
