package main

import (
	"path/filepath"
	"regexp"

	"github.com/cilium/ebpf"
)

// loadedObject is an object file: what it describes and, after load, what is in the kernel.
type loadedObject struct {
	file       string
	spec       *ebpf.CollectionSpec
	collection *ebpf.Collection
}

type mapSizes struct {
	Key     uint32 `json:"key"`
	Value   uint32 `json:"value"`
	Entries uint32 `json:"entries"`
}

type opened struct {
	Object   uint64              `json:"object"`
	Programs map[string]string   `json:"programs"`
	Maps     map[string]mapSizes `json:"maps"`
}

func (r openRequest) do(s *session) (any, error) {
	file := filepath.Base(r.path)
	// The library's documentation ends the program when this fails.
	if err := s.raiseMemlock(); err != nil {
		return nil, refusalOf("open", file, err)
	}
	spec, err := ebpf.LoadCollectionSpec(r.path)
	if err != nil {
		return nil, refusalOf("open", file, err)
	}
	if refusal := resize(spec, r.maxEntries); refusal != nil {
		return nil, refusal
	}
	number := s.number()
	s.objects[number] = &loadedObject{file: file, spec: spec}
	return describe(number, spec), nil
}

// resize sets the number of entries of maps.
func resize(spec *ebpf.CollectionSpec, entries map[string]uint32) *refusal {
	for name, number := range entries {
		m, ok := spec.Maps[name]
		if !ok {
			return missing("open", "map", name)
		}
		m.MaxEntries = number
	}
	return nil
}

func describe(number uint64, spec *ebpf.CollectionSpec) opened {
	result := opened{Object: number, Programs: map[string]string{}, Maps: map[string]mapSizes{}}
	for name, program := range spec.Programs {
		result.Programs[name] = programType(program.Type)
	}
	for name, m := range spec.Maps {
		result.Maps[name] = mapSizes{Key: m.KeySize, Value: m.ValueSize, Entries: m.MaxEntries}
	}
	return result
}

func (r loadRequest) do(s *session) (any, error) {
	o, err := s.object(r.object)
	if err != nil {
		return nil, err
	}
	if r.program != nil && o.spec.Programs[*r.program] == nil {
		return nil, missing("load", "program", *r.program)
	}
	if o.collection != nil {
		return nothing{}, nil
	}
	collection, err := ebpf.NewCollection(o.spec)
	if err != nil {
		stage, what := failedPart(err, o.file)
		return nil, refusalOf(stage, what, err)
	}
	o.collection = collection
	return nothing{}, nil
}

// NewCollection says only in words which part failed (collection.go of the library: loadMap, loadProgram,
// populateDeferredMaps).
var (
	failedProgram = regexp.MustCompile(`^(?:loading )?program ([^\s:,]+)[:,]`)
	failedMap     = regexp.MustCompile(
		`^(?:(?:assembling contents of|finalizing|populating|loading inner) )?map ([^\s:,]+)[:,]`)
)

// failedPart returns the stage of an error of NewCollection and the program or map that it is about.
func failedPart(err error, file string) (stage, what string) {
	text := err.Error()
	if program := failedProgram.FindStringSubmatch(text); program != nil {
		return "load", program[1]
	}
	if m := failedMap.FindStringSubmatch(text); m != nil {
		return "map_create", m[1]
	}
	return "load", file
}

// program returns a program that has been loaded.
func (o *loadedObject) program(stage, name string) (*ebpf.Program, error) {
	if o.spec.Programs[name] == nil {
		return nil, missing(stage, "program", name)
	}
	if o.collection == nil {
		return nil, refuse(stage, name, "the object has not been loaded")
	}
	program := o.collection.Programs[name]
	if program == nil {
		return nil, refuse(stage, name, "the library loads no program of unspecified type")
	}
	return program, nil
}

// bpfMap returns a map that has been created; the library creates maps when it loads.
func (o *loadedObject) bpfMap(stage, name string) (*ebpf.Map, error) {
	if o.spec.Maps[name] == nil {
		return nil, missing(stage, "map", name)
	}
	if o.collection == nil {
		return nil, refuse(stage, name, "the object has not been loaded")
	}
	return o.collection.Maps[name], nil
}

func (o *loadedObject) close() {
	if o.collection != nil {
		o.collection.Close()
	}
}
