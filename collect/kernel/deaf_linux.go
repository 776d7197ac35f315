package kernel

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// What the connector needs of the host, beyond what can be looked at. Where it is not
// so the kernel refuses, or says nothing at all.
const (
	mendPID     = "run it in the host's PID namespace: --pid=host (docker, podman), hostPID: true (Kubernetes), no PrivatePIDs= in the systemd unit"
	mendTime    = "run it in the host's time namespace"
	mendUser    = "run it in the host's user namespace: --userns=host, and not rootless (docker, podman), hostUsers: true (Kubernetes), no PrivateUsers= in the systemd unit"
	mendNetwork = "run it in the host's network namespace: --network=host (docker, podman), hostNetwork: true (Kubernetes), no PrivateNetwork= in the systemd unit"
	mendAdmin   = "grant CAP_NET_ADMIN: AmbientCapabilities=CAP_NET_ADMIN in the systemd unit, --cap-add=NET_ADMIN (docker, podman), capabilities.add: [NET_ADMIN] (Kubernetes); since Linux 6.6 it takes none"
)

// deafNamespaces are those in which the kernel ignores who asks, without a word, or
// tells what does not fit the namespace's own /proc.
var deafNamespaces = []initialNamespace{
	{
		"pid", inodePID, "the daemon is in a PID namespace of its own, where the kernel does not answer",
		mendPID,
	},
	{
		"time", inodeTime, "the daemon is in a time namespace of its own, where times are not those that the kernel tells of",
		mendTime,
	},
	{
		"user", inodeUser, "the daemon is in a user namespace of its own, where the kernel does not answer",
		mendUser,
	},
}

// Inodes of the initial namespaces, which never change, from the kernel's proc_ns.h.
const (
	inodePID  = 0xEFFFFFFC
	inodeUser = 0xEFFFFFFD
	inodeTime = 0xEFFFFFFA
)

// initialNamespace is one that a source must be in.
type initialNamespace struct {
	name       string
	inode      uint64
	what, mend string
}

// checkNamespaces returns why the source can not be used in a namespace of the daemon.
func checkNamespaces(source string, needed []initialNamespace, own func(name string) (inode uint64, err error)) error {
	for _, ns := range needed {
		inode, err := own(ns.name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // this kernel has no such namespaces
		case err != nil:
			return &Unavailable{Source: source, Reason: ReasonFailed, What: "can not tell which namespaces the daemon is in", Err: err}
		case inode != ns.inode:
			return &Unavailable{Source: source, Reason: ReasonNamespace, What: ns.what, Mend: ns.mend}
		}
	}
	return nil
}

func deaf(r Reason, what, mend string, err error) error {
	return &Unavailable{Source: "connector", Reason: r, What: what, Mend: mend, Err: err}
}

// explainSocket says why there is no socket.
func explainSocket(err error) error {
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT):
		return deaf(ReasonKernel, "the kernel has no connector", "a kernel with CONFIG_CONNECTOR=y and CONFIG_PROC_EVENTS=y", err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.EAFNOSUPPORT):
		return deaf(ReasonRefused, "the host refuses netlink sockets",
			"allow them in the security module (SELinux, AppArmor) or the seccomp filter that refuses them: RestrictAddressFamilies= in the systemd unit must have AF_NETLINK", err)
	}
	return deaf(ReasonFailed, "the socket could not be made", "", err)
}

// explainSubscription says why the kernel does not tell.
func explainSubscription(err error) error {
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return deaf(ReasonNamespace, "the daemon is in a network namespace of its own, where nothing is told", mendNetwork, err)
	case errors.Is(err, unix.EPERM):
		return deaf(ReasonRights, "the daemon has no CAP_NET_ADMIN, which this kernel wants for it", mendAdmin, err)
	case errors.Is(err, unix.EACCES):
		return deaf(ReasonRefused, "a security module of the host refuses it", "allow netlink_connector_socket in the policy (SELinux)", err)
	}
	return deaf(ReasonFailed, "the kernel could not be asked", "", err)
}

func ownNamespace(name string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/"+name, &st); err != nil {
		return 0, fmt.Errorf("look at namespace %s: %w", name, err)
	}
	return st.Ino, nil
}
