//go:build unix

package main

import "syscall"

// noTerminal starts a process that has no terminal to ask on.
var noTerminal = &syscall.SysProcAttr{Setsid: true}
