package control

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"daemoneye.dev/procmond/collect/event"
)

// Query selects events; the zero value selects all. Conditions are joined by
// and, the values of one by or.
type Query struct {
	Since, Until time.Time // by the time of observation
	After        uint64    // sequence
	AfterEpoch   event.Epoch
	PIDs         []int32
	Process      event.ID
	Exe          string // glob
	Kinds        []event.Kind
	Limit        int  // 0 is no limit
	Newest       bool // of the matches, the last Limit
	Follow       bool // go on as events become durable
}

// Values is the query as URL parameters.
func (q Query) Values() url.Values {
	v := url.Values{}
	set := func(key, value string) {
		if value != "" {
			v.Set(key, value)
		}
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if !q.Until.IsZero() {
		v.Set("until", q.Until.UTC().Format(time.RFC3339Nano))
	}
	if q.After != 0 {
		set("after", strconv.FormatUint(q.After, 10))
	}
	if !q.AfterEpoch.IsZero() {
		v.Set("after_epoch", q.AfterEpoch.String())
	}
	for _, pid := range q.PIDs {
		v.Add("pid", strconv.Itoa(int(pid)))
	}
	if !q.Process.IsZero() {
		v.Set("process", q.Process.String())
	}
	set("exe", q.Exe)
	for _, kind := range q.Kinds {
		v.Add("kind", kind.String())
	}
	if q.Limit != 0 {
		set("limit", strconv.Itoa(q.Limit))
	}
	if q.Newest {
		v.Set("newest", "1")
	}
	if q.Follow {
		v.Set("follow", "1")
	}
	return v
}

// parseRaw parses the text behind the question mark. url.URL.Query would leave out
// what is not well-formed, so that a condition would be lost without a word.
func parseRaw[T any](raw string, parse func(url.Values) (T, error)) (T, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		var none T
		return none, fmt.Errorf("parameters: %w", err)
	}
	return parse(values)
}

// ParseQuery reads URL parameters; the error names every fault.
func ParseQuery(v url.Values) (Query, error) {
	p := parser{values: v}
	q := Query{
		Since:      parse(&p, "since", parseTime),
		Until:      parse(&p, "until", parseTime),
		After:      parse(&p, "after", parseUint),
		AfterEpoch: parse(&p, "after_epoch", event.ParseEpoch),
		PIDs:       parseAll(&p, "pid", parsePID),
		Process:    parse(&p, "process", event.ParseID),
		Exe:        parse(&p, "exe", ParseGlob),
		Kinds:      parseAll(&p, "kind", event.ParseKind),
		Limit:      parse(&p, "limit", parseLimit),
		Newest:     parse(&p, "newest", parseBool),
		Follow:     parse(&p, "follow", parseBool),
	}
	p.refuseUnknown("since", "until", "after", "after_epoch", "pid", "process", "exe", "kind", "limit", "newest", "follow")
	return q, errors.Join(p.faults...)
}

type parser struct {
	values url.Values
	faults []error
}

func (p *parser) refuseUnknown(known ...string) {
	var unknown []string
	for key := range p.values {
		if !slices.Contains(known, key) {
			unknown = append(unknown, key)
		}
	}
	slices.Sort(unknown)
	for _, key := range unknown {
		p.faults = append(p.faults, fmt.Errorf("unknown parameter %q: there are %s", key, strings.Join(known, ", ")))
	}
}

// parse reads the parameter key, which may be given once.
func parse[T any](p *parser, key string, read func(string) (T, error)) (value T) {
	all := parseAll(p, key, read)
	switch len(all) {
	case 0:
	case 1:
		value = all[0]
	default:
		p.faults = append(p.faults, fmt.Errorf("parameter %s is given %d times", key, len(all)))
	}
	return value
}

func parseAll[T any](p *parser, key string, read func(string) (T, error)) (values []T) {
	for _, text := range p.values[key] {
		value, err := read(text)
		if err != nil {
			p.faults = append(p.faults, fmt.Errorf("parameter %s: %w", key, err))
			continue
		}
		values = append(values, value)
	}
	return values
}

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return t, fmt.Errorf("%q is not a time like 2006-01-02T15:04:05Z", s)
	}
	return t, nil
}

// ParseGlob checks a pattern for [Query.Exe].
func ParseGlob(s string) (string, error) {
	if _, err := path.Match(s, ""); err != nil {
		return "", fmt.Errorf("%q is not a pattern like /usr/bin/*", s)
	}
	return s, nil
}

// parseStrict reads the parameter of /healthz.
func parseStrict(v url.Values) (bool, error) {
	p := parser{values: v}
	strict := parse(&p, "strict", parseBool)
	p.refuseUnknown("strict")
	return strict, errors.Join(p.faults...)
}

func parseBool(s string) (bool, error) {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, fmt.Errorf("%q is neither 1 nor 0", s)
	}
	return b, nil
}

func parseUint(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a sequence number", s)
	}
	return n, nil
}

func parsePID(s string) (int32, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a PID", s)
	}
	return int32(n), nil
}

func parseLimit(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a number of events", s)
	}
	return n, nil
}
