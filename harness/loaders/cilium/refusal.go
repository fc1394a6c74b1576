package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
)

// refusal is a step that the kernel or the library refused.
type refusal struct {
	Stage   string `json:"stage"`
	Errno   int    `json:"errno"`
	What    string `json:"what"`
	Message string `json:"message"`
	Log     string `json:"log"`
}

func (r *refusal) Error() string {
	return fmt.Sprintf("%s %s: %s", r.Stage, r.What, r.Message)
}

// refusalOf describes an error of the library. The kernel's number is 0 when the library keeps none in the chain: it
// refused by itself, or it replaced the number by words of its own (ebpf.ErrNotSupported).
func refusalOf(stage, what string, err error) *refusal {
	message, log := withoutLog(err)
	var errno syscall.Errno
	errors.As(err, &errno)
	return &refusal{Stage: stage, Errno: int(errno), What: what, Message: message, Log: log}
}

// withoutLog returns an error's text without the verifier's log, and the whole log: the library puts a summary of the
// log into the text.
func withoutLog(err error) (message, log string) {
	message = err.Error()
	var verifier *ebpf.VerifierError
	if !errors.As(err, &verifier) {
		return message, ""
	}
	bare := *verifier
	bare.Log = nil
	return strings.Replace(message, verifier.Error(), bare.Error(), 1), strings.Join(verifier.Log, "\n")
}

// missing is the refusal of a program or map that the object does not have.
func missing(stage, kind, name string) *refusal {
	return &refusal{
		Stage: stage, Errno: int(syscall.ENOENT), What: name,
		Message: fmt.Sprintf("the object has no %s %s", kind, name),
	}
}

// refuse is a refusal of this program for a request that the library has no call for.
func refuse(stage, name, message string) *refusal {
	return &refusal{Stage: stage, What: name, Message: message}
}
