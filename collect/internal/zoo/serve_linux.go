package zoo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// servedName is the name of the only file.
const servedName = "file"

// Node numbers.
const (
	nodeRoot = 1
	nodeFile = 2
)

// Operations of the FUSE protocol, linux/fuse.h.
const (
	opLookup      = 1
	opForget      = 2
	opAttributes  = 3
	opOpen        = 14
	opRead        = 15
	opStatfs      = 17
	opRelease     = 18
	opFlush       = 25
	opInit        = 26
	opInterrupt   = 36
	opBatchForget = 42
)

// The structures of the protocol.
type (
	inHeader struct {
		Len, Opcode   uint32
		Unique, Node  uint64
		UID, GID, PID uint32
		_             uint32
	}
	outHeader struct {
		Len    uint32
		Error  int32
		Unique uint64
	}
	initOut struct {
		Major, Minor, MaxReadahead, Flags uint32
		_, _                              uint16
		MaxWrite, TimeGran                uint32
		_                                 [9]uint32
	}
	attributes struct {
		Ino, Size, Blocks                    uint64
		Atime, Mtime, Ctime                  uint64
		_, _, _                              uint32
		Mode, Nlink, UID, GID, _, Blksize, _ uint32
	}
	entryOut struct {
		Node, _, _, _, _ uint64
		Attributes       attributes
	}
	attributesOut struct {
		_, _       uint64
		Attributes attributes
	}
	openOut struct{ _, _ uint64 }
	readIn  struct {
		_, Offset uint64
		Size      uint32
	}
	statfsOut struct{ _ [10]uint64 }
)

// request is one that the kernel has made.
type request struct {
	inHeader
	body []byte
}

// server answers for a file system, or does not.
type server struct {
	device  int
	content []byte

	mu    sync.Mutex
	holds map[uint32]bool // guarded by mu: the operations that are not answered
	held  []request       // guarded by mu
}

// serveHanging is the role "serve DIR\nCONTENT".
func serveHanging(argument string) (Act, error) {
	dir, content, _ := strings.Cut(argument, "\n")
	s := &server{holds: make(map[uint32]bool)}
	var err error
	if s.content, err = os.ReadFile(content); err != nil {
		return nil, err
	}
	if s.device, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", s.device)
	if err := unix.Mount("zoo", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	go s.serve()
	go unmountAtEnd(dir)
	return s.command, nil
}

// unmountAtEnd takes the mount along if the test ends without having done so.
func unmountAtEnd(dir string) {
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, unix.SIGTERM)
	<-terminated
	_ = unix.Unmount(dir, unix.MNT_DETACH)
	signal.Reset()
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
}

func (s *server) command(line string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch line {
	case "release":
		clear(s.holds)
		for _, r := range s.held {
			s.answer(r)
		}
		s.held = nil
	case "held":
		_, err := fmt.Fprintln(os.Stdout, len(s.held))
		return err
	case "hold " + string(RequestAttributes):
		s.holds[opAttributes] = true
	case "hold " + string(RequestOpen):
		s.holds[opOpen] = true
	case "hold " + string(RequestRead):
		s.holds[opRead] = true
	default:
		return fmt.Errorf("no such command: %q", line)
	}
	return nil
}

// serve reads requests until the file system is unmounted.
func (s *server) serve() {
	buf := make([]byte, 1<<20)
	for {
		n, err := unix.Read(s.device, buf)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT): // it was withdrawn
			continue
		case err != nil:
			return
		}
		var r request
		size, err := binary.Decode(buf[:n], binary.NativeEndian, &r.inHeader)
		if err != nil {
			return
		}
		r.body = bytes.Clone(buf[size:n])
		s.take(r)
	}
}

func (s *server) take(r request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds[r.Opcode] {
		s.held = append(s.held, r)
		return
	}
	s.answer(r)
}

func (s *server) answer(r request) {
	switch r.Opcode {
	case opForget, opBatchForget, opInterrupt: // nobody waits for an answer
	case opInit:
		s.reply(r, initOut{Major: 7, Minor: 31, MaxReadahead: 128 << 10, MaxWrite: 4096, TimeGran: 1})
	case opLookup:
		if string(bytes.TrimRight(r.body, "\x00")) != servedName {
			s.refuse(r, unix.ENOENT)
			return
		}
		s.reply(r, entryOut{Node: nodeFile, Attributes: s.attributes(nodeFile)})
	case opAttributes:
		s.reply(r, attributesOut{Attributes: s.attributes(r.Node)})
	case opOpen:
		s.reply(r, openOut{})
	case opRead:
		s.read(r)
	case opStatfs:
		s.reply(r, statfsOut{})
	case opFlush, opRelease:
		s.reply(r, nil)
	default:
		s.refuse(r, unix.ENOSYS)
	}
}

func (s *server) attributes(node uint64) attributes {
	if node == nodeRoot {
		return attributes{Ino: node, Mode: unix.S_IFDIR | 0o755, Nlink: 2, Blksize: 4096}
	}
	size := uint64(len(s.content))
	return attributes{Ino: node, Size: size, Blocks: (size + 511) / 512, Mode: unix.S_IFREG | 0o755, Nlink: 1, Blksize: 4096}
}

func (s *server) read(r request) {
	var in readIn
	if _, err := binary.Decode(r.body, binary.NativeEndian, &in); err != nil {
		s.refuse(r, unix.EINVAL)
		return
	}
	size := uint64(len(s.content))
	from := min(in.Offset, size)
	s.reply(r, s.content[from:min(from+uint64(in.Size), size)])
}

func (s *server) refuse(r request, errno unix.Errno) {
	s.write(outHeader{Error: -int32(errno), Unique: r.Unique}, nil)
}

// reply sends a structure of the protocol, bytes, or nil.
func (s *server) reply(r request, body any) {
	var b []byte
	if body != nil {
		b, _ = binary.Append(nil, binary.NativeEndian, body) // it has a fixed size
	}
	s.write(outHeader{Unique: r.Unique}, b)
}

func (s *server) write(h outHeader, body []byte) {
	h.Len = uint32(binary.Size(h) + len(body))
	b, _ := binary.Append(nil, binary.NativeEndian, h) // it has a fixed size
	_, _ = unix.Write(s.device, append(b, body...))    // who asked may be gone
}
