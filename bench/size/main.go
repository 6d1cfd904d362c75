//go:build unix

// Size measures a small program that has the whole bus in it, testdata/minimal,
// beside one that makes the same calls of the standard library by itself, and
// one of redigo: from bench/, go run ./size.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/autobus-go/autobus/bench/load"
	"github.com/autobus-go/autobus/bench/row"
)

// A program is what is measured.
type program struct{ name, dir, pkg string }

var programs = []program{
	{"autobus", "..", "./testdata/minimal"},
	{"bare", ".", "./size/bare"},
	{"redigo", ".", "./size/redigo"},
}

var targets = []string{"linux/amd64", "linux/arm64", "linux/arm", "linux/mipsle", "linux/riscv64"}

func main() {
	log.SetFlags(0)
	rounds := flag.Int("rounds", 11, "how often each program is started")
	flag.Parse()
	dir, err := os.MkdirTemp("", "autobus-size")
	load.Check(err)
	defer os.RemoveAll(dir)

	fmt.Println("bytes, static and stripped:", runtime.Version())
	fmt.Printf("%-14s %-6s %10s %10s %10s %8s %9s %9s %9s\n", "", "tags", "autobus", "bare", "redigo", "of bare", "of redigo", "packages", "modules")
	for _, target := range targets {
		for _, tags := range []string{"notls", ""} {
			var sizes []float64
			for _, p := range programs {
				sizes = append(sizes, float64(p.build(target, tags, filepath.Join(dir, p.name))))
			}
			packages, modules := programs[0].deps(target, tags)
			fmt.Printf("%-14s %-6s %10.0f %10.0f %10.0f %8.2f %9.2f %9d %9d\n", target, tags,
				sizes[0], sizes[1], sizes[2], sizes[0]/sizes[1], sizes[0]/sizes[2], packages, modules)
			for i, p := range programs[1:] {
				row.Add(row.Row{Part: "size", What: strings.TrimSpace(target + " " + tags), Unit: "bytes", Ours: sizes[0], Peer: p.name, Theirs: sizes[i+1]})
			}
		}
	}

	if runtime.GOOS != "linux" {
		return // what follows reads /proc
	}
	fmt.Printf("\nidle, after a second: medians of %d\n%-14s %12s %12s\n", *rounds, "", "resident KiB", "start, ms")
	resident, began := make([][]float64, len(programs)), make([][]float64, len(programs))
	server, stop := startServer(dir)
	defer stop()
	for i, p := range programs {
		p.build(runtime.GOOS+"/"+runtime.GOARCH, "notls", filepath.Join(dir, p.name))
		for range *rounds {
			r, b := idle(filepath.Join(dir, p.name), server)
			resident[i], began[i] = append(resident[i], r), append(began[i], b)
		}
	}
	for i, p := range programs {
		fmt.Printf("%-14s %12.0f %12.1f\n", p.name, row.Median(resident[i]), row.Median(began[i]))
	}
	fmt.Printf("%-14s %12.2f %12.2f\n", "of bare", row.Median(resident[0])/row.Median(resident[1]), row.Median(began[0])/row.Median(began[1]))
	for i, p := range programs[1:] {
		row.Add(row.Row{Part: "size", What: "resident, idle", Unit: "KiB", Ours: row.Median(resident[0]), Peer: p.name, Theirs: row.Median(resident[i+1])})
		row.Add(row.Row{Part: "size", What: "start, until it hears itself", Unit: "ms", Ours: row.Median(began[0]), Peer: p.name, Theirs: row.Median(began[i+1])})
	}
}

// build builds p and returns its size.
func (p program) build(target, tags, out string) int64 {
	p.run(target, "build", "-tags="+tags, "-trimpath", "-ldflags=-s -w", "-o", out, p.pkg)
	info, err := os.Stat(out)
	load.Check(err)
	return info.Size()
}

// deps counts the packages that p is linked of, and the modules that aren't
// the standard library or its own.
func (p program) deps(target, tags string) (packages, modules int) {
	seen := make(map[string]bool)
	list := p.run(target, "list", "-deps", "-tags="+tags, "-f", "in{{with .Module}}{{if not .Main}} {{.Path}}{{end}}{{end}}", p.pkg)
	for line := range strings.Lines(list) {
		packages++
		if _, module, ok := strings.Cut(line, " "); ok {
			seen[module] = true
		}
	}
	return packages, len(seen)
}

func (p program) run(target string, args ...string) string {
	goos, goarch, _ := strings.Cut(target, "/")
	cmd := exec.Command("go", args...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch, "GOARM=5", "GOMIPS=softfloat")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	load.Check(err)
	return string(out)
}

// idle starts a program, waits until it has heard itself, and a second more.
func idle(path, server string) (kib, ms float64) {
	cmd := exec.Command(path, "stay", server)
	said, err := cmd.StderrPipe()
	load.Check(err)
	begin := time.Now()
	load.Check(cmd.Start())
	line, err := bufio.NewReader(said).ReadBytes('\n')
	took := time.Since(begin)
	if err != nil {
		log.Fatalf("%s: %q, %v", path, line, err)
	}
	time.Sleep(time.Second)
	status, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/status")
	load.Check(err)
	load.Check(cmd.Process.Signal(syscall.SIGKILL))
	cmd.Wait()
	_, after, ok := bytes.Cut(status, []byte("VmRSS:"))
	if !ok {
		log.Fatal("no VmRSS")
	}
	kib, err = strconv.ParseFloat(string(bytes.Fields(after)[0]), 64)
	load.Check(err)
	return kib, float64(took) / float64(time.Millisecond)
}

// startServer starts a redis-server for redigo.
func startServer(dir string) (url string, stop func()) {
	socket := filepath.Join(dir, "redis")
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	load.Check(err)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	cmd := exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--unixsocket", socket, "--save", "", "--dir", dir)
	load.Check(cmd.Start())
	for range 1000 {
		if _, err := os.Stat(socket); !errors.Is(err, fs.ErrNotExist) {
			load.Check(err)
			return "redis://127.0.0.1:" + port, func() {
				cmd.Process.Kill()
				cmd.Wait()
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	log.Fatal("redis-server doesn't start")
	return
}
