package main

import (
	"encoding/hex"
	"os"

	"github.com/cilium/ebpf"
)

type ran struct {
	Verdict uint32 `json:"verdict"`
	Data    string `json:"data"`
}

func (r testRunRequest) do(s *session) (any, error) {
	o, err := s.object(r.object)
	if err != nil {
		return nil, err
	}
	program, err := o.program("test_run", r.program)
	if err != nil {
		return nil, err
	}
	options := ebpf.RunOptions{
		Data: r.data,
		// A program may make a frame longer; one without fragments stays in its page.
		DataOut: make([]byte, len(r.data)+os.Getpagesize()),
	}
	verdict, err := program.Run(&options)
	if err != nil {
		return nil, refusalOf("test_run", r.program, err)
	}
	return ran{Verdict: verdict, Data: hex.EncodeToString(options.DataOut)}, nil
}
