//go:build unix

package autobus

import (
	"syscall"
	"testing"
)

// reportCPU has b report the processor time that an operation takes, of all
// threads, until the returned function is called.
func reportCPU(b *testing.B) func() {
	b.ReportAllocs()
	begin := cpuTime()
	return func() { b.ReportMetric(float64(cpuTime()-begin)/float64(b.N), "cpu-ns/op") }
}

// cpuTime returns the processor time of this process, in nanoseconds.
func cpuTime() int64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
