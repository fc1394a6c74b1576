package main

import (
	"errors"
	"fmt"
)

// request is a line that has been understood.
type request interface {
	// do returns what the reply's result is. Its error is a *refusal, an unknownNumber, or ends the program.
	do(s *session) (any, error)
}

// nothing is the result of a request that has none.
type nothing struct{}

// A map of an object, in the requests that access one.
type mapName struct {
	object uint64
	name   string
}

type (
	openRequest struct {
		path       string
		maxEntries map[string]uint32
	}
	loadRequest struct {
		object  uint64
		program *string
	}
	attachRequest struct {
		object  uint64
		program string
		target  target
	}
	detachRequest struct{ link uint64 }
	getRequest    struct {
		mapName
		key []byte
	}
	getEachCPURequest struct {
		mapName
		key []byte
	}
	putRequest struct {
		mapName
		key, value []byte
	}
	keysRequest       struct{ mapName }
	ringBufferRequest struct{ mapName }
	consumeRequest    struct{ ring uint64 }
	testRunRequest    struct {
		object  uint64
		program string
		data    []byte
	}
	closeRequest struct{ object uint64 }
)

// parse reads a line. The id is nil where it could not be read; the error says what is malformed.
func parse(line []byte) (*int64, request, error) {
	f, err := object(line)
	if err != nil {
		return nil, nil, err
	}
	id := value[int64](f, "id", "a number")
	if f.err != nil {
		return nil, nil, f.err
	}
	do := f.text("do")
	if f.err != nil {
		return &id, nil, f.err
	}
	read, ok := requests[do]
	if !ok {
		return &id, nil, fmt.Errorf("unknown request %q", do)
	}
	result := read(f)
	if err := f.end(); err != nil {
		return &id, nil, err
	}
	return &id, result, nil
}

var requests = map[string]func(*fields) request{
	"open": func(f *fields) request {
		return openRequest{path: f.text("path"), maxEntries: f.numbers("max_entries")}
	},
	"load": func(f *fields) request {
		return loadRequest{object: f.number("object"), program: f.textOrNull("program")}
	},
	"attach": func(f *fields) request {
		return attachRequest{object: f.number("object"), program: f.text("program"), target: readTarget(f)}
	},
	"detach": func(f *fields) request {
		return detachRequest{link: f.number("link")}
	},
	"get": func(f *fields) request {
		return getRequest{mapName: readMapName(f), key: f.bytes("key")}
	},
	"get_each_cpu": func(f *fields) request {
		return getEachCPURequest{mapName: readMapName(f), key: f.bytes("key")}
	},
	"put": func(f *fields) request {
		return putRequest{mapName: readMapName(f), key: f.bytes("key"), value: f.bytes("value")}
	},
	"keys": func(f *fields) request {
		return keysRequest{mapName: readMapName(f)}
	},
	"ring_buffer": func(f *fields) request {
		return ringBufferRequest{mapName: readMapName(f)}
	},
	"consume": func(f *fields) request {
		return consumeRequest{ring: f.number("ring")}
	},
	"test_run": func(f *fields) request {
		return testRunRequest{object: f.number("object"), program: f.text("program"), data: f.bytes("data")}
	},
	"close": func(f *fields) request {
		return closeRequest{object: f.number("object")}
	},
}

func readMapName(f *fields) mapName {
	return mapName{object: f.number("object"), name: f.text("map")}
}

// readTarget takes the target of attach: an object with one field, which says its kind.
func readTarget(f *fields) target {
	inner := f.fields("target")
	var result target
	switch {
	case inner.raw["kprobe"] != nil:
		result = kprobeTarget{symbol: inner.text("kprobe")}
	case inner.raw["tracepoint"] != nil:
		point := inner.fields("tracepoint")
		result = tracepointTarget{category: point.text("category"), name: point.text("name")}
		inner.endOf("tracepoint", point)
	case inner.raw["xdp"] != nil:
		xdp := inner.fields("xdp")
		result = readXDP(xdp)
		inner.endOf("xdp", xdp)
	default:
		inner.fail("neither kprobe, tracepoint nor xdp")
	}
	f.endOf("target", inner)
	return result
}

func readXDP(f *fields) target {
	result := xdpTarget{
		ifindex: int(value[int32](f, "ifindex", "an interface's number")),
		netns:   f.textOrNull("netns"),
	}
	mode, ok := xdpModes[f.text("mode")]
	if !ok {
		f.fail("field %q: %w", "mode", errors.New("neither default, native nor generic"))
	}
	result.mode = mode
	return result
}
