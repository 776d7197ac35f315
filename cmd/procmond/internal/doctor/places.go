package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/supervisor/control"
)

// daemon says how the daemon is.
func (e *examiner) daemon() Check {
	c := Check{Name: "daemon", Status: Note}
	s := e.Daemon.State
	switch {
	case errors.Is(e.Daemon.Err, control.ErrForbidden), errors.Is(e.Daemon.Err, fs.ErrPermission):
		c.Finding = "This user may not ask the daemon, nor see whether there is one."
		c.Cost = "Half of these checks are about you, not about the daemon."
		c.Mend = "sudo procmond doctor"
	case s == nil:
		c.Status = Fail
		c.Finding = "The daemon can not be asked: " + errorText(e.Daemon.Err) + "."
		c.Cost, c.Mend = "Nobody knows how it is.", "procmond state"
	case s.Health == control.HealthNotRunning:
		c.Finding = "No daemon runs."
		c.Cost = "Nothing is recorded."
		c.Mend = "sudo systemctl enable --now procmond, or procmond in a terminal; `procmond service print --systemd` makes the unit"
	case s.Health == control.HealthHealthy:
		c.Status = Pass
		c.Finding = fmt.Sprintf("It is healthy, pid %d, %s.", s.PID, s.Mode)
	default:
		if s.Health != control.HealthDegraded {
			c.Status = Fail
		}
		c.Finding = fmt.Sprintf("It is %s, pid %d: %s", strings.ReplaceAll(s.Health, "_", " "), s.PID, strings.Join(s.Reasons, " "))
		c.Cost, c.Mend = "See the reasons.", "procmond state"
	}
	return c
}

func errorText(err error) string {
	if err == nil {
		return "no answer"
	}
	return err.Error()
}

func (e *examiner) configuration() Check {
	c := Check{Name: "configuration", Status: Pass, Finding: "Nothing is wrong, as far as this user's environment goes."}
	if len(e.Faults) > 0 {
		c.Status = Fail
		c.Finding = strings.Join(e.Faults, "; ")
		c.Cost = "A daemon does not start with it (exit code 78); a running one keeps what it has."
		c.Mend = "Correct what is named; docs/configuration.md has what is accepted."
	}
	return c
}

// store says who can read it, and whether it can be written.
func (e *examiner) store() Check {
	c := Check{Name: "store", Status: Pass}
	info, err := os.Stat(e.Database)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return e.futureStore(c)
	case errors.Is(err, fs.ErrPermission):
		c.Finding = fmt.Sprintf("%s is out of this user's sight.", e.Database)
	case err != nil:
		c.Status, c.Finding = Fail, errorText(err)
		c.Cost, c.Mend = "The daemon can not open it.", "ls -ld "+quote(e.Database)
	case !info.IsDir():
		c.Status, c.Finding = Fail, e.Database+" is not a directory."
		c.Cost, c.Mend = "The daemon does not start (exit code 65).", "procmond --database with another path"
	default:
		e.storeRights(&c, info)
	}
	return c
}

// storeRights judges who may look into the store.
func (e *examiner) storeRights(c *Check, info fs.FileInfo) {
	c.Finding = fmt.Sprintf("%s is of user %d, mode %04o.", e.Database, owner(info), info.Mode().Perm())
	if open := info.Mode().Perm() & 0o077; open != 0 && !private(filepath.Dir(e.Database)) {
		c.Status = Fail
		c.Cost = "Other users can look into it: arguments may hold secrets."
		c.Mend = "chmod -R go-rwx " + quote(e.Database)
		return
	}
	if e.Daemon.State != nil && !e.Daemon.State.Running && unix.Access(e.Database, unix.R_OK|unix.W_OK|unix.X_OK) != nil {
		c.Status = Note
		c.Cost = "A procmond that you start can not use it."
		c.Mend = "Start it as that user (root for a system service), or give another --database."
	}
}

// private reports whether nobody but its owner can pass through a directory.
func private(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.Mode().Perm()&0o077 == 0
}

