package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// In the environment of a process it makes the test's executable the program itself.
const asProgram = "CILIUM_LOADER_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

func command(t *testing.T) *exec.Cmd {
	t.Helper()
	program := exec.CommandContext(t.Context(), os.Args[0])
	program.Env = append(os.Environ(), asProgram+"=1")
	program.WaitDelay = 10 * time.Second
	return program
}

func TestFirstLineNamesTheLinkedVersion(t *testing.T) {
	modules, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if status := run(strings.NewReader(""), &out, io.Discard); status != 0 {
		t.Fatalf("status %d", status)
	}
	var first struct {
		Protocol        int
		Loader, Version string
	}
	if err := json.Unmarshal(out.Bytes(), &first); err != nil {
		t.Fatal(err)
	}
	if first.Protocol != 1 || first.Loader != "cilium" ||
		!strings.Contains(string(modules), library+" v"+first.Version+"\n") {
		t.Errorf("%+v", first)
	}
}

func TestEndOfInputExitsWithZero(t *testing.T) {
	program := command(t)
	program.Stdin = strings.NewReader(`{"id":1,"do":"open","path":"/nonexistent","max_entries":{}}` + "\n")
	var out, errs bytes.Buffer
	program.Stdout, program.Stderr = &out, &errs
	if err := program.Run(); err != nil {
		t.Fatal(err)
	}
	if strings.Count(out.String(), "\n") != 2 || errs.Len() != 0 {
		t.Errorf("%q %q", out.String(), errs.String())
	}
}

// A shell's input, a folder, is one that cannot be read.
func TestUnreadableInputExitsWithOne(t *testing.T) {
	folder, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	program := command(t)
	program.Stdin = folder
	exitsWithOne(t, program, "stdin: ")
}

func TestClosedOutputExitsWithOne(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = reader.Close()
	program := command(t)
	program.Stdout = writer
	exitsWithOne(t, program, "stdout: ")
	_ = writer.Close()
}

func exitsWithOne(t *testing.T, program *exec.Cmd, complaint string) {
	t.Helper()
	var errs bytes.Buffer
	program.Stderr = &errs
	err := program.Run()
	var status *exec.ExitError
	if !errors.As(err, &status) || status.ExitCode() != 1 {
		t.Errorf("%v", err)
	}
	if !strings.HasPrefix(errs.String(), complaint) || strings.Count(errs.String(), "\n") != 1 {
		t.Errorf("%q", errs.String())
	}
}

// One request after the other, each answered before the next is sent; malformed ones and a very long one do no harm.
func TestConversation(t *testing.T) {
	program := command(t)
	in, err := program.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	program.Stderr = &errs
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("é", 4<<20)
	for line, want := range map[string]string{
		"":                                 `{"id":null,"malformed":"an empty line"}`,
		"{":                                `{"id":null,"malformed":"the JSON object is cut"}`,
		"\xff\xfe":                         `{"id":null,"malformed":"not UTF-8"}`,
		"!":                                `{"id":null,"malformed":"invalid character '!' looking for beginning of value"}`,
		`{"id":8,"do":5}`:                  `{"id":8,"malformed":"field \"do\" is not a string"}`,
		`{"id":9,"do":"consume","ring":1}`: `{"id":9,"malformed":"no ring has the number 1"}`,
		`{"id":7,"do":"detach","link":3,"why":"` + long + `"}`: `{"id":7,"malformed":"unknown field \"why\""}`,
		`{"id":6,"do":"` + long + `"}`:                         `{"id":6,"malformed":"unknown request \"` + long + `\""}`,
		"{\"id\":5,\t\"do\" : \"close\", \"object\": 1 }\r":    `{"id":5,"malformed":"no object has the number 1"}`,
	} {
		if _, err := io.WriteString(in, line+"\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := lines.ReadString('\n'); err != nil || got != want+"\n" {
			t.Errorf("%.80q: %.200q %v", line, got, err)
		}
	}
	if _, err := io.WriteString(in, `{"id":1,"do":"close","object":1}`); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	const cut = `{"id":null,"malformed":"the last line is cut`
	if rest, err := io.ReadAll(lines); err != nil || !strings.HasPrefix(string(rest), cut) {
		t.Errorf("%q %v", rest, err)
	}
	if err := program.Wait(); err != nil || errs.Len() != 0 {
		t.Errorf("%v %q", err, errs.String())
	}
}
