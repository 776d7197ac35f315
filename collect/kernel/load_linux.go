//go:build amd64 || arm64

package kernel

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// How many processes are known to have ended. An LRU map gives each CPU up to 128
// places of its own (LOCAL_FREE_TARGET in kernel/bpf/bpf_lru_list.c).
const (
	endedLeast      = 1024
	endedForEachCPU = 256
)

// programs are those that run in the kernel.
type programs struct {
	objects processObjects
	links   []link.Link
}

// loadPrograms loads and attaches them, with a ring of that size.
func loadPrograms(size int) (*programs, error) {
	types := btf.NewCache()
	dead, err := exitTellsDead(types)
	if err != nil {
		return nil, &btfError{err}
	}
	return loadFor(size, dead, types)
}

func loadFor(size int, dead bool, types *btf.Cache) (*programs, error) {
	spec, err := loadProcess()
	if err != nil {
		return nil, err
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count the CPUs: %w", err)
	}
	spec.Maps[processMapRing].MaxEntries = uint32(size)
	spec.Maps[processMapLost].MaxEntries = uint32(cpus)
	if dead {
		spec.Maps[processMapEnded].MaxEntries = 1 // it is not used
	} else {
		spec.Maps[processMapEnded].MaxEntries = uint32(max(endedLeast, endedForEachCPU*cpus))
	}
	from, below := wakeBand(size)
	for name, value := range map[string]any{processVarWakeFrom: from, processVarWakeBelow: below, processVarTellsDead: dead} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	p := new(programs)
	if err := spec.LoadAndAssign(&p.objects, &ebpf.CollectionOptions{Cache: types}); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	for kind, program := range p.byKind() {
		l, err := link.AttachTracing(link.TracingOptions{Program: program})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach to %v: %w", kind, err), p.close())
		}
		p.links = append(p.links, l)
	}
	return p, nil
}

// wakeBand is the fill of the ring, in bytes, between which the reader is woken: from
// a quarter on, while what is written is as much as several of the largest records.
func wakeBand(size int) (from, below uint64) {
	return uint64(size / 4), uint64(size/4 + max(size/64, 32<<10))
}

// exitTellsDead reports whether this kernel's exit tracepoint says if a thread is the
// last one of its process: since 6.16 it does.
func exitTellsDead(types *btf.Cache) (bool, error) {
	kernel, err := types.Kernel()
	if err != nil {
		return false, err
	}
	var def *btf.Typedef
	if err := kernel.TypeByName("btf_trace_sched_process_exit", &def); err != nil {
		return false, err
	}
	pointer, ok := def.Type.(*btf.Pointer)
	if !ok {
		return false, nil
	}
	proto, ok := pointer.Target.(*btf.FuncProto)
	return ok && len(proto.Params) > 2, nil // the first is the tracepoint's own
}

// byKind is in the order in which they are attached: whose start was told of, of that
// the rest is too.
func (p *programs) byKind() func(func(Kind, *ebpf.Program) bool) {
	return func(yield func(Kind, *ebpf.Program) bool) {
		_ = yield(KindExit, p.objects.OnExit) && yield(KindExec, p.objects.OnExec) && yield(KindFork, p.objects.OnFork)
	}
}

func (p *programs) close() error {
	var errs []error
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	return errors.Join(append(errs, p.objects.Close())...)
}