// futureStore is about a store that does not exist yet.
func (e *examiner) futureStore(c Check) Check {
	dir := existingParent(e.Database)
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		c.Status = Note
		c.Finding = fmt.Sprintf("%s does not exist, and this user can not make it: %s: %v.", e.Database, dir, err)
		c.Cost = "A procmond that you start can not keep anything there."
		c.Mend = "Start it as root or as a service, or give another --database."
		return c
	}
	c.Finding = e.Database + " does not exist yet and can be made."
	return c
}

// existingParent is the nearest directory above path that exists.
func existingParent(path string) string {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
	}
}

// socket says whether the control socket keeps others out.
func (e *examiner) socket() Check {
	c := Check{Name: "control socket", Status: Pass}
	path, err := control.SocketPath(e.Database)
	if err != nil {
		c.Status, c.Finding = Fail, errorText(err)
		c.Cost, c.Mend = "The daemon can not be asked anything.", "procmond --database with a shorter path"
		return c
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		c.Finding = path + " is out of this user's sight."
	case err != nil:
		c.Finding = path + " is not there: it comes and goes with the daemon."
	case info.Mode().Type() != fs.ModeSocket:
		c.Status, c.Finding = Fail, path+" is not a socket."
		c.Cost, c.Mend = "The daemon can not be asked anything.", "Move it away: mv "+quote(path)+" "+quote(path+".aside")
	case info.Mode().Perm()&0o077 != 0 && !private(filepath.Dir(path)):
		c.Status = Fail
		c.Finding = fmt.Sprintf("%s has mode %04o.", path, info.Mode().Perm())
		c.Cost, c.Mend = "Other users can connect; they are refused by their user id alone.", "chmod 600 "+quote(path)
	default:
		c.Finding = fmt.Sprintf("%s is of user %d, mode %04o.", path, owner(info), info.Mode().Perm())
	}
	return c
}

// owner is the user whom a file belongs to, -1 if that is not known.
func owner(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Uid)
	}
	return -1
}

// agentPatience is how long the agent's broker may take to accept.
const agentPatience = 500 * time.Millisecond

// agent says whether the broker that is named can be reached.
func (e *examiner) agent(ctx context.Context) Check {
	c := Check{Name: "agent", Status: Pass, Finding: "None is named (" + rpc.EnvSocket + "): standalone, nothing is delivered."}
	socket, id := e.Broker, e.ID
	if s := e.Daemon.State; s != nil && s.Running && s.Link != nil {
		socket, id = s.Link.Socket, s.Link.ID
	}
	if socket == "" {
		return c
	}
	c.Cost = "Events wait in the store, at most --max-backlog of them; monitoring may wait too."
	ctx, cancel := context.WithTimeout(ctx, agentPatience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	switch {
	case errors.Is(err, fs.ErrPermission):
		c.Status, c.Finding, c.Mend = Fail, "This user may not connect to "+socket+".", "sudo procmond doctor; or daemoneye-agent run as the user that procmond runs as"
		return c
	case err != nil:
		c.Status, c.Finding, c.Mend = Fail, fmt.Sprintf("Nobody answers on %s: %v.", socket, cause(err)), "daemoneye-agent status, or daemoneye-agent run"
		return c
	}
	_ = conn.Close() // nothing was said
	secret := rpc.SecretPath(socket, id)
	f, err := os.Open(secret)
	if err != nil {
		c.Status, c.Finding, c.Mend = Fail, fmt.Sprintf("The broker listens on %s, but the secret %s can not be read: %v.", socket, secret, cause(err)),
			"daemoneye-agent enroll "+id+", and run procmond as a user who may read it"
		return c
	}
	_ = f.Close() // not even read
	c.Cost = ""
	c.Finding = "The broker listens on " + socket + ", and the secret of " + id + " is there."
	return c
}

// cause is the host's word, without what the sentence says already.
func cause(err error) error {
	if errno := unix.Errno(0); errors.As(err, &errno) {
		return errno
	}
	return err
}

// quote makes a path a word of a shell.
func quote(path string) string {
	if path != "" && strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+=:@%") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
