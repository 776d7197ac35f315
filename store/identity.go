package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"daemoneye.dev/procmond/collect/event"
)

// Files of a store that are not Pebble's.
const (
	identityFile    = "STORE"
	identityNewFile = "STORE.new"
	ballastFile     = "BALLAST"
	lockFile        = "LOCK" // Pebble's, but made before Pebble is opened
)

// identityMagic is the first value of the identity file.
const identityMagic = "procmond"

// identityMaking is what identity.Making says: unlikely to be there by damage.
const identityMaking = "not finished"

// formatVersion is the version of the key space and of the identity file.
const formatVersion = 1

// identity is the small text file that says whose directory this is. It can be
// read without opening the database, so that a wrong directory or a newer format
// is refused before anything is touched, and a damaged database still tells its
// epoch.
type identity struct {
	Store  string `json:"store"`
	Format int    `json:"format"`
	Epoch  string `json:"epoch"`
	// Making says that the database is not durably there yet: it holds nothing, and a
	// power cut may leave any part of its files, which the next opening removes. It
	// is absent, and not false, afterwards, so that no damage to this file can make a
	// store look unfinished and be emptied.
	Making string `json:"making,omitempty"`
	// Head is the last sequence when the file was written: at every opening and
	// orderly close. The database knows better unless it is damaged.
	Head uint64 `json:"head"`
	// What was before this epoch, if anything.
	PreviousEpoch string    `json:"previous_epoch,omitempty"`
	PreviousSeq   uint64    `json:"previous_seq,omitempty"`
	QuarantinedTo string    `json:"quarantined_to,omitempty"`
	QuarantinedAt time.Time `json:"quarantined_at,omitzero"`
	// What is said of a store that turned out to be an older copy of itself: when, the
	// name of the copy beside it, and whether the database may still have the epoch
	// before.
	RewoundAt time.Time `json:"rewound_at,omitzero"`
	RewoundTo string    `json:"rewound_to,omitempty"`
	Rewinding bool      `json:"rewinding,omitempty"`
}

func newIdentity() identity {
	return identity{Store: identityMagic, Format: formatVersion, Epoch: event.NewEpoch().String(), Making: identityMaking}
}

func (i identity) epoch() event.Epoch { return parseEpochOrZero(i.Epoch) }

// unfinished reports whether the database was never made.
func (i identity) unfinished() bool { return i.Making == identityMaking && i.Head == 0 }

func (i identity) previous() event.Epoch { return parseEpochOrZero(i.PreviousEpoch) }

func parseEpochOrZero(s string) event.Epoch {
	e, err := event.ParseEpoch(s)
	if err != nil {
		return event.Epoch{}
	}
	return e
}

// readIdentity reads what dir says it is: fs.ErrNotExist if there is no such
// directory or a directory that holds nothing yet, ErrNotStore if it is something
// else, ErrNewerFormat. It touches nothing.
func readIdentity(vs vfs.FS, dir string) (identity, error) {
	info, err := vs.Stat(dir)
	if err != nil {
		return identity{}, explain("look at store", dir, err)
	}
	if !info.IsDir() {
		return identity{}, fmt.Errorf("%w: %s is not a directory", ErrNotStore, dir)
	}
	data, err := readFile(vs, vs.PathJoin(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		if err := unidentified(vs, dir); err != nil {
			return identity{}, err
		}
		data, err = readFile(vs, vs.PathJoin(dir, identityFile))
	}
	if err != nil {
		return identity{}, explain("read identity of store", dir, err)
	}
	return parseIdentity(dir, data)
}

// unidentified tells a directory that Open may use from a foreign one. It is nil if the
// file has come since it was looked for: somebody makes the store just now.
func unidentified(vs vfs.FS, dir string) error {
	names, err := vs.List(dir)
	if err != nil {
		return explain("list store", dir, err)
	}
	if slices.Contains(names, identityFile) {
		return nil
	}
	for _, name := range names {
		switch name {
		case lockFile, ballastFile, identityNewFile:
		default:
			return fmt.Errorf("%w: %s holds %q but no file %s", ErrNotStore, dir, name, identityFile)
		}
	}
	return &emptyError{dir}
}

// emptyError is an fs.ErrNotExist: a directory without a store in it.
type emptyError struct{ dir string }

func (e *emptyError) Error() string { return "store " + e.dir + " is empty" }

// Is makes errors.Is(err, fs.ErrNotExist) true.
func (*emptyError) Is(target error) bool { return target == fs.ErrNotExist }

func parseIdentity(dir string, data []byte) (identity, error) {
	var id identity
	if err := json.Unmarshal(data, &id); err != nil || id.Store != identityMagic {
		return id, fmt.Errorf("%w: file %s of %s is not one of procmond", ErrNotStore, identityFile, dir)
	}
	if id.Format > formatVersion {
		return id, fmt.Errorf("%w: %s has format %d, this procmond knows up to %d", ErrNewerFormat, dir, id.Format, formatVersion)
	}
	if id.epoch().IsZero() {
		return id, fmt.Errorf("%w: file %s of %s names no epoch", ErrNotStore, identityFile, dir)
	}
	return id, nil
}

// write replaces the identity file, durably: either the old one is there after a
// power cut or the new one.
func (i identity) write(vs vfs.FS, dir string) error {
	data, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return fmt.Errorf("encode identity of store: %w", err)
	}
	tmp := vs.PathJoin(dir, identityNewFile)
	if err := writeFile(vs, tmp, append(data, '\n')); err != nil {
		return explain("write identity of store", dir, err)
	}
	if err := vs.Rename(tmp, vs.PathJoin(dir, identityFile)); err != nil {
		return explain("write identity of store", dir, err)
	}
	return syncDir(vs, dir)
}

func readFile(vs vfs.FS, path string) ([]byte, error) {
	f, err := vs.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, 64<<10))
	return data, errors.Join(err, f.Close())
}

func writeFile(vs vfs.FS, path string, data []byte) error {
	f, err := vs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(vs vfs.FS, dir string) error {
	d, err := vs.OpenDir(dir)
	if err != nil {
		return explain("open directory", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return explain("sync directory", dir, err)
	}
	return nil
}

// isNewerPebble recognises the one error of Pebble that says so only in words.
func isNewerPebble(err error) bool {
	return err != nil && strings.Contains(err.Error(), "unknown format major version")
}
