package main

import (
	"errors"
	"os"
	"time"

	"github.com/cilium/ebpf/ringbuf"
)

// recordHeader is BPF_RINGBUF_HDR_SZ; a record and its header are rounded up to as many bytes.
const recordHeader = 8

// ring is the consumer's end of a ring buffer.
type ring struct {
	object uint64
	name   string
	reader *ringbuf.Reader
}

type (
	openedRing struct {
		Ring uint64 `json:"ring"`
	}
	consumed struct {
		Records []string `json:"records"`
	}
)

func (r ringBufferRequest) do(s *session) (any, error) {
	m, err := r.in(s, "open")
	if err != nil {
		return nil, err
	}
	reader, err := ringbuf.NewReader(m)
	if err != nil {
		return nil, refusalOf("open", r.name, err)
	}
	// Any time that has passed: the reader then polls with a timeout of 0.
	reader.SetDeadline(time.Unix(1, 0))
	number := s.number()
	s.rings[number] = &ring{object: r.object, name: r.name, reader: reader}
	return openedRing{number}, nil
}

func (r consumeRequest) do(s *session) (any, error) {
	ring, err := named(s.rings, "ring", r.ring)
	if err != nil {
		return nil, err
	}
	records, err := ring.consume()
	if err != nil {
		return nil, refusalOf("read", ring.name, err)
	}
	return consumed{hexadecimal(records)}, nil
}

// consume returns what was submitted before the call, and maybe some that came during it.
//
// With a deadline that has passed, Read polls without waiting, and even after it found nothing to wake up for it reads
// the ring to its end before it returns ErrDeadlineExceeded (ringbuf/reader.go, ReadInto and pendingErr). So records
// that were submitted with BPF_RB_NO_WAKEUP are read, too, and Flush is not needed.
//
// The bytes that were there at first are the limit: with a producer that never pauses the end would not be reached.
// They include discarded records, which Read passes over, so nothing that was there is left behind.
//
// Read spins on a record that is reserved and not yet submitted until its program has done either. That is shorter
// than a program's run, and it cannot be passed over: later records are behind it.
func (r *ring) consume() ([][]byte, error) {
	var records [][]byte
	for left := r.reader.AvailableBytes(); left > 0; {
		record, err := r.reader.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return nil, err
		}
		records = append(records, record.RawSample)
		left -= recordHeader + (len(record.RawSample)+recordHeader-1)/recordHeader*recordHeader
	}
	return records, nil
}

func (r *ring) close() error {
	if err := r.reader.Close(); err != nil {
		return refusalOf("detach", r.name, err)
	}
	return nil
}
