package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// checkFiles looks for damage that Pebble passes over when it opens a database: it
// would make an empty one where the name of the MANIFEST is lost, and remove the
// tables of the old one; and it would take damage in the last block of the log for
// the end of the log. It only reads.
func checkFiles(vs vfs.FS, dir string, id identity) error {
	names, err := vs.List(dir)
	if err != nil {
		return explain("list store", dir, err)
	}
	log, hasData := lastLog(names)
	desc, err := pebble.Peek(dir, vs)
	if err == nil && !desc.Exists && (hasData || id.Head > 0) {
		return fmt.Errorf("%w: there are tables or logs, but no file says which of them count (marker.manifest)", errDamaged)
	}
	if log == "" {
		return nil // and what Peek does not like, opening does not like
	}
	return checkLog(vs, dir, log)
}

// lastLog returns the name of the log that is written last, and whether there are
// logs or tables at all.
func lastLog(names []string) (last string, hasData bool) {
	highest := uint64(0)
	for _, name := range names {
		switch path.Ext(name) {
		case ".sst", ".blob":
			hasData = true
		case ".log":
			hasData = true
			if n, ok := logNumber(name); ok && n >= highest {
				highest, last = n, name
			}
		}
	}
	return last, hasData
}

func logNumber(name string) (uint64, bool) {
	n, err := strconv.ParseUint(strings.TrimSuffix(name, ".log"), 10, 64)
	return n, err == nil
}

// A log consists of blocks of chunks, and no chunk crosses the end of a block. Each
// chunk says up to where the log was durable when it was written (Pebble's package
// record, "WAL sync format"; the last eight bytes of the header are absent in the
// format before it):
//
//	checksum 4 | length 2 | type 1 | log number 4 | durable up to 8 | payload
const (
	logBlock         = 32 << 10
	chunkHeader      = 11
	chunkSyncHeader  = 19
	chunkFirstType   = 5
	chunkFirstSynced = 9
	chunkLastType    = 12
)

// checkLog reports damage before a place up to which the log says itself that it
// was durable. What comes after all such places may be torn.
func checkLog(vs vfs.FS, dir, name string) error {
	f, err := vs.Open(vs.PathJoin(dir, name))
	if err != nil {
		return explain("read log of store", dir, err)
	}
	number, _ := logNumber(name)
	bad, err := scanLog(f, uint32(number))
	if err := errors.Join(err, f.Close()); err != nil {
		return explain("read log of store", dir, err)
	}
	if bad >= 0 {
		return fmt.Errorf("%w: %s is damaged at byte %d, which was durable", errDamaged, name, bad)
	}
	return nil
}

// scanLog returns where a log is damaged, or -1.
func scanLog(r io.Reader, number uint32) (int64, error) {
	buf := make([]byte, logBlock)
	end := int64(-1) // where valid chunks end, once known
	for base := int64(0); ; base += logBlock {
		n, err := io.ReadFull(r, buf)
		block := buf[:n]
		at := 0
		if end < 0 {
			if at = skipChunks(block, number); at < n {
				end = base + int64(at)
			}
		}
		if end >= 0 && promises(block[at:], number, end) {
			return end, nil
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return -1, nil
		}
		if err != nil {
			return -1, err
		}
	}
}

// skipChunks returns the place in a block where its valid chunks end: its length if
// nothing but padding can follow.
func skipChunks(block []byte, number uint32) int {
	at := 0
	for at < len(block) {
		size, _, ok := parseChunk(block[at:], number)
		if !ok {
			break
		}
		at += size
	}
	if len(block) == logBlock && logBlock-at < chunkSyncHeader {
		return logBlock // no chunk fits
	}
	return at
}

// promises reports whether any chunk in b says that the log was durable beyond end.
// It looks at every byte, because damage may hide where chunks begin.
func promises(b []byte, number uint32, end int64) bool {
	for at := range b {
		if _, durable, ok := parseChunk(b[at:], number); ok && durable > uint64(end) {
			return true
		}
	}
	return false
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// parseChunk reads the chunk at the start of b: its size with the header, and up to
// where it says that the log is durable.
func parseChunk(b []byte, number uint32) (size int, durable uint64, ok bool) {
	if len(b) < chunkHeader {
		return 0, 0, false
	}
	kind, header := b[6], chunkHeader
	if kind < chunkFirstType || kind > chunkLastType || binary.LittleEndian.Uint32(b[7:]) != number {
		return 0, 0, false
	}
	if kind >= chunkFirstSynced {
		header = chunkSyncHeader
	}
	size = header + int(binary.LittleEndian.Uint16(b[4:]))
	if len(b) < size {
		return 0, 0, false
	}
	// Checksums are masked as in LevelDB, so that a checksum of checksums is not weak.
	sum := crc32.Checksum(b[6:size], castagnoli)
	if binary.LittleEndian.Uint32(b) != (sum>>15|sum<<17)+0xa282ead8 {
		return 0, 0, false
	}
	if kind >= chunkFirstSynced {
		durable = binary.LittleEndian.Uint64(b[11:])
	}
	return size, durable, true
}

// asDamage returns an error of opening a database as damage where it is: Pebble
// marks checksums, but not files that are missing, too short or do not fit
// together. Errors of the file system that may pass, and refusals, stay what they
// are.
func asDamage(err error) error {
	switch {
	case err == nil, isCorruption(err):
		return err
	case errors.Is(err, fs.ErrNotExist), // of the database's own files: its identity was read before
		errors.Is(err, pebble.ErrDBNotPristine), errors.Is(err, pebble.ErrDBDoesNotExist),
		strings.Contains(err.Error(), "object size mismatch"):
		return fmt.Errorf("%w: %s", errDamaged, reasonOf(err))
	}
	return err
}

// isRefusal reports whether err is not about what the store holds: somebody else
// has it, or the file system or the caller does not want.
func isRefusal(err error) bool {
	var errno syscall.Errno
	return errors.Is(err, ErrLocked) || errors.Is(err, ErrNotStore) || errors.Is(err, ErrNewerFormat) || errors.Is(err, ErrPermission) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &errno)
}

// reasonOf is an error as one line: the first of Pebble's several.
func reasonOf(err error) string {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return first
}
