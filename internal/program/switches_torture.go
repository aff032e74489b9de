//go:build torture

package program

import "strings"

// Switches are the mechanisms that WALKEY_SWITCHES names, separated by commas. Only programs for the torture run read it.
func Switches(environ []string) []string {
	for _, variable := range environ {
		if names, found := strings.CutPrefix(variable, "WALKEY_SWITCHES="); found && names != "" {
			return strings.Split(names, ",")
		}
	}
	return nil
}
