package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"
)

func TestEveryRequestIsRead(t *testing.T) {
	program, netns := "p", "/proc/7/task/7/ns/net"
	m := mapName{object: 1, name: "m"}
	const attach = `{"id":1,"do":"attach","object":1,"program":"p","target":`
	for line, want := range map[string]request{
		`{"id":1,"do":"open","path":"/o","max_entries":{"m":7}}`: openRequest{
			path: "/o", maxEntries: map[string]uint32{"m": 7},
		},
		`{"id":1,"do":"open","path":"/o","max_entries":{}}`: openRequest{
			path: "/o", maxEntries: map[string]uint32{},
		},
		`{"id":1,"do":"load","object":1,"program":"p"}`:  loadRequest{object: 1, program: &program},
		`{"id":1,"do":"load","object":1,"program":null}`: loadRequest{object: 1},
		attach + `{"kprobe":"sys_x"}}`: attachRequest{
			object: 1, program: "p", target: kprobeTarget{symbol: "sys_x"},
		},
		attach + `{"tracepoint":{"category":"c","name":"n"}}}`: attachRequest{
			object: 1, program: "p", target: tracepointTarget{category: "c", name: "n"},
		},
		attach + `{"xdp":{"ifindex":3,"mode":"native","netns":"/proc/7/task/7/ns/net"}}}`: attachRequest{
			object: 1, program: "p", target: xdpTarget{ifindex: 3, mode: link.XDPDriverMode, netns: &netns},
		},
		attach + `{"xdp":{"ifindex":3,"mode":"generic","netns":null}}}`: attachRequest{
			object: 1, program: "p", target: xdpTarget{ifindex: 3, mode: link.XDPGenericMode},
		},
		attach + `{"xdp":{"ifindex":3,"mode":"default","netns":null}}}`: attachRequest{
			object: 1, program: "p", target: xdpTarget{ifindex: 3},
		},
		`{"id":1,"do":"detach","link":2}`:                                  detachRequest{link: 2},
		`{"id":1,"do":"get","object":1,"map":"m","key":"00ff"}`:            getRequest{m, []byte{0, 255}},
		`{"id":1,"do":"get","object":1,"map":"m","key":""}`:                getRequest{m, []byte{}},
		`{"id":1,"do":"get_each_cpu","object":1,"map":"m","key":"01"}`:     getEachCPURequest{m, []byte{1}},
		`{"id":1,"do":"put","object":1,"map":"m","key":"01","value":"02"}`: putRequest{m, []byte{1}, []byte{2}},
		`{"id":1,"do":"keys","object":1,"map":"m"}`:                        keysRequest{m},
		`{"id":1,"do":"ring_buffer","object":1,"map":"m"}`:                 ringBufferRequest{m},
		`{"id":1,"do":"consume","ring":3}`:                                 consumeRequest{ring: 3},
		`{"id":1,"do":"test_run","object":1,"program":"p","data":"0a"}`:    testRunRequest{1, "p", []byte{10}},
		`{"id":1,"do":"close","object":1}`:                                 closeRequest{object: 1},
	} {
		id, got, err := parse([]byte(line))
		if err != nil || *id != 1 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, error %v", line, got, err)
		}
	}
}

// Of each request each field in turn is left out, null, of another type, and joined by one that does not exist.
func TestEveryFieldIsDemanded(t *testing.T) {
	for do, line := range map[string]string{
		"open":         `{"path":"/o","max_entries":{}}`,
		"load":         `{"object":1,"program":null}`,
		"attach":       `{"object":1,"program":"p","target":{"kprobe":"s"}}`,
		"detach":       `{"link":1}`,
		"get":          `{"object":1,"map":"m","key":"00"}`,
		"get_each_cpu": `{"object":1,"map":"m","key":"00"}`,
		"put":          `{"object":1,"map":"m","key":"00","value":"00"}`,
		"keys":         `{"object":1,"map":"m"}`,
		"ring_buffer":  `{"object":1,"map":"m"}`,
		"consume":      `{"ring":1}`,
		"test_run":     `{"object":1,"program":"p","data":"00"}`,
		"close":        `{"object":1}`,
	} {
		if requests[do] == nil {
			t.Fatalf("%s is no request", do)
		}
		check := func(change func(map[string]any), complaint string) {
			t.Helper()
			request := map[string]any{"id": 5, "do": do}
			if err := json.Unmarshal([]byte(line), &request); err != nil {
				t.Fatal(err)
			}
			change(request)
			text, err := json.Marshal(request)
			if err != nil {
				t.Fatal(err)
			}
			id, _, err := parse(text)
			if err == nil || !strings.Contains(err.Error(), complaint) {
				t.Errorf("%s: %v instead of %q", text, err, complaint)
			}
			if id == nil || *id != 5 {
				t.Errorf("%s: the id is lost", text)
			}
		}
		var names map[string]any
		if err := json.Unmarshal([]byte(line), &names); err != nil {
			t.Fatal(err)
		}
		for name := range names {
			check(func(r map[string]any) { delete(r, name) }, fmt.Sprintf("field %q is missing", name))
			check(func(r map[string]any) { r[name] = []int{1} }, fmt.Sprintf("field %q", name))
			if do != "load" || name != "program" {
				check(func(r map[string]any) { r[name] = nil }, fmt.Sprintf("field %q", name))
			}
		}
		check(func(r map[string]any) { r["extra"] = 1 }, `unknown field "extra"`)
		check(func(r map[string]any) { r["Object"] = 1 }, `unknown field "Object"`)
	}
	if len(requests) != 12 {
		t.Errorf("%d requests, of which 12 are tested", len(requests))
	}
}

