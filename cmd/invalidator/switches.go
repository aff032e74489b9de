//go:build !torture

package main

import (
	"walkey/internal/cache"
	"walkey/internal/invalidate"
)

// applySwitches leaves every mechanism on. The torture run builds a program whose mechanisms can be switched off; this is not it.
func applySwitches(*cache.Options, *invalidate.Options, []string) error { return nil }
