package cdc

import (
	"testing"

	"walkey/internal/embedded/embeddedtest"
)

func TestMain(m *testing.M) { embeddedtest.Main(m) }
