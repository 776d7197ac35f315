package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/cmd/procmond/internal/settings"
)

const (
	databaseName = "processes.db"
	systemState  = "/var/lib/daemoneye"
)

// databasePlaces are the default places, best first.
func (p invocation) databasePlaces() []string {
	var dirs []string
	if dir, _, _ := strings.Cut(p.getenv("STATE_DIRECTORY"), ":"); filepath.IsAbs(dir) {
		dirs = append(dirs, dir)
	}
	dirs = append(dirs, systemState)
	if dir := p.getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		dirs = append(dirs, filepath.Join(dir, "daemoneye"))
	}
	if home := p.getenv("HOME"); filepath.IsAbs(home) {
		dirs = append(dirs, filepath.Join(home, ".local", "state", "daemoneye"))
	}
	var places []string
	for _, dir := range dirs {
		places = append(places, filepath.Join(dir, databaseName))
	}
	return slices.Compact(places)
}

// daemonDatabase is where the daemon keeps its store.
func (p invocation) daemonDatabase(v *settings.Values) (string, error) {
	if v.Database != "" {
		return absolute(v.Database)
	}
	places := p.databasePlaces()
	for _, place := range places {
		if writable(filepath.Dir(place)) {
			return place, nil
		}
	}
	return "", &exitError{
		code: exitPermission,
		err:  fmt.Errorf("none of the default places for the database can be written: %s", strings.Join(places, ", ")),
		hint: "Give one with --database.",
	}
}

// writable reports whether files can be made in dir, or dir itself can be made.
func writable(dir string) bool {
	for {
		err := unix.Access(dir, unix.W_OK|unix.X_OK)
		if err == nil {
			return true
		}
		if parent := filepath.Dir(dir); errors.Is(err, fs.ErrNotExist) && parent != dir {
			dir = parent
			continue
		}
		return false
	}
}

func absolute(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", path, err)
	}
	return abs, nil
}

// clientDatabases are the places that a client command looks at: the one that is
// named, else all default ones.
func (p invocation) clientDatabases(f *clientFlags) ([]string, error) {
	in := settings.Input{Environ: p.environ, ConfigFlag: f.Config, DefaultFile: settings.DefaultFile}
	if f.Database != nil {
		in.Flags = map[string][]string{"database": {*f.Database}}
	}
	v, faults, _ := settings.Resolve(in)
	if faults = slices.DeleteFunc(faults, f.forgives); len(faults) > 0 {
		return nil, faults
	}
	if v.Database != "" {
		path, err := absolute(v.Database)
		return []string{path}, err
	}
	return p.databasePlaces(), nil
}

// forgives reports whether a fault is none of a client's business: a client must
// work while the configuration is broken, unless that hides the database.
func (f *clientFlags) forgives(fault settings.Fault) bool {
	if f.Database != nil {
		return fault.Origin != "flag --database"
	}
	if f.Config != nil && fault.Origin == "flag --config" {
		return false
	}
	return !strings.HasSuffix(strings.ToLower(fault.Origin), "database")
}

// errNoDatabase says that no place holds anything.
type errNoDatabase struct{ tried []string }

func (e *errNoDatabase) Error() string {
	return "there is no database; tried " + strings.Join(e.tried, ", ")
}

// existing picks the first place that holds something. If there is none but one
// that this user may not look at, it is that one, not readable.
func existing(places []string) (place string, readable bool, err error) {
	hidden := ""
	for _, place := range places {
		_, err := os.Lstat(place)
		switch {
		case err == nil:
			return place, true, nil
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		case hidden == "":
			hidden = place
		}
	}
	if hidden != "" {
		return hidden, false, nil
	}
	return "", false, &exitError{
		code: exitNotRunning, err: &errNoDatabase{tried: places},
		hint: "Start the daemon with `procmond`, or name its database with --database.",
	}
}
