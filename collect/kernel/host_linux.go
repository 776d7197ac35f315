//go:build amd64 || arm64

package kernel

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// host is what the loader sees of the host; tests have others.
type host struct {
	namespace    func(name string) (inode uint64, err error) // of this process
	capabilities func() (effective uint64, err error)
	lockdown     func() string // the mode of kernel lockdown, "" if there is none
	load         func(ringBytes int) (*programs, error)
}

func thisHost() host {
	return host{namespace: ownNamespace, capabilities: ownCapabilities, lockdown: lockdownMode, load: loadPrograms}
}

// initialNamespaces are those that eBPF is told of.
var initialNamespaces = []initialNamespace{
	{
		"pid", inodePID, "the daemon is in a PID namespace of its own, where PIDs are not those that the kernel tells of",
		mendPID,
	},
	{
		"time", inodeTime, "the daemon is in a time namespace of its own, where times are not those that the kernel tells of",
		mendTime,
	},
	{
		"user", inodeUser, "the daemon is in a user namespace of its own, where capabilities do not count for eBPF",
		mendUser,
	},
}

const mendRights = "grant CAP_BPF and CAP_PERFMON: AmbientCapabilities=CAP_BPF CAP_PERFMON in the systemd unit"

// permits reports what can be known before anything is tried, since what the kernel
// says then is the same for many reasons.
func (h host) permits() error {
	if err := checkNamespaces("ebpf", initialNamespaces, h.namespace); err != nil {
		return err
	}
	effective, err := h.capabilities()
	if err != nil {
		return unavailable(ReasonFailed, "can not tell which capabilities the daemon has", "", err)
	}
	if missing := missingCapabilities(effective); len(missing) > 0 {
		return unavailable(ReasonRights, "the daemon has no "+strings.Join(missing, " and no "), mendRights, nil)
	}
	return nil
}

func missingCapabilities(effective uint64) (missing []string) {
	has := func(c int) bool { return effective&(1<<c) != 0 || effective&(1<<unix.CAP_SYS_ADMIN) != 0 }
	if !has(unix.CAP_BPF) {
		missing = append(missing, "CAP_BPF")
	}
	if !has(unix.CAP_PERFMON) {
		missing = append(missing, "CAP_PERFMON")
	}
	return missing
}

// btfError is that of a kernel whose types are not known.
type btfError struct{ error }

func (e *btfError) Unwrap() error { return e.error }

// explain says why loading failed, given that what permits looks at was in order.
func (h host) explain(err error) error {
	var types *btfError
	var verifier *ebpf.VerifierError
	isVerifier := errors.As(err, &verifier)
	noHelper := isVerifier && strings.Contains(strings.Join(verifier.Log, "\n"), "unknown func")
	switch {
	case noHelper && h.lockdown() == "confidentiality":
		// Lockdown takes the helpers away that read the kernel's memory.
		return unavailable(ReasonRefused, "kernel lockdown is in confidentiality mode", "boot with lockdown=integrity, if the host's policy allows it", err)
	case noHelper:
		return unavailable(ReasonKernel, "the kernel lacks a function that the programs call", "Linux 5.8 or later", err)
	case isVerifier:
		return unavailable(ReasonKernel, "the kernel does not accept the programs", "please report it with the kernel's version", err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return unavailable(ReasonRefused, "the kernel refuses eBPF though the daemon has CAP_BPF and CAP_PERFMON", "allow bpf(2) in the security module (SELinux, AppArmor) or the seccomp filter that refuses it; before Linux 5.11 also LimitMEMLOCK=infinity", err)
	case errors.As(err, &types):
		return unavailable(ReasonBTF, "the kernel has no type information (BTF)", "a kernel with CONFIG_DEBUG_INFO_BTF=y, as the distributions build it", err)
	case errors.Is(err, unix.ENOSYS), errors.Is(err, ebpf.ErrNotSupported):
		return unavailable(ReasonKernel, "the kernel lacks what the programs need", "Linux 5.8 or later with CONFIG_BPF_SYSCALL=y", err)
	}
	return unavailable(ReasonFailed, "the programs could not be loaded", "", err)
}

func unavailable(r Reason, what, mend string, err error) *Unavailable {
	return &Unavailable{Source: "ebpf", Reason: r, What: what, Mend: mend, Err: err}
}

func ownCapabilities() (uint64, error) {
	var data [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("read own capabilities: %w", err)
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), nil
}

// lockdownMode is the word in brackets.
func lockdownMode() string {
	b, err := os.ReadFile("/sys/kernel/security/lockdown")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(b), "[")
	mode, _, _ := strings.Cut(rest, "]")
	return mode
}
