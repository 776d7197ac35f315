package hash

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// openFlags never wait for the other end of a FIFO, nor make a terminal ours.
const openFlags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC

// openFile is an open regular file. It is no os.File, which would ask the poller.
type openFile struct{ fd int }

func (f openFile) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(f.fd, p)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (f openFile) Close() error { return unix.Close(f.fd) }

func (f openFile) stat() (file, error) { return statOf(f.fd) }

func statOf(fd int) (file, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return file{}, err
	}
	return fileOf(&st), nil
}

// statPath says what is at a path, through links.
func statPath(path string) (file, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return file{}, err
	}
	return fileOf(&st), nil
}

// expect is nil if f is the regular file k.
func (f *file) expect(k key) error {
	switch {
	case !f.regular:
		return &skip{reason: reasonSpecial}
	case f.key != k:
		return &skip{reason: reasonReplaced}
	}
	return nil
}

// checked takes fd over if it is of the regular file k, else it closes it.
func checked(fd int, k key) (content, error) {
	f, err := statOf(fd)
	if err == nil {
		err = f.expect(k)
	}
	switch {
	case err == nil:
		return openFile{fd}, nil
	case f.regular && f.dev == k.dev && f.ino == k.ino:
		err = &skip{reason: reasonChanged}
	}
	return nil, errors.Join(err, unix.Close(fd))
}
