//go:build !unix

package autobus

import "testing"

// serverURL returns the URL of a Redis server of the test's own.
func serverURL(t testing.TB) string {
	t.Helper()
	missing(t, "the tests start redis-server on Unix alone")
	return ""
}
