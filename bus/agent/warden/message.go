package warden

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxLine bounds a message, in bytes.
const maxLine = 4096

// What a child asks for.
const (
	doStart = "start"
	doTerm  = "term"
	doKill  = "kill"
)

// order is what a child asks for.
type order struct {
	Do string `json:"do"`
	N  int    `json:"n"`
}

// What a parent tells.
const (
	whatStarted = "started"
	whatFailed  = "failed"
	whatExited  = "exited"
	whatReady   = "ready"
)

// notice is what a parent tells.
type notice struct {
	What string `json:"what"`
	N    int    `json:"n"`
	PID  int    `json:"pid,omitempty"`
	Code int    `json:"code,omitempty"`
	Text string `json:"text,omitempty"`
}

// lines reads messages. A read that ran into a deadline can be tried again: what was
// read of a line is kept.
type lines struct {
	from    *bufio.Reader
	partial []byte
}

func newLines(from io.Reader) *lines {
	return &lines{from: bufio.NewReaderSize(from, maxLine)}
}

// next reads one message.
func (l *lines) next(into any) error {
	part, err := l.from.ReadSlice('\n')
	l.partial = append(l.partial, part...)
	if len(l.partial) > maxLine || errors.Is(err, bufio.ErrBufferFull) {
		return fmt.Errorf("read message: longer than %d bytes", maxLine)
	}
	if err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	line := l.partial
	l.partial = nil
	if err := json.Unmarshal(line, into); err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	return nil
}

// send writes one message.
func send(to io.Writer, message any) error {
	text, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if _, err := to.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}
