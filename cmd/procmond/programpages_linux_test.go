package main

import (
	"os"
	"slices"
	"testing"
)

func TestProgramRanges(t *testing.T) {
	const maps = `00400000-00f05000 r-xp 00000000 fe:00 1027                               /usr/bin/procmond
00f05000-01b15000 r--p 00b05000 fe:00 1027                               /usr/bin/procmond
01b15000-01ba3000 rw-p 01715000 fe:00 1027                               /usr/bin/procmond
01ba3000-03bf0000 rw-p 00000000 00:00 0 
7f0000000000-7f0000001000 r--p 00000000 fe:00 1027                       /usr/bin/procmond-other
7f0000002000-7f0000001000 r--p 00000000 fe:00 1027                       /usr/bin/procmond
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0                          [vdso]
`
	want := []addressRange{{0x400000, 0xf05000}, {0xf05000, 0x1b15000}}
	if got := programRanges([]byte(maps), "/usr/bin/procmond"); !slices.Equal(got, want) {
		t.Errorf("ranges are %x, want %x", got, want)
	}
}

// TestProgramPagesComeBack drops the pages of the running test program, which then
// goes on.
func TestProgramPagesComeBack(t *testing.T) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	if len(programRanges(maps, exe)) == 0 {
		t.Errorf("%s is not in its own mappings:\n%s", exe, maps)
	}
	if err := dropProgramPages(); err != nil {
		t.Error(err)
	}
}
