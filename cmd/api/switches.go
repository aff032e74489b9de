//go:build !torture

package main

import (
	"walkey/internal/api"
	"walkey/internal/cache"
)

// applySwitches leaves every mechanism on. The torture run builds a program whose mechanisms can be switched off; this is not it.
func applySwitches(*cache.Options, *api.StoreOptions, []string) error { return nil }
