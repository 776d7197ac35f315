package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// dropProgramPages takes the program's code and constants out of the daemon's
// resident memory: the kernel maps a page again when it is used, from its page cache
// (madvise(2), MADV_DONTNEED, of a mapping of a file). Some 9 of 21 MB are not: they
// are of the start, of other commands, or came along with their neighbours.
func dropProgramPages() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("find program: %w", err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("read mappings: %w", err)
	}
	var faults []error
	for _, r := range programRanges(maps, exe) {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, r.from, r.to-r.from, unix.MADV_DONTNEED); errno != 0 {
			faults = append(faults, fmt.Errorf("drop pages from %#x: %w", r.from, errno))
		}
	}
	return errors.Join(faults...)
}

// addressRange is memory from an address up to another.
type addressRange struct{ from, to uintptr }

// programRanges are the mappings of exe that can not be written to, of those that
// maps lists (proc_pid_maps(5)). What can be written to may have been, and would be
// lost.
func programRanges(maps []byte, exe string) []addressRange {
	var ranges []addressRange
	for line := range bytes.Lines(maps) {
		f := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte(" "), 6)
		if len(f) < 6 || string(bytes.TrimLeft(f[5], " ")) != exe || bytes.ContainsRune(f[1], 'w') {
			continue
		}
		from, to, _ := bytes.Cut(f[0], []byte("-"))
		begin, beginErr := strconv.ParseUint(string(from), 16, 64)
		end, endErr := strconv.ParseUint(string(to), 16, 64)
		if beginErr == nil && endErr == nil && begin < end {
			ranges = append(ranges, addressRange{uintptr(begin), uintptr(end)})
		}
	}
	return ranges
}
