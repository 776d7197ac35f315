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
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("read mappings: %w", err)
	}
	var faults []error
	for _, r := range programRanges(smaps, exe) {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, r.from, r.to-r.from, unix.MADV_DONTNEED); errno != 0 {
			faults = append(faults, fmt.Errorf("drop pages from %#x: %w", r.from, errno))
		}
	}
	return errors.Join(faults...)
}

// addressRange is memory from an address up to another.
type addressRange struct{ from, to uintptr }

// programRanges are the mappings of exe, of those that smaps lists (proc_pid_smaps(5)),
// that are as they are in the file. What can be written to may have been, and so may
// what can not be any more: the linker's tables (RELRO). Such pages of one's own,
// which the kernel counts as anonymous, would be lost.
func programRanges(smaps []byte, exe string) []addressRange {
	var ranges []addressRange
	ours := false // the mapping that is being read is the last one of ranges
	for line := range bytes.Lines(smaps) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if r, path, writable, ok := parseMapping(line); ok {
			if ours = path == exe && !writable; ours {
				ranges = append(ranges, r)
			}
		} else if ours && isOwnPages(line) {
			ranges, ours = ranges[:len(ranges)-1], false
		}
	}
	return ranges
}

// parseMapping reads the line that a mapping begins with.
func parseMapping(line []byte) (r addressRange, path string, writable, ok bool) {
	f := bytes.SplitN(line, []byte(" "), 6)
	if len(f) < 5 {
		return r, "", false, false
	}
	from, to, _ := bytes.Cut(f[0], []byte("-"))
	begin, beginErr := strconv.ParseUint(string(from), 16, 64)
	end, endErr := strconv.ParseUint(string(to), 16, 64)
	if beginErr != nil || endErr != nil || begin >= end {
		return r, "", false, false
	}
	if len(f) == 6 {
		path = string(bytes.TrimLeft(f[5], " "))
	}
	return addressRange{uintptr(begin), uintptr(end)}, path, bytes.ContainsRune(f[1], 'w'), true
}

// isOwnPages reports whether a line says that a mapping has pages that are not the
// file's. Private_Dirty is no sign of that: the file itself may be on its way to disk.
func isOwnPages(line []byte) bool {
	key, value, _ := bytes.Cut(line, []byte(":"))
	switch string(key) {
	case "Anonymous", "Swap":
		return string(bytes.TrimSpace(value)) != "0 kB"
	}
	return false
}

// dropZeros takes whole pages that hold nothing but zeros out of memory: the kernel
// gives them back as zeros when they are used (madvise(2), MADV_DONTNEED, of private
// anonymous memory).
func dropZeros(pages []byte) error {
	if err := unix.Madvise(pages, unix.MADV_DONTNEED); err != nil {
		return fmt.Errorf("drop pages of zeros: %w", err)
	}
	return nil
}
