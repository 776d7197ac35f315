package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"daemoneye.dev/procmond/bus/broker"
	"daemoneye.dev/procmond/bus/rpc"
	"daemoneye.dev/procmond/cmd/internal/cli"
)

// enrollCommand makes secrets, whether an agent runs or not: they are files beside its
// socket.
type enrollCommand struct {
	clientFlags
	ID     string `arg:"" optional:"" help:"Id of the collector."`
	Group  string `placeholder:"NAME" help:"Let this group read the secret."`
	Rotate bool   `help:"Replace a secret that is there. Whoever is connected stays so."`
	Reader string `placeholder:"NAME" help:"Enroll a reader of events instead: it may consume the stream, and nothing else."`
}

// Help is what kong shows besides the flags.
func (enrollCommand) Help() string {
	return `Collectors that the agent starts or expects need none of this. A secret that is there is kept, but with --rotate.

Examples:

  daemoneye-agent enroll web-1 --group monitoring

  daemoneye-agent enroll --reader siem`
}

func (c *enrollCommand) run(_ context.Context, p invocation) error {
	name := c.ID
	switch {
	case (c.ID == "") == (c.Reader == ""):
		return &exitError{code: exitUsage, err: errors.New("enroll: give either an ID or --reader NAME")}
	case c.Reader != "":
		name = c.Reader
	}
	if err := rpc.ValidID(name); err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	gid, err := groupID(c.Group)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	socket, err := p.enrollSocket(&c.clientFlags)
	if err != nil {
		return err
	}
	who := c.ID
	if c.Reader != "" {
		who = rpc.ReaderUser(c.Reader)
	}
	if err := p.becomeOwner(filepath.Dir(socket), gid); err != nil {
		return err
	}
	path := rpc.SecretPath(socket, who)
	err = enroll(socket, who, gid, c.Rotate)
	if errors.Is(err, fs.ErrExist) {
		return cli.Write(p.stdout, fmt.Sprintf("%s was enrolled already; its secret: %s\n", name, path))
	}
	if errors.Is(err, broker.ErrSecretUnsafe) {
		return &exitError{code: exitPermission, err: err, hint: "Run it as the user that the agent runs as."}
	}
	if err != nil {
		return storageError(err)
	}
	return cli.Write(p.stdout, fmt.Sprintf("%s is enrolled; its secret: %s\n", name, path))
}

// enrollSocket is the socket beside which secrets lie: of the agent that is there, or
// else that a run would have.
func (p invocation) enrollSocket(f *clientFlags) (string, error) {
	sockets, err := p.clientSockets(f.Socket)
	if err != nil {
		return "", err
	}
	for _, socket := range sockets {
		if info, err := os.Stat(filepath.Join(filepath.Dir(socket), "secrets")); err == nil && info.IsDir() {
			return socket, nil
		}
	}
	socket, err := p.agentSocket(&options{socket: sockets[0]})
	if err != nil {
		return "", err
	}
	return socket, p.makeDir(filepath.Dir(socket), 0o700)
}

// becomeOwner makes root the user whose agent it is (see run --user), who is also one
// of the group: a secret of root's would be of no use to that agent, and a directory of
// another's is no place for root to write in.
func (p invocation) becomeOwner(dir string, gid int) error {
	info, err := os.Stat(dir)
	if err != nil {
		return storageError(fmt.Errorf("look at the directory of the socket: %w", err))
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if p.uid != 0 || !ok || owner.Uid == 0 {
		return nil
	}
	groups := []int{}
	if gid != noGroup {
		groups = append(groups, gid)
	}
	if err := syscall.Setgroups(groups); err != nil {
		return fmt.Errorf("become user %d: leave groups: %w", owner.Uid, err)
	}
	if err := syscall.Setgid(int(owner.Gid)); err != nil {
		return fmt.Errorf("become user %d: leave group: %w", owner.Uid, err)
	}
	if err := syscall.Setuid(int(owner.Uid)); err != nil {
		return fmt.Errorf("become user %d: %w", owner.Uid, err)
	}
	return nil
}

// noGroup stands for none where a group's number is.
const noGroup = -1

// groupID is the number of a group, noGroup for "".
func groupID(name string) (int, error) {
	if name == "" {
		return noGroup, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		if _, atoiErr := strconv.ParseUint(name, 10, 32); atoiErr == nil {
			g, err = user.LookupGroupId(name)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("flag --group: %w", err)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return 0, fmt.Errorf("flag --group: group %s: %w", name, err)
	}
	return gid, nil
}
