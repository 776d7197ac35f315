package cli

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Completion returns a script of bash, zsh or fish, made from the grammar of a
// program. choices are the values of a flag, where the grammar does not say them;
// nil if there are none.
func Completion(shell string, app *kong.Application, choices func(flag string) []string) string {
	c := completer{program: app.Name, choices: choices, all: nil}
	c.collect(app)
	switch shell {
	case "bash":
		return c.bash()
	case "zsh":
		return c.zsh()
	}
	return c.fish()
}

// completer writes the scripts for one program.
type completer struct {
	program string
	choices func(flag string) []string
	all     []completion
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

// collect walks the grammar.
func (p *completer) collect(app *kong.Application) {
	_ = kong.Visit(app, func(v kong.Visitable, next kong.Next) error { // the visitor returns no error
		switch node := v.(type) {
		case *kong.Application:
			p.all = append(p.all, p.of(node.Node, ""))
		case *kong.Node:
			if node.Type == kong.CommandNode {
				path := strings.TrimPrefix(node.Path(), app.Name+" ")
				p.all = append(p.all, p.of(node, path))
			}
		}
		return next(nil)
	})
}

func (p *completer) of(node *kong.Node, path string) completion {
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
		c.flags = append(c.flags, p.flag(flag))
	}
	return c
}

func (p *completer) flag(flag *kong.Flag) completionFlag {
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
	if known := p.choices(flag.Name); known != nil {
		f.choices = known
	}
	return f
}

// function is the name of the function that completes.
func (p *completer) function() string { return "_" + strings.ReplaceAll(p.program, "-", "_") }

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

func (p *completer) bash() string {
	var b strings.Builder
	b.WriteString("# bash completion of " + p.program + "\n" + p.function() + `() {
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
	for _, c := range p.all {
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
	for _, c := range p.all {
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
	for _, c := range p.all {
		fmt.Fprintf(&b, "        %q) COMPREPLY=($(compgen -W %q -- \"$cur\")) ;;\n", c.path, strings.Join(c.next(), " "))
	}
	b.WriteString("    esac\n}\ncomplete -F " + p.function() + " " + p.program + "\n")
	return b.String()
}

func (p *completer) zsh() string {
	var b strings.Builder
	b.WriteString("#compdef " + p.program + "\n# zsh completion of " + p.program + "\n" + p.function() + `() {
    local path_="" word i
    for ((i = 2; i < CURRENT; i++)); do
        word=${words[i]}
        case "$path_/$word" in
`)
	for _, c := range p.all {
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
	for _, c := range p.all {
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
	for _, c := range p.all {
		fmt.Fprintf(&b, "        %s) next=(", shellQuote(c.path))
		for _, w := range c.words {
			b.WriteString(" " + shellQuote(w.word+":"+w.help))
		}
		for _, f := range c.flags {
			b.WriteString(" " + shellQuote(f.name+":"+f.help))
		}
		b.WriteString(" ) ;;\n")
	}
	fmt.Fprintf(&b, "    esac\n    _describe -V %[1]s next\n}\nif [ \"$funcstack[1]\" = %[2]s ]; then %[2]s \"$@\"; else compdef %[2]s %[1]s; fi\n", p.program, p.function())
	return b.String()
}

func (p *completer) fish() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# fish completion of %[1]s\ncomplete -c %[1]s -f\n", p.program)
	for _, c := range p.all {
		condition := p.fishCondition(c)
		for _, w := range c.words {
			fmt.Fprintf(&b, "complete -c %s -n %s -a %s -d %s\n", p.program, shellQuote(condition), shellQuote(w.word), shellQuote(w.help))
		}
		for _, f := range c.flags {
			fmt.Fprintf(&b, "complete -c %s -n %s -l %s -d %s", p.program, shellQuote(condition), strings.TrimPrefix(f.name, "--"), shellQuote(f.help))
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
func (p *completer) fishCondition(c completion) string {
	var conditions []string
	for _, word := range strings.Fields(c.path) {
		conditions = append(conditions, "__fish_seen_subcommand_from "+word)
	}
	var below []string
	for _, other := range p.all {
		if rest, ok := strings.CutPrefix(other.path, strings.TrimPrefix(c.path+" ", " ")); ok && rest != "" && !strings.Contains(rest, " ") {
			below = append(below, rest)
		}
	}
	if len(below) > 0 {
		conditions = append(conditions, "not __fish_seen_subcommand_from "+strings.Join(below, " "))
	}
	return strings.Join(conditions, "; and ")
}

// ShellWord is s as one word of a shell, as it is where that can be.
func ShellWord(s string) string {
	if regexp.MustCompile(`^[A-Za-z0-9/._+:@%,=-]+$`).MatchString(s) {
		return s
	}
	return shellQuote(s)
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
