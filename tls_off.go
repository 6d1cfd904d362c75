//go:build notls

package autobus

import (
	"context"
	"net"
)

var errNoTLS = &mistake{"this program was built without TLS, by the tag notls", nil}

func checkTLS(u *redisURL) error {
	if u.tls {
		return errNoTLS
	}
	return nil
}

func secure(context.Context, net.Conn, *redisURL, string) (net.Conn, error) { return nil, errNoTLS }

func tlsMistake(error) string { return "" }
