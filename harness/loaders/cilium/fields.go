package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// fields are those of a JSON object that have not been taken yet. Unlike with encoding/json's structs a field cannot
// be left out, given twice, in other case, or as null where a value is needed.
//
// The first error is kept and returned by end, so that a request can be read in one expression.
type fields struct {
	raw map[string]json.RawMessage
	err error
}

// object reads a JSON object and nothing else.
func object(text []byte) (*fields, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("not UTF-8")
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("an empty line")
	}
	raw, err := members(json.NewDecoder(bytes.NewReader(text)))
	// The decoder's words for a text that ends too early are those of a file.
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errors.New("the JSON object is cut")
	}
	if err != nil {
		return nil, err
	}
	return &fields{raw: raw}, nil
}

// members reads an object member by member: Unmarshal into a map would take the last of two with the same name.
func members(decoder *json.Decoder) (map[string]json.RawMessage, error) {
	open, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	if open != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	result := map[string]json.RawMessage{}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		// The decoder accepts only strings as keys.
		name := key.(string)
		if _, twice := result[name]; twice {
			return nil, fmt.Errorf("field %q is given twice", name)
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, err
		}
		result[name] = value
	}
	if _, err := decoder.Token(); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("data after the JSON object")
	}
	return result, nil
}

func (f *fields) fail(format string, arguments ...any) {
	if f.err == nil {
		f.err = fmt.Errorf(format, arguments...)
	}
}

// take removes a field; it returns nil, and the error is kept, when there is none.
func (f *fields) take(name string) json.RawMessage {
	value, ok := f.raw[name]
	if !ok {
		f.fail("field %q is missing", name)
		return nil
	}
	delete(f.raw, name)
	return value
}

// end returns the first error; a field that nobody took is one.
func (f *fields) end() error {
	if f.err == nil && len(f.raw) > 0 {
		names := make([]string, 0, len(f.raw))
		for name := range f.raw {
			names = append(names, name)
		}
		slices.Sort(names)
		f.fail("unknown field %q", names[0])
	}
	return f.err
}

func isNull(raw json.RawMessage) bool {
	return string(raw) == "null"
}

// value takes a field that must have a type.
func value[T any](f *fields, name, kind string) T {
	var result T
	raw := f.take(name)
	if raw == nil {
		return result
	}
	if isNull(raw) || json.Unmarshal(raw, &result) != nil {
		f.fail("field %q is not %s", name, kind)
	}
	return result
}

func (f *fields) text(name string) string {
	return value[string](f, name, "a string")
}

// textOrNull takes a string; the result is nil where it is null.
func (f *fields) textOrNull(name string) *string {
	raw, ok := f.raw[name]
	if ok && isNull(raw) {
		delete(f.raw, name)
		return nil
	}
	text := f.text(name)
	return &text
}

func (f *fields) number(name string) uint64 {
	return value[uint64](f, name, "a whole number")
}

// bytes takes a string of lower-case hexadecimal digits.
func (f *fields) bytes(name string) []byte {
	text := f.text(name)
	result, err := hex.DecodeString(text)
	switch {
	case err != nil:
		f.fail("field %q: %w", name, err)
	case strings.ToLower(text) != text:
		f.fail("field %q is not in lower case", name)
	}
	return result
}

// fields takes a JSON object.
func (f *fields) fields(name string) *fields {
	raw := f.take(name)
	if raw == nil {
		return &fields{err: f.err}
	}
	inner, err := object(raw)
	if err != nil {
		f.fail("field %q: %w", name, err)
		return &fields{err: f.err}
	}
	return inner
}

// endOf ends an object that is the value of a field.
func (f *fields) endOf(name string, inner *fields) {
	if err := inner.end(); err != nil {
		f.fail("field %q: %w", name, err)
	}
}

// numbers takes an object whose values are numbers of 32 bits.
func (f *fields) numbers(name string) map[string]uint32 {
	inner := f.fields(name)
	result := map[string]uint32{}
	for key := range inner.raw {
		result[key] = value[uint32](inner, key, "a number of 32 bits")
	}
	f.endOf(name, inner)
	return result
}
