// Command cilium is the loader program of cilium/ebpf: it opens, loads, attaches and reads objects as it is asked on
// its standard input. PROTOCOL.md in the folder above is the contract.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/cilium/ebpf/rlimit"
)

const library = "github.com/cilium/ebpf"

func main() {
	// Otherwise the first write after the client closed its end kills the process before it has detached.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(run(os.Stdin, os.Stdout, os.Stderr))
}

// run serves one client and returns the exit status.
func run(in io.Reader, out, errs io.Writer) int {
	version, err := libraryVersion()
	if err != nil {
		_, _ = fmt.Fprintln(errs, err)
		return 1
	}
	s := newSession(rlimit.RemoveMemlock)
	err = errors.Join(serve(in, out, greeting{Protocol: 1, Loader: "cilium", Version: version}, s), s.close())
	if err != nil {
		_, _ = fmt.Fprintln(errs, err)
		return 1
	}
	return 0
}

// libraryVersion returns the version that is linked in, so that go.mod is the only place that says it.
func libraryVersion() (string, error) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", errors.New("this program was built without module information")
	}
	for _, module := range info.Deps {
		if module.Path == library {
			return strings.TrimPrefix(module.Version, "v"), nil
		}
	}
	return "", fmt.Errorf("this program's module information does not name %s", library)
}
