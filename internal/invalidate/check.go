package invalidate

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walkey/internal/cdc"
)

// Severity says how bad a Finding is.
type Severity string

// The severities.
const (
	// Warning: every change still deletes its keys, though with more deletes than would be needed.
	Warning Severity = "warning"
	// Failure: changes do not reach the stream, or the database refuses them, or a rule names what is not there.
	Failure Severity = "failure"
)

// Finding is something between rules, tables and publication that a person should mend.
type Finding struct {
	Severity Severity `json:"severity"`
	Subject  string   `json:"subject"` // the publication, or one or more tables, as SQL names them
	Problem  string   `json:"problem"`
	SQL      string   `json:"sql,omitempty"` // mends it; empty when SQL is not what it takes
}

// Check compares the rules with the tables that they name and with the publication, and gives what should be mended, the
// same each time. It only reads, and needs no right beyond connecting.
func Check(ctx context.Context, conn *pgx.Conn, rules *Rules, publication string) ([]Finding, error) {
	c, err := readCatalog(ctx, conn, rules.Tables(), publication)
	if err != nil {
		return nil, err
	}
	return c.judge(rules, publication).findings, nil
}

// judgement is what follows from a catalog.
type judgement struct {
	findings []Finding
	// uncovered are the tables of which not every change reaches the stream.
	uncovered map[cdc.Table]bool
	// absent are relations that the publication lacks and could take.
	absent []cdc.Table
}

// judge compares the rules with the catalog.
func (c *catalog) judge(rules *Rules, publication string) judgement {
	j := judgement{uncovered: map[cdc.Table]bool{}}
	tables := rules.Tables()
	if c.publication == nil {
		var names []string
		for _, t := range tables {
			names = append(names, quoted(t))
			j.uncovered[t] = c.tables[t] != nil
		}
		j.add(Failure, identifier(publication), "the publication does not exist", fmt.Sprintf(
			"CREATE PUBLICATION %s FOR TABLE %s WITH (publish_via_partition_root = true);", identifier(publication), strings.Join(names, ", ")))
	} else {
		c.judgeKinds(&j, tables)
	}
	roots := c.roots()
	for _, t := range tables {
		f := c.tables[t]
		if f == nil {
			j.add(Failure, quoted(t), "the table does not exist", "")
			continue
		}
		rule := rules.tables[t]
		first := len(j.findings)
		c.judgeColumns(&j, rule, f)
		for i := range f.nodes {
			n := &f.nodes[i]
			if !n.stores() {
				continue
			}
			if c.publication != nil {
				c.judgePublished(&j, rule, f, n, roots)
			}
			judgeIdentity(&j, rule, f, n)
		}
		j.findings = append(j.findings[:first], merge(j.findings[first:])...)
	}
	return j
}

// merge makes one finding of those that say the same of several partitions.
func merge(findings []Finding) []Finding {
	const most = 3 // subjects that are named
	type problem struct {
		severity Severity
		text     string
	}
	var merged []Finding
	places, subjects := map[problem]int{}, map[problem]int{}
	statements := map[problem][]string{}
	for _, f := range findings {
		p := problem{f.Severity, f.Problem}
		i, known := places[p]
		if !known {
			i = len(merged)
			places[p] = i
			merged = append(merged, f)
		} else if subjects[p] < most {
			merged[i].Subject += ", " + f.Subject
		}
		subjects[p]++
		if f.SQL != "" && !slices.Contains(statements[p], f.SQL) {
			statements[p] = append(statements[p], f.SQL)
		}
	}
	for p, i := range places {
		if more := subjects[p] - most; more > 0 {
			merged[i].Subject += fmt.Sprintf(" and %d more", more)
		}
		merged[i].SQL = strings.Join(statements[p], " ")
	}
	return merged
}

func (j *judgement) add(severity Severity, subject, problem, sql string) {
	f := Finding{Severity: severity, Subject: subject, Problem: problem, SQL: sql}
	if !slices.Contains(j.findings, f) {
		j.findings = append(j.findings, f)
	}
}

// uncover notes that changes of the rule's table are not all sent.
func (j *judgement) uncover(t cdc.Table, subject, problem, sql string) {
	j.uncovered[t] = true
	j.add(Failure, subject, problem, sql)
}

// judgeKinds looks at the kinds of change that the publication sends.
func (c *catalog) judgeKinds(j *judgement, tables []cdc.Table) {
	p := c.publication
	sql := fmt.Sprintf("ALTER PUBLICATION %s SET (publish = 'insert, update, delete, truncate');", identifier(p.name))
	if !p.insert || !p.update || !p.delete {
		j.add(Failure, identifier(p.name), "the publication does not send every kind of change", sql)
		for _, t := range tables {
			j.uncovered[t] = j.uncovered[t] || c.tables[t] != nil
		}
	} else if !p.truncate {
		j.add(Warning, identifier(p.name), "the publication does not send TRUNCATE, which is noticed by looking at the catalog alone", sql)
	}
}

// judgeColumns looks for columns of the rule that the table lacks or that no publication sends.
func (c *catalog) judgeColumns(j *judgement, rule *tableRule, f *tableFacts) {
	for _, name := range rule.wanted {
		i := slices.IndexFunc(f.columns, func(col columnFacts) bool { return col.name == name })
		switch {
		case i < 0:
			j.add(Failure, quoted(rule.table), fmt.Sprintf("the table has no column %s, which a rule reads", identifier(name)), "")
		case f.columns[i].generated == "v":
			j.add(Warning, quoted(rule.table), fmt.Sprintf("column %s is a virtual one, whose values are never sent: each change deletes every key that the rule makes of it",
				identifier(name)), "")
		case f.columns[i].generated == "s" && c.publication != nil && !c.publication.storedG:
			sql := ""
			if c.version >= 180000 {
				sql = fmt.Sprintf("ALTER PUBLICATION %s SET (publish_generated_columns = stored);", identifier(c.publication.name))
			}
			j.add(Warning, quoted(rule.table), fmt.Sprintf("column %s is a generated one, whose values are not sent: each change deletes every key that the rule makes of it",
				identifier(name)), sql)
		}
	}
}

