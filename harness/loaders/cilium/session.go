package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// session holds what the client has opened. A number names one thing and is never used again.
type session struct {
	raiseMemlock func() error
	last         uint64
	objects      map[uint64]*loadedObject
	links        map[uint64]*attachment
	rings        map[uint64]*ring
}

// unknownNumber is a number that names no open object, link or ring.
type unknownNumber struct {
	kind   string
	number uint64
}

func (u unknownNumber) Error() string {
	return fmt.Sprintf("no %s has the number %d", u.kind, u.number)
}

// newSession returns a session without objects; raiseMemlock is called at each open.
func newSession(raiseMemlock func() error) *session {
	return &session{
		raiseMemlock: raiseMemlock,
		objects:      map[uint64]*loadedObject{},
		links:        map[uint64]*attachment{},
		rings:        map[uint64]*ring{},
	}
}

func (s *session) number() uint64 {
	s.last++
	return s.last
}

func named[T any](things map[uint64]*T, kind string, number uint64) (*T, error) {
	thing, ok := things[number]
	if !ok {
		return nil, unknownNumber{kind, number}
	}
	return thing, nil
}

func (s *session) object(number uint64) (*loadedObject, error) {
	return named(s.objects, "object", number)
}

// close closes every object, and with it all that is open.
func (s *session) close() error {
	var err error
	for _, number := range slices.Sorted(maps.Keys(s.objects)) {
		err = errors.Join(err, s.closeObject(number))
	}
	return err
}

// closeObject detaches and closes all that belongs to an object. It goes on after an error.
func (s *session) closeObject(number uint64) error {
	var err error
	for _, link := range slices.Sorted(maps.Keys(s.links)) {
		if s.links[link].object == number {
			err = errors.Join(err, s.detach(link))
		}
	}
	for _, ring := range slices.Sorted(maps.Keys(s.rings)) {
		if s.rings[ring].object == number {
			err = errors.Join(err, s.rings[ring].close())
			delete(s.rings, ring)
		}
	}
	s.objects[number].close()
	delete(s.objects, number)
	return err
}

func (r closeRequest) do(s *session) (any, error) {
	if _, err := s.object(r.object); err != nil {
		return nil, err
	}
	return nothing{}, s.closeObject(r.object)
}
