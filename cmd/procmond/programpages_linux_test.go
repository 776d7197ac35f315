package main

import (
	"os"
	"slices"
	"testing"
)

func TestProgramRanges(t *testing.T) {
	const smaps = `00400000-00f05000 r-xp 00000000 fe:00 1027                               /usr/bin/procmond
Size:              11284 kB
Rss:               10064 kB
Private_Dirty:     10064 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me sd
00f05000-01b15000 r--p 00b05000 fe:00 1027                               /usr/bin/procmond
Rss:               10428 kB
Anonymous:             0 kB
01b15000-01b16000 r--p 01715000 fe:00 1027                               /usr/bin/procmond
Rss:                   4 kB
Anonymous:             4 kB
01b16000-01b17000 r--p 01715000 fe:00 1027                               /usr/bin/procmond
Anonymous:             0 kB
Swap:                  4 kB
01b17000-01ba3000 rw-p 01715000 fe:00 1027                               /usr/bin/procmond
Anonymous:             0 kB
01ba3000-03bf0000 rw-p 00000000 00:00 0 
Anonymous:           124 kB
7f0000000000-7f0000001000 r--p 00000000 fe:00 1027                       /usr/bin/procmond-other
Anonymous:             0 kB
7f0000002000-7f0000001000 r--p 00000000 fe:00 1027                       /usr/bin/procmond
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
`
	want := []addressRange{{0x400000, 0xf05000}, {0xf05000, 0x1b15000}}
	if got := programRanges([]byte(smaps), "/usr/bin/procmond"); !slices.Equal(got, want) {
		t.Errorf("ranges are %x, want %x", got, want)
	}
}

// TestProgramPagesComeBack drops the pages of the running test program, which then
// goes on: with cgo or the race detector it has tables that the linker made.
func TestProgramPagesComeBack(t *testing.T) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skipf("this kernel has none: %v", err)
	}
	if len(programRanges(smaps, exe)) == 0 {
		t.Errorf("%s is not in its own mappings:\n%s", exe, smaps)
	}
	if err := dropProgramPages(); err != nil {
		t.Error(err)
	}
}
