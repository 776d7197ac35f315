package collect

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"daemoneye.dev/procmond/collect/event"
)

// Scope is a set of rules that match processes. The zero value matches none. It
// does not change once made and may be shared.
type Scope struct {
	pids  map[int32]bool
	uids  map[uint32]bool
	exes  []string // globs
	names []string // globs
	rules []string // as given
}

// ParseScope reads rules of the forms pid:N, uid:N, exe:GLOB and name:GLOB. A
// glob is one of [path.Match]: in exe:, * does not pass a slash. A rule matches
// one process, not its children. The error names every bad rule.
func ParseScope(rules []string) (Scope, error) {
	s := Scope{pids: map[int32]bool{}, uids: map[uint32]bool{}}
	var faults []error
	for _, rule := range rules {
		if err := s.add(rule); err != nil {
			faults = append(faults, fmt.Errorf("rule %q: %w", rule, err))
		}
	}
	if len(faults) > 0 {
		return Scope{}, errors.Join(faults...)
	}
	return s, nil
}

func (s *Scope) add(rule string) error {
	what, value, found := strings.Cut(rule, ":")
	if !found || value == "" {
		return errors.New("want pid:N, uid:N, exe:GLOB or name:GLOB")
	}
	var err error
	switch what {
	case "pid":
		err = addNumber(s.pids, value, 1<<31-1)
	case "uid":
		err = addNumber(s.uids, value, 1<<32-1)
	case "exe":
		s.exes, err = appendGlob(s.exes, value)
	case "name":
		s.names, err = appendGlob(s.names, value)
	default:
		err = fmt.Errorf("unknown kind %q: want pid, uid, exe or name", what)
	}
	if err == nil {
		s.rules = append(s.rules, rule)
	}
	return err
}

func addNumber[T int32 | uint32](set map[T]bool, value string, limit uint64) error {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil || n > limit {
		return fmt.Errorf("%q is not a whole number from 0 to %d", value, limit)
	}
	set[T(n)] = true
	return nil
}

func appendGlob(globs []string, glob string) ([]string, error) {
	if _, err := path.Match(glob, ""); err != nil {
		return globs, fmt.Errorf("glob %q: %w", glob, err)
	}
	return append(globs, glob), nil
}

// Rules are the rules as they were given.
func (s *Scope) Rules() []string { return s.rules }

// Matches reports whether a rule matches p.
func (s *Scope) Matches(p *event.Process) bool {
	if len(s.rules) == 0 {
		return false
	}
	return s.pids[p.PID] ||
		s.uids[p.UID] && !p.Missing.Absent().Has(event.FieldUID) ||
		matchesAny(s.exes, p.Exe) ||
		matchesAny(s.names, p.Name)
}

func matchesAny(globs []string, text string) bool {
	for _, glob := range globs {
		if ok, _ := path.Match(glob, text); ok { // the syntax was checked
			return true
		}
	}
	return false
}
