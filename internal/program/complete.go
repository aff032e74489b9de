package program

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

// complete says what the command line lacks: one of a command's own commands, an argument, or a flag that must be given.
//
// kong's Validate could say so, and more that no grammar here needs. But it looks for methods by names that only the running program knows, and for
// the sake of one such call the linker keeps every method of every type: two fifths of api's size.
func complete(command *kong.Context) error {
	node := command.Selected()
	if node == nil {
		node = command.Model.Node
	}
	var lacking []string
	for _, argument := range node.Positional {
		if argument.Required && !argument.Set {
			lacking = append(lacking, argument.Summary())
		}
	}
	if _, ok := node.Target.Addr().Interface().(Command); !ok {
		for _, child := range node.Children {
			lacking = append(lacking, child.Name)
		}
	}
	for _, flag := range command.Flags() {
		if flag.Required && !flag.Set {
			lacking = append(lacking, "--"+flag.Name)
		}
	}
	switch len(lacking) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("expected %q", lacking[0])
	}
	for i := range lacking {
		lacking[i] = strconv.Quote(lacking[i])
	}
	return fmt.Errorf("expected one of %s", strings.Join(lacking, ", "))
}