func TestMalformedLines(t *testing.T) {
	const attach = `{"id":1,"do":"attach","object":1,"program":"p","target":`
	for _, malformed := range []struct {
		line, complaint string
		id              bool
	}{
		{``, "an empty line", false},
		{`  `, "an empty line", false},
		{`nonsense`, "invalid character", false},
		{`{"id":1,"do":"close","object":1`, "is cut", false},
		{`{"id":1,"do":"close","object":`, "is cut", false},
		{`{"id":1 "do":"close"}`, "invalid character", false},
		{`{1:1}`, "invalid character", false},
		{`{{}:1}`, "invalid character", false},
		{`[]`, "not a JSON object", false},
		{`null`, "not a JSON object", false},
		{`"id"`, "not a JSON object", false},
		{"{\"id\":1,\"do\":\"\xff\"}", "not UTF-8", false},
		{strings.Repeat("[", 100_000), "not a JSON object", false},
		{`{"id":1,"do":` + strings.Repeat("[", 100_000), "depth", false},
		{`{"do":"close","object":1}`, `field "id" is missing`, false},
		{`{"id":null,"do":"close","object":1}`, `field "id" is not a number`, false},
		{`{"id":"1","do":"close","object":1}`, `field "id" is not a number`, false},
		{`{"id":1.5,"do":"close","object":1}`, `field "id" is not a number`, false},
		{`{"id":1e30,"do":"close","object":1}`, `field "id" is not a number`, false},
		{`{"id":1,"id":2,"do":"close","object":1}`, `field "id" is given twice`, false},
		{`{"id":1,"do":"close","object":1}{}`, "data after", false},
		{`{"id":1,"do":"close","object":1} x`, "data after", false},
		{`{"id":1,"do":"close","object":1}}`, "data after", false},
		{`{"id":1}`, `field "do" is missing`, true},
		{`{"id":1,"do":null}`, `field "do"`, true},
		{`{"id":1,"do":3}`, `field "do"`, true},
		{`{"id":1,"do":""}`, `unknown request ""`, true},
		{`{"id":1,"do":"pin"}`, `unknown request "pin"`, true},
		{`{"id":1,"do":"close","object":-1}`, `field "object"`, true},
		{`{"id":1,"do":"close","object":1.0}`, `field "object"`, true},
		{`{"id":1,"do":"open","path":"/o","max_entries":[]}`, `field "max_entries"`, true},
		{`{"id":1,"do":"open","path":"/o","max_entries":{"m":null}}`, `field "m" is not a number of 32 bits`, true},
		{`{"id":1,"do":"open","path":"/o","max_entries":{"m":4294967296}}`, `field "m"`, true},
		{`{"id":1,"do":"open","path":"/o","max_entries":{"m":1,"m":2}}`, `field "m" is given twice`, true},
		{`{"id":1,"do":"get","object":1,"map":"m","key":"0"}`, "odd length", true},
		{`{"id":1,"do":"get","object":1,"map":"m","key":"0g"}`, "invalid byte", true},
		{`{"id":1,"do":"get","object":1,"map":"m","key":"FF"}`, "lower case", true},
		{attach + `{}}`, "neither kprobe, tracepoint nor xdp", true},
		{attach + `{"uprobe":"x"}}`, "neither kprobe, tracepoint nor xdp", true},
		{attach + `{"kprobe":null}}`, `field "kprobe"`, true},
		{attach + `{"kprobe":"s","xdp":{}}}`, `unknown field "xdp"`, true},
		{attach + `{"tracepoint":"a/b"}}`, `field "tracepoint"`, true},
		{attach + `{"tracepoint":{"category":"c"}}}`, `field "name" is missing`, true},
		{attach + `{"tracepoint":{"category":"c","name":"n","x":1}}}`, `unknown field "x"`, true},
		{attach + `{"xdp":{"ifindex":3,"mode":"offload","netns":null}}}`, `field "mode"`, true},
		{attach + `{"xdp":{"ifindex":3,"mode":"native"}}}`, `field "netns" is missing`, true},
		{attach + `{"xdp":{"ifindex":"lo","mode":"native","netns":null}}}`, `field "ifindex"`, true},
		{attach + `{"xdp":{"ifindex":4294967299,"mode":"native","netns":null}}}`, `field "ifindex"`, true},
	} {
		id, _, err := parse([]byte(malformed.line))
		if err == nil || !strings.Contains(err.Error(), malformed.complaint) {
			t.Errorf("%.90s: %v instead of %q", malformed.line, err, malformed.complaint)
		}
		if (id != nil) != malformed.id {
			t.Errorf("%.90s: has an id: %v", malformed.line, id != nil)
		}
	}
}

// Whatever the line, parse returns a request with its number or an error.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"id":1,"do":"open","path":"/o","max_entries":{"m":7}}`))
	f.Add([]byte(`{"id":1,"do":"attach","object":1,"program":"p",` +
		`"target":{"xdp":{"ifindex":3,"mode":"native","netns":null}}}`))
	f.Add([]byte("{\"id\":1,\"do\":\"\xff"))
	f.Fuzz(func(t *testing.T, line []byte) {
		id, request, err := parse(line)
		if (err == nil) != (request != nil) || (err == nil && id == nil) {
			t.Errorf("%q: %v %v %v", line, id, request, err)
		}
	})
}
