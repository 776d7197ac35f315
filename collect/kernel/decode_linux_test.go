//go:build amd64 || arm64

package kernel

import (
	"errors"
	"slices"
	"testing"
	"unsafe"

	"daemoneye.dev/procmond/collect/event"
)

// execBytes is an exec as the program writes it, with a path and arguments.
func execBytes(change func(*processExecRecord)) []byte {
	const exe, args = "true\x00bin\x00", "true\x00-v\x00"
	x := processExecRecord{Head: processHead{Kind: uint32(KindExec), Pid: 7}, ExeBytes: uint32(len(exe)), ArgsBytes: uint32(len(args)), ArgsTotal: uint64(len(args))}
	change(&x)
	whole := make([]uint64, (unsafe.Sizeof(x)+64)/8) // aligned as the ring is
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(whole))), len(whole)*8)
	n := copy(b, unsafe.Slice((*byte)(unsafe.Pointer(&x)), unsafe.Sizeof(x)))
	return b[:n+copy(b[n:], exe+args)]
}

// TestWhatAProgramCouldNotRead: memory that is not there at that moment is not waited
// for. What could not be read is not told as empty.
func TestWhatAProgramCouldNotRead(t *testing.T) {
	exe := event.FieldSet(0).With(event.FieldExe).With(event.FieldExeDeleted)
	args := event.FieldSet(0).With(event.FieldArgs)
	for name, test := range map[string]struct {
		change func(*processExecRecord)
		exe    string
		args   []string
		want   event.Mask
	}{
		"all read":   {func(*processExecRecord) {}, "/bin/true", []string{"true", "-v"}, event.Mask{}},
		"path":       {func(x *processExecRecord) { x.Failed, x.ExeDeleted = exeFailed, 1 }, "", []string{"true", "-v"}, event.Mask{Failed: exe}},
		"arguments":  {func(x *processExecRecord) { x.Failed, x.ArgsBytes = argsFailed, 0 }, "/bin/true", nil, event.Mask{Failed: args}},
		"both":       {func(x *processExecRecord) { x.Failed, x.ArgsBytes = exeFailed|argsFailed, 0 }, "", nil, event.Mask{Failed: exe | args}},
		"only begun": {func(x *processExecRecord) { x.ArgsTotal++ }, "/bin/true", []string{"true", "-v"}, event.Mask{Truncated: args}},
	} {
		t.Run(name, func(t *testing.T) {
			var r Record
			if err := decode(execBytes(test.change), &r); err != nil {
				t.Fatal(err)
			}
			if r.PID != 7 || r.Exe != test.exe || r.ExeDeleted || !slices.Equal(r.Args, test.args) || r.Missing != test.want {
				t.Errorf("got %+v", r)
			}
		})
	}
}

// TestRecordThatNoProgramWrites is refused, whatever is wrong with it.
func TestRecordThatNoProgramWrites(t *testing.T) {
	whole := execBytes(func(*processExecRecord) {})
	for n := range whole {
		if err := decode(whole[:n], new(Record)); !errors.Is(err, errRecord) {
			t.Errorf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
	for name, change := range map[string]func(*processExecRecord){
		"kind":      func(x *processExecRecord) { x.Head.Kind = 9 },
		"path":      func(x *processExecRecord) { x.ExeBytes = 1 << 31 },
		"arguments": func(x *processExecRecord) { x.ArgsBytes = 1<<32 - 1 },
		"both":      func(x *processExecRecord) { x.ExeBytes, x.ArgsBytes = 1<<32-1, 1<<32-1 },
	} {
		if err := decode(execBytes(change), new(Record)); !errors.Is(err, errRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
