package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// parentWorker starts a child for each line of its standard input, and says how long fork
// and exec took, when the child was dead, and whether a signal ended it.
func parentWorker(args []string) error {
	runtime.LockOSThread()
	attr := &syscall.ProcAttr{Env: []string{}, Files: []uintptr{2, 2, 2}, Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}}
	fmt.Fprintln(os.Stderr, "ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		began := time.Now()
		pid, err := syscall.ForkExec(args[0], []string{"sleep", "30"}, attr)
		forked := time.Since(began)
		if err != nil {
			return err
		}
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
			return err
		}
		fmt.Println(milliseconds(forked), milliseconds(time.Since(began)), status.Signaled())
	}
	return nil
}

// spawnLine is how many programs spawnWorker has run when it says so, again and again.
const spawnLine = 100

// spawnWorker runs a program that does nothing so many times a second, or without end as
// often as it can, where that number is 0.
func spawnWorker(args []string) error {
	perSecond, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	attr := &syscall.ProcAttr{Env: []string{}, Files: []uintptr{2, 2, 2}}
	turns := make(chan struct{}, max(perSecond, 1))
	var n atomic.Int64
	var spawners sync.WaitGroup
	for range 4 {
		spawners.Go(func() {
			for range turns {
				pid, err := syscall.ForkExec(args[0], []string{"true"}, attr)
				if err != nil {
					continue
				}
				_, _ = syscall.Wait4(pid, nil, 0, nil)
				if n.Add(1)%spawnLine == 0 {
					fmt.Println(spawnLine)
				}
			}
		})
	}
	fmt.Fprintln(os.Stderr, "ready")
	if perSecond == 0 {
		for {
			turns <- struct{}{}
		}
	}
	const every = 5 * time.Millisecond
	began, given := time.Now(), 0
	for range time.Tick(every) {
		for ; given < int(time.Since(began).Seconds()*float64(perSecond)); given++ {
			turns <- struct{}{}
		}
	}
	return nil
}
