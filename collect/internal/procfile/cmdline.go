package procfile

import (
	"bytes"
	"strings"

	"daemoneye.dev/procmond/collect/event"
)

// MaxCmdline is how many bytes of a command line a source reads; what is recorded
// is cut to [event.MaxArgs], but secrets must be found before that.
const MaxCmdline = 256 << 10

// SplitArgs cuts a command line at its NUL bytes, of which each ends an
// argument; a title that a process wrote over its arguments may lack the last.
// It returns at most [event.MaxArgCount] arguments, and whether there were more.
func SplitArgs(b []byte) (args []string, cut bool) {
	if len(b) == 0 {
		return nil, false
	}
	text := string(bytes.TrimSuffix(b, []byte{0}))
	n := strings.Count(text, "\x00") + 1
	args = make([]string, 0, min(n, event.MaxArgCount))
	for len(args) < cap(args) {
		var arg string
		arg, text, _ = strings.Cut(text, "\x00")
		args = append(args, arg)
	}
	return args, n > event.MaxArgCount
}

// DeletedMark is what the kernel puts behind the path of a file that is gone. A
// file may also have a name that ends like that.
const DeletedMark = " (deleted)"
