package program

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// parse fills grammar from the command line and the environment, and gives the command that was chosen: none, and no error, when help was asked
// for and has been printed. Nothing of what it needs itself is kept while the command runs.
//
// kong stops at the first mistake and reads the environment of the process by itself; neither is wanted here. So kong
// keeps the grammar, the command line and the help, and variables, choices and mistakes are dealt with in this file.
func parse(p *Process, description string, grammar any) (Command, error) {
	k, err := kong.New(grammar, kong.Name(p.Name), kong.Description(description), kong.UsageOnError(),
		kong.Writers(p.Stdout, p.Stderr), kong.Help(printHelp), kong.ValueFormatter(describeFlag),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}))
	if err != nil {
		return nil, fmt.Errorf("describing the command line: %w", err)
	}
	in := newInput(p, k.Model)

	command, err := kong.Trace(k, p.Args)
	if err != nil {
		return nil, &UsageError{Message: err.Error()}
	}
	if helpWanted(command) {
		return nil, command.PrintUsage(false)
	}
	if command.Error != nil {
		in.problems.add(fmt.Sprintf("%v; see %s --help", command.Error, p.Name))
	}
	in.detach(command)
	if err := errors.Join(command.Reset(), command.Resolve()); err != nil {
		in.problems.add(err.Error())
	}
	if _, err := command.Apply(); err != nil {
		in.problems.add(err.Error())
	}
	if command.Error == nil {
		if err := complete(command); err != nil {
			in.problems.add(fmt.Sprintf("%v; see %s --help", err, p.Name))
		}
	}
	in.check(command)
	if err := in.problems.err(); err != nil {
		return nil, err
	}
	chosen, ok := command.Selected().Target.Addr().Interface().(Command)
	if !ok {
		return nil, fmt.Errorf("%s can't be run", command.Selected().Path())
	}
	return chosen, nil
}

func helpWanted(command *kong.Context) bool {
	return slices.ContainsFunc(command.Path, func(p *kong.Path) bool { return p.Flag != nil && p.Flag == command.Model.HelpFlag })
}

// printHelp adds the flags of the default command to the program's own help: they can be given without its name.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	if ctx.Selected() != nil || ctx.Model.DefaultCmd == nil {
		return nil
	}
	command, err := kong.Trace(ctx.Kong, []string{ctx.Model.DefaultCmd.Name})
	if err != nil {
		return fmt.Errorf("describing the default command: %w", err)
	}
	fmt.Fprintf(ctx.Stdout, "\nWithout a command, it does what %q does:\n\n", ctx.Model.DefaultCmd.Name)
	return kong.DefaultHelpPrinter(options, command)
}

// describeFlag puts a flag's variable and its default behind its help.
func describeFlag(value *kong.Value) string {
	var facts []string
	for _, variable := range value.Tag.Envs {
		facts = append(facts, "$"+variable)
	}
	if value.Default != "" {
		facts = append(facts, "default "+value.Default)
	}
	if len(facts) == 0 {
		return value.Help
	}
	return value.Help + " [" + strings.Join(facts, ", ") + "]"
}

// option is what the grammar says about one flag, kept from kong's sight.
type option struct {
	flag      *kong.Flag
	variables []string
	choices   []string
}

// input is one reading of the configuration.
type input struct {
	environment environment
	dotEnv      error // why .env can't be used
	options     map[*kong.Value]*option
	problems    *Problems
}

func newInput(p *Process, model *kong.Application) *input {
	in := &input{options: map[*kong.Value]*option{}}
	in.environment, in.dotEnv = newEnvironment(p)
	in.problems = &Problems{flags: map[string]string{}, named: map[string]bool{}, lookup: func(name string) (string, bool) {
		value, found, err := in.environment.lookup(name)
		return value, found || err != nil
	}}
	eachFlag(model.Node, func(flag *kong.Flag) {
		if flag == model.HelpFlag {
			return
		}
		o := &option{flag: flag, variables: flag.Tag.Envs}
		if flag.Enum != "" {
			o.choices = strings.Split(flag.Enum, ",")
		}
		for _, variable := range o.variables {
			in.problems.flags[variable] = flag.Name
		}
		in.options[flag.Value] = o
		flag.Mapper = lenientMapper{Mapper: flag.Mapper, in: in, option: o}
	})
	return in
}

func eachFlag(node *kong.Node, visit func(*kong.Flag)) {
	for _, flag := range node.Flags {
		visit(flag)
	}
	for _, child := range node.Children {
		eachFlag(child, visit)
	}
}

// detach takes variables and choices away from kong and gives the variables back by a resolver, which is asked only
// for the flags of the chosen command, and only for those that the command line does not give.
func (in *input) detach(command *kong.Context) {
	for _, o := range in.options {
		o.flag.Envs, o.flag.Tag.Envs = nil, nil
		o.flag.Enum, o.flag.Tag.Enum = "", ""
	}
	command.AddResolver(kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		o := in.options[flag.Value]
		if o == nil {
			return nil, nil
		}
		if len(o.variables) > 0 && in.dotEnv != nil {
			in.problems.add(in.dotEnv.Error())
			in.dotEnv = nil
		}
		for _, variable := range o.variables {
			value, found, err := in.environment.lookup(variable)
			if err != nil {
				in.problems.Add(variable, "%v", err)
				continue
			}
			if found {
				return value, nil
			}
		}
		return nil, nil
	}))
}

// check looks for mistakes in the values of the chosen command.
func (in *input) check(command *kong.Context) {
	for _, flag := range command.Flags() {
		o := in.options[flag.Value]
		if o == nil || len(o.choices) == 0 {
			continue
		}
		if value := fmt.Sprint(flag.Target.Interface()); !slices.Contains(o.choices, value) {
			in.report(o, fmt.Errorf("must be one of %s, not %q", strings.Join(nonEmpty(o.choices), ", "), value))
		}
	}
	for _, path := range command.Path {
		if path.Flag == nil && path.Positional == nil {
			checkGroups(path.Node().Target, in.problems)
		}
	}
}

func nonEmpty(choices []string) []string {
	return slices.DeleteFunc(slices.Clone(choices), func(s string) bool { return s == "" })
}

// checkGroups calls Check of a struct and of the groups that it embeds, but not of its sub-commands.
func checkGroups(target reflect.Value, problems *Problems) {
	if target.Kind() != reflect.Struct {
		return
	}
	// A group whose type is not exported can't be asked, but the groups in it can.
	if target.CanAddr() && target.CanInterface() {
		if checker, ok := target.Addr().Interface().(Checker); ok {
			checker.Check(problems)
		}
	}
	for i := range target.NumField() {
		if _, embedded := target.Type().Field(i).Tag.Lookup("embed"); embedded {
			checkGroups(target.Field(i), problems)
		}
	}
}

// report notes a mistake in the value of an option under the names that a user knows it by.
func (in *input) report(o *option, err error) {
	if len(o.variables) > 0 {
		in.problems.Add(o.variables[0], "%v", err)
		return
	}
	in.problems.add(fmt.Sprintf("--%s: %v", o.flag.Name, err))
}

// lenientMapper notes a value that can't be read and goes on, so that the next mistake is found too.
type lenientMapper struct {
	kong.Mapper
	in     *input
	option *option
}

func (m lenientMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	if err := m.Mapper.Decode(ctx, target); err != nil {
		m.in.report(m.option, err)
	}
	return nil
}

// IsBool lets a flag stand without a value where the wrapped mapper does.
func (m lenientMapper) IsBool() bool {
	b, ok := m.Mapper.(kong.BoolMapper)
	return ok && b.IsBool()
}
