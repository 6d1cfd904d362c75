//go:build !notls

package autobus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
)

// secure makes conn a TLS connection to the server named host. It reads the
// files of certificates each time, so that new ones are used without a
// restart.
func secure(ctx context.Context, conn net.Conn, u *redisURL, host string) (net.Conn, error) {
	config, err := tlsConfig(u, host)
	if err != nil {
		return nil, err
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secured, nil
}

// checkTLS finds mistakes before there is a server.
func checkTLS(u *redisURL) error {
	if !u.tls {
		return nil
	}
	_, err := tlsConfig(u, "")
	return err
}

func tlsConfig(u *redisURL, host string) (*tls.Config, error) {
	if u.serverName != "" {
		host = u.serverName
	}
	config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if u.caCerts != "" {
		pem, err := os.ReadFile(u.caCerts)
		if err != nil {
			return nil, &mistake{"ssl_ca_certs=", err}
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, &mistake{"ssl_ca_certs=: no certificate in " + u.caCerts, nil}
		}
	}
	if u.certFile != "" {
		keyFile := u.keyFile
		if keyFile == "" { // as in Python, the key may stand beside the certificate
			keyFile = u.certFile
		}
		cert, err := tls.LoadX509KeyPair(u.certFile, keyFile)
		if err != nil {
			return nil, &mistake{"ssl_certfile= and ssl_keyfile=", err}
		}
		config.Certificates = []tls.Certificate{cert}
	}
	switch {
	case u.noVerify:
		config.InsecureSkipVerify = true
	case u.noHostname: // all of what crypto/tls does itself, but for the name
		config.InsecureSkipVerify = true
		config.VerifyConnection = func(state tls.ConnectionState) error {
			options := x509.VerifyOptions{Roots: config.RootCAs, Intermediates: x509.NewCertPool()}
			for _, cert := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(cert)
			}
			_, err := state.PeerCertificates[0].Verify(options)
			if err != nil {
				return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
			}
			return nil
		}
	}
	return config, nil
}

// tlsMistake tells what a user must mend, "" for anything else.
func tlsMistake(err error) string {
	switch remote, ok := find[*net.OpError](err); {
	case isA[*tls.CertificateVerificationError](err):
		return "the server's certificate is refused"
	case isA[tls.RecordHeaderError](err):
		return "it doesn't speak TLS: the URL must begin with redis://, without the second s, or have another port"
	case ok && remote.Op == "remote error": // an alert, RFC 8446, section 6
		return "the server refuses TLS as it is set here (does it want a client certificate?)"
	}
	return ""
}
