package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

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
	commands := completions(ps.kong.Model)
	script := map[string]func([]completion) string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}[c.Shell]
	return write(p.stdout, script(commands))
}

// completion is what can follow one command. The empty path is the program's own.
type completion struct {
	path  string // "store verify"
	help  string
	words []completionWord // commands and positional values
	flags []completionFlag
}

type completionWord struct{ word, help string }

type completionFlag struct {
	name    string // with its dashes
	short   string // with its dash; empty if there is none
	help    string
	value   bool     // takes one
	choices []string // of the value, if they are known
	path    bool     // the value is a path
}

// completions walks the grammar.
func completions(app *kong.Application) []completion {
	var all []completion
	_ = kong.Visit(app, func(v kong.Visitable, next kong.Next) error { // the visitor returns no error
		switch node := v.(type) {
		case *kong.Application:
			all = append(all, completionOf(node.Node, ""))
		case *kong.Node:
			if node.Type == kong.CommandNode {
				path := strings.TrimPrefix(node.Path(), app.Name+" ")
				all = append(all, completionOf(node, path))
			}
		}
		return next(nil)
	})
	return all
}

func completionOf(node *kong.Node, path string) completion {
	c := completion{path: path, help: node.Help}
	for _, child := range node.Children {
		c.words = append(c.words, completionWord{child.Name, child.Help})
	}
	for _, arg := range node.Positional {
		for _, choice := range arg.EnumSlice() {
			c.words = append(c.words, completionWord{choice, arg.Help})
		}
	}
	flags := slices.Concat(node.AllFlags(true)...)
	if node.DefaultCmd != nil {
		flags = append(flags, node.DefaultCmd.Flags...)
	}
	for _, flag := range flags {
		c.flags = append(c.flags, completionFlagOf(flag))
	}
	return c
}

func completionFlagOf(flag *kong.Flag) completionFlag {
	f := completionFlag{
		name: "--" + flag.Name, help: flag.Help, value: !flag.IsBool() && !flag.IsCounter(),
		path: flag.PlaceHolder == "PATH" || flag.PlaceHolder == "FILE",
	}
	if flag.Short != 0 {
		f.short = "-" + string(flag.Short)
	}
	if flag.Enum != "" {
		f.choices = flag.EnumSlice()
	}
	for _, s := range settings.Table() {
		if s.Name == flag.Name {
			f.choices = s.Choices
		}
	}
	return f
}

// at is a pattern of the shells for the place after a flag, in any of its forms.
func (c completion) at(f completionFlag) string {
	pattern := shellQuote(c.path + "/" + f.name)
	if f.short != "" {
		pattern += "|" + shellQuote(c.path+"/"+f.short)
	}
	return pattern
}

func (c completion) next() []string {
	var next []string
	for _, w := range c.words {
		next = append(next, w.word)
	}
	for _, f := range c.flags {
		next = append(next, f.name)
	}
	return next
}

func bashCompletion(all []completion) string {
	var b strings.Builder
	b.WriteString(`# bash completion of procmond
_procmond() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} path="" word i joined=""
    COMPREPLY=()
    # --flag=value is three words where = divides words, else one.
    if [[ $cur == "=" && $prev == --* ]]; then
        cur=""
    elif [[ $prev == "=" && ${COMP_WORDS[COMP_CWORD-2]} == --* ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    elif [[ $cur == --*=* ]]; then
        joined=${cur%%=*}= prev=${cur%%=*} cur=${cur#*=}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case "$path/$word" in
`)
	for _, c := range all {
		if c.path == "" {
			continue
		}
		parent, name := "", c.path
		if i := strings.LastIndexByte(c.path, ' '); i >= 0 {
			parent, name = c.path[:i], c.path[i+1:]
		}
		fmt.Fprintf(&b, "            %q) path=%q ;;\n", parent+"/"+name, c.path)
	}
	b.WriteString("        esac\n    done\n    case \"$path/$prev\" in\n")
	for _, c := range all {
		for _, f := range c.flags {
			switch {
			case len(f.choices) > 0:
				fmt.Fprintf(&b, "        %s) COMPREPLY=($(compgen -P \"$joined\" -W %q -- \"$cur\")); return ;;\n", c.at(f), strings.Join(f.choices, " "))
			case f.path:
				fmt.Fprintf(&b, "        %s) COMPREPLY=($(compgen -P \"$joined\" -f -- \"$cur\")); return ;;\n", c.at(f))
			case f.value:
				fmt.Fprintf(&b, "        %s) return ;;\n", c.at(f))
			}
		}
	}
	b.WriteString("    esac\n    case \"$path\" in\n")
	for _, c := range all {
		fmt.Fprintf(&b, "        %q) COMPREPLY=($(compgen -W %q -- \"$cur\")) ;;\n", c.path, strings.Join(c.next(), " "))
	}
	b.WriteString("    esac\n}\ncomplete -F _procmond procmond\n")
	return b.String()
}

