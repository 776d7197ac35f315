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

// makeParent makes the directory that the database is to be in.
func makeParent(database string) error {
	if err := checkPath(database); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(database), 0o700); err != nil {
		return asStorage(fmt.Errorf("make directory of database: %w", err))
	}
	return nil
}

// checkPath finds out what the errors of making a directory do not tell: on the
// way to the database stands a file, or a link to nothing. Other faults are found
// by whoever uses the path.
func checkPath(database string) error {
	for path := database; ; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		switch {
		case err == nil && path != database && !info.IsDir():
			return &exitError{
				code: exitNotStore, err: fmt.Errorf("database %s: %s is not a directory", database, path),
				hint: "Nothing was touched. Give a path in a directory with --database.",
			}
		case err == nil, path == filepath.Dir(path):
			return nil
		case errors.Is(err, unix.ELOOP) && !isLoop(filepath.Dir(path)):
			return &exitError{
				code: exitStorage, err: fmt.Errorf("database %s: %s is a symbolic link that leads to itself", database, path),
				hint: "Remove the link, or give another path with --database.",
			}
		}
		if target := linkToNothing(path); target != "" {
			return danglingLink(database, path, target)
		}
	}
}

func isLoop(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, unix.ELOOP)
}

// linkToNothing is what a dangling symbolic link names; empty if path is none.
func linkToNothing(path string) string {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	target, err := os.Readlink(path)
	if err != nil {
		return ""
	}
	return target
}

// danglingLink has a code that lets a service manager try again: what the link
// leads to may be on a disk that is mounted late. For that reason the target is
// not made either.
func danglingLink(database, link, target string) error {
	what := fmt.Errorf("database %s is a dangling symbolic link to %s", database, target)
	if link != database {
		what = fmt.Errorf("database %s: %s is a dangling symbolic link to %s", database, link, target)
	}
	return &exitError{code: exitStorage, err: what, hint: "Make the directory that it names (or mount its disk), or remove the link."}
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
	faults = slices.DeleteFunc(faults, func(fault settings.Fault) bool { return f.forgives(fault, v.Database != "") })
	if len(faults) > 0 {
		return nil, faults
	}
	if v.Database != "" {
		path, err := absolute(v.Database)
		return []string{path}, err
	}
	return p.databasePlaces(), nil
}

// forgives reports whether a fault is none of a client's business: a client must
// work while the configuration is broken, unless that hides the database. known says
// that the database is known all the same.
func (f *clientFlags) forgives(fault settings.Fault, known bool) bool {
	if f.Database != nil {
		return fault.Origin != "flag --database"
	}
	if fault.Unread {
		return known // else it may name the database, and another one would be asked
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
	tried := slices.Clone(places)
	for i, place := range places {
		_, err := os.Lstat(place)
		target := linkToNothing(place)
		switch {
		case target != "":
			tried[i] += " (a dangling symbolic link to " + target + ")"
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
		code: exitNotRunning, err: &errNoDatabase{tried: tried},
		hint: "Start the daemon with `procmond`, or name its database with --database.",
	}
}
