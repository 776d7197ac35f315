package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/bus/agent"
	"daemoneye.dev/procmond/bus/agent/warden"
)

// parentVariable tells the unprivileged child at which descriptor its parent is.
const parentVariable = envPrefix + "PARENT_FD"

// account is the user that the broker runs as.
type account struct {
	name, home string
	uid, gid   int
	groups     []uint32
}

// keepPrivileges is the life of the parent: it makes the directories, and runs this
// program again as the user.
func (r *agentRun) keepPrivileges() error {
	who, err := findAccount(r.user)
	if err != nil {
		return &exitError{code: exitConfiguration, err: fmt.Errorf("flag --user: %w", err)}
	}
	if r.uid != 0 && who.uid != r.uid {
		return &exitError{
			code: exitPermission, err: fmt.Errorf("flag --user: only root can run the broker as user %s", who.name),
			hint: "Run as root, or leave --user out.",
		}
	}
	if r.gid != noGroup && !slices.Contains(who.groups, uint32(r.gid)) {
		who.groups = append(who.groups, uint32(r.gid)) // so that the socket can be given to it
	}
	if err := r.giveAway(who); err != nil {
		return storageError(err)
	}
	self, err := selfPath()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	signals := make(chan os.Signal, 8) // a burst of signals is not lost while one is handled
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	cfg := warden.Config{
		Path: self, Argv: append([]string{program}, r.args...), Environ: r.childEnviron(who),
		Programs: agent.NewPrograms(r.collectors, r.environ, r.socket), Count: len(r.collectors),
		Signals: signals, Stop: agent.DefaultTiming().Stop, Log: r.log,
		Final:  func(code int) bool { return exitCode(code).final() },
		Forced: func(code int) bool { return exitCode(code) == exitForced },
	}
	if r.uid == 0 {
		cfg.Credential = &syscall.Credential{Uid: uint32(who.uid), Gid: uint32(who.gid), Groups: who.groups}
	}
	code, err := warden.Run(cfg)
	if err != nil {
		return err
	}
	return silently(exitCode(code))
}

// findAccount looks a user up, by name or by number.
func findAccount(name string) (*account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if _, atoiErr := strconv.ParseUint(name, 10, 32); atoiErr == nil {
			u, err = user.LookupId(name)
		}
	}
	if err != nil {
		return nil, err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("find groups of %s: %w", name, err)
	}
	who := &account{name: u.Username, home: u.HomeDir}
	var uidErr, gidErr error
	who.uid, uidErr = strconv.Atoi(u.Uid)
	who.gid, gidErr = strconv.Atoi(u.Gid)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return nil, fmt.Errorf("read numbers of %s: %w", name, err)
	}
	for _, id := range ids {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("find groups of %s: %w", name, err)
		}
		who.groups = append(who.groups, uint32(n))
	}
	return who, nil
}

// giveAway makes the directories that the child needs, and makes them the user's.
func (r *agentRun) giveAway(who *account) error {
	gid := who.gid
	if r.gid != noGroup {
		gid = r.gid
	}
	socketDir := filepath.Dir(r.socket)
	return errors.Join(
		giveDir(socketDir, who.uid, gid, r.socketDirMode()),
		giveDir(filepath.Join(socketDir, "secrets"), who.uid, who.gid, 0o700),
		giveDir(r.store, who.uid, who.gid, 0o700),
	)
}

// giveDir makes a directory and gives it to a user. It follows no link at its end, and
// touches nothing in it: who could put a link there must not be given what it leads to.
func giveDir(dir string, uid, gid int, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory: %w", err)
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	if info, err := f.Stat(); err == nil && ownedBy(info, uid) {
		return nil // the user's already: what it may do to it, it may
	}
	if sharedDir(dir) {
		return &exitError{
			code: exitConfiguration, err: fmt.Errorf("%s belongs to the whole system, and is not given to a user", dir),
			hint: "Give a directory of its own with --socket or --store.",
		}
	}
	if err := f.Chmod(mode); err != nil {
		return fmt.Errorf("prepare directory: %w", err)
	}
	if err := f.Chown(uid, gid); err != nil {
		return fmt.Errorf("prepare directory: %w", err)
	}
	return nil
}

func ownedBy(info fs.FileInfo, uid int) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == uid
}

// sharedDir reports whether a directory is one that other programs use too: a mistake
// in --socket must not give /tmp or a home directory away.
func sharedDir(dir string) bool {
	parts := strings.Split(strings.Trim(filepath.Clean(dir), "/"), "/")
	return len(parts) == 1 || len(parts) == 2 && slices.Contains([]string{"dev", "etc", "home", "usr", "var"}, parts[0])
}

// childEnviron is the environment of the child: what names this user's places is left
// out, and what was settled here is told.
func (r *agentRun) childEnviron(who *account) []string {
	settled := []string{
		envPrefix + "SOCKET=" + r.socket, envPrefix + "STORE=" + r.store, parentVariable + "=" + strconv.Itoa(warden.ChildFD),
		"HOME=" + who.home, "USER=" + who.name, "LOGNAME=" + who.name,
	}
	environ := slices.DeleteFunc(slices.Clone(r.environ), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return strings.HasPrefix(name, "XDG_") || slices.ContainsFunc(settled, func(s string) bool { return strings.HasPrefix(s, name+"=") })
	})
	return append(environ, settled...)
}
