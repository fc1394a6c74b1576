package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
)

// A session with the object 1, which has been opened and not been loaded: nothing here needs the kernel.
func sessionWithObject() *session {
	s := newSession(func() error { return nil })
	s.objects[s.number()] = &loadedObject{file: "o", spec: &ebpf.CollectionSpec{
		Programs: map[string]*ebpf.ProgramSpec{"p": {Type: ebpf.XDP}},
		Maps:     map[string]*ebpf.MapSpec{"m": {Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 3}},
	}}
	return s
}

// exchange returns the replies to lines, without the first line.
func exchange(t *testing.T, s *session, lines ...string) []map[string]any {
	t.Helper()
	var out bytes.Buffer
	if err := serve(strings.NewReader(strings.Join(lines, "\n")+"\n"), &out, greeting{}, s); err != nil {
		t.Fatal(err)
	}
	var replies []map[string]any
	for line := range strings.Lines(out.String()) {
		var reply map[string]any
		if err := json.Unmarshal([]byte(line), &reply); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		replies = append(replies, reply)
	}
	if len(replies) != len(lines)+1 {
		t.Fatalf("%d replies to %d lines", len(replies)-1, len(lines))
	}
	return replies[1:]
}

func TestUnknownNumbersAreMalformed(t *testing.T) {
	s := sessionWithObject()
	for fields, complaint := range map[string]string{
		`"do":"load","object":9,"program":null`:                          "no object has the number 9",
		`"do":"attach","object":9,"program":"p","target":{"kprobe":"s"}`: "no object has the number 9",
		`"do":"detach","link":1`:                                         "no link has the number 1",
		`"do":"get","object":9,"map":"m","key":""`:                       "no object has the number 9",
		`"do":"get_each_cpu","object":9,"map":"m","key":""`:              "no object has the number 9",
		`"do":"put","object":9,"map":"m","key":"","value":""`:            "no object has the number 9",
		`"do":"keys","object":9,"map":"m"`:                               "no object has the number 9",
		`"do":"ring_buffer","object":9,"map":"m"`:                        "no object has the number 9",
		`"do":"consume","ring":1`:                                        "no ring has the number 1",
		`"do":"test_run","object":9,"program":"p","data":""`:             "no object has the number 9",
		`"do":"close","object":9`:                                        "no object has the number 9",
	} {
		reply := exchange(t, s, `{"id":3,`+fields+`}`)[0]
		if reply["malformed"] != complaint || reply["id"] != 3.0 || len(reply) != 2 {
			t.Errorf("%s: %v", fields, reply)
		}
	}
}

func TestMissingNamesAndUnloadedParts(t *testing.T) {
	s := sessionWithObject()
	enoent := float64(syscall.ENOENT)
	for fields, want := range map[string][3]any{
		`"do":"load","object":1,"program":"x"`:                           {"load", enoent, "x"},
		`"do":"attach","object":1,"program":"x","target":{"kprobe":"s"}`: {"attach", enoent, "x"},
		`"do":"attach","object":1,"program":"p","target":{"kprobe":"s"}`: {"attach", 0.0, "p"},
		`"do":"test_run","object":1,"program":"x","data":""`:             {"test_run", enoent, "x"},
		`"do":"test_run","object":1,"program":"p","data":""`:             {"test_run", 0.0, "p"},
		`"do":"get","object":1,"map":"x","key":""`:                       {"lookup", enoent, "x"},
		`"do":"get","object":1,"map":"m","key":""`:                       {"lookup", 0.0, "m"},
		`"do":"get_each_cpu","object":1,"map":"x","key":""`:              {"lookup", enoent, "x"},
		`"do":"put","object":1,"map":"x","key":"","value":""`:            {"update", enoent, "x"},
		`"do":"keys","object":1,"map":"x"`:                               {"lookup", enoent, "x"},
		`"do":"ring_buffer","object":1,"map":"x"`:                        {"open", enoent, "x"},
		`"do":"ring_buffer","object":1,"map":"m"`:                        {"open", 0.0, "m"},
	} {
		reply := exchange(t, s, `{"id":3,`+fields+`}`)[0]
		got, ok := reply["error"].(map[string]any)
		if !ok || got["stage"] != want[0] || got["errno"] != want[1] || got["what"] != want[2] ||
			got["message"] == "" || got["log"] != "" || len(got) != 5 {
			t.Errorf("%s: %v", fields, reply)
		}
	}
}

