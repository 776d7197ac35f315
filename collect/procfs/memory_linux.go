package procfs

import (
	"os"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/collect/event"
	"daemoneye.dev/procmond/collect/internal/procfile"
)

// memory is a resident size.
type memory struct {
	bytes uint64
	kind  event.RSSKind
}

// unread stands for pages that were not read.
const unread = -1

// maxStatm is more than seven numbers.
const maxStatm = 160

// RSSKind is what this scanner says of the memory of processes.
func (s *Scanner) RSSKind() event.RSSKind {
	if s.exact() {
		return event.RSSExact
	}
	return event.RSSApproximate
}

func (s *Scanner) exact() bool { return s.enhanced != nil && s.enhanced.exact }

// residentOfKnown reads the exact resident size of a known process, in pages. It
// must be read before the stat that is compared with what is known: if that still
// shows the process, nobody else can have had the PID in between.
func (s *Scanner) residentOfKnown(r *record) int64 {
	if !s.exact() || r.kernel {
		return unread
	}
	n, err := s.readKnown(s.proc, s.pathOf(r.pid, "/"+statmFile), s.statm[:])
	return parseResident(s.statm[:n], err)
}

// resident is residentOfKnown for a process whose directory and stat are given.
func (s *Scanner) resident(dir int, st *procfile.Stat) int64 {
	if !s.exact() || st.KernelThread() {
		return unread
	}
	n, err := readFile(dir, statmFile, s.statm[:])
	return parseResident(s.statm[:n], err)
}

func parseResident(b []byte, err error) int64 {
	if err != nil {
		return unread
	}
	pages, err := procfile.ParseResident(b)
	if err != nil {
		return unread
	}
	return pages
}

// memory is the resident size of a process with this stat and, if they were read,
// exactly so many pages. Without its first thread a process that goes on shows
// none in either file.
func (s *Scanner) memory(st *procfile.Stat, pages int64) memory {
	switch {
	case s.exact() && (st.KernelThread() || st.Ended()):
		return memory{kind: event.RSSExact}
	case pages == unread || st.Dead():
		return memory{bytes: st.RSS(s.pageSize), kind: event.RSSApproximate}
	}
	return memory{bytes: uint64(pages) * s.pageSize, kind: event.RSSExact}
}

// countsExactly reports whether statm of this kernel shows every page. Those before
// 6.16 show the approximate counter there too, unless the mend was brought to them,
// so the version says little; but that counter moves by dozens of pages at once.
func countsExactly() bool {
	const attempts = 5 // meanwhile others of this process take pages and give them back
	for range attempts {
		if pagesShow() {
			return true
		}
	}
	return false
}

// pagesShow takes some pages, fewer than the kernel would add at once, and looks
// whether the count grows with nearly each of them: one that is given back
// elsewhere at that moment hides one that is taken.
func pagesShow() bool {
	const pages, enough = 16, 12
	size := os.Getpagesize()
	area, err := unix.Mmap(-1, 0, pages*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Munmap(area) }()
	_ = unix.Madvise(area, unix.MADV_NOHUGEPAGE) // unknown to a kernel that has none
	grown := 0
	before := ownResident()
	for i := range pages {
		area[i*size] = 1
		after := ownResident()
		if before == unread || after == unread {
			return false
		}
		if after > before {
			grown++
		}
		before = after
	}
	return grown >= enough
}

func ownResident() int64 {
	var buf [maxStatm]byte
	n, err := readFile(unix.AT_FDCWD, "/proc/self/"+statmFile, buf[:])
	return parseResident(buf[:n], err)
}