// judgePublished looks whether, and as what, the changes of a relation are sent.
func (c *catalog) judgePublished(j *judgement, rule *tableRule, f *tableFacts, n *node, roots map[uint32]cdc.Table) {
	p := c.publication
	as, _ := p.published(n)
	switch {
	case n.kind == "f":
		j.uncover(rule.table, quoted(n.name), "the table is a foreign one, whose changes are made elsewhere", "")
		return
	case n.persistence != "p":
		j.uncover(rule.table, quoted(n.name), "the table is unlogged, so that its changes are never sent",
			fmt.Sprintf("ALTER TABLE %s SET LOGGED;", quoted(n.name)))
		return
	case as == 0:
		whole := n.name
		if slices.Contains(n.ancestors, f.top().oid) {
			whole = rule.table // with all its partitions
		}
		j.uncover(rule.table, quoted(n.name), fmt.Sprintf("the table is not in publication %s", identifier(p.name)),
			fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s;", identifier(p.name), quoted(whole)))
		// Published without an identity, its updates and deletes would be refused.
		refused := slices.ContainsFunc(f.nodes, func(n node) bool { return n.stores() && n.identity != "f" && len(n.key) == 0 })
		if !refused && !slices.Contains(j.absent, whole) {
			j.absent = append(j.absent, whole)
		}
		return
	case roots[as] != rule.table:
		how := fmt.Sprintf("ALTER PUBLICATION %s SET (publish_via_partition_root = false);", identifier(p.name))
		if as == n.oid {
			how = ""
		}
		j.uncover(rule.table, quoted(n.name), fmt.Sprintf("its changes do not come under the name of %s, but of another table", quoted(rule.table)), how)
		return
	}
	if m := p.members[as]; !p.allTables {
		c.judgeMember(j, rule, n, m)
	}
	if i := slices.IndexFunc(f.nodes, func(o node) bool { return o.oid == as }); i >= 0 && as != n.oid {
		for _, column := range rule.wanted {
			// The stream describes rows by the root's identity, although it has what the partition's own gave.
			if f.nodes[i].identifies(column) && !n.identifies(column) {
				j.uncover(rule.table, quoted(n.name), fmt.Sprintf("the partition's replica identity lacks column %s, which that of %s has: old values come as NULL",
					identifier(column), quoted(f.nodes[i].name)), fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL;", quoted(n.name)))
				break
			}
		}
	}
}

// judgeMember looks at what a membership keeps back.
func (c *catalog) judgeMember(j *judgement, rule *tableRule, n *node, m member) {
	p := identifier(c.publication.name)
	again := fmt.Sprintf("ALTER PUBLICATION %s DROP TABLE %s; ALTER PUBLICATION %s ADD TABLE %s;", p, quoted(n.name), p, quoted(n.name))
	if c.publication.viaRoot {
		again = fmt.Sprintf("ALTER PUBLICATION %s DROP TABLE %s; ALTER PUBLICATION %s ADD TABLE %s;", p, quoted(rule.table), p, quoted(rule.table))
	}
	if m.filtered {
		j.uncover(rule.table, quoted(n.name), fmt.Sprintf("publication %s keeps back rows of it (WHERE)", p), again)
	}
	if m.columns == nil {
		return
	}
	for _, column := range n.key {
		if n.identity != "f" && !slices.Contains(m.columns, column) {
			j.add(Failure, quoted(n.name), fmt.Sprintf("the column list in publication %s lacks %s, so that the database refuses updates and deletes", p, identifier(column)), again)
		}
	}
	if n.identity == "f" {
		j.add(Failure, quoted(n.name), fmt.Sprintf("a column list in publication %s does not go with REPLICA IDENTITY FULL: the database refuses updates and deletes", p), again)
	}
	for _, column := range rule.wanted {
		if !slices.Contains(m.columns, column) {
			j.add(Warning, quoted(n.name), fmt.Sprintf("the column list in publication %s lacks %s: each change deletes every key that the rule makes of it",
				p, identifier(column)), again)
		}
	}
}

// judgeIdentity looks at which old values the database sends.
func judgeIdentity(j *judgement, rule *tableRule, f *tableFacts, n *node) {
	full := fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL;", quoted(n.name))
	if n.identity != "f" && len(n.key) == 0 {
		j.add(Failure, quoted(n.name), "the table has no replica identity: the database refuses its updates and deletes as long as it is published", full)
		return
	}
	for _, column := range rule.wanted {
		known := slices.ContainsFunc(f.columns, func(col columnFacts) bool { return col.name == column && col.generated != "v" })
		if known && !n.identifies(column) {
			j.add(Warning, quoted(n.name), fmt.Sprintf(
				"column %s is not part of the replica identity, so that its old value is not sent: updates and deletes take every key that the rule makes of it",
				identifier(column)), full)
		}
	}
}

// sorted gives the tables that are uncovered.
func (j *judgement) sorted() []cdc.Table {
	maps.DeleteFunc(j.uncovered, func(_ cdc.Table, uncovered bool) bool { return !uncovered })
	return slices.SortedFunc(maps.Keys(j.uncovered), func(a, b cdc.Table) int { return strings.Compare(a.String(), b.String()) })
}

func identifier(name string) string { return pgx.Identifier{name}.Sanitize() }

func quoted(t cdc.Table) string { return pgx.Identifier{t.Schema, t.Name}.Sanitize() }
