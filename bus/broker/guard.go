package broker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A guard reads along what a client sends to the server and sees to it that no answer
// goes to a place that is not the client's own. The server checks where a client
// publishes and subscribes, but sends its answers wherever it is told to: without a
// guard the acknowledgement of an event could be stored as an event of another
// collector, and a reader's consumer could send to anybody.
//
// What is not permitted is not left out, since nothing could be told to the client in
// between, but changed so that the server refuses it, says so to the client, and
// logs it for counting.
type guard struct {
	// claims is what the client said in CONNECT. The server proves it before it
	// takes anything else.
	claims struct {
		User string `json:"user"`
	}
	skip int // bytes of a payload that are still to come
}

// reserved before a subject makes the server refuse it: it keeps these for itself.
const reserved = "_R_."

// maxConsumerRequest bounds what is read to make a consumer, in bytes.
const maxConsumerRequest = 16 << 10

// copy passes on everything from the client until either side fails, and returns how.
func (g *guard) copy(server io.Writer, client io.Reader) error {
	buffer := make([]byte, copyBuffer)
	have := 0
	for {
		n, err := client.Read(buffer[have:])
		rest, failed := g.pass(server, buffer[:have+n])
		if failed != nil {
			return failed
		}
		if err != nil {
			return err
		}
		have = copy(buffer, rest)
	}
}

// errLine says that a client sends what no client sends.
var errLine = fmt.Errorf("malformed line of the NATS protocol")

// pass passes on what is complete of data and returns the rest.
func (g *guard) pass(server io.Writer, data []byte) (rest []byte, err error) {
	sent, at := 0, 0
	flush := func(upTo int) error {
		_, err := server.Write(data[sent:upTo])
		sent = upTo
		return err
	}
	for at < len(data) {
		if g.skip > 0 {
			n := min(g.skip, len(data)-at)
			g.skip, at = g.skip-n, at+n
			continue
		}
		end := bytes.IndexByte(data[at:], '\n') + 1
		if end == 0 {
			break
		}
		p, isPub, err := g.read(data[at : at+end])
		if err != nil {
			return nil, err
		}
		whole := data[at+end:]
		if isPub && p.needsPayload() && len(whole) < p.size+len("\r\n") {
			break
		}
		if spot := g.judge(p, isPub, whole); spot >= 0 {
			if err := flush(at + spot); err != nil {
				return nil, err
			}
			if _, err := io.WriteString(server, reserved); err != nil {
				return nil, err
			}
		}
		at += end
		if isPub {
			g.skip = p.size + len("\r\n")
		}
	}
	if at == 0 && len(data) == copyBuffer {
		return nil, fmt.Errorf("line of more than %d bytes: %w", copyBuffer, errLine)
	}
	if at == 0 {
		return data, nil
	}
	return data[at:], flush(at)
}

// publication is a line that announces a message.
type publication struct {
	subject, reply     string
	subjectAt, replyAt int // in the line
	header, size       int // bytes: of the header, and of header and payload
}

// read reads a line with its end. It is as strict as clients are exact: what the
// server could take for something else is refused.
func (g *guard) read(line []byte) (p publication, isPub bool, err error) {
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || bytes.IndexByte(text, '\r') >= 0 {
		return p, false, errLine
	}
	space := bytes.IndexAny(text, " \t")
	if space < 0 {
		return p, false, nil // PING, PONG, +OK
	}
	switch strings.ToUpper(string(text[:space])) {
	case "CONNECT":
		_ = json.Unmarshal(text[space:], &g.claims) // the server refuses what can't be read
	case "PUB":
		p, err = readPub(text, space, 1)
		return p, true, err
	case "HPUB":
		p, err = readPub(text, space, 2)
		return p, true, err
	}
	return p, false, nil
}

// readPub reads `subject [reply] numbers`, of which there are one or two.
func readPub(text []byte, from, numbers int) (p publication, err error) {
	fields, places := splitFields(text, from)
	words := len(fields) - numbers
	if words != 1 && words != 2 {
		return p, errLine
	}
	p.subject, p.subjectAt = fields[0], places[0]
	if words == 2 {
		p.reply, p.replyAt = fields[1], places[1]
	}
	p.size, err = readSize(fields[len(fields)-1])
	if err == nil && numbers == 2 {
		p.header, err = readSize(fields[words])
	}
	if err != nil || p.header > p.size {
		return p, errLine
	}
	return p, nil
}

// splitFields returns what spaces and tabs separate, and where it is.
func splitFields(text []byte, from int) (fields []string, places []int) {
	start := -1
	for i := from; i <= len(text); i++ {
		blank := i == len(text) || text[i] == ' ' || text[i] == '\t'
		if !blank && start < 0 {
			start = i
		}
		if blank && start >= 0 {
			fields, places = append(fields, string(text[start:i])), append(places, start)
			start = -1
		}
	}
	return fields, places
}

// readSize takes digits only, and no more than a message can have.
func readSize(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, errLine
	}
	return int(n), nil
}

// judge returns the place in the line at which it must be spoilt, or -1.
func (g *guard) judge(p publication, isPub bool, payload []byte) int {
	switch {
	case !isPub:
		return -1
	case p.reply != "" && !answerable(g.claims.User, p.reply):
		return p.replyAt
	case p.makesConsumer() && !g.mayConsume(p, payload):
		return p.subjectAt
	}
	return -1
}

// makesConsumer says whether the payload says where messages are to be sent.
func (p publication) makesConsumer() bool {
	return strings.HasPrefix(p.subject, createConsumer) || strings.HasPrefix(p.subject, createDurable)
}

// needsPayload says whether the payload must be at hand to judge.
func (p publication) needsPayload() bool { return p.makesConsumer() && p.size <= maxConsumerRequest }

// mayConsume says whether what a request for a consumer asks for stays the client's
// own. It is read as the server reads it.
func (g *guard) mayConsume(p publication, payload []byte) bool {
	if !p.needsPayload() {
		return false
	}
	var request struct {
		Config struct {
			DeliverSubject string `json:"deliver_subject"`
		} `json:"config"`
	}
	decoder := json.NewDecoder(bytes.NewReader(payload[p.header:p.size]))
	for { // the server takes one document after another, the last word counts
		if err := decoder.Decode(&request); err != nil {
			break // of a request that can't be read the server says so itself
		}
	}
	deliver := request.Config.DeliverSubject
	return deliver == "" || answerable(g.claims.User, deliver)
}
