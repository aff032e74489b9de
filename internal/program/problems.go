package program

import (
	"fmt"
	"strings"
)

// Problems collects the mistakes of one configuration. It keeps one for each variable: the first, since a value that
// can't be read leads to others.
type Problems struct {
	flags  map[string]string // variable → flag
	lookup func(name string) (string, bool)
	named  map[string]bool
	lines  []string
}

// Add reports what is wrong with the value of a variable, or of a "--flag" that has none, and the way out.
func (p *Problems) Add(variable, format string, args ...any) {
	if p.named[variable] {
		return
	}
	p.named[variable] = true
	name := variable
	if flag := p.flags[variable]; flag != "" {
		name += " (--" + flag + ")"
	}
	p.lines = append(p.lines, name+": "+fmt.Sprintf(format, args...))
}

// Lookup gives the value of a variable that need not belong to a flag, from the environment or from .env.
func (p *Problems) Lookup(variable string) (string, bool) { return p.lookup(variable) }

// add reports a mistake of something that is not a variable.
func (p *Problems) add(line string) { p.lines = append(p.lines, line) }

func (p *Problems) err() error {
	switch len(p.lines) {
	case 0:
		return nil
	case 1:
		return &UsageError{Message: p.lines[0]}
	}
	return &UsageError{Message: fmt.Sprintf("%d mistakes in the configuration:\n  %s", len(p.lines), strings.Join(p.lines, "\n  "))}
}

// Checker is a group of options that can find mistakes in its own values. Check is called once all values are in place,
// whether or not some of them were mistaken.
type Checker interface {
	Check(p *Problems)
}
