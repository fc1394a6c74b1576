package main

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ownNamespace is the file of the calling thread's network namespace.
const ownNamespace = "/proc/thread-self/ns/net"

// namespace is an open network namespace; nil is the program's own. The file keeps it alive.
type namespace struct {
	file *os.File
}

// stranded ends the program: its thread could not leave a namespace.
type stranded struct{ error }

// openNamespace opens the namespace of a path, nil for the program's own.
func openNamespace(path *string) (*namespace, error) {
	if path == nil {
		return nil, nil
	}
	file, err := os.Open(*path)
	if err != nil {
		return nil, err
	}
	return &namespace{file}, nil
}

// do calls a function in the namespace. Its error is the function's, or that of entering, when it was not called.
func (n *namespace) do(call func() error) error {
	if n == nil {
		return call()
	}
	// The namespace is a thread's, and the runtime must neither run other goroutines on this one nor start new
	// threads from it.
	runtime.LockOSThread()
	own, err := os.Open(ownNamespace)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() { _ = own.Close() }()
	if err := enter(n.file); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = call()
	if back := enter(own); back != nil {
		// The thread stays locked: nothing else may run on it.
		return stranded{fmt.Errorf("the way back to the own network namespace: %w", back)}
	}
	runtime.UnlockOSThread()
	return err
}

func enter(file *os.File) error {
	if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
		return &os.PathError{Op: "setns", Path: file.Name(), Err: err}
	}
	return nil
}

func (n *namespace) close() error {
	if n == nil {
		return nil
	}
	return n.file.Close()
}
