//go:build !linux

package pace

import (
	"errors"
	"time"
)

func openTimer(time.Duration) (timer, error) { return nil, errors.ErrUnsupported }
