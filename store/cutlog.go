package store

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// openCut opens a copy whose log is damaged, without what comes after the damage,
// which cause says cannot be opened as it is. path is the store's.
func openCut(dir, path string, id identity, lock *pebble.Lock, cause error) (*reading, error) {
	damage, err := cutLogs(dir)
	if err != nil || damage == nil {
		return nil, cause
	}
	r, err := openReading(readFS(), dir, path, id, lock)
	if err != nil {
		return nil, cause
	}
	r.damage = damage // checkHead would only say that something is missing
	return r, nil
}

// cutLogs ends the logs of a copy where the first of them is damaged, and returns
// that damage; nil if none of them is. The copy's logs are links to those of the
// store, so a log that is cut is written anew.
func cutLogs(dir string) (damage error, err error) {
	names, err := readFS().List(dir)
	if err != nil {
		return nil, err
	}
	logs := slices.DeleteFunc(names, func(name string) bool { _, ok := logNumber(name); return !ok || !isLog(name) })
	slices.SortFunc(logs, func(a, b string) int {
		n, _ := logNumber(a)
		m, _ := logNumber(b)
		return cmp.Compare(n, m)
	})
	for _, name := range logs {
		if damage != nil { // events are in order: nothing may follow a hole
			err = os.Remove(filepath.Join(dir, name))
		} else {
			damage, err = cutLog(dir, name)
		}
		if err != nil {
			return nil, err
		}
	}
	return damage, nil
}

// cutLog ends a log before its damage, if it has any.
func cutLog(dir, name string) (damage error, err error) {
	path := filepath.Join(dir, name)
	number, _ := logNumber(name)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only: nothing to lose
	bad, err := scanLog(f, uint32(number))
	if err != nil || bad < 0 {
		return nil, err
	}
	whole := make([]byte, bad)
	if _, err := f.ReadAt(whole, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		return nil, err
	}
	return fmt.Errorf("%w: %s is damaged at byte %d, and nothing after that can be read", errDamaged, name, bad), nil
}
