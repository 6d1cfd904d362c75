//go:build amd64 || !amd64

package names

//autobus:event
type inTest struct{ First First }
