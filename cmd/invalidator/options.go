package main

import (
	"regexp"

	"walkey/internal/invalidate"
	"walkey/internal/program"
)

// names is the group of options that name what the invalidator has in Postgres.
type names struct {
	SlotName        string `env:"SLOT_NAME" default:"walkey" placeholder:"NAME" help:"Replication slot."`
	PublicationName string `env:"PUBLICATION_NAME" default:"walkey" placeholder:"NAME" help:"Publication of the tables of the rules."`
}

// serving is the group of options that name where the invalidator serves, and is asked.
type serving struct {
	InvalidatorAddr program.Address `env:"INVALIDATOR_ADDR" default:":8081" placeholder:"ADDRESS" help:"Where health, metrics, /loglevel and the dashboard are served, and where status and tail ask. Not for the public."`
}

// slotNames are the names that Postgres takes for a slot, without quoting.
var slotNames = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// Check implements [program.Checker].
func (n *names) Check(p *program.Problems) {
	if !slotNames.MatchString(n.SlotName) {
		p.Add("SLOT_NAME", "%q is no slot name; use up to 63 of a-z, 0-9 and _", n.SlotName)
	}
	if n.PublicationName == "" || len(n.PublicationName) > 63 {
		p.Add("PUBLICATION_NAME", "%q is no publication name; use 1 to 63 characters", n.PublicationName)
	}
}

// rules is the group of options that name the rules.
type rules struct {
	RulesFile string `env:"RULES_FILE" placeholder:"FILE" help:"YAML file that says which row changes delete which keys; read anew when it changes. Default: built-in rules for public.materials and public.editors."`

	parsed *invalidate.Rules
}

// load reads the rules. Their keys begin with the prefix, which is another group's.
func (r *rules) load(p *program.Problems, prefix string) {
	var err error
	if r.parsed, err = invalidate.LoadRules(r.RulesFile, prefix); err != nil {
		p.Add("RULES_FILE", "%v", err)
	}
}
