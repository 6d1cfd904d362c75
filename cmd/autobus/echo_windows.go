package main

import (
	"os"
	"syscall"
)

// enableEchoInput is ENABLE_ECHO_INPUT (SetConsoleMode, Windows console API).
const enableEchoInput = 0x4

var setConsoleMode = syscall.NewLazyDLL("kernel32.dll").NewProc("SetConsoleMode")

// echoOff has a terminal show nothing of what is typed, until restore.
func echoOff(terminal *os.File) (restore func(), err error) {
	console := syscall.Handle(terminal.Fd())
	var before uint32
	if err := syscall.GetConsoleMode(console, &before); err != nil {
		return nil, err
	}
	set := func(mode uint32) error {
		if ok, _, err := setConsoleMode.Call(uintptr(console), uintptr(mode)); ok == 0 {
			return err
		}
		return nil
	}
	if err := set(before &^ enableEchoInput); err != nil {
		return nil, err
	}
	return func() { set(before) }, nil
}
