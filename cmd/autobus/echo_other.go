//go:build !linux && !darwin && !dragonfly && !freebsd && !netbsd && !openbsd && !windows

package main

import (
	"errors"
	"os"
)

// echoOff can't be done here.
func echoOff(*os.File) (restore func(), err error) { return nil, errors.ErrUnsupported }
