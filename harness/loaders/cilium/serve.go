package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// greeting is the first line, which the program writes unasked.
type greeting struct {
	Protocol int    `json:"protocol"`
	Loader   string `json:"loader"`
	Version  string `json:"version"`
}

// Replies. A request gets exactly one of them.
type (
	done struct {
		ID     int64 `json:"id"`
		Result any   `json:"result"`
	}
	refused struct {
		ID    int64    `json:"id"`
		Error *refusal `json:"error"`
	}
	notUnderstood struct {
		ID        *int64 `json:"id"`
		Malformed string `json:"malformed"`
	}
)

// serve answers requests until the end of in. An error means that the client cannot be served any longer.
func serve(in io.Reader, out io.Writer, first greeting, s *session) error {
	replies := json.NewEncoder(out)
	replies.SetEscapeHTML(false)
	if err := replies.Encode(first); err != nil {
		return fmt.Errorf("stdout: %w", err)
	}
	// A reader instead of a bufio.Scanner: a line may be of any length.
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("stdin: %w", err)
		}
		if err != nil && len(line) == 0 {
			return nil
		}
		var reply any = notUnderstood{Malformed: "the last line is cut: it has no line feed"}
		if err == nil {
			reply, err = answer(line[:len(line)-1], s)
			if err != nil {
				return err
			}
		}
		if err := replies.Encode(reply); err != nil {
			return fmt.Errorf("stdout: %w", err)
		}
	}
}

// answer returns the reply to a line, or the error that ends the program.
func answer(line []byte, s *session) (any, error) {
	id, request, err := parse(line)
	if err != nil {
		return notUnderstood{ID: id, Malformed: err.Error()}, nil
	}
	result, err := request.do(s)
	var (
		end     stranded
		refusal *refusal
		unknown unknownNumber
	)
	switch {
	case err == nil:
		return done{ID: *id, Result: result}, nil
	case errors.As(err, &end):
		return nil, end
	case errors.As(err, &refusal):
		return refused{ID: *id, Error: refusal}, nil
	case errors.As(err, &unknown):
		return notUnderstood{ID: id, Malformed: unknown.Error()}, nil
	}
	return nil, err
}
