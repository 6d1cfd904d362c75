//go:build !unix

package autobus

import "testing"

func reportCPU(b *testing.B) func() {
	b.ReportAllocs()
	return func() {}
}
