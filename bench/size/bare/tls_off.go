//go:build notls

package main

import (
	"context"
	"net"
)

func secure(_ context.Context, conn net.Conn) (net.Conn, error) { return conn, nil }
