//go:build !notls

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
)

func secure(ctx context.Context, conn net.Conn) (net.Conn, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, err
	}
	if pem, err := os.ReadFile("ca.pem"); err == nil {
		roots.AppendCertsFromPEM(pem)
	}
	secured := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: "localhost"})
	return secured, secured.HandshakeContext(ctx)
}
