package procfile

import (
	"bytes"
	"fmt"
)

// ParseResident returns the second field of one /proc/PID/statm, the resident
// size in pages.
func ParseResident(b []byte) (pages int64, err error) {
	_, rest, _ := bytes.Cut(b, []byte{' '})
	field, _, found := bytes.Cut(rest, []byte{' '})
	pages, ok := parseInt(field)
	if !ok || !found || pages < 0 {
		return 0, fmt.Errorf("parse statm: bad field 2: %q", field)
	}
	return pages, nil
}

// ParseID reads a file that holds one number of 32 bits, such as loginuid.
func ParseID(b []byte) (uint32, error) {
	v, ok := parseUint32(bytes.TrimSuffix(b, []byte{'\n'}))
	if !ok {
		return 0, fmt.Errorf("parse id: %q", b)
	}
	return v, nil
}

// ParseNamespace returns the inode in the text of one link below /proc/PID/ns,
// like mnt:[4026531832].
func ParseNamespace(link []byte) (inode uint64, err error) {
	_, number, _ := bytes.Cut(link, []byte(":["))
	number, closed := bytes.CutSuffix(number, []byte{']'})
	inode, ok := parseUint(number)
	if !ok || !closed {
		return 0, fmt.Errorf("parse namespace: %q", link)
	}
	return inode, nil
}
