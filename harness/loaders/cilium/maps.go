package main

import (
	"encoding/hex"
	"errors"

	"github.com/cilium/ebpf"
)

type (
	gotValue struct {
		Value *string `json:"value"`
	}
	gotValues struct {
		Values []string `json:"values"`
	}
	gotKeys struct {
		Keys []string `json:"keys"`
	}
)

// in returns the map that a request names.
func (n mapName) in(s *session, stage string) (*ebpf.Map, error) {
	o, err := s.object(n.object)
	if err != nil {
		return nil, err
	}
	return o.bpfMap(stage, n.name)
}

// perCPU says whether a map has a value for each CPU: then the library takes and returns slices of values, and would
// read bytes as the values of CPUs.
func perCPU(m *ebpf.Map) bool {
	switch m.Type() {
	case ebpf.PerCPUHash, ebpf.PerCPUArray, ebpf.LRUCPUHash, ebpf.PerCPUCGroupStorage:
		return true
	}
	return false
}

func (r getRequest) do(s *session) (any, error) {
	m, err := r.in(s, "lookup")
	if err != nil {
		return nil, err
	}
	if perCPU(m) {
		return nil, refuse("lookup", r.name, "the map has a value for each CPU")
	}
	var value []byte
	switch err := m.Lookup(r.key, &value); {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return gotValue{}, nil
	case err != nil:
		return nil, refusalOf("lookup", r.name, err)
	}
	text := hex.EncodeToString(value)
	return gotValue{&text}, nil
}

func (r getEachCPURequest) do(s *session) (any, error) {
	m, err := r.in(s, "lookup")
	if err != nil {
		return nil, err
	}
	if !perCPU(m) {
		return nil, refuse("lookup", r.name, "the map has one value for all CPUs")
	}
	// One for each possible CPU; the library takes off what the kernel pads values with.
	var values [][]byte
	switch err := m.Lookup(r.key, &values); {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return gotValues{}, nil
	case err != nil:
		return nil, refusalOf("lookup", r.name, err)
	}
	return gotValues{hexadecimal(values)}, nil
}

func (r putRequest) do(s *session) (any, error) {
	m, err := r.in(s, "update")
	if err != nil {
		return nil, err
	}
	if perCPU(m) {
		return nil, refuse("update", r.name, "the map has a value for each CPU")
	}
	if err := m.Put(r.key, r.value); err != nil {
		return nil, refusalOf("update", r.name, err)
	}
	return nothing{}, nil
}

func (r keysRequest) do(s *session) (any, error) {
	m, err := r.in(s, "lookup")
	if err != nil {
		return nil, err
	}
	keys, err := keysOf(m)
	if err != nil {
		return nil, refusalOf("lookup", r.name, err)
	}
	return gotKeys{hexadecimal(keys)}, nil
}

// keysOf returns a map's keys. Not by Map.Iterate, which looks up every value, and so leaves out keys whose value
// cannot be read.
func keysOf(m *ebpf.Map) ([][]byte, error) {
	var (
		keys [][]byte
		// An interface: a nil slice in it would be taken for a key.
		last any
	)
	for {
		key, err := m.NextKeyBytes(last)
		if err != nil || key == nil {
			return keys, err
		}
		// A hash map whose keys are deleted meanwhile starts again, maybe without end.
		if uint64(len(keys)) >= uint64(m.MaxEntries()) {
			return nil, ebpf.ErrIterationAborted
		}
		keys, last = append(keys, key), key
	}
}

// hexadecimal returns a list that is [] in JSON when it is empty, where nil were null.
func hexadecimal(values [][]byte) []string {
	texts := make([]string, len(values))
	for i, value := range values {
		texts[i] = hex.EncodeToString(value)
	}
	return texts
}
