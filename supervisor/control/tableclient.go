package control

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// TableReader is told of a process table. Its functions must not be nil.
type TableReader struct {
	// Progress is called any number of times before Table.
	Progress func(done, total uint64)
	// Table is called once, before the processes.
	Table func(TableHead) error
	// Process is called for each process, by PID, with its JSON form, which is valid
	// only during the call.
	Process func(process []byte, doubts []Doubt) error
}

// Processes asks for the process table of a moment; zero is the newest. The errors
// are those of State, [*BeforeRecordError], [ErrUnavailable], [ErrBrokenOff], and
// those of r's functions as they are.
func (c *Client) Processes(ctx context.Context, at time.Time, r TableReader) error {
	if err := c.Ping(ctx); err != nil { // a daemon that hangs is found out in less than a second
		return err
	}
	query := url.Values{}
	if !at.IsZero() {
		query.Set("at", at.UTC().Format(time.RFC3339Nano))
	}
	body, err := c.request(ctx, "/processes", query)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	return readTable(body, r)
}

// readTable reads the lines of an answer.
func readTable(body io.Reader, r TableReader) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 64<<10), 8<<20)
	lines.Split(wholeLines)
	due := -1 // processes to come; less than 0: the table is still to come
	for lines.Scan() {
		var line struct {
			progressLine
			Table *TableHead `json:"table"`
			processLine
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("read processes: %w", err)
		}
		switch {
		case line.Table != nil:
			due = line.Table.Processes
			if err := r.Table(*line.Table); err != nil {
				return err
			}
		case line.Process != nil:
			due--
			if err := r.Process(line.Process, line.Doubts); err != nil {
				return err
			}
		default:
			r.Progress(line.Progress.Done, line.Progress.Total)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read processes: %w: %w", ErrBrokenOff, err)
	}
	if due != 0 {
		return fmt.Errorf("read processes: %w", ErrBrokenOff)
	}
	return nil
}

// tooEarly is the refusal of a moment of which nothing is kept, nil if it is another.
func tooEarly(response *http.Response) *BeforeRecordError {
	oldest, err := time.Parse(time.RFC3339Nano, response.Header.Get(headerOldest))
	if err == nil {
		return &BeforeRecordError{Oldest: oldest}
	}
	return nil
}
