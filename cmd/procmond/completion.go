package main

import (
	"context"

	"daemoneye.dev/procmond/cmd/internal/cli"
	"daemoneye.dev/procmond/cmd/procmond/internal/settings"
)

// completionCommand prints a script that is made from the grammar itself.
type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is what kong shows besides the flags.
func (completionCommand) Help() string {
	return `Examples:

  source <(procmond completion bash)

  procmond completion zsh > "${fpath[1]}/_procmond"

  procmond completion fish > ~/.config/fish/completions/procmond.fish`
}

func (c *completionCommand) run(_ context.Context, p invocation) error {
	ps, err := newParser(p)
	if err != nil {
		return err
	}
	return cli.Write(p.stdout, cli.Completion(c.Shell, ps.kong.Model, settingChoices))
}

// settingChoices are the values of a setting, where they can be listed.
func settingChoices(flag string) []string {
	for _, s := range settings.Table() {
		if s.Name == flag {
			return s.Choices
		}
	}
	return nil
}
