package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"daemoneye.dev/procmond/bus/rpc"
)

// verdict is what became of a batch, or of one message.
type verdict int

const (
	stored    verdict = iota // all of it, and durable
	full                     // nothing of it: the stream or its account is at its limit
	duplicate                // nothing of it: it holds an event that is stored already
	tooMany                  // nothing of it: the server wants smaller batches
	refused                  // the server will never take it
	failing                  // the server's storage fails; what it holds is not known
	unknown                  // everything else: what the server holds is not known
)

// Error codes of JetStream. The numbers are those of nats-server's
// server/errors.json; nothing else of the server is used here.
const (
	codeAccountExceeded  = 10002
	codeInsufficient     = 10023
	codeStorageExceeded  = 10047
	codeMessageTooLarge  = 10054
	codeStoreFailed      = 10077
	codeIncomplete       = 10176
	codeBatchTooLarge    = 10199
	codeContainsStoredID = 10201
)

// outcome is a verdict with its reason.
type outcome struct {
	verdict    verdict
	err        error // nil with stored
	duplicate  bool  // stored before: a single message only
	incomplete bool  // with unknown: the server missed a part of the batch, or would not have it
}

// answer is what the server sends for a message that asks for it, in the one form
// for all cases.
type answer struct {
	Error     *nats.APIError `json:"error"`
	Stream    string         `json:"stream"`
	Seq       uint64         `json:"seq"`
	Duplicate bool           `json:"duplicate"`
	Batch     string         `json:"batch"`
	Count     int            `json:"count"`
}

var errAck = errors.New("the server's acknowledgement makes no sense")

// judgeBatch reads the answer to the message that commits a batch of n, or to a
// single message, which has no batch id.
func judgeBatch(msg *nats.Msg, id string, n int) outcome {
	if isNobody(msg) {
		return outcome{verdict: unknown, err: fmt.Errorf("publish: no stream takes the events: %w", nats.ErrNoResponders)}
	}
	var a answer
	if err := json.Unmarshal(msg.Data, &a); err != nil {
		return outcome{verdict: unknown, err: fmt.Errorf("%w: %w", errAck, err)}
	}
	switch {
	case a.Error != nil:
		return judgeError(a.Error)
	case a.Stream != rpc.Stream || a.Seq == 0 || a.Batch != id || (id != "" && a.Count != n):
		return outcome{verdict: unknown, err: errAck}
	}
	return outcome{verdict: stored, duplicate: a.Duplicate}
}

// judgeStaged reads the answer to the first message of a batch, which is empty if
// it was accepted so far. ok is false then.
func judgeStaged(msg *nats.Msg) (o outcome, ok bool) {
	if isNobody(msg) {
		return judgeBatch(msg, "", 0), true
	}
	var a answer
	if len(msg.Data) == 0 || json.Unmarshal(msg.Data, &a) != nil || a.Error == nil {
		return outcome{}, false
	}
	return judgeError(a.Error), true
}

// isNobody reports the server's word that nobody listens on a subject.
func isNobody(msg *nats.Msg) bool {
	return len(msg.Data) == 0 && msg.Header.Get("Status") == "503"
}

func judgeError(e *nats.APIError) outcome {
	err := fmt.Errorf("publish: %s (%d)", cut(e.Description), e.ErrorCode)
	switch e.ErrorCode {
	case codeStoreFailed:
		// Three of its texts speak of the stream's limits (server/store.go).
		if text := e.Description; strings.Contains(text, "maximum bytes exceeded") || strings.Contains(text, "maximum messages") {
			return outcome{verdict: full, err: err}
		}
		return outcome{verdict: failing, err: err}
	case codeAccountExceeded, codeInsufficient, codeStorageExceeded:
		return outcome{verdict: full, err: err}
	case codeContainsStoredID:
		return outcome{verdict: duplicate, err: err}
	case codeBatchTooLarge:
		return outcome{verdict: tooMany, err: err}
	case codeMessageTooLarge:
		return outcome{verdict: refused, err: err}
	}
	return outcome{verdict: unknown, err: err, incomplete: e.ErrorCode == codeIncomplete}
}
