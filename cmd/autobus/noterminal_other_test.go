//go:build !unix

package main

import "syscall"

var noTerminal *syscall.SysProcAttr
