package main

import (
	"errors"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// target is where a program is attached: one of the calls of the library's documentation, with its defaults.
type target interface {
	// namespace returns the network namespace that the call is made in, nil for the program's own.
	namespace() (*namespace, error)
	attach(program *ebpf.Program) (link.Link, error)
}

// here is the network namespace of targets that have none.
type here struct{}

func (here) namespace() (*namespace, error) { return nil, nil }

type (
	kprobeTarget struct {
		here
		symbol string
	}
	tracepointTarget struct {
		here
		category, name string
	}
	xdpTarget struct {
		ifindex int
		mode    link.XDPAttachFlags
		netns   *string
	}
)

var xdpModes = map[string]link.XDPAttachFlags{
	"default": 0,
	"native":  link.XDPDriverMode,
	"generic": link.XDPGenericMode,
}

func (t kprobeTarget) attach(program *ebpf.Program) (link.Link, error) {
	return link.Kprobe(t.symbol, program, nil)
}

func (t tracepointTarget) attach(program *ebpf.Program) (link.Link, error) {
	return link.Tracepoint(t.category, t.name, program, nil)
}

func (t xdpTarget) attach(program *ebpf.Program) (link.Link, error) {
	return link.AttachXDP(link.XDPOptions{Program: program, Interface: t.ifindex, Flags: t.mode})
}

func (t xdpTarget) namespace() (*namespace, error) {
	return openNamespace(t.netns)
}

// attachment is a program that is attached.
type attachment struct {
	object    uint64
	program   string
	link      link.Link
	namespace *namespace
}

type attached struct {
	Link uint64 `json:"link"`
}

func (r attachRequest) do(s *session) (any, error) {
	o, err := s.object(r.object)
	if err != nil {
		return nil, err
	}
	program, err := o.program("attach", r.program)
	if err != nil {
		return nil, err
	}
	attachment, err := attach(r.target, program)
	if err != nil {
		return nil, stepError("attach", r.program, err)
	}
	attachment.object, attachment.program = r.object, r.program
	number := s.number()
	s.links[number] = attachment
	return attached{number}, nil
}

func attach(where target, program *ebpf.Program) (*attachment, error) {
	namespace, err := where.namespace()
	if err != nil {
		return nil, err
	}
	result := &attachment{namespace: namespace}
	err = namespace.do(func() (err error) {
		result.link, err = where.attach(program)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, namespace.close())
	}
	return result, nil
}

func (r detachRequest) do(s *session) (any, error) {
	if _, err := named(s.links, "link", r.link); err != nil {
		return nil, err
	}
	return nothing{}, s.detach(r.link)
}

// detach closes a link; its number is gone even when that fails.
func (s *session) detach(number uint64) error {
	attachment := s.links[number]
	delete(s.links, number)
	if err := attachment.detach(); err != nil {
		return stepError("detach", attachment.program, err)
	}
	return nil
}

func (a *attachment) detach() error {
	entered := false
	err := a.namespace.do(func() error {
		entered = true
		return a.link.Close()
	})
	if !entered {
		// Nothing may stay attached that has no number any more.
		err = errors.Join(err, a.link.Close())
	}
	return errors.Join(err, a.namespace.close())
}

// stepError returns the refusal of a step; an error that ends the program stays what it is.
func stepError(stage, what string, err error) error {
	var end stranded
	if errors.As(err, &end) {
		return end
	}
	return refusalOf(stage, what, err)
}