func TestOpenRefusals(t *testing.T) {
	folder := t.TempDir()
	text := filepath.Join(folder, "text.o")
	if err := os.WriteFile(text, []byte("no ELF file"), 0o600); err != nil {
		t.Fatal(err)
	}
	permitted := func() error { return nil }
	for _, refused := range []struct {
		path         string
		raiseMemlock func() error
		errno        syscall.Errno
		what         string
	}{
		{filepath.Join(folder, "none.o"), permitted, syscall.ENOENT, "none.o"},
		{text, permitted, 0, "text.o"},
		{text, func() error { return fmt.Errorf("memlock: %w", syscall.EPERM) }, syscall.EPERM, "text.o"},
	} {
		s := newSession(refused.raiseMemlock)
		_, err := openRequest{path: refused.path}.do(s)
		var got *refusal
		if !errors.As(err, &got) || got.Stage != "open" || got.Errno != int(refused.errno) || got.What != refused.what {
			t.Errorf("%s: %v", refused.path, err)
		}
		if len(s.objects) != 0 {
			t.Error("an object is open after a refusal")
		}
	}
}

func TestResizeAndDescribe(t *testing.T) {
	spec := sessionWithObject().objects[1].spec
	if refusal := resize(spec, map[string]uint32{"m": 9}); refusal != nil {
		t.Fatal(refusal)
	}
	got, err := json.Marshal(describe(4, spec))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"object":4,"programs":{"p":"xdp"},"maps":{"m":{"key":4,"value":8,"entries":9}}}`
	if string(got) != want {
		t.Errorf("%s", got)
	}
	refusal := resize(spec, map[string]uint32{"x": 9})
	if refusal == nil || refusal.Stage != "open" || refusal.Errno != int(syscall.ENOENT) || refusal.What != "x" {
		t.Errorf("%v", refusal)
	}
}

func TestProgramTypesAreTheKernels(t *testing.T) {
	for kind, want := range map[ebpf.ProgramType]string{
		ebpf.XDP: "xdp", ebpf.Kprobe: "kprobe", ebpf.TracePoint: "tracepoint", ebpf.SchedCLS: "sched_cls",
		ebpf.RawTracepointWritable: "raw_tracepoint_writable", ebpf.Netfilter: "netfilter",
	} {
		if got := programType(kind); got != want {
			t.Errorf("%s instead of %s", got, want)
		}
	}
}

func TestNumbersOfAClosedObjectAreGone(t *testing.T) {
	replies := exchange(t, sessionWithObject(), `{"id":1,"do":"close","object":1}`, `{"id":2,"do":"close","object":1}`)
	if result, ok := replies[0]["result"].(map[string]any); !ok || len(result) != 0 {
		t.Errorf("%v", replies[0])
	}
	if replies[1]["malformed"] != "no object has the number 1" {
		t.Errorf("%v", replies[1])
	}
}

// Lists are [] and not null when they are empty: null is what a missing key has.
func TestEmptyListsAreNoNull(t *testing.T) {
	for _, list := range []any{gotKeys{hexadecimal(nil)}, consumed{hexadecimal(nil)}} {
		if text, err := json.Marshal(list); err != nil || !strings.HasSuffix(string(text), ":[]}") {
			t.Errorf("%s %v", text, err)
		}
	}
	if text, err := json.Marshal(gotValues{}); err != nil || string(text) != `{"values":null}` {
		t.Errorf("%s %v", text, err)
	}
}

func TestFailureToReturnFromANamespaceEndsTheProgram(t *testing.T) {
	err := errors.Join(refusalOf("detach", "p", syscall.EPERM), stepError("detach", "p", stranded{syscall.EPERM}))
	requests["stranded"] = func(*fields) request { return failing{err} }
	defer delete(requests, "stranded")
	var out bytes.Buffer
	got := serve(strings.NewReader(`{"id":1,"do":"stranded"}`+"\n"), &out, greeting{}, sessionWithObject())
	if !errors.As(got, new(stranded)) || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("%v after %q", got, out.String())
	}
}

type failing struct{ err error }

func (f failing) do(*session) (any, error) { return nil, f.err }
