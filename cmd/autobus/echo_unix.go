//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package main

import (
	"os"
	"syscall"
	"unsafe"
)

// echoOff has a terminal show nothing of what is typed, until restore.
func echoOff(terminal *os.File) (restore func(), err error) {
	var before syscall.Termios
	if err := termios(terminal, getTermios, &before); err != nil {
		return nil, err
	}
	silent := before
	silent.Lflag &^= syscall.ECHO
	if err := termios(terminal, setTermios, &silent); err != nil {
		return nil, err
	}
	return func() { termios(terminal, setTermios, &before) }, nil
}

// termios gets or sets a terminal's settings (termios(4)).
func termios(terminal *os.File, request uintptr, settings *syscall.Termios) error {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, terminal.Fd(), request, uintptr(unsafe.Pointer(settings)))
	if errno != 0 {
		return errno
	}
	return nil
}
