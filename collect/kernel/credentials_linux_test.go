//go:build amd64 || arm64

package kernel

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// TestCredentialsAreLookedAt: a kernel that clang has built knows which pointers RCU
// guards, and its verifier lets nobody follow such a one, as real_cred is, that was not
// compared with NULL. Others do not care: that it loads here proves nothing.
func TestCredentialsAreLookedAt(t *testing.T) {
	spec, err := loadProcess()
	if err != nil {
		t.Fatal(err)
	}
	member := credMember(t, spec.Types)
	for _, name := range []string{"on_fork", "on_exec"} {
		loads := 0
		body := spec.Programs[name].Instructions
		for i := range body {
			relo := btf.CORERelocationMetadata(&body[i])
			if relo == nil || !strings.Contains(relo.String(), member) {
				continue
			}
			loads++
			if next := firstUse(body[i+1:], body[i].Dst); next.OpCode.JumpOp() != asm.JEq || next.Constant != 0 {
				t.Errorf("%s: the credentials are used by %v before they are compared with NULL", name, next)
			}
		}
		if loads != 1 {
			t.Errorf("%s loads the credentials %d times, want once", name, loads)
		}
	}
}

// credMember is how a relocation names real_cred.
func credMember(t *testing.T, types *btf.Spec) string {
	t.Helper()
	var task *btf.Struct
	if err := types.TypeByName("task_struct", &task); err != nil {
		t.Fatal(err)
	}
	for i, m := range task.Members {
		if m.Name == "real_cred" {
			return fmt.Sprintf("%q[0:%d]", "task_struct", i)
		}
	}
	t.Fatal("task_struct has no real_cred")
	return ""
}

// firstUse is the first instruction that has a register.
func firstUse(body asm.Instructions, r asm.Register) asm.Instruction {
	i := slices.IndexFunc(body, func(ins asm.Instruction) bool { return ins.Dst == r || ins.Src == r })
	if i < 0 {
		return asm.Instruction{}
	}
	return body[i]
}