func zshCompletion(all []completion) string {
	var b strings.Builder
	b.WriteString(`#compdef procmond
# zsh completion of procmond
_procmond() {
    local path_="" word i
    for ((i = 2; i < CURRENT; i++)); do
        word=${words[i]}
        case "$path_/$word" in
`)
	for _, c := range all {
		if i := strings.LastIndexByte(c.path, ' '); c.path != "" {
			parent := c.path[:max(i, 0)]
			fmt.Fprintf(&b, "            %s) path_=%s ;;\n", shellQuote(parent+"/"+c.path[i+1:]), shellQuote(c.path))
		}
	}
	b.WriteString(`        esac
    done
    local prev=${words[CURRENT-1]}
    if [[ ${words[CURRENT]} == --*=* ]]; then
        prev=${words[CURRENT]%%=*}
        compset -P '*='
    fi
    case "$path_/$prev" in
`)
	for _, c := range all {
		for _, f := range c.flags {
			switch {
			case len(f.choices) > 0:
				fmt.Fprintf(&b, "        %s) compadd -- %s; return ;;\n", c.at(f), strings.Join(f.choices, " "))
			case f.path:
				fmt.Fprintf(&b, "        %s) _files; return ;;\n", c.at(f))
			case f.value:
				fmt.Fprintf(&b, "        %s) return ;;\n", c.at(f))
			}
		}
	}
	b.WriteString("    esac\n    local -a next\n    case \"$path_\" in\n")
	for _, c := range all {
		fmt.Fprintf(&b, "        %s) next=(", shellQuote(c.path))
		for _, w := range c.words {
			b.WriteString(" " + shellQuote(w.word+":"+w.help))
		}
		for _, f := range c.flags {
			b.WriteString(" " + shellQuote(f.name+":"+f.help))
		}
		b.WriteString(" ) ;;\n")
	}
	b.WriteString("    esac\n    _describe -V procmond next\n}\nif [ \"$funcstack[1]\" = _procmond ]; then _procmond \"$@\"; else compdef _procmond procmond; fi\n")
	return b.String()
}

func fishCompletion(all []completion) string {
	var b strings.Builder
	b.WriteString("# fish completion of procmond\ncomplete -c procmond -f\n")
	for _, c := range all {
		condition := fishCondition(all, c)
		for _, w := range c.words {
			fmt.Fprintf(&b, "complete -c procmond -n %s -a %s -d %s\n", shellQuote(condition), shellQuote(w.word), shellQuote(w.help))
		}
		for _, f := range c.flags {
			fmt.Fprintf(&b, "complete -c procmond -n %s -l %s -d %s", shellQuote(condition), strings.TrimPrefix(f.name, "--"), shellQuote(f.help))
			if f.short != "" {
				b.WriteString(" -s " + strings.TrimPrefix(f.short, "-"))
			}
			switch {
			case len(f.choices) > 0:
				fmt.Fprintf(&b, " -x -a %s", shellQuote(strings.Join(f.choices, " ")))
			case f.path:
				b.WriteString(" -r -F")
			case f.value:
				b.WriteString(" -x")
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// fishCondition holds where exactly this command stands on the line.
func fishCondition(all []completion, c completion) string {
	var conditions []string
	for _, word := range strings.Fields(c.path) {
		conditions = append(conditions, "__fish_seen_subcommand_from "+word)
	}
	var below []string
	for _, other := range all {
		if rest, ok := strings.CutPrefix(other.path, strings.TrimPrefix(c.path+" ", " ")); ok && rest != "" && !strings.Contains(rest, " ") {
			below = append(below, rest)
		}
	}
	if len(below) > 0 {
		conditions = append(conditions, "not __fish_seen_subcommand_from "+strings.Join(below, " "))
	}
	return strings.Join(conditions, "; and ")
}

// shellWord is s as one word of a shell, as it is where that can be.
func shellWord(s string) string {
	if regexp.MustCompile(`^[A-Za-z0-9/._+:@%,=-]+$`).MatchString(s) {
		return s
	}
	return shellQuote(s)
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
