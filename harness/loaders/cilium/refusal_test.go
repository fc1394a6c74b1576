package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
)

func TestErrnoComesFromTheChain(t *testing.T) {
	for _, known := range []struct {
		err   error
		errno syscall.Errno
	}{
		{fmt.Errorf("map m: %w", fmt.Errorf("map create: %w", syscall.EPERM)), syscall.EPERM},
		{errors.Join(errors.New("first"), fmt.Errorf("second: %w", syscall.EBUSY)), syscall.EBUSY},
		{fmt.Errorf("kernel doesn't support it: %w", ebpf.ErrNotSupported), 0},
		{errors.New("symbol 'a b' must be a valid symbol"), 0},
	} {
		got := refusalOf("attach", "p", known.err)
		want := refusal{Stage: "attach", Errno: int(known.errno), What: "p", Message: known.err.Error()}
		if *got != want {
			t.Errorf("%+v instead of %+v", *got, want)
		}
	}
}

func TestVerifierLogIsWholeAndApart(t *testing.T) {
	verifier := &ebpf.VerifierError{
		Cause: syscall.EACCES,
		Log:   []string{"0: R1=ctx() R10=fp0", "\tindented", "R0 !read_ok", "processed 1 insns (limit 1000000)"},
	}
	got := refusalOf("load", "p", fmt.Errorf("program p: %w", verifier))
	if got.Log != strings.Join(verifier.Log, "\n") {
		t.Errorf("log: %q", got.Log)
	}
	if strings.Contains(got.Message, "R0") || strings.Contains(got.Message, "omitted") ||
		!strings.HasPrefix(got.Message, "program p: ") || !strings.HasSuffix(got.Message, "permission denied") {
		t.Errorf("message: %q", got.Message)
	}
	if got.Errno != int(syscall.EACCES) {
		t.Errorf("errno: %d", got.Errno)
	}
}

// The library's own errors: their words are all that says which part failed.
func TestFailedPartOfTheLibrary(t *testing.T) {
	for _, broken := range []struct {
		spec        ebpf.CollectionSpec
		stage, what string
	}{
		{ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"p": {Type: ebpf.XDP}}}, "load", "p"},
		{ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{"m": {
			Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 1, Pinning: ebpf.PinByName,
		}}}, "map_create", "m"},
	} {
		_, err := ebpf.NewCollection(&broken.spec)
		if err == nil {
			t.Fatal("a broken object was loaded")
		}
		if stage, what := failedPart(err, "f"); stage != broken.stage || what != broken.what {
			t.Errorf("%v: %s %s", err, stage, what)
		}
	}
}

func TestFailedPart(t *testing.T) {
	for text, want := range map[string][2]string{
		"program p: load program: permission denied":           {"load", "p"},
		"loading program p, for map m: load program: EINVAL":   {"load", "p"},
		"map .rodata.str: map create: operation not permitted": {"map_create", ".rodata.str"},
		"finalizing map m: update: E2BIG":                      {"map_create", "m"},
		"populating map m: update: E2BIG":                      {"map_create", "m"},
		"assembling contents of map m: too long":               {"map_create", "m"},
		"loading inner map i, for map m: map create":           {"map_create", "i"},
		"populating kallsyms caches: open: no such file":       {"load", "f.o"},
	} {
		if stage, what := failedPart(errors.New(text), "f.o"); stage != want[0] || what != want[1] {
			t.Errorf("%s: %s %s", text, stage, what)
		}
	}
}
