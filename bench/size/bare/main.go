//go:build linux

// Bare calls what package autobus builds on, without it: the same packages of
// the standard library and scrypt, for what of its size is theirs.
package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/crypto/scrypt"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		println(err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	group := netip.MustParseAddrPort("239.255.0.1:5000")
	listen := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if controlErr := c.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
		}); controlErr != nil {
			return controlErr
		}
		return err
	}}
	packets, err := listen.ListenPacket(ctx, "udp4", group.String())
	if err != nil {
		return err
	}
	defer packets.Close()
	udp := packets.(*net.UDPConn)
	cards, err := net.Interfaces()
	if err != nil {
		return err
	}
	raw, err := udp.SyscallConn()
	if err != nil {
		return err
	}
	for _, card := range cards {
		if addrs, err := card.Addrs(); err == nil && len(addrs) > 0 {
			raw.Control(func(fd uintptr) {
				err = syscall.SetsockoptIPMreqn(int(fd), syscall.IPPROTO_IP, syscall.IP_ADD_MEMBERSHIP,
					&syscall.IPMreqn{Multiaddr: group.Addr().As4(), Ifindex: int32(card.Index)})
			})
			if err != nil {
				println(card.Name, err.Error())
			}
		}
	}

	token, err := seal([]byte("hello " + strconv.Itoa(os.Getpid())))
	if err != nil {
		return err
	}
	if _, err := udp.WriteToUDPAddrPort(token, group); err != nil {
		println(err.Error())
	}
	if len(os.Args) > 3 { // a server, too
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", os.Args[3])
		if err != nil {
			return err
		}
		conn, err = secure(ctx, conn)
		if err != nil {
			return err
		}
		conn.SetDeadline(time.Now().Add(time.Second))
		if _, err := conn.Write(token); err != nil {
			return err
		}
	}
	heard := make(chan error, 1)
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := udp.ReadFromUDPAddrPort(buf)
			if err != nil {
				heard <- err
				return
			}
			println(n, "bytes from", from.String())
			if len(os.Args) == 1 {
				heard <- nil
				return
			}
		}
	}()
	select {
	case err := <-heard:
		return err
	case <-ctx.Done():
		return nil
	}
}

// seal does to text what Fernet does, in as few words.
func seal(text []byte) ([]byte, error) {
	key, err := scrypt.Key([]byte("passphrase"), []byte("salt"), 2, 8, 1, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key[16:])
	if err != nil {
		return nil, err
	}
	sealed := binary.BigEndian.AppendUint64([]byte{0x80}, uint64(time.Now().Unix()))
	iv := make([]byte, aes.BlockSize)
	if _, err := rand.Read(iv); err != nil {
		return nil, err
	}
	sealed = append(sealed, iv...)
	padded := append(text, make([]byte, aes.BlockSize-len(text)%aes.BlockSize)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(padded, padded)
	mac := hmac.New(sha256.New, key[:16])
	mac.Write(padded)
	sum := mac.Sum(nil)
	if subtle.ConstantTimeCompare(sum, padded) == 1 {
		return nil, errors.New("by chance")
	}
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(padded, padded)
	return base64.URLEncoding.AppendEncode(nil, append(append(sealed, padded...), sum...)), nil
}
